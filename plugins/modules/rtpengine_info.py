#!/usr/bin/python
# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rtpengine_info
short_description: Look at the sessions of an RTPEngine
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Asks RTPEngine over its control protocol I(ng) for its sessions. Nothing is changed.
  - With O(watch_seconds) every session is looked at twice, so that growing counters show which way
    audio flows.
extends_documentation_fragment:
  - ringmain.voip.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  address:
    description: Address of the control socket (RTPEngine's C(listen-ng)).
    type: str
    default: 127.0.0.1
  port:
    description: UDP port of the control socket.
    type: int
    default: 2223
  call_ids:
    description:
      - Call-IDs of the sessions to look at. What RTPEngine does not know is left out of
        RV(sessions).
    type: list
    elements: str
    default: []
  watch_seconds:
    description: Seconds between two looks at the same session. 0 looks once.
    type: float
    default: 0.0
  table:
    description:
      - Number of RTPEngine's table in this host's kernel, to learn which streams are forwarded
        there. V(-1) does not look. With it, O(watch_seconds) has to be 2 at least.
    type: int
    default: -1
"""

EXAMPLES = r"""
- name: See which way the audio of a call flows
  ringmain.voip.rtpengine_info:
    address: 198.51.100.11
    call_ids:
      - 9f2149c6b45f7e9e
    watch_seconds: 2
  register: relay
"""

RETURN = r"""
calls:
  description: Number of all sessions.
  type: int
  returned: success
  sample: 12
sessions:
  description: The sessions that O(call_ids) names and RTPEngine knows.
  type: list
  elements: dict
  returned: success
  contains:
    call_id:
      description: Call-ID.
      type: str
      sample: 9f2149c6b45f7e9e
    streams:
      description:
        - The RTP streams, one for each side.
        - C(local) and C(endpoint) are the relay's own port and the far end, as C(address:port).
          C(packets_before) and C(packets) count what arrived from there until the first and until
          the last look; a stream that is new at the last look counts from 0.
        - C(in_kernel) is true if the kernel has the stream in its table with somewhere to send it,
          and has forwarded packets of it between the two looks; null without O(table).
      type: list
      elements: dict
      sample:
        - tag: a7c1
          local: 198.51.100.11:30096
          endpoint: 198.51.100.12:30062
          packets_before: 100
          packets: 200
          errors: 0
          kernelized: true
          last_kernel_packet: 1795244631
          in_kernel: true
forwarded:
  description:
    - Packets of all sessions that were forwarded until the last look, and until the first one
      (C(kernel_before), C(user_before)), by kernel and by user space.
  type: dict
  returned: success
  sample: {kernel_before: 88120, kernel: 88320, user_before: 310, user: 310}
"""

import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import kernel_forwarding, ng


def look(client: ng.Client, call_ids: list[str]) -> dict[str, ng.Session]:
    """The sessions RTPEngine knows, by Call-ID."""
    found = {call_id: client.query(call_id) for call_id in call_ids}
    return {call_id: session for call_id, session in found.items() if session}


def kernel_ports(table: int) -> set[str]:
    """The ports whose packets the kernel passes on. Raises OSError, UnreadableTableError."""
    text = Path(f"/proc/rtpengine/{table}/list").read_text(encoding="ascii")
    return {target.local for target in kernel_forwarding.parse_list(text) if target.forwards}


def compared(
    before: dict[str, ng.Session], after: dict[str, ng.Session], ports: set[str] | None
) -> list[dict[str, Any]]:
    """The sessions of the last look, each stream with its count of the first one.

    `ports`: those the kernel forwards from, None if it was not asked.
    """
    first = {
        (call_id, stream.tag, stream.local): stream
        for call_id, session in before.items()
        for stream in session.streams
    }

    def plain(call_id: str, stream: ng.Stream) -> dict[str, Any]:
        earlier = first.get((call_id, stream.tag, stream.local))
        in_kernel = None
        if ports is not None:
            in_kernel = (
                stream.kernelized
                and stream.local in ports
                and earlier is not None
                and stream.last_kernel_packet > earlier.last_kernel_packet
            )
        return {
            **stream.as_dict(),
            "packets_before": earlier.packets if earlier else 0,
            "in_kernel": in_kernel,
        }

    return [
        {"call_id": call_id, "streams": [plain(call_id, stream) for stream in session.streams]}
        for call_id, session in after.items()
    ]


def main() -> None:
    """Look, wait, look again."""
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "default": 2223},
            "call_ids": {"type": "list", "elements": "str", "default": []},
            "watch_seconds": {"type": "float", "default": 0.0},
            "table": {"type": "int", "default": -1},
        },
        supports_check_mode=True,
    )
    client = ng.Client(ng.UdpExchange(module.params["address"], module.params["port"]))
    call_ids, table = module.params["call_ids"], module.params["table"]
    ports: set[str] | None = None
    try:
        calls = len(client.calls())
        counts_before = counts = client.forwarded()
        before = after = look(client, call_ids)
        if module.params["watch_seconds"] > 0 and call_ids:
            time.sleep(module.params["watch_seconds"])
            after = look(client, call_ids)
            counts = client.forwarded()
        if table >= 0:
            ports = kernel_ports(table)
    except (OSError, kernel_forwarding.UnreadableTableError) as error:
        module.fail_json(
            msg=f"table {table} of RTPEngine's kernel module cannot be read: {error}. Look with "
            "'systemctl status rtpengine-daemon' whether the relay runs and forwards in the kernel"
        )
    except ng.NgError as error:
        module.fail_json(msg=f"{module.params['address']}:{module.params['port']}: {error}")
    module.exit_json(
        changed=False,
        calls=calls,
        sessions=compared(before, after, ports),
        forwarded={**{f"{way}_before": counts_before[way] for way in counts_before}, **counts},
    )


if __name__ == "__main__":
    main()
