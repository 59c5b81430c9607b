# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter dispatcher_set: members in, plain destinations out."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.ringmain.voip.plugins.filter.dispatcher_set import FilterModule

dispatcher_set = FilterModule().filters()["dispatcher_set"]


def test_members_become_destinations() -> None:
    assert dispatcher_set([{"name": "a", "address": "192.0.2.1", "weight": 4}], "5080") == [
        {
            "uri": "sip:192.0.2.1:5080",
            "flags": 0,
            "priority": 0,
            "attrs": {"duid": "a", "rweight": "100", "number": "2001"},
        }
    ]


@pytest.mark.parametrize(
    ("members", "port", "message"),
    [
        ([{"name": "a"}], 5080, "dispatcher_set: a member needs a name and an address"),
        ([{"name": "a", "address": "192.0.2.1", "weight": "x"}], 5080, "could not convert"),
        ([5], 5080, "dispatcher_set: "),
        (5, 5080, "dispatcher_set: "),
        ([], "x", "dispatcher_set: invalid literal"),
    ],
)
def test_it_refuses_as_a_filter_does(members: object, port: object, message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        dispatcher_set(members, port)
