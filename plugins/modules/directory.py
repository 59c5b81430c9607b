#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keep the rows of one owner in database tables as wanted."""

from __future__ import annotations

DOCUMENTATION = r"""
module: directory
short_description: Keep the inventory's rows in database tables as wanted
version_added: 0.1.0
author: Ringmain contributors (@ringmain)
description:
  - Compares the wanted rows of each table with those that carry the owner's name in the column
    C(managed_by), and inserts, updates and deletes only the differences, in one transaction.
  - Rows of other owners are never touched. When a wanted row has the key of one of them, nothing
    is written and the error names it.
extends_documentation_fragment:
  - ringmain.voip.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  database:
    description: Name of the database.
    type: str
    required: true
  rows:
    description:
      - JSON text of a dictionary, table to list of rows (dictionaries of columns), parents before
        children.
      - As a text, because it holds secrets among ordinary words. C(to_json) makes it.
    type: json
    required: true
  owner:
    description: Who the rows belong to.
    type: str
    default: inventory
  secret_columns:
    description: Columns whose values are never shown.
    type: list
    elements: str
    default: [ha1, password]
  driver:
    description: What runs behind the socket, V(mariadb) or V(postgresql).
    type: str
    choices: [mariadb, postgresql]
    default: mariadb
  socket:
    description: Unix socket of the server; for PostgreSQL the directory of it.
    type: path
    default: /run/mysqld/mysqld.sock
  port:
    description: Port of the server, which PostgreSQL's socket is named after.
    type: int
    default: 5432
"""

EXAMPLES = r"""
- name: Keep the tenants
  ringmain.voip.directory:
    database: ringmain
    rows: "{{ {'tenants': [{'name': 'acme', 'domain': 'acme.example.org'}]} | to_json }}"
"""

RETURN = r"""
counts:
  description: Rows inserted, updated and deleted by table, for tables that changed.
  returned: always
  type: dict
  sample:
    tenants:
      inserted: 1
      updated: 0
      deleted: 0
"""

import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.ringmain.voip.plugins.module_utils.database import (
    FAILURES,
    LIBRARIES,
    MISSING,
    open_database,
)
from ansible_collections.ringmain.voip.plugins.module_utils.schema import (
    Rows,
    SchemaError,
    apply_rows,
    describe,
)


def run(module: AnsibleModule) -> dict[str, Any]:
    """Do the work; returns the result."""
    params = module.params
    wanted = json.loads(params["rows"])
    database = open_database(params["driver"], params["database"], params["socket"], params["port"])
    if not database.exists():
        raise SchemaError(f"there is no database {database.name}")
    keys = database.primary_keys()
    unknown = sorted(set(wanted) - set(keys))
    if unknown:
        raise SchemaError(f"there is no table {', '.join(unknown)} with a primary key")
    connection = database.connection
    database.begin()
    changes = apply_rows(Rows(connection, params["owner"]), wanted, keys)
    if module.check_mode or not changes:
        connection.rollback()
    else:
        connection.commit()
    result: dict[str, Any] = {
        "changed": bool(changes),
        "counts": {
            change.table: {
                "inserted": len(change.insert),
                "updated": len(change.update),
                "deleted": len(change.delete),
            }
            for change in changes
        },
    }
    if module._diff and changes:
        before, after = describe(changes, params["secret_columns"])
        result["diff"] = {"before": before, "after": after}
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "database": {"type": "str", "required": True},
            "rows": {"type": "json", "required": True, "no_log": True},
            "owner": {"type": "str", "default": "inventory"},
            "secret_columns": {
                "type": "list",
                "elements": "str",
                "default": ["ha1", "password"],
                "no_log": False,
            },
            "driver": {"choices": ["mariadb", "postgresql"], "default": "mariadb"},
            "socket": {"type": "path", "default": "/run/mysqld/mysqld.sock"},
            "port": {"type": "int", "default": 5432},
        },
        supports_check_mode=True,
    )
    driver = module.params["driver"]
    if driver in MISSING:
        module.fail_json(msg=missing_required_lib(LIBRARIES[driver]), exception=MISSING[driver])
    try:
        module.exit_json(**run(module))
    except FAILURES as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
