# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One database through its server's unix socket, as the administrator: MariaDB or PostgreSQL.

Both speak to the modules in the same words; what differs between the two stands here alone. What
is to be done is planned in ``schema``.
"""

from __future__ import annotations

import json
import os
import socket
import time
import traceback
import typing as t
from collections.abc import Mapping, Sequence

from ansible_collections.ringmain.voip.plugins.module_utils.schema import (
    SchemaError,
    Step,
    diff_grants,
    expand_grants,
    for_postgresql,
    is_scram_of,
    native_logins,
    native_password,
    scram_verifier,
)

MISSING: dict[str, str] = {}
"""Driver to the traceback of its import, for those that are not installed."""
ERRORS: tuple[type[Exception], ...] = ()
"""What the drivers raise."""
try:
    import pymysql

    ERRORS += (pymysql.MySQLError,)
except ImportError:
    MISSING["mariadb"] = traceback.format_exc()
try:
    import psycopg2  # type: ignore[import-untyped]

    ERRORS += (psycopg2.Error,)
except ImportError:
    MISSING["postgresql"] = traceback.format_exc()
FAILURES: tuple[type[Exception], ...] = (SchemaError, *ERRORS)
"""What a module reports by its text alone."""

LIBRARIES = {"mariadb": "PyMySQL", "postgresql": "psycopg2"}
TABLE = "ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
BOOKS = (
    "CREATE TABLE IF NOT EXISTS ringmain_schema (version INT NOT NULL PRIMARY KEY, name"
    f" VARCHAR(190) NOT NULL, checksum CHAR(64) NOT NULL, applied_at DATETIME NOT NULL) {TABLE}",
    "CREATE TABLE IF NOT EXISTS ringmain_lock (name VARCHAR(32) NOT NULL PRIMARY KEY,"
    f" owner VARCHAR(190) NOT NULL, expires_at DATETIME NOT NULL) {TABLE}",
    "CREATE TABLE IF NOT EXISTS ringmain_level (level INT NOT NULL PRIMARY KEY,"
    f" reached_at DATETIME NOT NULL) {TABLE}",
)
LEASE_SECONDS = 300
SSL_ANY = 1
PLUGIN = "mysql_native_password"

Statement = tuple[str, tuple[str, ...]]


class Database:
    """What both have in common."""

    NOW = ""
    LATER = ""
    """The time now, and in so many seconds, both in UTC."""
    SCHEMA_NAME = ""
    """What information_schema calls the place of our tables."""
    REPLACE_STEP = ""

    def __init__(self, name: str) -> None:
        self.name = name
        self.connection: t.Any = None
        self.owner = ""

    def ask(self, statement: str, values: Sequence[t.Any] | None = None) -> t.Any:
        """Run one statement and return its rows, if it has any."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else ()

    # What each says in its own way.

    def exists(self) -> bool:
        """Whether the database is there; makes it the current one if so."""
        raise NotImplementedError

    def create_database(self) -> None:
        """Create the database if it is not there, and make it the current one."""
        raise NotImplementedError

    def define(self, statement: str) -> None:
        """Run a migration, which is written in MariaDB's words."""
        raise NotImplementedError

    def is_taken(self, error: Exception) -> bool:
        """Whether an insertion failed because somebody else was quicker."""
        raise NotImplementedError

    def session_runs(self, identity: str) -> bool:
        """Whether a session of the administrator's with this number is there."""
        raise NotImplementedError

    def account_statements(self, account: Mapping[str, t.Any]) -> list[Statement]:
        """Return the statements that make an account as wanted; none when it is."""
        raise NotImplementedError

    def begin(self) -> None:
        """Begin a transaction, which the caller commits or rolls back."""
        raise NotImplementedError

    # What both do alike.

    def create(self) -> None:
        """Create the database and the tables the migrations themselves need."""
        self.create_database()
        for statement in BOOKS:
            self.define(statement)

    def relations(self) -> list[str]:
        """Return the names of all tables and views."""
        rows = self.ask(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s",
            (self.SCHEMA_NAME or self.name,),
        )
        return [row[0] for row in rows]

    def primary_keys(self) -> dict[str, list[str]]:
        """Return the columns of each table's primary key, in order."""
        rows = self.ask(
            "SELECT k.table_name, k.column_name FROM information_schema.key_column_usage AS k"
            " INNER JOIN information_schema.table_constraints AS c"
            " ON c.table_schema = k.table_schema AND c.table_name = k.table_name"
            " AND c.constraint_name = k.constraint_name"
            " WHERE c.constraint_type = 'PRIMARY KEY' AND k.table_schema = %s"
            " ORDER BY k.table_name, k.ordinal_position",
            (self.SCHEMA_NAME or self.name,),
        )
        keys: dict[str, list[str]] = {}
        for table, column in rows:
            keys.setdefault(table, []).append(column)
        return keys

    def applied(self) -> dict[int, tuple[str, str]]:
        """Return (name, checksum) of the applied migrations by version."""
        if "ringmain_schema" not in self.relations():
            return {}
        rows = self.ask("SELECT version, name, checksum FROM ringmain_schema")
        return {int(version): (name, checksum) for version, name, checksum in rows}

    def level(self) -> int:
        """Return the highest level that a release has raised this database to."""
        if "ringmain_level" not in self.relations():
            return 1  # from before there were levels
        return int(self.ask("SELECT COALESCE(MAX(level), 1) FROM ringmain_level")[0][0])

    def raise_level(self, level: int) -> None:
        """Remember that this database has everything that belongs to a level."""
        if not self.ask("SELECT 1 FROM ringmain_level WHERE level = %s", (level,)):
            self.ask(f"INSERT INTO ringmain_level VALUES (%s, {self.NOW})", (level,))

    def apply(self, step: Step) -> None:
        """Run one migration and remember it."""
        self.ask(
            f"UPDATE ringmain_lock SET expires_at = {self.LATER} WHERE owner = %s",
            (LEASE_SECONDS, self.owner),
        )
        try:
            self.define(step.statement)
        except ERRORS as error:
            raise SchemaError(f"migration {step.name} failed: {error}") from error
        self.ask(self.REPLACE_STEP, (step.version, step.name, step.checksum))

    def lock(self, patience: float) -> None:
        """Become the only run that changes this database; raises SchemaError in the end."""
        give_up = time.monotonic() + patience
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
            f"SELECT owner, expires_at < {self.NOW} FROM ringmain_lock WHERE name = 'schema'"
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
                f"INSERT INTO ringmain_lock VALUES ('schema', %s, {self.LATER})",
                (self.owner, LEASE_SECONDS),
            )
        except ERRORS as error:
            if self.is_taken(error):
                return False
            raise
        return True

    def _gone(self, owner: str) -> bool:
        """Whether the owner was a session with this very server that has ended."""
        host, _separator, identity = owner.rpartition(":")
        return host == self.owner.rpartition(":")[0] and not self.session_runs(identity)

    def unlock(self) -> None:
        """Let others."""
        self.ask("DELETE FROM ringmain_lock WHERE owner = %s", (self.owner,))


