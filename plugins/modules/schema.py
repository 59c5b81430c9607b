#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bring a database and its accounts to what the collection needs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: schema
short_description: Migrate a database and keep its accounts
version_added: 0.1.0
author: Ringmain contributors (@ringmain)
description:
  - Creates the database, applies the migrations it lacks in the order of their versions, and
    keeps accounts with just the rights they need.
  - Migrations are written in the words of MariaDB. For PostgreSQL those few words that our own
    migrations use are replaced.
  - Statements that define something cannot be rolled back in MariaDB, so each migration is a
    single statement that can be run again. A run that was interrupted continues where it stopped.
  - Two runs at one time exclude each other by a row with owner and expiry, since a Galera cluster
    has no named locks.
  - A database has a level, which a release raises when it applies its migrations. A release says
    on which levels it runs, and changes nothing outside of them. On a database of a newer release
    inside of them it leaves migrations alone.
  - A run that finds nothing to do writes nothing.
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
  migrations:
    description:
      - File names and their content. C(NNN_name.sql) is applied once and must not change
        afterwards, C(NNN_name.view.sql) is applied again whenever its content changes.
    type: dict
    required: true
  accounts:
    description: Accounts for TCP, all with a password and over TLS only.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the account.
        type: str
        required: true
      host:
        description: Where it may come from, on MariaDB.
        type: str
        default: "%"
      password:
        description: Its password. Only the hash reaches the server.
        type: str
        required: true
      previous_password:
        description:
          - A second password that is good, too, while clients still come with it. PostgreSQL knows
            one password only; there it is ignored.
        type: str
      grants:
        description: Rights on tables and views of the database. All others are taken away.
        type: list
        elements: dict
        required: true
        suboptions:
          relation:
            description: Name of a table or view, or a pattern like V(edge_*).
            type: str
            required: true
          privileges:
            description: Rights, like V(SELECT).
            type: list
            elements: str
            required: true
  patience:
    description: Seconds to wait for another run.
    type: int
    default: 60
  level:
    description: The level that these migrations raise the database to.
    type: int
    default: 1
  runs_on:
    description: Lowest and highest level of a database that this release runs on.
    type: list
    elements: int
    default: [1, 2]
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
- name: Migrate the database
  ringmain.voip.schema:
    database: ringmain
    migrations:
      001_tenants.sql: CREATE TABLE IF NOT EXISTS tenants (name VARCHAR(32) PRIMARY KEY)
    accounts:
      - name: edge
        password: "{{ database_edge_password }}"
        grants:
          - relation: edge_*
            privileges: [SELECT]
"""

RETURN = r"""
applied:
  description: Names of the migrations that were applied.
  returned: always
  type: list
  elements: str
  sample: [001_tenants.sql]
version:
  description: Highest version in the database.
  returned: always
  type: int
  sample: 58
accounts:
  description: Names of the accounts that were changed.
  returned: always
  type: list
  elements: str
  sample: [edge]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.ringmain.voip.plugins.module_utils.database import (
    FAILURES,
    LIBRARIES,
    MISSING,
    open_database,
)
from ansible_collections.ringmain.voip.plugins.module_utils.schema import (
    check_level,
    pending_steps,
    read_steps,
)


def run(module: AnsibleModule) -> dict[str, Any]:
    """Do the work; returns the result."""
    params = module.params
    steps = read_steps(params["migrations"])
    database = open_database(params["driver"], params["database"], params["socket"], params["port"])
    existed = database.exists()
    level = database.level() if existed and database.applied() else None
    check_level(level, params["runs_on"])
    ahead = level is not None and level > params["level"]
    pending = pending_steps(steps, database.applied() if existed else {}, ahead)
    raised = level is None or level < params["level"]
    if not module.check_mode and (raised or pending):
        database.create()
        database.lock(params["patience"])
        try:
            # Another run may have been at it until now.
            pending = pending_steps(steps, database.applied(), ahead)
            for step in pending:
                database.apply(step)
            if raised:
                database.raise_level(params["level"])
        finally:
            database.unlock()
    accounts = []
    if not (module.check_mode and (not existed or pending)):
        for account in params["accounts"]:
            statements = database.account_statements(account)
            if statements:
                accounts.append(account["name"])
            if not module.check_mode:
                for statement, values in statements:
                    database.ask(statement, values)
    else:
        # Rights on what does not exist yet cannot be compared.
        accounts = [account["name"] for account in params["accounts"]]
    names = [step.name for step in pending]
    result: dict[str, Any] = {
        "changed": bool(not existed or raised or pending or accounts),
        "applied": names,
        "accounts": accounts,
        "version": max((step.version for step in steps), default=0),
    }
    if module._diff:
        lines = [] if existed else [f"database {database.name}"]
        lines += [f"migration {name}" for name in names] + [f"account {name}" for name in accounts]
        result["diff"] = {"before": "", "after": "".join(f"{line}\n" for line in lines)}
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "database": {"type": "str", "required": True},
            "migrations": {"type": "dict", "required": True},
            "accounts": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "host": {"type": "str", "default": "%"},
                    "password": {"type": "str", "required": True, "no_log": True},
                    "previous_password": {"type": "str", "no_log": True},
                    "grants": {
                        "type": "list",
                        "elements": "dict",
                        "required": True,
                        "options": {
                            "relation": {"type": "str", "required": True},
                            "privileges": {"type": "list", "elements": "str", "required": True},
                        },
                    },
                },
            },
            "patience": {"type": "int", "default": 60},
            "level": {"type": "int", "default": 1},
            "runs_on": {"type": "list", "elements": "int", "default": [1, 2]},
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
