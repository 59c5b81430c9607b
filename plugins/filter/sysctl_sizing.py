# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: sysctl_sizing
short_description: Size a voice server's kernel settings
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Socket buffers, queues, the range of ports for outgoing connections and the ports kept out of
    it, for one server that
    carries the given calls alone.
  - A call between two phones counts as one, and as two sessions of a relay.
positional: _input
extends_documentation_fragment:
  - ringmain.voip.sizing
options:
  packet_ms:
    description: Milliseconds of audio in one packet.
    type: int
    default: 20
  ports:
    description:
      - Ports of the server by name, which are reserved; C(NAME_first) and C(NAME_last) make a
        range.
      - Replaces, by name, C(pbx_rtp_first) 10000, C(pbx_rtp_last) 19999, C(relay_rtp_first) 30000
        and C(relay_rtp_last) 39999.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Set what a relay for 800 calls needs
  ansible.posix.sysctl:
    name: "{{ item.key }}"
    value: "{{ item.value }}"
  loop: "{{ 800 | ringmain.voip.sysctl_sizing(functions=['media']) | dict2items }}"
"""

RETURN = r"""
_value:
  description: Keys and values for sysctl.
  type: dict
  sample: {"net.core.rmem_default": 479232, "net.ipv4.ip_local_reserved_ports":
  "10000-19999,30000-39999"}
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.ringmain.voip.plugins.module_utils import capacity
from ansible_collections.ringmain.voip.plugins.plugin_utils.plain import to_plain


def sysctl_sizing(calls: t.Any, **options: t.Any) -> dict[str, t.Any]:
    """Convert to plain data and ask the core."""
    try:
        load, host = capacity.single(int(calls), **to_plain(options))
        found: dict[str, t.Any] = capacity.limits(load, host)["sysctl"]
        return found
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"sysctl_sizing: {error}") from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Any]:
        """By name."""
        return {"sysctl_sizing": sysctl_sizing}