class MariaDB(Database):
    """A member of Galera, or any other server."""

    NOW = "UTC_TIMESTAMP()"
    LATER = "UTC_TIMESTAMP() + INTERVAL %s SECOND"
    REPLACE_STEP = "REPLACE INTO ringmain_schema VALUES (%s, %s, %s, UTC_TIMESTAMP())"

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self.connection = pymysql.connect(
            unix_socket=path, user="root", connect_timeout=5, autocommit=True, charset="utf8mb4"
        )
        self.owner = "{0[0]}:{0[1]}".format(self.ask("SELECT @@hostname, CONNECTION_ID()")[0])

    def exists(self) -> bool:
        found = self.ask(
            "SELECT 1 FROM information_schema.schemata WHERE schema_name = %s", (self.name,)
        )
        if found:
            self.connection.select_db(self.name)
        return bool(found)

    def create_database(self) -> None:
        self.ask(
            f"CREATE DATABASE IF NOT EXISTS {self.name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
        )
        self.connection.select_db(self.name)

    def define(self, statement: str) -> None:
        self.ask(statement)

    def begin(self) -> None:
        self.connection.begin()

    def is_taken(self, error: Exception) -> bool:
        # On this member, or on another one while we committed.
        return bool(error.args) and error.args[0] in (1062, 1213)

    def session_runs(self, identity: str) -> bool:
        return bool(
            self.ask(
                "SELECT 1 FROM information_schema.processlist WHERE id = %s AND user = 'root'",
                (identity,),
            )
        )

    def account_statements(self, account: Mapping[str, t.Any]) -> list[Statement]:
        who = (account["name"], account["host"])
        # While a password is being changed, its clients come with the new one or the previous one.
        known = [account["password"], account.get("previous_password")]
        wanted = [(PLUGIN, native_password(password)) for password in known if password]
        rows = self.ask("SELECT Priv FROM mysql.global_priv WHERE User = %s AND Host = %s", who)
        priv = json.loads(rows[0][0]) if rows else None
        ways = " OR ".join(f"{PLUGIN} USING %s" for _way in wanted)
        login = f"USER %s@%s IDENTIFIED VIA {ways} REQUIRE SSL"
        values = (*who, *(shaped for _plugin, shaped in wanted))
        statements: list[Statement] = []
        if priv is None:
            statements.append((f"CREATE {login}", values))
        elif native_logins(priv) != wanted or priv.get("ssl_type") != SSL_ANY:
            statements.append((f"ALTER {login}", values))
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
        changes = diff_grants(expand_grants(account["grants"], self.relations()), existing)
        for table, privileges in changes.take.items():
            # A right on something that was dropped cannot be taken by name any more in MariaDB.
            words = ", ".join(sorted(privileges)).replace("GRANT", "GRANT OPTION")
            statements.append((f"REVOKE {words} ON {self.name}.`{table}` FROM %s@%s", who))
        for table, privileges in changes.give.items():
            words = ", ".join(sorted(privileges))
            statements.append((f"GRANT {words} ON {self.name}.`{table}` TO %s@%s", who))
        return statements


