#!/usr/bin/python
# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of Kamailio's JSON-RPC."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kamailio_rpc
short_description: Call a running Kamailio by JSON-RPC
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Makes one call over the Unix datagram socket of Kamailio's module C(jsonrpcs) and returns what
    Kamailio answers.
extends_documentation_fragment:
  - ringmain.voip.attributes
attributes:
  check_mode:
    support: partial
    details: A call that changes something is not made.
  diff_mode:
    support: none
options:
  method:
    description: Name of the call.
    type: str
    required: true
  params:
    description: What the call takes, in its order. Kamailio tells numbers from texts.
    type: list
    elements: raw
    default: []
  changes:
    description: Whether the call changes something. Then it is reported as a change.
    type: bool
    default: false
  rpc_socket:
    description: Kamailio's datagram socket.
    type: path
    default: /run/kamailio/rpc.sock
  timeout:
    description: Seconds to wait for the answer.
    type: float
    default: 5.0
"""

EXAMPLES = r"""
- name: See how many phones are registered
  ringmain.voip.kamailio_rpc:
    method: stats.get_statistics
    params: ["usrloc:"]
  register: edge

- name: Log more
  ringmain.voip.kamailio_rpc:
    method: corex.debug
    params: [3]
    changes: true
"""

RETURN = r"""
result:
  description: What Kamailio answered; null in check mode for a call that changes something.
  returned: success
  type: raw
  sample: ["usrloc:location_contacts = 200"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringmain.voip.plugins.module_utils.kamailio_rpc import (
    KamailioRpc,
    NotRunningError,
    RpcError,
    datagram_transport,
)


def main() -> None:
    """Call and hand over."""
    module = AnsibleModule(
        argument_spec={
            "method": {"type": "str", "required": True},
            "params": {"type": "list", "elements": "raw", "default": []},
            "changes": {"type": "bool", "default": False},
            "rpc_socket": {"type": "path", "default": "/run/kamailio/rpc.sock"},
            "timeout": {"type": "float", "default": 5.0},
        },
        supports_check_mode=True,
    )
    params = module.params
    if params["changes"] and module.check_mode:
        module.exit_json(changed=True, result=None)
    rpc = KamailioRpc(datagram_transport(params["rpc_socket"], params["timeout"]))
    try:
        result = rpc.call(params["method"], *params["params"])
    except NotRunningError as error:
        module.fail_json(msg=f"{error}. See what became of it: systemctl status kamailio")
    except RpcError as error:
        module.fail_json(
            msg=f"Kamailio refuses {error}. What it knows: kamcmd system.listMethods",
            code=error.code,
        )
    except OSError as error:
        module.fail_json(
            msg=f"Kamailio behind {params['rpc_socket']} does not answer {params['method']} "
            f"within {params['timeout']:g} s: {error}. See whether it is frozen: "
            "systemctl status kamailio"
        )
    module.exit_json(changed=params["changes"], result=result)


if __name__ == "__main__":
    main()
