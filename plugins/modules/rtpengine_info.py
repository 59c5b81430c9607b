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
      type: list
      elements: dict
      sample:
        - tag: a7c1
          local: 198.51.100.11:30096
          endpoint: 198.51.100.12:30062
          packets_before: 100
          packets: 200
          errors: 0
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import ng


def look(client: ng.Client, call_ids: list[str]) -> dict[str, ng.Session]:
    """The sessions RTPEngine knows, by Call-ID."""
    found = {call_id: client.query(call_id) for call_id in call_ids}
    return {call_id: session for call_id, session in found.items() if session}


def compared(before: dict[str, ng.Session], after: dict[str, ng.Session]) -> list[dict[str, Any]]:
    """The sessions of the last look, each stream with its count of the first one."""
    counts = {
        (call_id, stream.tag, stream.local): stream.packets
        for call_id, session in before.items()
        for stream in session.streams
    }
    return [
        {
            "call_id": call_id,
            "streams": [
                {
                    **stream.as_dict(),
                    "packets_before": counts.get((call_id, stream.tag, stream.local), 0),
                }
                for stream in session.streams
            ],
        }
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
        },
        supports_check_mode=True,
    )
    client = ng.Client(ng.UdpExchange(module.params["address"], module.params["port"]))
    call_ids = module.params["call_ids"]
    try:
        calls = len(client.calls())
        before = after = look(client, call_ids)
        if module.params["watch_seconds"] > 0 and call_ids:
            time.sleep(module.params["watch_seconds"])
            after = look(client, call_ids)
    except ng.NgError as error:
        module.fail_json(msg=f"{module.params['address']}:{module.params['port']}: {error}")
    module.exit_json(changed=False, calls=calls, sessions=compared(before, after))


if __name__ == "__main__":
    main()
