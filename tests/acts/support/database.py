# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster's database, of either engine: who writes, what is done to it, and what was kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from .cluster import Cluster

WRITER = Path(__file__).with_name("row_writer.py").read_text(encoding="utf-8")
WRITER_THERE = "/usr/local/lib/ringmain-acts/row_writer.py"
LOCAL_PORT = 3307
FIRST_ROW_SECONDS = 10.0
LEAD_SECONDS = 15.0

# In HAProxy's order, which is the order in which it prefers them.
LISTED = r"""
import csv, io, socket
with socket.socket(socket.AF_UNIX) as client:
    client.connect("/run/haproxy/admin.sock")
    client.sendall(b"show stat\n")
    text = b"".join(iter(lambda: client.recv(65536), b"")).decode().removeprefix("# ")
for row in csv.DictReader(io.StringIO(text)):
    if row["pxname"] == "database" and row["svname"] not in ("FRONTEND", "BACKEND"):
        print(row["svname"], row["status"])
"""


@dataclass(frozen=True)
class Engine:
    """What differs between two engines when something is done to them from outside.

    ``main`` and ``every`` are shell commands that print the server's process and all its processes;
    ``ask`` runs the statement that stands behind it, as the administrator; ``lead`` has writes go
    to ``{server}``.
    ``bounds`` says for how many seconds nobody takes writes at the most: after the process dies
    (``killed``), stands still (``frozen``), its server and the others do not reach each other
    (``cut_off``) or it loses power (``power_cut``), and from power-on of all servers to the first
    write (``cold``).
    """

    name: str
    driver: str
    main: str
    every: str
    ask: str
    lead: str
    bounds: Mapping[str, float]


ENGINES = {
    "galera": Engine(
        "galera",
        "mariadb",
        "systemctl show -P MainPID mariadb.service",
        "pgrep -x mariadbd",
        "mariadb --batch --skip-column-names ringmain -e",
        "true",
        {"killed": 15.0, "frozen": 15.0, "cut_off": 15.0, "power_cut": 15.0, "cold": 120.0},
    ),
    # From the timers in roles/postgresql/vars/main.yml.
    "postgresql": Engine(
        "postgresql",
        "postgresql",
        "head -n 1 /var/lib/postgresql/17/ringmain/postmaster.pid",
        "pgrep -x postgres",
        "psql -h /run/postgresql -p 3306 -U postgres -v ON_ERROR_STOP=1 -qAt ringmain -c",
        "patronictl -c /etc/patroni/config.yml failover --candidate {server} --force",
        {"killed": 15.0, "frozen": 30.0, "cut_off": 30.0, "power_cut": 30.0, "cold": 120.0},
    ),
}


@dataclass
class Rows:
    """What a writer was told, as it came, and what it does not find again."""

    name: str
    acknowledged: dict[int, float] = field(default_factory=dict)
    """Number to the time of its acknowledgement."""
    complaints: dict[str, int] = field(default_factory=dict)
    began: float = 0.0
    ended: float = 0.0
    stall: float = 0.0
    """By how much a thread beside the writer, which only sleeps, was late at the worst."""
    missing: list[int] = field(default_factory=list)

    def hear(self, line: str) -> None:
        """Take one line of the writer's."""
        moment, sign, what = line.rstrip("\n").split(" ", 2)
        if sign == "+":
            self.acknowledged[int(what)] = float(moment)
        elif sign == "-":
            self.complaints[what] = self.complaints.get(what, 0) + 1
        else:
            self.ended, self.stall = float(moment), float(what)

    @property
    def longest(self) -> float:
        """The longest time without an acknowledgement, in seconds."""
        moments = [self.began, *self.acknowledged.values(), *([self.ended] if self.ended else [])]
        return max(after - before for before, after in pairwise(moments))


