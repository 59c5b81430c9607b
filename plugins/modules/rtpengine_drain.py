#!/usr/bin/python
# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait on a relay until its sessions have ended."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rtpengine_drain
short_description: Wait until an RTPEngine has no sessions
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Asks RTPEngine over its control protocol I(ng) again and again for its sessions until there are
    none. Nothing is changed. That no new sessions come is up to the edges,
    M(ringmain.voip.kamailio_dispatcher).
  - Sessions of other relays, which this one only stands by for, do not count.
  - A long wait is made of many tasks, so that each shows what is left.
extends_documentation_fragment:
  - ringmain.voip.attributes
attributes:
  check_mode:
    support: full
    details: Looks once and waits for nothing.
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
  wait_seconds:
    description: How long this task may wait. 0 looks once.
    type: float
    default: 10.0
  quiet_seconds:
    description:
      - For so long there must have been no session. Not more than O(wait_seconds), unless that
        is 0.
    type: float
    default: 3.0
  allow_stopped:
    description: Whether a relay counts as empty when nobody listens on its port, or it is an error.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Wait for the relay's sessions to end
  ringmain.voip.rtpengine_drain:
    address: 198.51.100.11
    wait_seconds: 20
  register: relay
"""

RETURN = r"""
sessions:
  description: Sessions at the last look; a call between two phones has two.
  returned: success
  type: int
  sample: 4
empty:
  description: Whether there was no session for O(quiet_seconds).
  returned: success
  type: bool
waited:
  description: Seconds that this task waited.
  returned: success
  type: float
  sample: 20.0
running:
  description: Whether somebody listens on the port.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringmain.voip.plugins.module_utils import drain, ng


def main() -> None:
    """Watch."""
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "default": 2223},
            "wait_seconds": {"type": "float", "default": 10.0},
            "quiet_seconds": {"type": "float", "default": 3.0},
            "allow_stopped": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    refusal = drain.refusal(params["wait_seconds"], params["quiet_seconds"])
    if refusal:
        module.fail_json(msg=refusal)
    client = ng.Client(ng.UdpExchange(params["address"], params["port"]))
    wait = 0.0 if module.check_mode else params["wait_seconds"]
    running, waited = True, drain.Waited(0, True, 0.0)
    try:
        waited = drain.wait_until_empty(client.sessions, wait, params["quiet_seconds"])
    except ng.NgError as error:
        running = False
        if not (params["allow_stopped"] and isinstance(error, ng.NotRunningError)):
            module.fail_json(
                msg=f"{params['address']}:{params['port']}: {error}. See whether it runs: "
                "systemctl status rtpengine-daemon"
            )
    module.exit_json(
        changed=False,
        sessions=waited.left,
        empty=waited.empty,
        waited=waited.seconds,
        running=running,
    )


if __name__ == "__main__":
    main()
