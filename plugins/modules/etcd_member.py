#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Have etcd forget a lost member and expect a new one in its place."""

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_member
short_description: Have etcd expect a new member in the place of a lost one
version_added: 0.1.0
author: Ringmain contributors (@ringmain)
description:
  - A member of etcd that has lost its data is kept out by the others. This module has them forget
    it, and expect a new member at its place, which then copies theirs.
  - Runs on a member that is there. Does nothing while the named one has its data.
extends_documentation_fragment:
  - ringmain.voip.attributes
  - ringmain.voip.identity
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  name:
    description: Name of the member to replace.
    type: str
    required: true
  address:
    description: Address at which the others will find it.
    type: str
    required: true
  peer_port:
    description: Port for the other members.
    type: int
    default: 2380
  has_data:
    description: Whether the server that is there now holds a member's data.
    type: bool
    required: true
  asked:
    description: Address of the member on this host, which is asked.
    type: str
    required: true
  client_port:
    description: Its port for clients.
    type: int
    default: 2379
"""

EXAMPLES = r"""
- name: Expect a new server in the place of db3
  ringmain.voip.etcd_member:
    name: db3
    address: 192.0.2.3
    has_data: false
    asked: 192.0.2.1
    ca: /etc/ringmain/tls/ca.pem
    certificate: /etc/ringmain/tls/cert.pem
    key: /etc/ringmain/tls/key.pem
"""

RETURN = r"""
reason:
  description: What was decided, and why.
  returned: always
  type: str
  sample: db3 has lost its data
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringmain.voip.plugins.module_utils.etcd import replacement
from ansible_collections.ringmain.voip.plugins.module_utils.tls_request import (
    IDENTITY_SPEC,
    request,
)

ANSWER_SECONDS = 10


def ask(params: dict[str, Any], path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send one request to etcd. Raises OSError or ValueError."""
    url = f"https://{params['asked']}:{params['client_port']}/v3/cluster/member/{path}"
    return dict(request(params, url, "POST", body, ANSWER_SECONDS))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "address": {"type": "str", "required": True},
            "peer_port": {"type": "int", "default": 2380},
            "has_data": {"type": "bool", "required": True},
            "asked": {"type": "str", "required": True},
            "client_port": {"type": "int", "default": 2379},
            **IDENTITY_SPEC,
        },
        supports_check_mode=True,
    )
    params = module.params
    peer_url = f"https://{params['address']}:{params['peer_port']}"
    try:
        members = ask(params, "list", {}).get("members", [])
        decided = replacement(members, params["name"], peer_url, params["has_data"])
        if decided.refused:
            module.fail_json(msg=f"nothing was touched: {decided.reason}")
        if not module.check_mode:
            if decided.forget:
                ask(params, "remove", {"ID": decided.forget})
            if decided.expect:
                ask(params, "add", {"peerURLs": [peer_url]})
    except (OSError, ValueError) as error:
        module.fail_json(
            msg=f"etcd at {params['asked']} does not do what it is asked for: {error}. Without "
            f"{params['name']} a majority of its members must run: see 'journalctl -u etcd'"
        )
    module.exit_json(changed=bool(decided.forget or decided.expect), reason=decided.reason)


if __name__ == "__main__":
    main()
