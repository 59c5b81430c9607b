# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Migrations, rights and rows: what is planned, and rows in a real database."""

from __future__ import annotations

import base64
import re
import sqlite3
from decimal import Decimal
from pathlib import Path

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import schema
from ansible_collections.ringmain.voip.plugins.module_utils.schema import SchemaError

FILES = {
    "020_phones.sql": "CREATE TABLE IF NOT EXISTS phones (id INT PRIMARY KEY);\n",
    "001_tenants.sql": "CREATE TABLE IF NOT EXISTS tenants (id INT PRIMARY KEY)",
    "030_list.view.sql": "CREATE OR REPLACE VIEW list AS SELECT 1",
}


def test_steps_are_read_in_order() -> None:
    steps = schema.read_steps(FILES)
    assert [(step.version, step.repeatable) for step in steps] == [
        (1, False),
        (20, False),
        (30, True),
    ]
    assert steps[1].statement == "CREATE TABLE IF NOT EXISTS phones (id INT PRIMARY KEY)"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"1_tenants.sql": "SELECT 1"},
            "migration '1_tenants.sql' is not named NNN_name.sql or NNN_name.view.sql",
        ),
        ({"001_tenants.sql": " ;\n"}, "migration 001_tenants.sql is empty"),
        (
            {"001_a.sql": "SELECT 1", "001_b.sql": "SELECT 2"},
            "migrations 001_a.sql and 001_b.sql both have version 1",
        ),
    ],
)
def test_bad_steps_are_refused(files: dict[str, str], message: str) -> None:
    with pytest.raises(SchemaError) as error:
        schema.read_steps(files)
    assert str(error.value) == message


def applied(*versions: int) -> dict[int, tuple[str, str]]:
    return {
        step.version: (step.name, step.checksum)
        for step in schema.read_steps(FILES)
        if step.version in versions
    }


@pytest.mark.parametrize(
    ("done", "left"), [((), [1, 20, 30]), ((1,), [20, 30]), ((1, 30), [20]), ((1, 20, 30), [])]
)
def test_what_is_not_applied_is_pending(done: tuple[int, ...], left: list[int]) -> None:
    pending = schema.pending_steps(schema.read_steps(FILES), applied(*done))
    assert [step.version for step in pending] == left


def test_a_changed_view_is_applied_again() -> None:
    steps = schema.read_steps(
        {**FILES, "030_list.view.sql": "CREATE OR REPLACE VIEW list AS SELECT 2"}
    )
    assert [step.version for step in schema.pending_steps(steps, applied(1, 20, 30))] == [30]


def test_a_changed_step_is_refused() -> None:
    steps = schema.read_steps({**FILES, "001_tenants.sql": "SELECT 3"})
    with pytest.raises(SchemaError) as error:
        schema.pending_steps(steps, applied(1))
    assert str(error.value) == (
        "migration 001_tenants.sql has changed since it was applied: restore it, and put the "
        "change into a new migration"
    )


def test_an_older_release_refuses_a_newer_database() -> None:
    with pytest.raises(SchemaError) as error:
        schema.pending_steps(schema.read_steps(FILES), {**applied(1), 99: ("099_new.sql", "x")})
    assert str(error.value) == (
        "the database has migrations that are unknown here: 099_new.sql. It was written by a "
        "newer release: use that one"
    )


def test_the_collections_own_migrations_are_well_formed() -> None:
    folder = Path(__file__).resolve().parents[4] / "roles" / "schema" / "files" / "migrations"
    steps = schema.read_steps({path.name: path.read_text() for path in folder.iterdir()})
    assert steps[0].name == "001_tenants.sql"
    for step in steps:
        code = "\n".join(
            line for line in step.statement.splitlines() if not line.lstrip().startswith("--")
        ).strip()
        # One statement each, and one that can be run again.
        assert ";" not in re.sub(r"'[^']*'", "", code), step.name
        assert code.startswith(
            (
                "CREATE TABLE IF NOT EXISTS",
                "CREATE OR REPLACE",
                "ALTER TABLE",
                "INSERT IGNORE",
                "CREATE INDEX IF NOT EXISTS",
            )
        ), step.name
        if code.startswith("CREATE TABLE"):
            assert "PRIMARY KEY" in code, step.name
            assert "ENGINE=InnoDB" in code, step.name
            assert "COLLATE utf8mb4_bin" in code, step.name


