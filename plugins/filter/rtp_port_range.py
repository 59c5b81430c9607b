# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: rtp_port_range
short_description: Compute the range of RTP ports for a number of calls
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Ports that calls take on each address of a relay or of Asterisk, RTCP included. A call between
    two phones is two
    sessions of a relay, which take 4 ports on each of two addresses, or 8 on one that both sides
    share.
  - Fails when the range would end above 65535, and says how many servers are needed.
positional: _input
options:
  _input:
    description: Calls at once that the server must carry.
    type: int
    required: true
  daemon:
    description: Whose ports, C(rtpengine) or C(asterisk).
    type: str
    default: rtpengine
  first:
    description: First port, 30000 for rtpengine and 10000 for asterisk.
    type: int
  addresses:
    description: >-
      2 where the relay has an address outside and another inside, 1 where both sides share one.
    type: int
    default: 2
"""

EXAMPLES = r"""
- name: Show the relay's ports for 800 calls
  ansible.builtin.debug:
    msg: "{{ 800 | ringmain.voip.rtp_port_range(addresses=1) }}"
"""

RETURN = r"""
_value:
  description: C(first), C(last) and the number of C(ports).
  type: dict
  sample: {"first": 30000, "last": 36399, "ports": 6400}
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.ringmain.voip.plugins.module_utils import capacity
from ansible_collections.ringmain.voip.plugins.plugin_utils.plain import to_plain


def rtp_port_range(calls: t.Any, **options: t.Any) -> dict[str, t.Any]:
    """Convert to plain data and ask the core."""
    try:
        return {**capacity.rtp_range(int(calls), **to_plain(options))}
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"rtp_port_range: {error}") from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Any]:
        """By name."""
        return {"rtp_port_range": rtp_port_range}
