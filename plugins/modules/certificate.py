#!/usr/bin/python
# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A key and a certificate of the cluster's own authority for one host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate
short_description: A key and a certificate of the cluster's own authority for one host
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Has the host make a private key, which never leaves it, and keeps C(key.pem), C(cert.pem) and
    C(ca.pem) in one directory.
  - The certificate is signed on the controller, with a key that never reaches the host. It is
    renewed when fewer than 30 days are left, and when key, names or authority have changed.
  - Repairs permissions and owners.
requirements:
  - openssl on the host
  - cryptography on the controller
extends_documentation_fragment:
  - ringmain.voip.attributes
attributes:
  check_mode:
    support: full
    description: Can run in check mode, also where nothing is installed yet.
  diff_mode:
    support: full
    description: Says why a new certificate is needed.
options:
  directory:
    description: Where the files are.
    type: path
    default: /etc/ringmain/tls
  group:
    description: Group that may read the key.
    type: str
    default: root
  names:
    description: Names and IP addresses of the host, the common name first.
    type: list
    elements: str
    required: true
  days:
    description: How long a new certificate is good for.
    type: int
    default: 825
  renew:
    description:
      - Whether there is to be a new certificate now, however good the present one is.
      - The action plugin decides on the controller.
    type: bool
    default: false
  ca_certificate:
    description: Certificate of the authority, in PEM form.
    type: str
    required: true
  ca_key:
    description:
      - Private key of the authority, in PEM form.
      - The action plugin uses it on the controller and keeps it there.
    type: str
  certificate:
    description: The new certificate. The action plugin fills it in, a task leaves it out.
    type: str
"""

EXAMPLES = r"""
- name: Keep key and certificate
  ringmain.voip.certificate:
    group: ringmain-tls
    names:
      - "{{ inventory_hostname }}"
      - 192.0.2.11
    ca_key: "{{ ringmain_secrets.ca_key }}"
    ca_certificate: "{{ ringmain_secrets.ca_certificate }}"
"""

RETURN = r"""
changed_files:
  description: Files that were (in check mode would be) written or repaired.
  returned: success
  type: list
  elements: str
  sample:
    - /etc/ringmain/tls/cert.pem
reason:
  description: Why there is a new certificate; empty when the present one is kept.
  returned: success
  type: str
  sample: it ends on 2027-03-01
public_key:
  description: The public half of the host's key; empty when check mode finds none.
  returned: success
  type: str
"""

import grp
import os
from collections.abc import Sequence

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringmain.voip.plugins.module_utils.identity import (
    IdentityError,
    keep_identity,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/etc/ringmain/tls"},
            "group": {"type": "str", "default": "root"},
            "names": {"type": "list", "elements": "str", "required": True},
            "days": {"type": "int", "default": 825},
            "renew": {"type": "bool", "default": False},
            "ca_certificate": {"type": "str", "required": True},
            "ca_key": {"type": "str", "no_log": True},
            "certificate": {"type": "str"},
        },
        supports_check_mode=True,
    )
    params = module.params
    os.umask(0o022)

    def run(argv: Sequence[str], given: bytes) -> tuple[int, bytes]:
        """Run a command with standard input; its complaints are dropped, they may quote the key."""
        code, output, _complaints = module.run_command(
            list(argv), data=given, binary_data=True, encoding=None, handle_exceptions=False
        )
        return code, output

    gid: int | None = None
    try:
        gid = grp.getgrnam(params["group"]).gr_gid
    except KeyError:
        if not module.check_mode:
            module.fail_json(
                msg=f"there is no group {params['group']} on this host: create it first"
            )
    try:
        identity = keep_identity(
            params["directory"],
            gid,
            params["ca_certificate"],
            params["certificate"],
            run,
            check_mode=module.check_mode,
        )
    except IdentityError as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=f"the key or a certificate could not be written: {exc}")
    else:
        module.exit_json(
            changed=bool(identity.changed_files),
            changed_files=identity.changed_files,
            public_key=identity.public_key,
            certificate=identity.certificate,
        )


if __name__ == "__main__":
    main()
