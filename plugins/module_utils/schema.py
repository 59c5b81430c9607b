# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Plan what a database needs: migrations, accounts and rows.

The planning functions are pure and know no database. ``apply_rows`` takes a DB-API connection, and
uses nothing that MariaDB, PostgreSQL and SQLite do not share.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any

STEP_NAME = re.compile(r"^(\d{3})_([a-z0-9_]+)(\.view)?\.sql$")
IDENTIFIER = re.compile(r"^[a-z_][a-z0-9_]*$")


class SchemaError(Exception):
    """What is asked for cannot be done; the text is for the operator."""


@dataclass(frozen=True)
class Step:
    """One migration: a single statement that can be run again."""

    version: int
    name: str
    statement: str
    repeatable: bool

    @property
    def checksum(self) -> str:
        """Identify the content (64 hexadecimal digits)."""
        return hashlib.sha256(self.statement.encode()).hexdigest()


def read_steps(files: Mapping[str, str]) -> list[Step]:
    """Turn file names and contents into steps, ordered by version.

    A name is ``NNN_what.sql``, applied once and never changed, or ``NNN_what.view.sql``, applied
    again whenever its content changes. Raises SchemaError for other names, empty files and
    versions used twice.
    """
    steps: dict[int, Step] = {}
    for name in sorted(files):
        match = STEP_NAME.match(name)
        if match is None:
            raise SchemaError(f"migration {name!r} is not named NNN_name.sql or NNN_name.view.sql")
        statement = files[name].strip().rstrip(";").rstrip()
        if not statement:
            raise SchemaError(f"migration {name} is empty")
        version = int(match[1])
        if version in steps:
            raise SchemaError(
                f"migrations {steps[version].name} and {name} both have version {version}"
            )
        steps[version] = Step(version, name, statement, match[3] is not None)
    return [steps[version] for version in sorted(steps)]


def pending_steps(steps: Sequence[Step], applied: Mapping[int, tuple[str, str]]) -> list[Step]:
    """Return the steps still to run, in order.

    ``applied`` maps version to (name, checksum). A lower version may come after a higher one:
    each part of the system numbers its own range. Raises SchemaError when an applied step has
    changed or is unknown.
    """
    known = {step.version for step in steps}
    strangers = [applied[version][0] for version in sorted(applied) if version not in known]
    if strangers:
        raise SchemaError(
            f"the database has migrations that are unknown here: {', '.join(strangers)}. It was "
            "written by a newer release: use that one"
        )
    pending = []
    for step in steps:
        if step.version not in applied:
            pending.append(step)
        elif applied[step.version][1] != step.checksum:
            if not step.repeatable:
                raise SchemaError(
                    f"migration {step.name} has changed since it was applied: restore it, and put "
                    "the change into a new migration"
                )
            pending.append(step)
    return pending


def native_password(password: str) -> str:
    """Return what MariaDB keeps of a password (mysql_native_password)."""
    inner = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
    return "*" + hashlib.sha1(inner, usedforsecurity=False).hexdigest().upper()


def expand_grants(
    grants: Iterable[Mapping[str, Any]], relations: Iterable[str]
) -> dict[str, frozenset[str]]:
    """Return privileges per table or view.

    ``grants`` are ``{"relation": name or pattern, "privileges": [...]}``; a pattern (``edge_*``)
    means all ``relations`` it matches now. Raises SchemaError for a plain name that does not exist.
    """
    names = sorted(relations)
    result: dict[str, set[str]] = {}
    for grant in grants:
        pattern = str(grant["relation"])
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches and not any(sign in pattern for sign in "*?["):
            raise SchemaError(f"there is no table or view {pattern} to grant rights on")
        for name in matches:
            result.setdefault(name, set()).update(str(p).upper() for p in grant["privileges"])
    return {name: frozenset(privileges) for name, privileges in result.items()}


@dataclass(frozen=True)
class GrantChanges:
    """Privileges to give and to take, per relation."""

    give: dict[str, frozenset[str]]
    take: dict[str, frozenset[str]]


def diff_grants(
    wanted: Mapping[str, frozenset[str]], existing: Mapping[str, frozenset[str]]
) -> GrantChanges:
    """Compare privileges per relation."""
    none: frozenset[str] = frozenset()
    give = {name: wanted[name] - existing.get(name, none) for name in sorted(wanted)}
    take = {name: existing[name] - wanted.get(name, none) for name in sorted(existing)}
    return GrantChanges(
        {name: privileges for name, privileges in give.items() if privileges},
        {name: privileges for name, privileges in take.items() if privileges},
    )


def plain(value: Any) -> str | None:
    """Bring a value from Ansible or from a driver to one comparable form."""
    if value is None:
        return None
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode()
    if isinstance(value, (float, Decimal)) and value == int(value):
        return str(int(value))
    return str(value)


Row = Mapping[str, Any]


@dataclass(frozen=True)
class RowChanges:
    """What makes the rows of one table as wanted. Each row is {column: value}."""

    table: str
    key: tuple[str, ...]
    insert: list[dict[str, Any]] = field(default_factory=list)
    update: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    delete: list[dict[str, Any]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.insert or self.update or self.delete)


def _identity(row: Row, key: Sequence[str], table: str) -> tuple[str | None, ...]:
    missing = [column for column in key if row.get(column) is None]
    if missing:
        raise SchemaError(f"a row for {table} has no {', '.join(missing)}")
    return tuple(plain(row[column]) for column in key)


