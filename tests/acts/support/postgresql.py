# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL cluster on the lab: who is what, what is done to it, and who writes meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .lab import Lab, LabError

WRITER = Path(__file__).with_name("row_writer.py").read_text(encoding="utf-8")
WRITER_THERE = "/usr/local/lib/ringmain-acts/row_writer.py"
PATRONICTL = "patronictl -c /etc/patroni/config.yml"
LOCAL_PORT = 3307
DATABASE_PORT = 3306
BEFORE_SECONDS = 3.0
AFTER_SECONDS = 5.0


@dataclass
class Rows:
    """What a writer was told, and what is there."""

    acknowledged: list[int] = field(default_factory=list)
    longest: float = 0.0
    complaints: dict[str, int] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)


class Postgres:
    """Three members, each on a server of its own."""

    def __init__(self, lab: Lab, servers: Sequence[str], password: str) -> None:
        self.lab = lab
        self.servers = list(servers)
        self.password = password

    def roles(self, asked: str) -> dict[str, str]:
        """Member to role, for those that run in step, as one server sees it."""
        listed = json.loads(self.lab.shell(asked, f"{PATRONICTL} list -f json", timeout=30))
        return {
            member["Member"]: member["Role"]
            for member in listed
            if member["State"] in ("running", "streaming")
        }

    def with_role(self, role: str) -> str:
        """The one server with a role: Leader or Sync Standby."""
        found = [name for name, its in self.roles(self.servers[0]).items() if its == role]
        assert len(found) == 1, f"{role}: {found}"
        return found[0]

    def primary(self) -> str:
        """The server whose PostgreSQL takes writes."""
        return self.with_role("Leader")

    def etcd_leader(self) -> str:
        """The server whose etcd leads the others."""
        for name in self.servers:
            script = (
                "address=$(awk '/^listen-client-urls/ {print $2}' /etc/etcd/ringmain.yml);"
                " etcdctl --cacert /etc/ringmain/tls/ca.pem --cert /etc/ringmain/tls/cert.pem"
                " --key /etc/ringmain/tls/key.pem --endpoints $address endpoint status -w json"
            )
            status = json.loads(self.lab.shell(name, script))[0]["Status"]
            if status["leader"] == status["header"]["member_id"]:
                return name
        raise AssertionError("no etcd leads")

    def wait_until_whole(self, seconds: float) -> float:
        """Wait for one leader, one synchronous standby and one more standby; how long it took."""
        started = time.monotonic()
        wanted = ["Leader", *["Replica"] * (len(self.servers) - 2), "Sync Standby"]
        found: object = None
        while time.monotonic() - started < seconds:
            try:
                found = sorted(self.roles(self.servers[0]).values())
            except (LabError, ValueError) as error:
                found = error
            if found == wanted:
                return time.monotonic() - started
            time.sleep(0.5)
        raise AssertionError(f"the database is not whole after {seconds:.0f} s: {found}")

    @contextmanager
    def writing(self, server: str, name: str) -> Iterator[Rows]:
        """Write rows through a server's HAProxy until the block ends, then count what is there."""
        self.lab.put(server, WRITER_THERE, WRITER)
        words = ("postgresql", str(LOCAL_PORT), self.password, name)
        writer = self.lab.start(server, "python3", WRITER_THERE, *words)
        rows = Rows()
        yield rows
        said, complaints = writer.communicate(timeout=60)
        assert said, complaints
        told = json.loads(said.splitlines()[-1])
        rows.acknowledged, rows.longest = told["acknowledged"], told["longest"]
        rows.complaints = told["complaints"]
        there = self.numbers(name)
        rows.missing = [number for number in rows.acknowledged if number not in there]

    def numbers(self, name: str) -> set[int]:
        """The numbers of a writer's rows, as the primary has them."""
        query = f"SELECT sequence FROM cdr WHERE uniqueid = '{name}'"
        text = self.lab.shell(
            self.primary(),
            f'psql -h /run/postgresql -p {DATABASE_PORT} -U postgres -At ringmain -c "{query}"',
        )
        return {int(line) for line in text.split()}

    def fault(self, writer: str, name: str, act: Callable[[], None], seconds: float) -> Rows:
        """Have rows written before, during and for so many seconds after an act begins."""
        with self.writing(writer, name) as rows:
            time.sleep(BEFORE_SECONDS)
            started = time.monotonic()
            act()
            time.sleep(max(0.0, seconds - (time.monotonic() - started)) + AFTER_SECONDS)
        return rows