@pytest.mark.parametrize(
    ("mariadb", "postgresql"),
    [
        (
            "CREATE TABLE IF NOT EXISTS t (\n  a VARCHAR(9) NOT NULL,\n  PRIMARY KEY (a),\n"
            "  UNIQUE KEY t_b (b),\n  KEY by_c (c, d),\n  KEY by_e (e)\n"
            ") ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
            "CREATE TABLE IF NOT EXISTS t (\n  a VARCHAR(9) NOT NULL,\n  PRIMARY KEY (a),\n"
            "  CONSTRAINT t_b UNIQUE (b)\n)"
            ";\nCREATE INDEX IF NOT EXISTS t_by_c ON t (c, d)"
            ";\nCREATE INDEX IF NOT EXISTS t_by_e ON t (e)",
        ),
        ("a INT UNSIGNED NOT NULL AUTO_INCREMENT", "a INT GENERATED BY DEFAULT AS IDENTITY"),
        ("a SMALLINT UNSIGNED NOT NULL", "a INT NOT NULL"),
        ("a ENUM('yes', 'no') NOT NULL", "a VARCHAR(3) NOT NULL"),
        ("a DATETIME NOT NULL", "a TIMESTAMP(0) NOT NULL"),
        ("a VARCHAR(9) CHARACTER SET ascii NOT NULL", "a VARCHAR(9) NOT NULL"),
        ("CREATE OR REPLACE SQL SECURITY DEFINER VIEW v AS", "CREATE OR REPLACE VIEW v AS"),
        ("SELECT 1", "SELECT 1"),
    ],
)
def test_migrations_are_said_in_postgresqls_words(mariadb: str, postgresql: str) -> None:
    assert schema.for_postgresql(mariadb) == postgresql


def test_no_word_of_mariadbs_is_left_in_our_own_migrations() -> None:
    folder = Path(__file__).resolve().parents[4] / "roles" / "schema" / "files" / "migrations"
    words = re.compile(
        r"ENGINE=|UNSIGNED|AUTO_INCREMENT|ENUM\(|DATETIME|utf8|ascii|SECURITY|`|\\\\"
        r"|SUBSTRING_INDEX|^ +KEY |UNIQUE KEY",
        re.MULTILINE,
    )
    for path in folder.iterdir():
        assert words.findall(schema.for_postgresql(path.read_text().strip())) == [], path.name


@pytest.mark.parametrize("level", [None, 1, 2])
def test_a_release_runs_on_its_levels(level: int | None) -> None:
    schema.check_level(level, [1, 2])


@pytest.mark.parametrize(
    ("level", "advice"),
    [
        (1, "first run a release in between, which raises it to 2"),
        (4, "use the newer release that has raised it"),
    ],
)
def test_a_release_refuses_other_levels(level: int, advice: str) -> None:
    with pytest.raises(SchemaError) as error:
        schema.check_level(level, [2, 3])
    assert str(error.value) == (
        f"the database has schema level {level}, and this release runs on 2 to 3: {advice}"
    )


def test_the_release_before_leaves_a_newer_database_alone() -> None:
    done = {**applied(1, 30), 99: ("099_new.sql", "x"), 20: ("020_phones.sql", "another")}
    assert schema.pending_steps(schema.read_steps(FILES), done, ahead=True) == []


