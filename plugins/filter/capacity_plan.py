# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: capacity_plan
short_description: Plan every limit of every host of a voice cluster
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - From the load of a cluster and the hardware of its hosts to all limits of each host, to what
    each tier carries and
    which limit is reached first. Fails on nothing; what the hardware cannot carry is in C(errors).
options:
  _input:
    description: >-
      Host name to C(cores), C(memory_mb), C(functions), and C(addresses) (1 where both sides
      share one, or else 2).
    type: dict
    required: true
  calls:
    description: Calls at once at the busiest.
    type: int
    required: true
  cps:
    description: New calls per second at the busiest.
    type: float
    required: true
  registrations:
    description: Registered phones.
    type: int
    required: true
  spare:
    description: Nodes of each function that may be missing.
    type: int
    default: 1
  hold_seconds:
    description: Seconds that a call lasts on average.
    type: int
    default: 180
  packet_ms:
    description: Milliseconds of audio in one packet.
    type: int
    default: 20
  codecs:
    description: Codecs in use.
    type: list
    elements: str
    default: [PCMA, PCMU]
  forwarding:
    description: How relays pass audio on, C(kernel) or C(userspace).
    type: str
    default: kernel
  untracked:
    description: Whether the firewall keeps audio out of connection tracking.
    type: bool
    default: true
  ports:
    description: Ports by name, which replace the filter's own ranges.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Show what two relays carry
  ansible.builtin.debug:
    msg: "{{ (relays | ringmain.voip.capacity_plan(calls=800, cps=20,
    registrations=0)).tiers.media }}"
  vars:
    relays:
      media1: {cores: 8, memory_mb: 8192, functions: [media]}
      media2: {cores: 8, memory_mb: 8192, functions: [media]}
"""

RETURN = r"""
_value:
  description: C(limits) and C(expected) by host, C(tiers) by function, C(errors) and C(remarks).
  type: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.ringmain.voip.plugins.module_utils import capacity
from ansible_collections.ringmain.voip.plugins.plugin_utils.plain import to_plain


def capacity_plan(hosts: t.Any, **options: t.Any) -> dict[str, t.Any]:
    """Convert to plain data and ask the core."""
    try:
        plan = capacity.plan_of(to_plain(hosts), **to_plain(options))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AnsibleFilterError(f"capacity_plan: {error!r}") from error
    return {
        "limits": plan.limits,
        "expected": plan.expected,
        "tiers": plan.tiers,
        "errors": plan.errors,
        "remarks": plan.remarks,
    }


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Any]:
        """By name."""
        return {"capacity_plan": capacity_plan}
