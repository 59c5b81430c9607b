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
  socket:
    description: Unix socket of the server.
    type: path
    default: /run/mysqld/mysqld.sock
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
import traceback
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.ringmain.voip.plugins.module_utils.schema import (
    Rows,
    SchemaError,
    apply_rows,
    describe,
)

PYMYSQL_ERROR = None
try:
    import pymysql
except ImportError:
    PYMYSQL_ERROR = traceback.format_exc()


def primary_keys(connection: Any, database: str) -> dict[str, list[str]]:
    """Return the columns of each table's primary key, in order."""
    keys: dict[str, list[str]] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name, column_name FROM information_schema.key_column_usage"
            " WHERE table_schema = %s AND constraint_name = 'PRIMARY'"
            " ORDER BY table_name, ordinal_position",
            (database,),
        )
        for table, column in cursor.fetchall():
            keys.setdefault(table, []).append(column)
    return keys


def run(module: AnsibleModule) -> dict[str, Any]:
    """Do the work; returns the result."""
    params = module.params
    wanted = json.loads(params["rows"])
    connection = pymysql.connect(
        unix_socket=params["socket"],
        user="root",
        database=params["database"],
        connect_timeout=5,
        charset="utf8mb4",
    )
    keys = primary_keys(connection, params["database"])
    unknown = sorted(set(wanted) - set(keys))
    if unknown:
        raise SchemaError(f"there is no table {', '.join(unknown)} with a primary key")
    connection.begin()
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
            "socket": {"type": "path", "default": "/run/mysqld/mysqld.sock"},
        },
        supports_check_mode=True,
    )
    if PYMYSQL_ERROR:
        module.fail_json(msg=missing_required_lib("PyMySQL"), exception=PYMYSQL_ERROR)
    try:
        module.exit_json(**run(module))
    except (SchemaError, pymysql.MySQLError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
