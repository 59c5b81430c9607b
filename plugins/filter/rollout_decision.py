# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_decision
author: Ringmain contributors (@ringmain)
version_added: 0.1.0
short_description: Decide which servers a rolling run takes, and in which order
description:
  - Takes what M(ringmain.voip.node_status) said of each server, in a loop over all of them, and
    what an operator asks for. Says who is taken in which order, or why nobody is.
positional: plan
options:
  _input:
    description:
      - The C(results) of a registered loop over the names of all servers. One that could not be
        reached has no C(node).
    type: list
    elements: dict
    required: true
  plan:
    description: The cluster's plan, C(ringmain_plan).
    type: dict
    required: true
  action:
    description: What is done to each server, which is also the reason in its mark.
    type: str
    choices: [restart, upgrade, rollback, reboot, join, drain]
    required: true
  run_id:
    description: The run, such as V(20261121T064500); that of an interrupted one continues it.
    type: str
    required: true
  nodes:
    description:
      - Names of the servers to take, or of functions for all their servers, as a list or with
        commas; all that need it if empty.
    type: raw
    default: []
  services:
    description: Names of the services to restart, as a list or with commas; all that wait if empty.
    type: raw
    default: []
  everything:
    description: Whether a server is taken where nothing waits.
    type: bool
    default: false
  reason:
    description: The reason in the mark, where it is not the action.
    type: str
    default: ""
  functions:
    description:
      - What of a server is taken out of traffic, of V(edge), V(media) and V(pbx), as a list or with
        commas. All of it if empty; else its database is taken to stay.
    type: raw
    default: []
"""

EXAMPLES = r"""
- name: Decide
  ansible.builtin.set_fact:
    decision: "{{ looks.results
      | ringmain.voip.rollout_decision(ringmain_plan, 'restart', '20261121T064500') }}"
"""

RETURN = r"""
_value:
  description:
    - C(refusals) (why nothing is done; empty if it is), C(remarks), C(order) (names of servers),
      C(tiers) (name to the play that takes it), C(services) (name to what is restarted),
      C(drains) (name to the functions that are taken out of traffic), C(resumed) (names that an
      interrupted run had taken), C(said) (all of it in words), C(edges) (names of the edges that
      can be told).
  type: dict
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.ringmain.voip.plugins.module_utils.rollout import Intention, decide
from ansible_collections.ringmain.voip.plugins.plugin_utils.plain import to_plain


def names(value: Any) -> tuple[str, ...]:
    """A list of names, or one text with commas."""
    items = value.split(",") if isinstance(value, str) else list(value or ())
    return tuple(str(item).strip() for item in items if str(item).strip())


def rollout_decision(
    looks: Iterable[Mapping[str, Any]],
    plan: Mapping[str, Any],
    action: str,
    run_id: str,
    nodes: Any = (),
    services: Any = (),
    everything: bool = False,
    reason: str = "",
    functions: Any = (),
) -> dict[str, Any]:
    """Plain data in, plain data out."""
    looks, plan = to_plain(looks), to_plain(plan)
    try:
        states = {str(look["item"]): look.get("node") for look in looks}
        of_hosts = {name: plan["hosts"][name]["functions"] for name in states}
        decision = decide(
            Intention(
                str(action),
                str(run_id),
                names(to_plain(nodes)),
                names(to_plain(services)),
                bool(everything),
                str(reason),
                names(to_plain(functions)),
            ),
            of_hosts,
            states,
            plan["tiers"],
            {relay["name"]: relay["address"] for relay in plan["relays"]}
            if plan["relays_float"]
            else {},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"rollout_decision: {error!r}") from error
    edges = [name for name, state in states.items() if state and "edge" in of_hosts[name]]
    return {**decision.as_dict(), "edges": edges}


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """Name and function."""
        return {"rollout_decision": rollout_decision}