class Database:
    """The cluster's database, through HAProxy, as its clients have it."""

    def __init__(self, cluster: Cluster, password: str) -> None:
        self.lab = cluster.lab
        self.cluster = cluster
        self.password = password
        report = cluster.reports()[cluster.servers[0]]
        assert isinstance(report, dict), report
        self.engine = ENGINES[report["engine"]]

    def taker(self) -> str:
        """The server that takes writes now, as all clients' HAProxy see it."""
        found = {name: self._taker(name) for name in self.cluster.servers}
        takers = set(found.values())
        assert len(takers) == 1, f"HAProxy leads to different servers: {found}"
        return takers.pop()

    def _taker(self, asked: str) -> str:
        lines = self.lab.python(asked, LISTED).splitlines()
        listed = dict(line.split(None, 1) for line in lines)
        # "UP 1/2": it takes traffic, and failed a check.
        up = [name for name, status in listed.items() if status.startswith("UP")]
        assert up, f"{asked} sees no server that takes writes: {listed}"
        return up[0]

    def execute(self, statements: str) -> str:
        """Run statements as the administrator, who reads them from his input; what they print."""
        program = self.engine.ask.rpartition(" ")[0]
        return self.lab.run("exec", self.taker(), "--", *program.split(), given=statements)

    def lead(self, server: str) -> None:
        """Have writes go to a server again that was away; with Galera, to the first, they do.

        Raises AssertionError when they do not.
        """
        command = self.engine.lead.format(server=server)
        self.lab.shell(server, command)
        until = time.monotonic() + LEAD_SECONDS
        while True:
            try:
                assert self.taker() == server
                return
            except AssertionError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)

    def processes(self, server: str) -> str:
        """The ids of all the database's processes on a server, separated by spaces."""
        return " ".join(self.lab.shell(server, self.engine.every).split())

    @contextmanager
    def writing(self, server: str, first_within: float = FIRST_ROW_SECONDS) -> Iterator[Rows]:
        """Write rows through a server's HAProxy until the block ends.

        The block begins after the first row, which may take so many seconds. When the server loses
        its power, that ends the writer, too. All times are of the one clock that lab servers and
        this machine have.
        """
        rows = Rows(f"act-{time.time():.0f}")
        self.lab.put(server, WRITER_THERE, WRITER)
        # Left to the server's own init: one that shuts down waits until all are buried, and who
        # came in from outside would stop together with its child instead.
        words = f"python3 {WRITER_THERE} write {self.engine.driver} {LOCAL_PORT} {rows.name}"
        writer = self.lab.start(server, "bash", "-c", f"{words} <&0 &")
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stderr is not None
        first = threading.Event()

        def listen() -> None:
            assert writer.stdout is not None
            for line in writer.stdout:
                rows.hear(line)
                if rows.acknowledged:
                    rows.began = rows.began or next(iter(rows.acknowledged.values()))
                    first.set()

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        try:
            print(self.password, file=writer.stdin, flush=True)
            assert first.wait(first_within), f"no row was written: {rows.complaints}"
            yield rows
        finally:
            writer.stdin.close()
            listener.join(60)
            assert not listener.is_alive(), "the writer does not end"
            writer.wait(10)
            trouble = writer.stderr.read()
            if trouble:
                print(f"the writer on {server}: {trouble.strip()[-500:]}")

    def look_for(self, rows: Rows, server: str) -> None:
        """Find out, through a server's HAProxy, which acknowledged rows are missing."""
        there = self.numbers(rows.name, server)
        rows.missing = [number for number in rows.acknowledged if number not in there]

    def numbers(self, name: str, server: str) -> set[int]:
        """The numbers of a writer's rows that are there."""
        self.lab.put(server, WRITER_THERE, WRITER)
        words = ("read", self.engine.driver, str(LOCAL_PORT), name)
        text = self.lab.run(
            "exec", server, "--", "python3", WRITER_THERE, *words, given=f"{self.password}\n"
        )
        return {int(line) for line in text.split()}