def diff_rows(
    table: str, key: Sequence[str], wanted: Iterable[Row], existing: Iterable[Row]
) -> RowChanges:
    """Compare the wanted rows with the existing ones of the same owner.

    Only the columns a wanted row names are compared. ``update`` holds (old values, new values) of
    key and changed columns. Raises SchemaError when two wanted rows have one key.
    """
    old = {_identity(row, key, table): dict(row) for row in existing}
    changes = RowChanges(table, tuple(key))
    seen: set[tuple[str | None, ...]] = set()
    for raw in wanted:
        row = dict(raw)
        identity = _identity(row, key, table)
        if identity in seen:
            raise SchemaError(f"two rows for {table} have the key {_words(identity)}")
        seen.add(identity)
        if identity not in old:
            changes.insert.append(row)
            continue
        before = old[identity]
        changed = [name for name in row if plain(row[name]) != plain(before.get(name))]
        if changed:
            columns = [*key, *(name for name in changed if name not in key)]
            changes.update.append(
                (
                    {name: before.get(name) for name in columns},
                    {name: row[name] for name in columns},
                )
            )
    changes.delete.extend(row for identity, row in old.items() if identity not in seen)
    return changes


def _words(identity: Iterable[str | None]) -> str:
    return " / ".join(str(part) for part in identity)


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if not IDENTIFIER.match(name):
            raise SchemaError(f"{name!r} is not the name of a table or column")


class Rows:
    """The rows of one owner, over a DB-API connection.

    ``mark`` is the driver's parameter mark (``%s`` or ``?``). The caller commits.
    """

    def __init__(self, connection: Any, owner: str, mark: str = "%s") -> None:
        self.connection = connection
        self.owner = owner
        self.mark = mark

    def _run(self, statement: str, values: Sequence[Any]) -> Any:
        cursor = self.connection.cursor()
        cursor.execute(statement, tuple(values))
        return cursor

    def _where(self, key: Sequence[str]) -> str:
        return " AND ".join(f"{column} = {self.mark}" for column in key)

    def compare(self, table: str, key: Sequence[str], wanted: Sequence[Row]) -> RowChanges:
        """Read this owner's rows of a table and return what has to change.

        Raises SchemaError when a new row has the key of a row that someone else owns.
        """
        _check_names([table, *key, *(column for row in wanted for column in row)])
        cursor = self._run(f"SELECT * FROM {table} WHERE managed_by = {self.mark}", [self.owner])
        columns = [description[0] for description in cursor.description]
        existing = [dict(zip(columns, values, strict=False)) for values in cursor.fetchall()]
        changes = diff_rows(
            table, key, [{**row, "managed_by": self.owner} for row in wanted], existing
        )
        for row in changes.insert:
            values = [row[column] for column in key]
            found = self._run(
                f"SELECT managed_by FROM {table} WHERE {self._where(key)}", values
            ).fetchone()
            if found is not None:
                raise SchemaError(
                    f"{table}: {_words(plain(value) for value in values)} exists and belongs to "
                    f"{found[0]!r}, not to {self.owner!r}: remove it there or here"
                )
        return changes

    def apply_deletes(self, changes: RowChanges) -> None:
        """Delete what is no longer wanted."""
        for row in changes.delete:
            self._run(
                f"DELETE FROM {changes.table} WHERE {self._where(changes.key)}"
                f" AND managed_by = {self.mark}",
                [*(row[column] for column in changes.key), self.owner],
            )

    def apply_rest(self, changes: RowChanges) -> None:
        """Update and insert."""
        for before, after in changes.update:
            columns = [name for name in after if name not in changes.key]
            assignments = ", ".join(f"{name} = {self.mark}" for name in columns)
            self._run(
                f"UPDATE {changes.table} SET {assignments} WHERE {self._where(changes.key)}"
                f" AND managed_by = {self.mark}",
                [
                    *(after[name] for name in columns),
                    *(before[name] for name in changes.key),
                    self.owner,
                ],
            )
        for row in changes.insert:
            self._run(
                f"INSERT INTO {changes.table} ({', '.join(row)})"
                f" VALUES ({', '.join(self.mark for _name in row)})",
                list(row.values()),
            )


def apply_rows(
    rows: Rows, tables: Mapping[str, Sequence[Row]], keys: Mapping[str, Sequence[str]]
) -> list[RowChanges]:
    """Make the owner's rows of all tables as wanted; returns the changes, empty ones left out.

    ``tables`` maps table to rows, parents before children: deletions run in the opposite order,
    before anything else, so that a key can move. Runs in the caller's transaction.
    """
    every = [rows.compare(table, keys[table], wanted) for table, wanted in tables.items()]
    changed = [changes for changes in every if changes]
    for changes in reversed(changed):
        rows.apply_deletes(changes)
    for changes in changed:
        rows.apply_rest(changes)
    return changed


def describe(changes: Iterable[RowChanges], secret: Iterable[str]) -> tuple[str, str]:
    """Return (before, after) as text for a diff; values of secret columns are hidden."""
    hidden = set(secret)

    def line(table: str, row: Row, mark: str = "(hidden)") -> str:
        shown = ", ".join(
            f"{name}={mark if name in hidden else plain(row[name])}" for name in sorted(row)
        )
        return f"{table}: {shown}\n"

    before, after = [], []
    for change in changes:
        before += [line(change.table, row) for row in change.delete]
        for old, new in change.update:
            before.append(line(change.table, old))
            after.append(line(change.table, new, "(hidden, changed)"))
        after += [line(change.table, row) for row in change.insert]
    return "".join(before), "".join(after)
