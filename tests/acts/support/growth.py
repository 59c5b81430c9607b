# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bare server more than the lab's inventory has, as an operator writes it down."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .lab import ROOT
from .playbooks import play


def newcomer(
    folder: Path,
    members: Mapping[str, Sequence[str]],
    name: str,
    number: int,
    functions: Sequence[str],
    inventory: Mapping[str, Any],
    **more: Any,
) -> tuple[str, ...]:
    """Bring it up; what playbooks are told of it: its inventory, and the addresses of relays.

    Parameters:
        members: what the lab has then, as the inputs of playbooks/lab.yml.
        number: the last number of its addresses.
        functions: the groups that it joins.
        more: further variables of the host.
    """
    slot = int(os.environ["RINGMAIN_LAB_SLOT"])
    host = {
        "ansible_host": f"198.19.{slot}.{number}",
        "ringmain_address": f"198.19.{slot}.{number}",
        "ringmain_outside_address": f"198.18.{slot}.{number}",
        "ringmain_cores": 2,
        **more,
    }
    # A group of its own, after the one with the others: relays are numbered by their place.
    groups: dict[str, Any] = {"newcomers": {"hosts": {name: host}}}
    groups |= {function: {"children": {"newcomers": {}}} for function in functions}
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"children": groups}}), encoding="utf-8")
    made = play(ROOT / "playbooks" / "lab.yml", "-e", json.dumps(members))
    assert made.code == 0, made.output
    addresses = [
        {"outside": f"198.18.{slot}.{last}", "inside": f"198.19.{slot}.{last}"}
        for last in range(21, 21 + len(inventory["ringmain_media_addresses"]) + 1)
    ]
    return ("-i", str(path), "-e", json.dumps({"ringmain_media_addresses": addresses}))
