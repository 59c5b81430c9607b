#!/usr/bin/python
# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a SIP server with OPTIONS whether it is there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sip_options
short_description: Ask a SIP server whether it is there
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Sends OPTIONS over UDP, and again as long as nothing comes back, and returns the final answer.
    Nothing is changed.
  - Any final answer will do, a refusal too. What it must be, the task says with C(failed_when).
extends_documentation_fragment:
  - ringmain.voip.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  address:
    description: Address of the server.
    type: str
    required: true
  port:
    description: UDP port of the server.
    type: int
    default: 5060
  uri:
    description: Whom to ask for; by default C(sip:ADDRESS:PORT).
    type: str
    default: ""
  source:
    description: Address of this host to ask from; by default the one that the routes give.
    type: str
    default: ""
  timeout:
    description: Seconds to wait for the final answer.
    type: float
    default: 4.0
  fail_without_answer:
    description: Whether it is an error when no final answer comes in time.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: See that the edges answer on the outside address
  ringmain.voip.sip_options:
    address: 203.0.113.10
"""

RETURN = r"""
answered:
  description: Whether a final answer came in time.
  returned: success
  type: bool
status:
  description: Status of the answer, 0 without one.
  returned: success
  type: int
  sample: 200
reason:
  description: Reason phrase of the answer.
  returned: success
  type: str
  sample: OK
seconds:
  description: Seconds until the answer; with none, those that were waited.
  returned: success
  type: float
  sample: 0.004
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringmain.voip.plugins.module_utils import sip_options


def main() -> None:
    """Ask."""
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "port": {"type": "int", "default": 5060},
            "uri": {"type": "str", "default": ""},
            "source": {"type": "str", "default": ""},
            "timeout": {"type": "float", "default": 4.0},
            "fail_without_answer": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    where = f"{params['address']}:{params['port']}"
    why = f"no final answer within {params['timeout']:g} s"
    answer = None
    try:
        answer = sip_options.ask(
            params["address"], params["port"], params["timeout"], params["source"], params["uri"]
        )
    except OSError as error:
        why = str(error)
    if answer is None and params["fail_without_answer"]:
        module.fail_json(
            msg=f"{where} does not answer OPTIONS: {why}. See whether its daemon runs, and whether "
            "the packet filter lets this host in"
        )
    module.exit_json(
        changed=False,
        answered=answer is not None,
        status=answer.status if answer else 0,
        reason=answer.reason if answer else why,
        seconds=answer.seconds if answer else params["timeout"],
    )


if __name__ == "__main__":
    main()
