# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls and registrations that go on by themselves while something is done to the cluster.

with Traffic(...) as traffic:
    with traffic.through("SIGKILL of Asterisk") as fault:
        kill()
        fault.happens()          # sudden: what is in set-up now is counted apart
        traffic.go_on(10)
    assert fault.verdict.clean, traffic.evidence(fault.verdict)
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .agent import Agent
from .cluster import Cluster
from .database import Database
from .kamailio import held
from .lab import Lab, everywhere
from .verdict import LATE_SECONDS, Verdict, judge

FOLDER = "/usr/local/lib/ringmain-traffic"
HERE = Path(__file__).parent

TENANT = "traffic"
CALLERS = ("1", "2")
# Rows that the inventory does not own are left alone by every run of site.yml.
OWNER = "act"

# The load ends by itself after so long: twenty runs of each of the main faults take less.
LIMIT_SECONDS = 3 * 3600

# A call that has not been answered or refused by then will not be.
FINAL_SECONDS = 15.0

# The load is made less by so much, so often, until nothing fails while nothing happens.
LESS = 0.75
STEPS = 4
CALIBRATION_SECONDS = 8.0

# A server that comes back keeps both processors busy for some ten seconds, and its calls' daemons
# have to have their share of them meanwhile.
IDLE_SHARE = 1 / 2

# A record is in the database so soon after a call's end.
RECORD_SECONDS = 15.0

# As many failed attempts are told in the log, each with its moment.
SHOWN = 10

# The edges look for changes in the database each second or two.
KNOWN_SECONDS = 30.0


@dataclass(frozen=True)
class Load:
    """How much is going on at any time."""

    per_second: float = 3.0
    hold: float = 20.0
    standing: int = 20
    standing_hold: float = 90.0
    registrations: int = 200

    @property
    def calls(self) -> float:
        """How many calls are up."""
        return self.per_second * self.hold + self.standing

    def less(self) -> Load:
        """Three quarters of the calls."""
        return replace(self, per_second=self.per_second * LESS, standing=int(self.standing * LESS))


class Accounts:
    """Subscribers that exist for the traffic alone, with passwords of their own."""

    def __init__(self, cluster: Cluster, database: Database, domain: str, count: int) -> None:
        self.domain = f"{TENANT}.{domain}"
        self.others = [str(1001 + number) for number in range(count)]
        self._cluster = cluster
        self._database = database
        self.passwords = {user: secrets.token_urlsafe(16) for user in (*CALLERS, *self.others)}

    def create(self) -> None:
        """Put them into the database, and wait until every edge knows them."""
        rows = ", ".join(
            f"('{TENANT}', '{user}', 'Traffic {user}', '{self._ha1(user)}', '{OWNER}')"
            for user in self.passwords
        )
        self.remove()
        # Edges that still had them would go on with the passwords of an earlier run.
        self._until(lambda: not self.known())
        self._database.execute(
            "BEGIN;"
            " INSERT INTO tenants (name, domain, managed_by)"
            f" VALUES ('{TENANT}', '{self.domain}', '{OWNER}');"
            " INSERT INTO subscribers (tenant, extension, display_name, ha1, managed_by)"
            f" VALUES {rows}; COMMIT;"
        )
        self._until(lambda: not self.missing("htable.get", "subscriber", self.passwords))

    def known(self) -> bool:
        """Whether an edge knows any of them."""
        missing = self.missing("htable.get", "subscriber", self.passwords)
        return len(missing) < len(self._cluster.servers) or any(
            len(users) < len(self.passwords) for users in missing.values()
        )

    @staticmethod
    def _until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + KNOWN_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "edges do not take over what the database says"
            time.sleep(0.5)

    def missing(self, method: str, table: str, users: Iterable[str]) -> dict[str, list[str]]:
        """By edge, which of some users it does not have in a table, or its complaint."""
        keys = [f"{user}@{self.domain}" for user in users]
        lab = self._cluster.lab
        found = everywhere(self._cluster.servers, lambda name: held(lab, name, method, table, keys))
        lost = {
            name: [key for key in keys if key not in there]
            if isinstance(there, list)
            else [str(there)]
            for name, there in found.items()
        }
        return {name: some for name, some in lost.items() if some}

    def remove(self) -> None:
        """Take them out again, those of an earlier run too."""
        self._database.execute(
            f"BEGIN; DELETE FROM subscribers WHERE tenant = '{TENANT}' AND managed_by = '{OWNER}';"
            f" DELETE FROM tenants WHERE name = '{TENANT}' AND managed_by = '{OWNER}'; COMMIT;"
        )

    def records(self, call_id: str) -> str:
        """The call records of a call; each begins with the name of its PBX node."""
        return self._database.execute(
            "SELECT uniqueid, disposition, duration FROM cdr"
            f" WHERE userfield = '{re.sub('[^A-Za-z0-9@.-]', '', call_id)}'"
        ).strip()

    def without_record(self, call_ids: Iterable[str]) -> list[str]:
        """The calls that have none."""
        wanted = list(call_ids)
        listed = ", ".join(f"'{re.sub('[^A-Za-z0-9@.-]', '', one)}'" for one in wanted)
        found = self._database.execute(
            f"SELECT userfield FROM cdr WHERE userfield IN ({listed or 'NULL'})"
        )
        there = set(found.split())
        return [one for one in wanted if one not in there]

    def account(self, user: str) -> dict[str, str]:
        """As a phone is told."""
        return {"user": user, "domain": self.domain, "password": self.passwords[user]}

    def _ha1(self, user: str) -> str:
        words = f"{user}:{self.domain}:{self.passwords[user]}"
        return hashlib.md5(words.encode(), usedforsecurity=False).hexdigest()


