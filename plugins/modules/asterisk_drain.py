#!/usr/bin/python
# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait on a PBX node until its calls have ended."""

from __future__ import annotations

DOCUMENTATION = r"""
module: asterisk_drain
short_description: Wait until an Asterisk has no calls
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Asks Asterisk's manager interface again and again for its channels until there are none. That no
    new calls come is up to the edges, M(ringmain.voip.kamailio_dispatcher).
  - A long wait is made of many tasks, so that each shows what is left.
  - Count before Asterisk is told to stop. One that stops gracefully does not answer any more.
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
    description: Address of the manager interface.
    type: str
    default: 127.0.0.1
  port:
    description: TCP port of the manager interface.
    type: int
    default: 5038
  user:
    description: User of the manager interface; it needs the write classes C(reporting) and C(call).
    type: str
    default: ringmain
  password:
    description: Password of this user.
    type: str
    required: true
  wait_seconds:
    description: How long this task may wait. 0 looks once.
    type: float
    default: 10.0
  quiet_seconds:
    description:
      - For so long there must have been no call. A call that fails over between nodes is nowhere
        for a moment. Not more than O(wait_seconds), unless that is 0.
    type: float
    default: 3.0
  hang_up:
    description:
      - End what is left when the wait is over. Both phones are told, and the record is closed; a
        call that nobody has answered yet is tried through another node.
    type: bool
    default: false
  allow_stopped:
    description: Whether a node counts as empty when nobody listens on its port, or it is an error.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Wait for the node's calls to end
  ringmain.voip.asterisk_drain:
    password: "{{ ringmain_secrets.asterisk_ami_password }}"
    wait_seconds: 20
  register: node
"""

RETURN = r"""
calls:
  description: Calls at the last look.
  returned: success
  type: int
  sample: 2
channels:
  description: Their channels; a call between two phones has two.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the channel.
      type: str
      sample: PJSIP/acme-1001-0000001a
    call:
      description: Identifier of the call, the same for all of its channels.
      type: str
      sample: "1795244631.26"
    state:
      description: State in Asterisk's words.
      type: str
      sample: Up
    seconds:
      description: Age of the channel.
      type: int
      sample: 83
empty:
  description: Whether there was no call for O(quiet_seconds).
  returned: success
  type: bool
waited:
  description: Seconds that this task waited.
  returned: success
  type: float
  sample: 20.0
hung_up:
  description: Calls that were ended.
  returned: success
  type: int
  sample: 0
running:
  description: Whether somebody listens on the port.
  returned: success
  type: bool
"""

import contextlib
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringmain.voip.plugins.module_utils import ami, drain

HANG_UP_SECONDS = 10.0
"""So long may a channel take to go once it has been told to."""


class Pbx:
    """The channels of one Asterisk, as last seen."""

    def __init__(self, client: ami.Client) -> None:
        self.client = client
        self.channels: list[ami.Channel] = []

    def count(self) -> int:
        """Look, and say how many calls there are."""
        self.channels = ami.channels(self.client)
        return ami.calls(self.channels)


def watch(module: AnsibleModule, client: ami.Client) -> dict[str, Any]:
    """Wait, end what is left if told to, and return the result."""
    params = module.params
    pbx = Pbx(client)
    wait = 0.0 if module.check_mode else params["wait_seconds"]
    waited = drain.wait_until_empty(pbx.count, wait, params["quiet_seconds"])
    ended = 0
    if params["hang_up"] and pbx.channels:
        ended = waited.left
        if not module.check_mode:
            ended = ami.hang_up(client, pbx.channels)
            quiet = params["quiet_seconds"]
            after = drain.wait_until_empty(pbx.count, HANG_UP_SECONDS + quiet, quiet)
            seconds = round(waited.seconds + after.seconds, 1)
            waited = drain.Waited(after.left, after.empty, seconds)
    return {
        "changed": ended > 0,
        "calls": waited.left,
        "channels": [asdict(channel) for channel in pbx.channels],
        "empty": waited.empty,
        "waited": waited.seconds,
        "hung_up": ended,
        "running": True,
    }


def main() -> None:
    """Log in and watch."""
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "default": 5038},
            "user": {"type": "str", "default": "ringmain"},
            "password": {"type": "str", "required": True, "no_log": True},
            "wait_seconds": {"type": "float", "default": 10.0},
            "quiet_seconds": {"type": "float", "default": 3.0},
            "hang_up": {"type": "bool", "default": False},
            "allow_stopped": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    refusal = drain.refusal(params["wait_seconds"], params["quiet_seconds"])
    if refusal:
        module.fail_json(msg=refusal)
    where = f"{params['address']}:{params['port']}"
    result: dict[str, Any] = {}
    try:
        with contextlib.closing(ami.SocketTransport(params["address"], params["port"])) as link:
            client = ami.Client(link)
            client.login(params["user"], params["password"])
            result = watch(module, client)
    except ami.NotRunningError as error:
        if not params["allow_stopped"]:
            module.fail_json(
                msg=f"{where}: {error}. See whether it runs: systemctl status asterisk"
            )
        result = {"changed": False, "calls": 0, "channels": [], "empty": True, "waited": 0.0}
        result |= {"hung_up": 0, "running": False}
    except ami.AmiError as error:
        module.fail_json(
            msg=f"{where}: {error}. An Asterisk that has been told to stop gracefully does not "
            "answer any more: systemctl status asterisk"
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
