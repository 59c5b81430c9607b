# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who is forgotten and who is expected when a server takes a lost member's place."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils.etcd import Replacement, replacement

URL = "https://192.0.2.3:2380"


def member(number: int, name: str = "", address: int | None = None) -> dict[str, Any]:
    """A member as etcd lists it; one that has not begun has no name."""
    return {
        "ID": str(number),
        **({"name": name} if name else {}),
        "peerURLs": [f"https://192.0.2.{address or number}:2380"],
    }


OTHERS = [member(1, "db1"), member(2, "db2")]


@pytest.mark.parametrize(
    ("third", "has_data", "wanted"),
    [
        ([member(3, "db3")], False, Replacement("db3 has lost its data", "3", True)),
        # At another address than the lost one.
        ([member(3, "db3", 9)], False, Replacement("db3 has lost its data", "3", True)),
        # A run that was interrupted between its two steps, and after them.
        ([], False, Replacement("db3 is no member any more", "", True)),
        ([member(3)], False, Replacement("db3 is expected already")),
        # It has begun, or was never lost.
        ([member(3, "db3")], True, Replacement("db3 holds its data: it is not lost")),
    ],
)
def test_replacement(third: list[dict[str, Any]], has_data: bool, wanted: Replacement) -> None:
    """Each step exactly when it is needed, so that a second run completes a first one."""
    assert replacement([*OTHERS, *third], "db3", URL, has_data) == wanted


@pytest.mark.parametrize(
    ("third", "has_data", "words"),
    [
        ([], True, "move /var/lib/etcd/ringmain away"),
        # The data are the lost member's, who was forgotten since.
        ([member(4)], True, "move /var/lib/etcd/ringmain away"),
        ([member(3, "db3", 9), member(4, "", 3)], False, "knows 2 members"),
    ],
)
def test_an_operator_decides(third: list[dict[str, Any]], has_data: bool, words: str) -> None:
    """Nothing is forgotten where the data might be somebody's."""
    decided = replacement([*OTHERS, *third], "db3", URL, has_data)
    assert decided.refused
    assert (decided.forget, decided.expect) == ("", False)
    assert words in decided.reason
