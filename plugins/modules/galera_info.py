#!/usr/bin/python
# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of one member of a Galera cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: galera_info
short_description: See where a member of a Galera cluster stands
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Asks MariaDB over its Unix socket, as C(root), for what it knows of its cluster. Nothing is
    changed. A server that does not answer is no error, but said.
extends_documentation_fragment:
  - ringmain.voip.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  socket:
    description: MariaDB's Unix socket.
    type: path
    default: /run/mysqld/mysqld.sock
  timeout:
    description: Seconds to wait for the server.
    type: int
    default: 5
"""

EXAMPLES = r"""
- name: See where this member stands
  ringmain.voip.galera_info:
  register: member
"""

RETURN = r"""
running:
  description: Whether the server answers.
  returned: success
  type: bool
synced:
  description: Whether it has all data, belongs to a cluster with quorum and takes statements.
  returned: success
  type: bool
state:
  description: The member's state in Galera's words.
  returned: success
  type: str
  sample: Synced
cluster_status:
  description: V(Primary) with quorum.
  returned: success
  type: str
  sample: Primary
cluster_size:
  description: Members that this one sees, itself included; null when it does not say.
  returned: success
  type: int
  sample: 3
cluster_uuid:
  description: Which cluster's data it holds.
  returned: success
  type: str
last_committed:
  description: Number of its last transaction; null when it does not say.
  returned: success
  type: int
receive_queue:
  description: Transactions that wait to be applied; null when it does not say.
  returned: success
  type: int
error:
  description: Why the server does not answer.
  returned: when it does not
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.ringmain.voip.plugins.module_utils import galera_status


def main() -> None:
    """Ask."""
    module = AnsibleModule(
        argument_spec={
            "socket": {"type": "path", "default": "/run/mysqld/mysqld.sock"},
            "timeout": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    if galera_status.MISSING:
        module.fail_json(msg=missing_required_lib("PyMySQL"), exception=galera_status.MISSING)
    params = module.params
    result: dict[str, Any] = {}
    status: dict[str, str] = {}
    try:
        with galera_status.connect(params["socket"], params["timeout"]) as connection:
            status = galera_status.read(connection)
    except galera_status.FAILURES as error:
        result["error"] = str(error)
    module.exit_json(changed=False, **galera_status.describe(status), **result)


if __name__ == "__main__":
    main()
