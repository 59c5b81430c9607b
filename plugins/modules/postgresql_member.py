#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Await one member of a PostgreSQL cluster and keep the cluster's settings."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_member
short_description: Await a member of a PostgreSQL cluster, and keep the cluster's settings
version_added: 0.1.0
author: Ringmain contributors (@ringmain)
description:
  - Asks the Patroni of this host until its PostgreSQL is the primary or follows one.
  - The settings that all members share are kept in etcd, not in a file. The primary compares them
    with the wanted ones and replaces them when they differ. Patroni takes them up within seconds;
    nothing is restarted.
  - When Patroni still shows another certificate than the one in the file, which was renewed, it is
    told to reload, and PostgreSQL with it. No connection ends. (etcd reads the file for each new
    connection.)
extends_documentation_fragment:
  - ringmain.voip.attributes
  - ringmain.voip.identity
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  name:
    description: Name of this member.
    type: str
    required: true
  address:
    description: Address of this member's Patroni.
    type: str
    required: true
  port:
    description: Port of this member's Patroni.
    type: int
    default: 8008
  settings:
    description: All settings that the members share, as Patroni names them.
    type: dict
    required: true
  deadline:
    description: Seconds until the module gives up.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Wait until this member follows or leads, and keep the cluster's settings
  ringmain.voip.postgresql_member:
    name: db1
    address: 192.0.2.1
    settings:
      ttl: 20
      loop_wait: 3
      retry_timeout: 8
      synchronous_mode: true
    ca: /etc/ringmain/tls/ca.pem
    certificate: /etc/ringmain/tls/cert.pem
    key: /etc/ringmain/tls/key.pem
"""

RETURN = r"""
role:
  description: What the member is, V(primary) or V(replica).
  returned: always
  type: str
  sample: replica
seconds:
  description: How long it took to be that.
  returned: always
  type: float
  sample: 0.1
renewed:
  description: Whether Patroni and PostgreSQL had to take up a new certificate.
  returned: always
  type: bool
  sample: false
settings:
  description: Names of the settings that were not as wanted.
  returned: always
  type: list
  elements: str
  sample: [postgresql.parameters.max_connections]
"""

import json
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringmain.voip.plugins.module_utils import shown_certificate
from ansible_collections.ringmain.voip.plugins.module_utils.patroni import (
    complaint,
    differences,
    is_primary,
)
from ansible_collections.ringmain.voip.plugins.module_utils.patroni_client import PatroniClient
from ansible_collections.ringmain.voip.plugins.module_utils.tls_request import IDENTITY_SPEC

RELOAD_SECONDS = 15.0


class Patroni(PatroniClient):
    """The REST API of one member, and the certificate that it shows."""

    def __init__(self, params: dict[str, Any]) -> None:
        super().__init__(
            params["address"], params["port"], params["ca"], params["certificate"], params["key"]
        )
        self.file = params["certificate"]

    def shows_its_file(self) -> bool:
        """Whether the certificate it shows is the one in the file. Raises OSError."""
        return shown_certificate.shown_by(self.address) == shown_certificate.first_in(self.file)

    def renew(self) -> None:
        """Have it and its PostgreSQL read the certificate again. Raises OSError."""
        self.ask("/reload", "POST", {})
        deadline = time.monotonic() + RELOAD_SECONDS
        while not self.shows_its_file():
            if time.monotonic() > deadline:
                raise OSError(f"it does not show the new certificate in {self.file}")
            time.sleep(0.2)


def wait(module: AnsibleModule, patroni: Patroni) -> dict[str, Any]:
    """Ask until the member is part of the cluster; fails the module in the end."""
    deadline = time.monotonic() + module.params["deadline"]
    while True:
        status = patroni.status()
        trouble = complaint(status)
        if module.check_mode or not trouble:
            return status or {}
        if time.monotonic() > deadline:
            module.fail_json(
                msg=f"{module.params['name']} is no part of the database cluster after "
                f"{module.params['deadline']} s: {trouble}. See 'journalctl -u patroni -u etcd' "
                "there: two members of three must run, and one of those that were last in step "
                "must be among them"
            )
        time.sleep(0.5)


def run(module: AnsibleModule) -> dict[str, Any]:
    """Do the work; returns the result."""
    patroni = Patroni(module.params)
    started = time.monotonic()
    status = wait(module, patroni)
    result: dict[str, Any] = {
        "changed": False,
        "role": status.get("role", ""),
        "seconds": round(time.monotonic() - started, 1),
        "settings": [],
        "renewed": bool(status) and not patroni.shows_its_file(),
    }
    if result["renewed"]:
        result["changed"] = True
        if not module.check_mode:
            patroni.renew()
    if is_primary(status):
        wanted = module.params["settings"]
        found = patroni.ask("/config")
        names = differences(wanted, found)
        result |= {"changed": result["changed"] or bool(names), "settings": names}
        if names and not module.check_mode:
            patroni.ask("/config", "PUT", wanted)
        if module._diff and names:
            before, after = (
                json.dumps(settings, indent=2, sort_keys=True) for settings in (found, wanted)
            )
            result["diff"] = {"before": f"{before}\n", "after": f"{after}\n"}
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "address": {"type": "str", "required": True},
            "port": {"type": "int", "default": 8008},
            "settings": {"type": "dict", "required": True},
            **IDENTITY_SPEC,
            "deadline": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except (OSError, ValueError) as error:
        module.fail_json(
            msg=f"Patroni on {module.params['name']} does not do what it is asked for: {error}. "
            "See 'journalctl -u patroni' there"
        )


if __name__ == "__main__":
    main()
