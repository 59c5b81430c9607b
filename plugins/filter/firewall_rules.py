# Copyright (c) Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: firewall_rules
author: Ringmain contributors (@ringmain)
version_added: 0.2.0
short_description: Say who may talk to one host of the cluster
description:
  - Turns the plan into the rules of one host, for role C(ringmain.voip.firewall). Only the ports of
    the functions that the host has are let in, from those who need them.
positional: _input, host
options:
  _input:
    description: The cluster's plan, C(ringmain_plan).
    type: dict
    required: true
  host:
    description: Name of the host.
    type: str
    required: true
  ssh_from:
    description: Networks from which SSH is let in, in CIDR notation.
    type: list
    elements: str
    default: ["0.0.0.0/0", "::/0"]
  ssh_port:
    description: Port on which the host's SSH server listens.
    type: int
    default: 22
"""

EXAMPLES = r"""
- name: Show who may talk to this host
  ansible.builtin.debug:
    msg: "{{ ringmain_plan | ringmain.voip.firewall_rules(inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: Rules without policy, as the template of role C(ringmain.voip.firewall) takes them.
  type: dict
  contains:
    accept:
      description:
        - Each with C(name), C(protocols), C(ports) (V(5060), V(30000-39999) or empty), C(to) (an
          address), C(sources) (addresses, empty for anyone) and C(new_connections_limited).
      type: list
      elements: dict
    known:
      description:
        - By function what is served, so that drops can be counted. Each with C(name), C(ports)
          (protocol to list) and C(protocols).
      type: list
      elements: dict
    ssh:
      description: C(port), C(sources4) and C(sources6).
      type: dict
    notrack:
      description: Ranges of UDP ports that connection tracking leaves alone, each first and last.
      type: list
      elements: list
    inside_network:
      description: The network whose addresses must come from inside; empty with one network.
      type: str
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.ringmain.voip.plugins.module_utils import firewall
from ansible_collections.ringmain.voip.plugins.plugin_utils.plain import to_plain


def firewall_rules(
    plan: t.Mapping[str, t.Any],
    host: str,
    ssh_from: t.Sequence[str] = firewall.EVERYWHERE,
    ssh_port: int = 22,
) -> dict[str, t.Any]:
    """Plain data in, plain data out; see FirewallError for what is refused."""
    try:
        return firewall.firewall_rules(to_plain(plan), str(host), to_plain(ssh_from), int(ssh_port))
    except firewall.FirewallError as error:
        raise AnsibleFilterError(f"firewall_rules: {host}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(
            f"firewall_rules: {host}: the input is no plan as role ringmain makes it: {error!r}"
        ) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name and function."""
        return {"firewall_rules": firewall_rules}