def test_the_password_verifier_is_postgresqls() -> None:
    # SET password_encryption = 'scram-sha-256' on a PostgreSQL server; RFC 7677's example.
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    verifier = schema.scram_verifier("pencil", salt)
    assert verifier == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
        ":wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )
    assert schema.is_scram_of(verifier, "pencil")
    assert not schema.is_scram_of(verifier, "pen")
    assert not schema.is_scram_of("md5abc", "pencil")


def test_the_password_hash_is_mariadbs() -> None:
    # SELECT PASSWORD('password') on a MariaDB server.
    assert schema.native_password("password") == "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"


@pytest.mark.parametrize(
    ("alternatives", "ways"),
    [
        ({}, [("native", "*NEW")]),
        # What MariaDB 11.8 keeps after the second of two ways was taken away again.
        ({"auth_or": [{}]}, [("native", "*NEW")]),
        (
            {"auth_or": [{}, {"plugin": "native", "authentication_string": "*OLD"}]},
            [("native", "*NEW"), ("native", "*OLD")],
        ),
        (
            {"auth_or": [{"plugin": "unix_socket"}, {}]},
            [("unix_socket", ""), ("native", "*NEW")],
        ),
    ],
)
def test_the_ways_to_log_in_are_read(
    alternatives: dict[str, object], ways: list[tuple[str, str]]
) -> None:
    priv = {"plugin": "native", "authentication_string": "*NEW", "ssl_type": 1, **alternatives}
    assert schema.native_logins(priv) == ways


RELATIONS = ["edge_route", "edge_tenant", "cdr", "tenants"]


def test_grants_expand_to_relations() -> None:
    grants = [
        {"relation": "edge_*", "privileges": ["select"]},
        {"relation": "cdr", "privileges": ["SELECT", "INSERT"]},
        {"relation": "edge_route", "privileges": ["UPDATE"]},
        {"relation": "ps_*", "privileges": ["SELECT"]},
    ]
    assert schema.expand_grants(grants, RELATIONS) == {
        "edge_route": frozenset({"SELECT", "UPDATE"}),
        "edge_tenant": frozenset({"SELECT"}),
        "cdr": frozenset({"SELECT", "INSERT"}),
    }
    with pytest.raises(SchemaError, match="there is no table or view nowhere to grant rights on"):
        schema.expand_grants([{"relation": "nowhere", "privileges": ["SELECT"]}], RELATIONS)


def test_grants_are_compared() -> None:
    select, both = frozenset({"SELECT"}), frozenset({"SELECT", "INSERT"})
    changes = schema.diff_grants(
        {"cdr": both, "same": select, "new": select}, {"cdr": select, "same": select, "old": both}
    )
    assert changes.give == {"cdr": frozenset({"INSERT"}), "new": select}
    assert changes.take == {"old": both}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        (True, "1"),
        (False, "0"),
        (7, "7"),
        (Decimal("7"), "7"),
        (7.0, "7"),
        (7.5, "7.5"),
        (b"x", "x"),
        ("901", "901"),
    ],
)
def test_values_compare_across_drivers(value: object, text: str | None) -> None:
    assert schema.plain(value) == text


KEYS = {"tenants": ["name"], "phones": ["tenant", "extension"]}


@pytest.fixture
def database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.executescript(
        """
        CREATE TABLE tenants (name TEXT PRIMARY KEY, domain TEXT UNIQUE, managed_by TEXT);
        CREATE TABLE phones (tenant TEXT, extension TEXT, ha1 TEXT, voicemail INT DEFAULT 1,
                             managed_by TEXT, PRIMARY KEY (tenant, extension));
        INSERT INTO tenants VALUES ('stays', 's.example', 'inventory'),
                                   ('goes', 'g.example', 'inventory'),
                                   ('portal', 'p.example', 'portal');
        INSERT INTO phones VALUES ('stays', '901', 'old', 1, 'inventory'),
                                  ('stays', '902', 'same', 0, 'inventory');
        """
    )
    return connection


