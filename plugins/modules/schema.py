#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bring a MariaDB database and its accounts to what the collection needs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: schema
short_description: Migrate a MariaDB database and keep its accounts
version_added: 0.1.0
author: Ringmain contributors (@ringmain)
description:
  - Creates the database, applies the migrations it lacks in the order of their versions, and
    keeps accounts with just the rights they need.
  - Statements that define something cannot be rolled back in MariaDB, so each migration is a
    single statement that can be run again. A run that was interrupted continues where it stopped.
  - Two runs at one time exclude each other by a row with owner and expiry, since a Galera cluster
    has no named locks.
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
        description: Where it may come from.
        type: str
        default: "%"
      password:
        description: Its password. Only the hash reaches the server.
        type: str
        required: true
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
  socket:
    description: Unix socket of the server.
    type: path
    default: /run/mysqld/mysqld.sock
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

import json
import time
import traceback
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.ringmain.voip.plugins.module_utils.schema import (
    SchemaError,
    Step,
    diff_grants,
    expand_grants,
    native_password,
    pending_steps,
    read_steps,
)

PYMYSQL_ERROR = None
try:
    import pymysql
except ImportError:
    PYMYSQL_ERROR = traceback.format_exc()

OPTIONS = "ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
LEASE_SECONDS = 300
SSL_ANY = 1


