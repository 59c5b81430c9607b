#!/usr/bin/python
# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: asterisk_channels
short_description: Count the audio that Asterisk handles for some endpoints
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Asks Asterisk's manager interface for the channels of some PJSIP endpoints, their Call-IDs and
    the RTP packets Asterisk itself has received and sent. Nothing is changed.
  - With O(watch_seconds) the counters are read twice. A call with direct media does not move them.
extends_documentation_fragment:
  - ringmain.voip.attributes
attributes:
  check_mode:
    support: full
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
  endpoints:
    description: Names of the PJSIP endpoints.
    type: list
    elements: str
    required: true
  watch_seconds:
    description: Seconds between two looks. 0 looks once.
    type: float
    default: 0.0
"""

EXAMPLES = r"""
- name: See that no audio passes Asterisk
  ringmain.voip.asterisk_channels:
    password: "{{ ringmain_secrets.asterisk_ami_password }}"
    endpoints:
      - verify-901
      - verify-902
    watch_seconds: 2
  register: pbx
"""

RETURN = r"""
channels:
  description: The channels that exist at the last look.
  type: list
  elements: dict
  returned: success
  contains:
    channel:
      description: Name of the channel.
      type: str
      sample: PJSIP/verify-901-0000001a
    call_id:
      description: Call-ID of its SIP dialog.
      type: str
      sample: 9f2149c6b45f7e9e
    received_before:
      description: RTP packets received until the first look.
      type: int
      sample: 31
    received:
      description: RTP packets received until the last look.
      type: int
      sample: 31
    sent_before:
      description: RTP packets sent until the first look.
      type: int
      sample: 29
    sent:
      description: RTP packets sent until the last look.
      type: int
      sample: 29
"""

import contextlib
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import ami


def compared(before: list[ami.ChannelMedia], after: list[ami.ChannelMedia]) -> list[dict[str, Any]]:
    """The channels of the last look with their counts of the first one; a new one counts from 0."""
    first = {channel.channel: channel for channel in before}
    return [
        {
            "channel": channel.channel,
            "call_id": channel.call_id,
            "received_before": first[channel.channel].received if channel.channel in first else 0,
            "received": channel.received,
            "sent_before": first[channel.channel].sent if channel.channel in first else 0,
            "sent": channel.sent,
        }
        for channel in after
    ]


def main() -> None:
    """Look, wait, look again."""
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "default": 5038},
            "user": {"type": "str", "default": "ringmain"},
            "password": {"type": "str", "required": True, "no_log": True},
            "endpoints": {"type": "list", "elements": "str", "required": True},
            "watch_seconds": {"type": "float", "default": 0.0},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        with contextlib.closing(ami.SocketTransport(params["address"], params["port"])) as link:
            client = ami.Client(link)
            client.login(params["user"], params["password"])
            before = after = ami.channel_media(client, params["endpoints"])
            if params["watch_seconds"] > 0:
                time.sleep(params["watch_seconds"])
                after = ami.channel_media(client, params["endpoints"])
    except ami.AmiError as error:
        module.fail_json(msg=f"{params['address']}:{params['port']}: {error}")
    module.exit_json(changed=False, channels=compared(before, after))


if __name__ == "__main__":
    main()