WANTED: dict[str, list[dict[str, object]]] = {
    "tenants": [
        {"name": "stays", "domain": "s.example"},
        # The domain moves from a tenant that goes: deletions come first.
        {"name": "new", "domain": "g.example"},
    ],
    "phones": [
        {"tenant": "stays", "extension": "901", "ha1": "new"},
        {"tenant": "stays", "extension": "902", "ha1": "same", "voicemail": False},
        {"tenant": "new", "extension": 901, "ha1": "x", "voicemail": True},
    ],
}


def sync(
    database: sqlite3.Connection, wanted: dict[str, list[dict[str, object]]]
) -> list[schema.RowChanges]:
    return schema.apply_rows(schema.Rows(database, "inventory", mark="?"), wanted, KEYS)


def test_rows_become_as_wanted(database: sqlite3.Connection) -> None:
    changes = sync(database, WANTED)
    counts = {c.table: (len(c.insert), len(c.update), len(c.delete)) for c in changes}
    assert counts == {"tenants": (1, 0, 1), "phones": (1, 1, 0)}
    assert database.execute("SELECT * FROM tenants ORDER BY name").fetchall() == [
        ("new", "g.example", "inventory"),
        ("portal", "p.example", "portal"),
        ("stays", "s.example", "inventory"),
    ]
    assert database.execute("SELECT * FROM phones ORDER BY tenant, extension").fetchall() == [
        ("new", "901", "x", 1, "inventory"),
        ("stays", "901", "new", 1, "inventory"),
        ("stays", "902", "same", 0, "inventory"),
    ]


def test_a_second_run_changes_nothing(database: sqlite3.Connection) -> None:
    sync(database, WANTED)
    before = database.total_changes
    assert sync(database, WANTED) == []
    assert database.total_changes == before


def test_an_empty_list_removes_only_the_owners_rows(database: sqlite3.Connection) -> None:
    sync(database, {"tenants": [], "phones": []})
    assert database.execute("SELECT name FROM tenants").fetchall() == [("portal",)]


def test_a_table_that_is_not_named_is_left_alone(database: sqlite3.Connection) -> None:
    sync(database, {"phones": []})
    assert database.execute("SELECT COUNT(*) FROM tenants").fetchone() == (3,)


def test_another_owners_row_is_an_error_and_nothing_is_written(
    database: sqlite3.Connection,
) -> None:
    before = database.total_changes
    with pytest.raises(SchemaError) as error:
        sync(database, {"phones": [], "tenants": [{"name": "portal", "domain": "x.example"}]})
    assert str(error.value) == (
        "tenants: portal exists and belongs to 'portal', not to 'inventory': remove it there or "
        "here"
    )
    assert database.total_changes == before


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"tenant": "a", "extension": "1"}, {"tenant": "a", "extension": 1}],
            "two rows for phones have the key a / 1",
        ),
        ([{"tenant": "a"}], "a row for phones has no extension"),
        (
            [{"tenant": "a", "extension": "1", "x; DROP TABLE phones": 1}],
            "'x; DROP TABLE phones' is not the name of a table or column",
        ),
    ],
)
def test_impossible_rows_are_refused(
    database: sqlite3.Connection, rows: list[dict[str, object]], message: str
) -> None:
    with pytest.raises(SchemaError) as error:
        sync(database, {"phones": rows})
    assert str(error.value) == message


def test_a_diff_hides_secrets(database: sqlite3.Connection) -> None:
    before, after = schema.describe(sync(database, WANTED), ["ha1"])
    assert before == (
        "tenants: domain=g.example, managed_by=inventory, name=goes\n"
        "phones: extension=901, ha1=(hidden), tenant=stays\n"
    )
    assert after == (
        "tenants: domain=g.example, managed_by=inventory, name=new\n"
        "phones: extension=901, ha1=(hidden, changed), tenant=stays\n"
        "phones: extension=901, ha1=(hidden), managed_by=inventory, tenant=new, voicemail=1\n"
    )
