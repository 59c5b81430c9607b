# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load: what the plan promises is carried, and what is more is refused at once.

Every call is a whole one between two phones, with its audio through two relay sessions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.callers import Callers, Leg, answered, reasons, troubles
from support.cluster import Cluster
from support.lab import Lab, everywhere
from support.playbooks import plan
from support.pressure import Watch, together
from support.traffic import LESS, idle_share, processor_times

PROBE = "probe1"

# So much of the processors' time is left at the peak, or a lower one is tried; so many in all.
SPARE = 0.1
STEPS = 3

# Who is refused hears so before a caller would wonder.
REFUSED_WITHIN_SECONDS = 2.0

RELAY_SHELL = "rtpengine-ctl -ip 127.0.0.1 -port 9900"
ASTERISK_CONF = "/etc/asterisk/asterisk.conf"


@pytest.fixture(scope="module")
def callers(lab: Lab, cluster: Cluster, inventory: Any) -> Iterator[Callers]:
    """Two phones of a tenant, for as many calls as it takes."""
    cluster.wait_until_whole(120.0)
    phones = Callers.of_acme(lab, PROBE, cluster.addresses.outside_ip, inventory)
    yield phones
    phones.close()


def test_planned_peak_hits_no_limit(whole: Cluster, callers: Callers, inventory: Any) -> None:
    """As many calls at once, and as many new ones in a second, as the inventory says.

    Less where the machine, which carries servers and phones alike, has no time left: what
    is lost then is lost by itself.
    """
    peak, pace = inventory["ringmain_peak_calls"], inventory["ringmain_peak_cps"]
    for step in range(1, STEPS + 1):
        watch = Watch(whole)
        # While the first calls end others begin, so that the peak lasts.
        calls = callers.calls(peak + peak // 2, pace, (peak + 1) / pace)
        before = processor_times()
        callers.live(2.0)
        idle = idle_share(before, processor_times())
        report = callers.report()
        callers.hang_up()
        risen = watch.risen()
        show(f"at the peak of {peak} calls, processors idle for {idle:.0%}", calls, report, risen)
        if idle >= SPARE or step == STEPS:
            break
        peak, pace = int(peak * LESS), pace * LESS
    evidence = f"{reasons(calls)}\n{risen}"
    assert len(answered(calls)) == len(calls), whole.evidence(
        "refused at the planned peak", [evidence]
    )
    assert report["most_at_once"] >= peak, evidence
    assert not troubles(report["legs"]), "\n".join(troubles(report["legs"]))
    assert together(risen) == {}, evidence


def test_first_limit_of_a_smaller_plan(
    whole: Cluster, callers: Callers, inventory: Any, tmp_path: Path
) -> None:
    """The same load on the plan for half of it: its first limit is hit, and nothing else breaks.

    Without a spare node: with one, half the load and a third more is what the nodes carry together.
    """
    peak, pace = inventory["ringmain_peak_calls"], inventory["ringmain_peak_cps"]
    small = plan(
        tmp_path,
        ringmain_peak_calls=peak // 2,
        ringmain_peak_cps=(pace + 1) // 2,
        ringmain_spare_nodes=0,
    )
    media = small["tiers"]["media"]
    assert media["first_limit"] == "rtpengine_max_sessions"
    assert media["carries"] == min(tier["carries"] for tier in small["tiers"].values())
    sessions = {
        name: small["hosts"][name]["limits"]["rtpengine_max_sessions"] for name in whole.servers
    }
    room = sum(sessions.values())
    assert 2 * peak > room, f"the plan for {peak // 2} calls has room for {peak}: {sessions}"

    with relay_limits(whole, sessions):
        watch = Watch(whole)
        early = callers.calls(peak // 2, pace, 0)
        callers.live(1.0)
        callers.mark()
        late = callers.calls(peak - peak // 2 + 6, pace, 0)
        callers.live(1.0)
        report = callers.report()
        risen = watch.risen()
        callers.hang_up()
    show(f"with room for {room} relay sessions", early + late, report, risen)
    refused = [leg for leg in late if leg["status"] == 503]
    evidence = f"{reasons(early)}, then {reasons(late)}\n{risen}"
    assert len(answered(early)) == len(early), evidence
    assert refused, evidence
    assert len(answered(late)) == len(late) - len(refused), evidence
    assert 2 * (len(early) + len(answered(late))) <= room, evidence
    quickly_refused(refused)
    assert not troubles(report["legs"]), "\n".join(troubles(report["legs"]))
    total = together(risen)
    assert total.pop("edge refused_by_relays") == len(refused), evidence
    assert total.pop("relay rejected sessions") >= len(refused), evidence
    for name in ("relay sessions refused", "no relay for a call"):
        total.pop(name)  # the same in the daemons' words
    assert total == {}, evidence
    assert callers_get_through(callers), "with the planned limits back a call is not answered"


def test_full_pbx_nodes_are_passed_over(whole: Cluster, callers: Callers) -> None:
    """With two calls on each node the next ones are refused, and no node is taken for dead."""
    room = 2 * len(whole.servers)
    with pbx_limits(whole, 2):
        watch = Watch(whole)
        calls = callers.calls(room + 3, 3, 0)
        callers.live(1.0)
        report = callers.report()
        risen = watch.risen()
        missing = whole.problems()
        callers.hang_up()
    show(f"with room for {room} calls on the PBX nodes", calls, report, risen)
    evidence = f"{reasons(calls)}\n{risen}"
    assert len(answered(calls)) == room, evidence
    quickly_refused(calls[room:])
    assert not missing, missing
    assert not troubles(report["legs"]), "\n".join(troubles(report["legs"]))
    assert together(risen)["edge refused_by_pbx"] == 3, evidence
    whole.wait_until_whole(60.0)
    assert callers_get_through(callers), "with the planned limits back a call is not answered"


def test_more_calls_in_a_second_than_planned(
    whole: Cluster, callers: Callers, tmp_path: Path
) -> None:
    """What comes too fast is refused; what is let in is carried."""
    holder = whole.holder()
    limit = plan(tmp_path)["hosts"][holder]["limits"]["kamailio_calls_per_second"]
    watch = Watch(whole)
    calls = callers.calls(4 * limit, 2 * limit, 0)
    callers.live(1.0)
    report = callers.report()
    risen = watch.risen()
    callers.hang_up()
    show(f"{2 * limit} calls a second where {limit} are planned", calls, report, risen)
    refused = [leg for leg in calls if leg["status"] == 503]
    evidence = f"{reasons(calls)}\n{risen}"
    assert refused, evidence
    assert len(answered(calls)) == len(calls) - len(refused) >= limit, evidence
    quickly_refused(refused)
    assert not troubles(report["legs"]), "\n".join(troubles(report["legs"]))
    assert together(risen) == {"edge refused_by_rate": len(refused)}, evidence


def quickly_refused(legs: list[Leg]) -> None:
    """Fail unless all heard 503, soon, and when to come again."""
    for leg in legs:
        assert leg["status"] == 503, leg
        assert leg["retry_after"], leg
        assert leg["final_after"] <= REFUSED_WITHIN_SECONDS, leg


def callers_get_through(callers: Callers) -> bool:
    """Whether one more call is answered."""
    calls = callers.calls(1, 1, 0)
    callers.hang_up()
    return len(answered(calls)) == 1


def show(what: str, calls: list[Leg], report: Mapping[str, Any], risen: Any) -> None:
    """What was seen, for whoever reads along."""
    slowest = max(leg["final_after"] for leg in calls)
    heard = [leg["heard"] for leg in answered(report["legs"]) if leg["heard"]]
    print(
        f"{what}: {reasons(calls)}, slowest final answer {slowest:.2f} s; "
        f"{report['most_at_once']} calls at once, {sum(one['packets'] for one in heard)} packets "
        f"heard, {sum(one['lost'] for one in heard)} lost, the slowest after "
        f"{max(one['slowest_ms'] for one in heard):.0f} ms (the phones themselves were late by "
        f"{report['generator_latest_ms']:.0f} ms); rose: {risen}"
    )


@contextmanager
def relay_limits(cluster: Cluster, sessions: Mapping[str, int]) -> Iterator[None]:
    """Give the running relays other limits of sessions, and their own ones back."""

    def give(name: str, limit: int) -> None:
        said = cluster.lab.shell(name, f"{RELAY_SHELL} set maxsessions {limit}")
        assert "Success" in said, f"{name}: {said}"

    def now(name: str) -> int:
        said = cluster.lab.shell(name, f"{RELAY_SHELL} list maxsessions")
        found = re.search(r": *(-?\d+)", said)
        assert found, f"{name}: {said}"
        return int(found[1])

    own = {name: now(name) for name in cluster.servers}
    try:
        for name, limit in sessions.items():
            give(name, limit)
        yield
    finally:
        for name, limit in own.items():
            give(name, limit)


@contextmanager
def pbx_limits(cluster: Cluster, calls: int) -> Iterator[None]:
    """Start the PBX nodes with another limit of calls, and then with their own one."""

    def restart(change: str) -> None:
        script = f"{change} && systemctl restart asterisk && asterisk -rx 'core waitfullybooted'"
        found = everywhere(cluster.servers, lambda name: cluster.lab.shell(name, script))
        failed = {name: said for name, said in found.items() if not isinstance(said, str)}
        assert not failed, failed
        cluster.wait_until_whole(60.0)

    kept = f"{ASTERISK_CONF}.act"
    other = f"sed -i /^maxcalls/d {ASTERISK_CONF} && echo 'maxcalls = {calls}' >> {ASTERISK_CONF}"
    try:
        restart(f"cp -p {ASTERISK_CONF} {kept} && {other}")
        yield
    finally:
        restart(f"mv {kept} {ASTERISK_CONF}")
