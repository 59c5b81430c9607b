# Copyright (c) Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: dispatcher_set
author: Ringmain contributors (@ringmain)
version_added: 0.1.0
short_description: Make a dispatcher set from members of the cluster
description:
  - Turns a list of members into the destinations that M(ringmain.voip.kamailio_dispatcher) wants.
positional: _input, port
options:
  _input:
    description:
      - Members, each with C(name) and C(address), and a C(weight) if they are not equal.
      - Weights are any positive numbers, cores for example; only their relation counts.
    type: list
    elements: dict
    required: true
  port:
    description: SIP port of the members.
    type: int
    required: true
  transport:
    description: How to talk to them.
    type: str
    choices: [udp, tcp]
    default: udp
  pinged:
    description: Whether they speak SIP and are asked if they live.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Show the destinations
  ansible.builtin.debug:
    msg: "{{ [{'name': 'pbx1', 'address': '192.0.2.11'}] | ringmain.voip.dispatcher_set(5080) }}"
"""

RETURN = r"""
_value:
  description:
    - Destinations with C(uri), C(flags), C(priority) and C(attrs) (C(duid), C(rweight), C(number)).
  type: list
  elements: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.ringmain.voip.plugins.module_utils.dispatcher import (
    DispatcherError,
    make_set,
)


def dispatcher_set(
    members: t.Iterable[t.Mapping[str, t.Any]],
    port: int,
    transport: str = "udp",
    pinged: bool = True,
) -> list[dict[str, t.Any]]:
    """Plain data in, plain data out; see DispatcherError for what is refused."""
    try:
        plain = [{str(key): value for key, value in dict(member).items()} for member in members]
        return make_set(plain, int(port), str(transport), bool(pinged))
    except (DispatcherError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"dispatcher_set: {error}") from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name and function."""
        return {"dispatcher_set": dispatcher_set}
