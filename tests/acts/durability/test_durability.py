# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a database acknowledged is there after its machine lost power: on one member's own disk.

For a lab with the virtual machine vm1 and RINGMAIN_LAB_INVENTORY=molecule/kernel/inventory. QEMU is
killed while rows are written; see roles/lab on what its disk keeps. The same with flushing off must
lose rows, or this proves nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.lab import Lab, LabError
from support.playbooks import play

MACHINE = "vm1"
PLAYBOOK = Path(__file__).with_name("one_member.yml")
EMPTY = "empty"
ROWS = 100
WRITE_SECONDS = 120.0
BACK_SECONDS = 900.0

CONNECT = {
    "galera": "import pymysql\n"
    "c = pymysql.connect(unix_socket='/run/mysqld/mysqld.sock', user='root', autocommit=True)\n",
    "postgresql": "import psycopg2\n"
    "c = psycopg2.connect(host='/run/postgresql', port=5432, user='postgres', dbname='postgres')\n"
    "c.autocommit = True\n",
}
WRITE = """
import itertools
with c.cursor() as cursor:
    for number in itertools.count(1):
        cursor.execute('INSERT INTO durability.written (number) VALUES (%s)', (number,))
        print(number, flush=True)
"""
READ = """
with c.cursor() as cursor:
    cursor.execute('SELECT number FROM durability.written')
    print(*(row[0] for row in cursor.fetchall()))
"""
EMPTY_TABLE = """
with c.cursor() as cursor:
    cursor.execute('CREATE SCHEMA IF NOT EXISTS durability')
    cursor.execute('DROP TABLE IF EXISTS durability.written')
    cursor.execute('CREATE TABLE durability.written (number INT NOT NULL PRIMARY KEY)')
"""
# What is there before the first row is on the disk.
SETTLE = {"galera": "FLUSH TABLES", "postgresql": "CHECKPOINT"}
# Acknowledged first, flushed later.
CARELESS = {
    "galera": (
        "SET GLOBAL innodb_flush_log_at_trx_commit = 0",
        "SET GLOBAL innodb_flush_log_at_timeout = 600",
        "SET GLOBAL sync_binlog = 0",
    ),
    "postgresql": (
        "ALTER SYSTEM SET synchronous_commit = off",
        "ALTER SYSTEM SET wal_writer_delay = '10s'",
        "SELECT pg_reload_conf()",
    ),
}


@dataclass(frozen=True)
class Kept:
    """The numbers that were acknowledged, and those that are there after the power cut."""

    acknowledged: frozenset[int]
    there: frozenset[int]

    @property
    def missing(self) -> int:
        """How many were acknowledged and are not there."""
        return len(self.acknowledged - self.there)


class Member:
    """The database on the machine."""

    def __init__(self, lab: Lab, engine: str) -> None:
        self.lab = lab
        self.engine = engine

    def run(self, program: str) -> str:
        """Run a program that has a connection `c`."""
        return self.lab.python(MACHINE, CONNECT[self.engine] + program, timeout=120)

    def wait(self) -> None:
        """Wait until it takes statements, after a boot."""
        deadline = time.monotonic() + BACK_SECONDS
        while True:
            try:
                self.run(READ)
            except (LabError, subprocess.TimeoutExpired) as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"{self.engine} is not back") from error
                time.sleep(2)
            else:
                return

    def power_cut(self) -> Kept:
        """Cut the power while rows are written, and count."""
        self.run(f"{EMPTY_TABLE}    cursor.execute({SETTLE[self.engine]!r})\n")
        self.lab.shell(MACHINE, "sync")
        program = CONNECT[self.engine] + WRITE
        acknowledged = []
        with self.lab.start(MACHINE, "timeout", "300", "python3", "-c", program) as writer:
            assert writer.stdout is not None
            began = time.monotonic()
            for line in writer.stdout:
                acknowledged.append(int(line))
                if len(acknowledged) == ROWS:
                    break
                assert time.monotonic() - began < WRITE_SECONDS, acknowledged[-1:]
            # What arrives until the power is gone was acknowledged, too. Nobody tells the writer's
            # connection that its other end is no more.
            self.lab.power_off(MACHINE)
            writer.kill()
            acknowledged += [int(line) for line in writer.stdout if line.endswith("\n")]
        assert len(acknowledged) >= ROWS, writer.stderr and writer.stderr.read()
        self.lab.run("start", MACHINE, timeout=BACK_SECONDS)
        self.wait()
        return Kept(frozenset(acknowledged), frozenset(map(int, self.run(READ).split())))


@pytest.fixture(scope="module")
def lab() -> Lab:
    """The machine, as it is before anything is installed."""
    found = Lab(os.environ["RINGMAIN_LAB_ID"])
    found.run("save", EMPTY, timeout=BACK_SECONDS)
    return found


@pytest.fixture(scope="module", params=sorted(CONNECT))
def member(lab: Lab, request: pytest.FixtureRequest) -> Member:
    """A database of one member, as the role makes it."""
    lab.run("restore", EMPTY, timeout=BACK_SECONDS)
    made = play(PLAYBOOK, "-e", f"engine={request.param}")
    assert made.code == 0, made.output[-4000:]
    return Member(lab, request.param)


def test_what_was_acknowledged_is_there(member: Member) -> None:
    """With the settings of the role."""
    kept = member.power_cut()
    print(f"{member.engine}: {kept.missing} of {len(kept.acknowledged)} acknowledged rows missing")
    assert kept.missing == 0


def test_without_flushing_it_is_not(member: Member) -> None:
    """The control: the cut really takes what was not flushed."""
    statements = "".join(f"    cursor.execute({line!r})\n" for line in CARELESS[member.engine])
    member.run(f"with c.cursor() as cursor:\n{statements}")
    kept = member.power_cut()
    print(
        f"{member.engine} without flushing: {kept.missing} of {len(kept.acknowledged)} acknowledged"
        " rows missing"
    )
    assert kept.missing > 0
