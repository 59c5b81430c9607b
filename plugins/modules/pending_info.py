#!/usr/bin/python
# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which services wait for a restart."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pending_info
short_description: List the services that wait for a restart
version_added: 0.1.0
author: Ringmain contributors (@ringmain)
description:
  - Lists the services that run with another configuration than the one on disk, as
    M(ringmain.voip.config_tree) wrote it. They take it up at their next start.
extends_documentation_fragment:
  - ringmain.voip.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
options:
  written:
    description: Directory with the digest of each configuration on disk, one file per service.
    type: path
    default: /etc/ringmain/digests
  running:
    description: Directory with the digest each service started with, C(SERVICE.digest).
    type: path
    default: /run/ringmain
"""

EXAMPLES = r"""
- name: See what waits for a restart
  ringmain.voip.pending_info:
  register: waiting
"""

RETURN = r"""
services:
  description: Names of the services, sorted.
  returned: success
  type: list
  elements: str
  sample: [kamailio]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringmain.voip.plugins.module_utils.pending import pending_services


def main() -> None:
    """Read both directories and compare."""
    module = AnsibleModule(
        argument_spec={
            "written": {"type": "path", "default": "/etc/ringmain/digests"},
            "running": {"type": "path", "default": "/run/ringmain"},
        },
        supports_check_mode=True,
    )
    written = Path(module.params["written"]).glob("*")
    running = Path(module.params["running"]).glob("*.digest")
    services = pending_services(
        {path.name: path.read_text(encoding="ascii").strip() for path in written},
        {path.stem: path.read_text(encoding="ascii").strip() for path in running},
    )
    module.exit_json(changed=False, services=services)


if __name__ == "__main__":
    main()
