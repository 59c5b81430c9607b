# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory says about a cluster, read from the variables of one task."""

from __future__ import annotations

import re
import shlex
import typing as t
from collections.abc import Callable, Mapping

from ansible_collections.ringmain.voip.plugins.module_utils.contract import (
    FUNCTIONS,
    merge_secrets,
)
from ansible_collections.ringmain.voip.plugins.plugin_utils.plain import to_plain

HOST_VARIABLES = (
    "ringmain_address",
    "ringmain_outside_address",
    "ringmain_cores",
    "ringmain_memory_mb",
    "ringmain_limits",
)
SECRETS = re.compile(r"ringmain_secrets(_[0-9]+)?")


def read_members(
    groups: Mapping[str, t.Any], names: Mapping[str, str], cluster: str
) -> dict[str, list[str]]:
    """Hosts of each function: those of its group that are in the cluster's group, in order.

    C(groups) are Ansible's own, C(names) maps functions to names of groups.
    """
    inside = set(to_plain(groups.get(cluster, [])))
    return {
        function: [
            name
            for name in to_plain(groups.get(names.get(function, function), []))
            if name in inside
        ]
        for function in FUNCTIONS
    }


def read_hosts(
    hostvars: Mapping[str, t.Any], members: Mapping[str, list[str]]
) -> dict[str, dict[str, t.Any]]:
    """The variables of each member that the plan needs, as far as they are set."""
    hosts: dict[str, dict[str, t.Any]] = {}
    for name in dict.fromkeys(name for names in members.values() for name in names):
        variables = hostvars[name]
        hosts[name] = {key: to_plain(variables[key]) for key in HOST_VARIABLES if key in variables}
    return hosts


def read_secrets(
    task_vars: Mapping[str, t.Any], template: Callable[[t.Any], t.Any]
) -> dict[str, t.Any]:
    """ringmain_secrets and its additions ringmain_secrets_2, _3, ..., merged in this order."""
    names = [name for name in task_vars if SECRETS.fullmatch(name)]
    names.sort(key=lambda name: int("0" + name.removeprefix("ringmain_secrets").lstrip("_")))
    parts = [to_plain(template(task_vars[name])) for name in names]
    return merge_secrets(part for part in parts if isinstance(part, dict))


def secrets_command(task_vars: Mapping[str, t.Any], cluster: str) -> str:
    """The command that completes this inventory's secrets, to be pasted into a shell."""
    sources = to_plain(task_vars.get("ansible_inventory_sources") or ["INVENTORY"])
    words = ["ansible-playbook"]
    for source in sources:
        words += ["-i", source]
    words.append("ringmain.voip.secrets")
    if cluster != "all":
        words += ["-e", f"ringmain_cluster={cluster}"]
    return shlex.join(words)