class PostgreSQL(Database):
    """The member that takes writes; pg_hba says who comes over TLS only."""

    NOW = "(now() AT TIME ZONE 'UTC')"
    LATER = "(now() AT TIME ZONE 'UTC') + make_interval(secs => %s)"
    SCHEMA_NAME = "public"
    REPLACE_STEP = (
        "INSERT INTO ringmain_schema VALUES (%s, %s, %s, now() AT TIME ZONE 'UTC') ON CONFLICT"
        " (version) DO UPDATE SET name = excluded.name, checksum = excluded.checksum,"
        " applied_at = excluded.applied_at"
    )

    def __init__(self, name: str, directory: str, port: int) -> None:
        super().__init__(name)
        self.directory = directory
        self.port = port
        self._connect("postgres")

    def _connect(self, database: str) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = psycopg2.connect(
            host=self.directory,
            port=self.port,
            user="postgres",
            dbname=database,
            connect_timeout=5,
            application_name="ringmain",
        )
        self.connection.autocommit = True
        number = self.ask("SELECT pg_backend_pid()")[0][0]
        self.owner = f"{socket.gethostname()}:{number}"

    def exists(self) -> bool:
        found = self.ask("SELECT 1 FROM pg_database WHERE datname = %s", (self.name,))
        if found:
            self._connect(self.name)
        return bool(found)

    def create_database(self) -> None:
        if not self.ask("SELECT 1 FROM pg_database WHERE datname = %s", (self.name,)):
            try:
                self.ask(f"CREATE DATABASE {self.name}")
            except ERRORS as error:
                if getattr(error, "pgcode", "") not in ("42P04", "23505"):  # by another run
                    raise
        self._connect(self.name)
        self.ask(f"REVOKE ALL ON DATABASE {self.name} FROM PUBLIC")

    def define(self, statement: str) -> None:
        spoken = for_postgresql(statement)
        try:
            self.ask(spoken)
        except ERRORS as error:
            view = spoken.partition("CREATE OR REPLACE VIEW ")[2].split(maxsplit=1)[:1]
            if getattr(error, "pgcode", "") != "42P16" or not view:
                raise
            # A view whose columns move is made anew; its rights follow with the accounts.
            self.ask(f"DROP VIEW {view[0]};\n{spoken}")

    def begin(self) -> None:
        self.connection.autocommit = False

    def is_taken(self, error: Exception) -> bool:
        return getattr(error, "pgcode", "") == "23505"

    def session_runs(self, identity: str) -> bool:
        return bool(
            self.ask(
                "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND usename = 'postgres'",
                (identity,),
            )
        )

    def account_statements(self, account: Mapping[str, t.Any]) -> list[Statement]:
        who = account["name"]
        rows = self.ask(
            "SELECT rolpassword, rolcanlogin, rolsuper OR rolcreaterole OR rolcreatedb"
            " OR rolreplication OR rolbypassrls FROM pg_authid WHERE rolname = %s",
            (who,),
        )
        plain = "LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS PASSWORD %s"
        statements: list[Statement] = []
        if not rows or not is_scram_of(rows[0][0] or "", account["password"]) or not rows[0][1]:
            verifier = scram_verifier(account["password"], os.urandom(16))
            verb = "ALTER" if rows else "CREATE"
            statements.append((f"{verb} ROLE {who} {plain}", (verifier,)))
        elif rows[0][2]:
            statements.append((f"ALTER ROLE {who} {plain}", (rows[0][0],)))
        if (
            not rows
            or not self.ask("SELECT has_database_privilege(%s, %s, 'CONNECT')", (who, self.name))[
                0
            ][0]
        ):
            statements.append((f"GRANT CONNECT ON DATABASE {self.name} TO {who}", ()))
        found = self.ask(
            "SELECT c.relname, string_agg(a.privilege_type, ',') FROM pg_class AS c"
            " CROSS JOIN LATERAL aclexplode(c.relacl) AS a"
            " INNER JOIN pg_roles AS r ON r.oid = a.grantee"
            " WHERE c.relnamespace = 'public'::regnamespace AND r.rolname = %s GROUP BY c.relname",
            (who,),
        )
        existing = {table: frozenset(privileges.split(",")) for table, privileges in found}
        changes = diff_grants(expand_grants(account["grants"], self.relations()), existing)
        for table, privileges in changes.take.items():
            words = ", ".join(sorted(privileges))
            statements.append((f'REVOKE {words} ON public."{table}" FROM {who}', ()))
        for table, privileges in changes.give.items():
            words = ", ".join(sorted(privileges))
            statements.append((f'GRANT {words} ON public."{table}" TO {who}', ()))
        return statements


def open_database(driver: str, name: str, path: str, port: int) -> MariaDB | PostgreSQL:
    """Connect to the server behind a unix socket; C(path) is its file, or its directory."""
    if driver == "mariadb":
        return MariaDB(name, path)
    return PostgreSQL(name, path, port)