class Database:
    """One database on the server behind the unix socket."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.name = module.params["database"]
        self.connection = pymysql.connect(
            unix_socket=module.params["socket"],
            user="root",
            connect_timeout=5,
            autocommit=True,
            charset="utf8mb4",
        )
        self.owner = "{0[0]}:{0[1]}".format(self.ask("SELECT @@hostname, CONNECTION_ID()")[0])

    def ask(self, statement: str, values: Any = None) -> Any:
        """Run one statement and return its rows, if it has any."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall()

    def exists(self) -> bool:
        """Whether the database is there; makes it the current one if so."""
        found = self.ask(
            "SELECT 1 FROM information_schema.schemata WHERE schema_name = %s", (self.name,)
        )
        if found:
            self.connection.select_db(self.name)
        return bool(found)

    def create(self) -> None:
        """Create the database and the tables the migrations themselves need."""
        self.ask(
            f"CREATE DATABASE IF NOT EXISTS {self.name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
        )
        self.connection.select_db(self.name)
        self.ask(
            "CREATE TABLE IF NOT EXISTS ringmain_schema (version INT NOT NULL PRIMARY KEY, name"
            f" VARCHAR(190) NOT NULL, checksum CHAR(64) NOT NULL, applied_at DATETIME NOT NULL)"
            f" {OPTIONS}"
        )
        self.ask(
            "CREATE TABLE IF NOT EXISTS ringmain_lock (name VARCHAR(32) NOT NULL PRIMARY KEY,"
            f" owner VARCHAR(190) NOT NULL, expires_at DATETIME NOT NULL) {OPTIONS}"
        )

    def relations(self) -> list[str]:
        """Return the names of all tables and views."""
        rows = self.ask(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s",
            (self.name,),
        )
        return [row[0] for row in rows]

    def applied(self) -> dict[int, tuple[str, str]]:
        """Return (name, checksum) of the applied migrations by version."""
        if "ringmain_schema" not in self.relations():
            return {}
        rows = self.ask("SELECT version, name, checksum FROM ringmain_schema")
        return {int(version): (name, checksum) for version, name, checksum in rows}

    def lock(self) -> None:
        """Become the only run that changes this database; raises SchemaError in the end."""
        give_up = time.monotonic() + self.module.params["patience"]
        while not self._try_lock():
            if time.monotonic() > give_up:
                owner = self.ask("SELECT owner, expires_at FROM ringmain_lock")
                raise SchemaError(
                    f"another run ({owner[0][0] if owner else 'just ended'}) is changing the "
                    "database: wait for it, then run again"
                )
            time.sleep(1)

    def _try_lock(self) -> bool:
        rows = self.ask(
            "SELECT owner, expires_at < UTC_TIMESTAMP() FROM ringmain_lock WHERE name = 'schema'"
        )
        if rows and not (rows[0][1] or self._gone(rows[0][0])):
            return False
        if rows:
            # Only if it is still the same owner's: another run may have been quicker.
            self.ask(
                "DELETE FROM ringmain_lock WHERE name = 'schema' AND owner = %s", (rows[0][0],)
            )
        try:
            self.ask(
                "INSERT INTO ringmain_lock VALUES ('schema', %s,"
                " UTC_TIMESTAMP() + INTERVAL %s SECOND)",
                (self.owner, LEASE_SECONDS),
            )
        except (pymysql.IntegrityError, pymysql.OperationalError) as error:
            # Taken on this member, or on another one while we committed.
            if error.args[0] in (1062, 1213):
                return False
            raise
        return True

    def _gone(self, owner: str) -> bool:
        """Whether the owner was a connection to this very server that has ended."""
        host, _separator, identity = owner.rpartition(":")
        if host != self.owner.rpartition(":")[0]:
            return False
        return not self.ask(
            "SELECT 1 FROM information_schema.processlist WHERE id = %s AND user = 'root'",
            (identity,),
        )

    def unlock(self) -> None:
        """Let others."""
        self.ask("DELETE FROM ringmain_lock WHERE owner = %s", (self.owner,))

    def apply(self, step: Step) -> None:
        """Run one migration and remember it."""
        self.ask(
            "UPDATE ringmain_lock SET expires_at = UTC_TIMESTAMP() + INTERVAL %s SECOND"
            " WHERE owner = %s",
            (LEASE_SECONDS, self.owner),
        )
        try:
            self.ask(step.statement)
        except pymysql.MySQLError as error:
            raise SchemaError(f"migration {step.name} failed: {error}") from error
        self.ask(
            "REPLACE INTO ringmain_schema VALUES (%s, %s, %s, UTC_TIMESTAMP())",
            (step.version, step.name, step.checksum),
        )

    def account_statements(self, account: dict[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
        """Return the statements that make an account as wanted; none when it is."""
        who = (account["name"], account["host"])
        shaped = native_password(account["password"])
        rows = self.ask("SELECT Priv FROM mysql.global_priv WHERE User = %s AND Host = %s", who)
        priv = json.loads(rows[0][0]) if rows else None
        login = "USER %s@%s IDENTIFIED VIA mysql_native_password USING %s REQUIRE SSL"
        statements: list[tuple[str, tuple[str, ...]]] = []
        if priv is None:
            statements.append((f"CREATE {login}", (*who, shaped)))
        elif (
            priv.get("plugin") != "mysql_native_password"
            or priv.get("authentication_string") != shaped
            or priv.get("ssl_type") != SSL_ANY
            or "auth_or" in priv
        ):
            statements.append((f"ALTER {login}", (*who, shaped)))
        broad = priv is not None and (
            priv.get("access", 0) != 0
            or self.ask("SELECT 1 FROM mysql.db WHERE User = %s AND Host = %s", who)
            or self.ask("SELECT 1 FROM mysql.columns_priv WHERE User = %s AND Host = %s", who)
        )
        existing: dict[str, frozenset[str]] = {}
        if broad:
            statements.append(("REVOKE ALL PRIVILEGES, GRANT OPTION FROM %s@%s", who))
        else:
            rows = self.ask(
                "SELECT Table_name, Table_priv FROM mysql.tables_priv"
                " WHERE User = %s AND Host = %s AND Db = %s",
                (*who, self.name),
            )
            existing = {
                table: frozenset(p.strip().upper() for p in privileges.split(",") if p.strip())
                for table, privileges in rows
            }
        relations = self.relations()
        changes = diff_grants(expand_grants(account["grants"], relations), existing)
        for table, privileges in changes.take.items():
            # A right on something that was dropped cannot be taken by name any more in MariaDB.
            words = ", ".join(sorted(privileges)).replace("GRANT", "GRANT OPTION")
            statements.append((f"REVOKE {words} ON {self.name}.`{table}` FROM %s@%s", who))
        for table, privileges in changes.give.items():
            words = ", ".join(sorted(privileges))
            statements.append((f"GRANT {words} ON {self.name}.`{table}` TO %s@%s", who))
        return statements


def run(module: AnsibleModule) -> dict[str, Any]:
    """Do the work; returns the result."""
    params = module.params
    steps = read_steps(params["migrations"])
    database = Database(module)
    existed = database.exists()
    pending = pending_steps(steps, database.applied() if existed else {})
    if not module.check_mode and (not existed or pending):
        database.create()
        database.lock()
        try:
            # Another run may have been at it until now.
            pending = pending_steps(steps, database.applied())
            for step in pending:
                database.apply(step)
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
        "changed": bool(not existed or pending or accounts),
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
