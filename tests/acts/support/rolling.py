# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fault under the load of scenario `rolling`, as often as asked for, and its row of a table."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .cluster import Cluster
from .lab import ROOT, Lab
from .playbooks import play
from .results import Results
from .traffic import Fault, Traffic
from .verdict import Trouble, Verdict, quantile

# Sends a signal to some processes of this server and says when it did.
SIGNAL = """
import os, signal, sys, time
name, *processes = sys.argv[1:]
print(time.monotonic())
for process in processes:
    os.kill(int(process), getattr(signal, name))
"""

WHOLE_SECONDS = 180.0

# A lost relay's calls are heard again, from another server or from the same one, within.
RELAY_BOUND_SECONDS = 3.0

DRAIN = ROOT / "playbooks" / "drain.yml"
UNDRAIN = ROOT / "playbooks" / "undrain.yml"


@dataclass
class Case:
    """One run of a fault: what phones noticed, and the figure that has a bound."""

    verdict: Verdict
    measured: float = 0.0


@dataclass
class Expected:
    """What may come of a fault.

    ``measure`` takes the figure, in seconds, after each run; it must stay within ``bound`` once the
    time for which the machine stood still is subtracted. ``excused`` says which calls have to be
    dropped.
    """

    seconds: float
    figure: str = "slowest answer"
    measure: Callable[[Fault], float] = lambda fault: fault.verdict.slowest
    bound: float | None = None
    excused: Callable[[Trouble], bool] = lambda _trouble: False
    undo: Callable[[], Any] = lambda: None
    after: float = 0.0
    """For how many seconds calls go on after `undo`."""
    callable: int = 5
    """How many of the waiting phones are called afterwards."""


class Rolling:
    """Does something to the cluster under load and judges it."""

    def __init__(self, cluster: Cluster, traffic: Traffic, results: Results, count: int) -> None:
        self.cluster, self.traffic = cluster, traffic
        self.results, self.count = results, count

    def __call__(
        self, what: str, strike: Callable[[Fault], object], expected: Expected
    ) -> list[Case]:
        """All runs that the table does not have yet; each is in it once it is over, failed or not.

        No attempt may fail, no call be dropped without excuse, no registration be lost.
        """
        before = self.results.rows().get(what, {})
        there = before.get("runs", 0)
        if there:
            print(f"{what}: there are {there} of {self.count} runs in the table already")
        cases = []
        for _number in range(there, self.count):
            cases.append(self._once(what, strike, expected))
            before = row(before, cases[-1], expected, self.traffic.load.calls)
            self.results.add(what, before)
            self._judge(cases[-1], expected)
        return cases

    def _once(self, what: str, strike: Callable[[Fault], object], expected: Expected) -> Case:
        self.cluster.wait_until_whole(WHOLE_SECONDS)
        try:
            with self.traffic.through(what) as fault:
                self.traffic.go_on(1)
                strike(fault)
                self.traffic.go_on(expected.seconds)
                expected.undo()
                self.traffic.go_on(expected.after)
        except BaseException:
            expected.undo()
            raise
        verdict = fault.verdict
        case = Case(verdict, expected.measure(fault))
        print(
            f"{what}: {expected.figure} {case.measured:.2f} s; answers were late until "
            f"{verdict.late_until:.1f} s after it"
        )
        return case

    def _judge(self, case: Case, expected: Expected) -> None:
        verdict = case.verdict
        unexcused = [one for one in verdict.dropped if not expected.excused(one)]
        assert not verdict.failed, self.traffic.evidence(verdict)
        assert not unexcused, self.traffic.evidence(verdict)
        if expected.bound is not None:
            assert case.measured - verdict.stall <= expected.bound, self.traffic.evidence(verdict)
        missing = self.traffic.unreached(expected.callable)
        assert not missing, f"registered, but not callable: {missing}"
        self.cluster.wait_until_whole(WHOLE_SECONDS)
        assert self.traffic.unknown() == {}


def row(before: Mapping[str, Any], case: Case, expected: Expected, calls: float) -> dict[str, Any]:
    """A row of the table with one more run: sums, the middle and the greatest of what was measured.

    ``before`` is the row without it, empty if it is the first. So many ``calls`` were up; a slow
    machine has fewer, so a row says which loads its runs had.
    """
    verdict = case.verdict.as_row()
    total = {
        name: before.get(name, 0) + verdict[name]
        for name in ("attempts", "failed", "up", "dropped", "setting_up", "setup_lost", "strays")
    }
    measured = [*before.get("measured", []), round(case.measured, 2)]
    loads = sorted({*before.get("loads", []), round(calls)})
    return {
        "loads": loads,
        "load": " to ".join(str(one) for one in sorted({loads[0], loads[-1]})),
        "runs": len(measured),
        **total,
        "figure": expected.figure,
        "measured": measured,
        "p50": round(quantile(measured, 0.5), 2),
        "max": max(measured),
        "bound": expected.bound,
        "silence": max(before.get("silence", 0.0), round(longest_silence(case.verdict), 2)),
        "slowest": max(before.get("slowest", 0.0), verdict["slowest"]),
        "stall": max(before.get("stall", 0.0), round(verdict["stall_ms"] / 1000, 2)),
    }


def longest_silence(verdict: Verdict) -> float:
    """For how long a call was silent that went on, in seconds."""
    return max((one.silence for one in verdict.dropped), default=0.0)


def send(lab: Lab, server: str, signal: str, processes: str) -> float:
    """Send a signal to processes of a server; when that was."""
    return float(lab.python(server, SIGNAL, signal, *processes.split()))


def of_a_relay(relays: Collection[str]) -> Callable[[Trouble], bool]:
    """Excuses calls through some relays, by outside address, that were silent within the bound."""

    def excused(one: Trouble) -> bool:
        through = not set(relays).isdisjoint(one.relays)
        return through and 0 < one.silence <= RELAY_BOUND_SECONDS

    return excused


def relay_goes_home(cluster: Cluster, server: str) -> None:
    """What an operator does when a server is back and its relay is not: it goes when empty."""
    cluster.wait_until_whole(WHOLE_SECONDS, but="relay|rtpengine")
    if cluster.has_its_relay(server):
        return
    words = ("-e", f"node={server}")
    drained = play(DRAIN, *words, "-e", "functions=media", "-e", "reason=home", "-e", "by=act")
    assert drained.code == 0, drained.output
    back = play(UNDRAIN, *words)
    assert back.code == 0, back.output


def begun(cluster: Cluster, *more: str) -> dict[str, int]:
    """How many calls each PBX node has had since it started; `more` names servers besides."""
    count = "asterisk -rx 'core show calls' | awk '/processed/ {print $1}'"
    return {name: int(cluster.lab.shell(name, count)) for name in (*cluster.servers, *more)}


def drains(cluster: Cluster) -> dict[str, list[str]]:
    """Lines of the destination lists that say somebody is drained, by edge."""
    found = {}
    for name in cluster.servers:
        script = "grep drain= /var/lib/ringmain/dispatcher.list | grep -v '^#' || true"
        found[name] = cluster.lab.shell(name, script).split("\n")[:-1]
    return found


def run_id() -> str:
    """As a run names itself."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime())