@dataclass
class Fault:
    """Something that is done to the cluster while calls go on."""

    what: str
    began: float
    ended: float = 0.0
    verdict: Verdict = field(default_factory=lambda: Verdict(0.0, 0.0))
    legs: list[Any] = field(default_factory=list)

    def happens(self, moment: float | None = None) -> None:
        """It happens now, or then: what is in set-up is counted apart, and not a failed attempt."""
        self.began = time.monotonic() if moment is None else moment


def processor_times(path: Path = Path("/proc/stat")) -> list[int]:
    """What the processors of this machine have done so far: user, nice, system, idle, waiting…"""
    return [int(word) for word in path.read_text(encoding="ascii").split("\n")[0].split()[1:9]]


def idle_share(before: Sequence[int], after: Sequence[int]) -> float:
    """The share of the time between two readings that they had nothing to do."""
    spent = [late - early for early, late in zip(before, after, strict=True)]
    return (spent[3] + spent[4]) / max(1, sum(spent))


class Watch:
    """When the machine stood still, and when nobody answered at the edges' address."""

    def __init__(self, lab: Lab, host: str, address: str) -> None:
        self.stalls: list[tuple[float, float]] = []
        self.away: list[tuple[float, float]] = []
        path = f"{FOLDER}/watch_probe.py"
        lab.put(host, path, (HERE / "watch_probe.py").read_text(encoding="utf-8"))
        self._process = lab.start(host, "python3", path, address, "5060")
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            what, since, to = line.split()
            (self.stalls if what == "stall" else self.away).append((float(since), float(to)))

    def close(self) -> None:
        """End the program."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


class Traffic(Agent):
    """The load of scenario `rolling`: it runs from entering until leaving."""

    def __init__(
        self, lab: Lab, cluster: Cluster, probe: str, accounts: Accounts, load: Load | None = None
    ) -> None:
        self.lab, self.cluster, self.accounts = lab, cluster, accounts
        self.load = load or Load()
        for name in ("rtp.py", "sip.py", "load_agent.py"):
            lab.put(probe, f"{FOLDER}/support/{name}", (HERE / name).read_text(encoding="utf-8"))
        agent = (HERE / "traffic_agent.py").read_text(encoding="utf-8")
        lab.put(probe, f"{FOLDER}/traffic_agent.py", agent)
        proxy = cluster.addresses.outside_ip
        super().__init__(lab, probe, FOLDER, "traffic_agent.py", proxy, "5060")
        self.watch = Watch(lab, probe, proxy)

    def __enter__(self) -> Traffic:
        """Register everybody, begin to call and wait until there is the load that can be had."""
        words = [self.accounts.account(user) for user in CALLERS]
        statuses = self.ask("open", accounts=words)
        assert set(statuses.values()) == {200}, f"the phones register: {statuses}"
        words = [self.accounts.account(user) for user in self.accounts.others]
        statuses = self.ask("settle", accounts=words)
        refused = {user: status for user, status in statuses.items() if status != 200}
        assert not refused, f"{len(refused)} phones do not register: {refused}"
        load = self.load
        self.ask(
            "begin",
            per_second=load.per_second,
            hold=load.hold,
            standing=load.standing,
            standing_hold=load.standing_hold,
            limit=LIMIT_SECONDS,
        )
        try:
            self.calibrate()
        except BaseException:
            self.__exit__()
            raise
        return self

    def calibrate(self) -> None:
        """Find the load that this machine carries while nothing happens: all of it, or less.

        Servers, phones and relays share its processors. Where they are too slow for the load it is
        the machine that drops calls, and no act could tell; and a server that boots needs some of
        them, too. The least load is taken if nothing fails; fails when something does.
        """
        for step in range(1, STEPS + 1):
            self.go_on(self.load.hold + 2)
            before = processor_times()
            with self.through(f"calibration with {self.load.calls:.0f} calls") as nothing:
                self.go_on(CALIBRATION_SECONDS)
            idle = idle_share(before, processor_times())
            print(f"with {self.load.calls:.0f} calls the processors are idle for {idle:.0%}")
            quick = nothing.verdict.clean and nothing.verdict.slowest < LATE_SECONDS
            if quick and (idle >= IDLE_SHARE or step == STEPS):
                return
            self.load = self.load.less()
            self.ask("pace", per_second=self.load.per_second, standing=self.load.standing)
        raise AssertionError(self.evidence(nothing.verdict))

    def __exit__(self, *_error: object) -> None:
        """End all calls, take the registrations back."""
        try:
            self.ask("stop", wait=5)
        finally:
            self.close()
            self.watch.close()

    @contextmanager
    def through(self, what: str) -> Iterator[Fault]:
        """Whatever the block does; afterwards `verdict` says what phones noticed of it.

        Planned work counts from the beginning of the block, a fault from `happens` on.
        """
        fault = Fault(what, time.monotonic())
        yield fault
        fault.ended = time.monotonic()
        self.ask("settled", moment=fault.ended, wait=FINAL_SECONDS)
        told = self.ask("told", since=fault.began - 1)
        fault.legs = told["legs"]
        fault.verdict = judge(fault.legs, fault.began, fault.ended, self.watch.stalls)
        print(f"{what}: {fault.verdict}")
        for one in fault.verdict.failed[:SHOWN]:
            print(f"{one.at - fault.began:+8.2f} s {one}")

    def away(self, fault: Fault) -> float:
        """For how long nobody answered at the edges' address, at the longest."""
        spans = [(since, to) for since, to in self.watch.away if to > fault.began]
        return max((to - since for since, to in spans if since < fault.ended), default=0.0)

    def go_on(self, seconds: float) -> None:
        """Let the calls go on."""
        time.sleep(seconds)

    def talking(self) -> Mapping[str, int]:
        """How many calls of either kind are up."""
        return self.ask("talking")

    def trouble_of_its_own(self) -> dict[str, Any]:
        """What the generator says of itself."""
        told = self.ask("told", since=time.monotonic() + 1)
        return {name: value for name, value in told.items() if name != "legs"}

    def unreached(self, count: int) -> list[str]:
        """Call so many of the waiting phones, spread over all; those that are not reached."""
        others = self.accounts.others
        users = others[:: max(1, len(others) // count)]
        legs = self.ask("visit", users=users, per_second=2, hold=0.5)["legs"]
        return [
            f"{leg['dialled']}: {leg['status']} {leg['reason']}"
            for leg in legs
            if leg["status"] != 200
        ]

    def without_record(self, since: float, to: float) -> list[str]:
        """The calls that were answered, ended between two moments and have no record soon after."""
        legs = self.ask("told", since=since)["legs"]
        ended = [
            leg["call_id"]
            for leg in legs
            if leg["dialled"] and leg["status"] == 200 and since <= leg["ended_at"] <= to
        ]
        deadline = time.monotonic() + RECORD_SECONDS
        while (missing := self.accounts.without_record(ended)) and time.monotonic() < deadline:
            time.sleep(1)
        print(f"{len(ended) - len(missing)} of {len(ended)} calls that ended have a record")
        return missing

    def unknown(self) -> dict[str, list[str]]:
        """By edge, the waiting phones whose registration it does not have, or its complaint."""
        return self.accounts.missing("ul.lookup", "location", self.accounts.others)

    def evidence(self, verdict: Verdict | None = None, calls: int = 3) -> str:
        """What stands below a failed act: what happened when, and the calls that it happened to."""
        if verdict is None:
            return ""
        lines = [f"{one.at - verdict.begin:+8.2f} s {one}" for one in verdict.troubles()[:40]]
        lines += ["by second:", *verdict.timeline()]
        for trouble in verdict.troubles()[:calls]:
            ladder = self.ask("messages", call_ids=list(trouble.call_ids))["lines"]
            lines += [f"{trouble}, at {trouble.at:.3f}:", *(f"  {line}" for line in ladder)]
            lines += [f"  node: {self.node(trouble.call_ids[0])}"]
        return self.cluster.evidence(str(verdict), lines)

    def node(self, call_id: str) -> str:
        """The PBX node that had a call, by its record."""
        try:
            return self.accounts.records(call_id) or "there is no record of it"
        except (AssertionError, ValueError) as error:
            return f"the database does not say: {error}"
