# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults under the load of scenario `rolling`: what some eighty calls and 200 phones notice.

The calls go on by themselves from one act to the next; each act judges its own time.
"""

from __future__ import annotations

from support.cluster import Cluster
from support.rolling import (
    RELAY_BOUND_SECONDS,
    Expected,
    Rolling,
    longest_silence,
    of_a_relay,
    relay_goes_home,
    send,
)
from support.traffic import Fault, Traffic

CONTROL_SECONDS = 20.0
PBX_SECONDS = 12.0
THAWED_SECONDS = 12.0
EDGE_SECONDS = 12.0
RELAY_SECONDS = 8.0

# A frozen PBX node is passed over when it has given no answer for fr_timer, 1.5 s.
FROZEN_BOUND_SECONDS = 2.0

# Three advertisements of 0.2 s and a skew below one.
MOVED_BOUND_SECONDS = 1.0


def test_control_without_a_fault(rolling: Rolling) -> None:
    """Nothing happens: nothing is dropped, nothing fails, everybody is known."""
    for case in rolling("nothing", lambda _fault: None, Expected(CONTROL_SECONDS)):
        assert not case.verdict.strays, rolling.traffic.evidence(case.verdict)


def test_killed_pbx(cluster: Cluster, rolling: Rolling) -> None:
    """SIGKILL of Asterisk: the next node takes every new call, and conversations go on."""

    def strike(fault: Fault) -> None:
        server = busiest(cluster)
        fault.happens(send(cluster.lab, server, "SIGKILL", cluster.process(server, "asterisk")))

    rolling("SIGKILL of Asterisk", strike, Expected(PBX_SECONDS))


def test_frozen_pbx(cluster: Cluster, rolling: Rolling) -> None:
    """SIGSTOP of Asterisk: it is passed over, and does no harm when it thaws."""
    frozen: dict[str, str] = {}

    def strike(fault: Fault) -> None:
        server = busiest(cluster)
        frozen[server] = cluster.process(server, "asterisk")
        fault.happens(send(cluster.lab, server, "SIGSTOP", frozen[server]))

    def thaw() -> None:
        for server, process in frozen.items():
            send(cluster.lab, server, "SIGCONT", process)
        frozen.clear()

    expected = Expected(PBX_SECONDS, bound=FROZEN_BOUND_SECONDS, undo=thaw, after=THAWED_SECONDS)
    rolling("SIGSTOP of Asterisk", strike, expected)


def test_killed_relay(cluster: Cluster, rolling: Rolling) -> None:
    """SIGKILL of RTPEngine: it comes back with its sessions, and its calls are heard again."""
    relays: list[str] = []

    def strike(fault: Fault) -> None:
        server = cluster.bystander()
        relays[:] = [cluster.relay_outside(server)]
        process = cluster.process(server, "rtpengine-daemon")
        fault.happens(send(cluster.lab, server, "SIGKILL", process))

    expected = Expected(
        RELAY_SECONDS,
        figure="silence",
        measure=lambda fault: longest_silence(fault.verdict),
        bound=RELAY_BOUND_SECONDS,
        excused=of_a_relay(relays),
    )
    rolling("SIGKILL of a relay", strike, expected)


def test_power_cut_of_the_holder(cluster: Cluster, traffic: Traffic, rolling: Rolling) -> None:
    """The server that holds the addresses loses power: another one answers there within a second.

    Calls whose audio it relayed are silent for at most three. While there are calls its relay stays
    where it went; drained, it goes home.
    """
    struck: list[str] = []
    relays: list[str] = []

    def strike(fault: Fault) -> None:
        struck[:] = [cluster.holder()]
        relays[:] = [cluster.relay_outside(struck[0])]
        fault.happens(cluster.lab.power_off(struck[0]))

    def undo() -> None:
        if not struck:
            return
        server = struck.pop()
        cluster.lab.power_on(server)
        relay_goes_home(cluster, server)

    expected = Expected(
        EDGE_SECONDS,
        figure="addresses away",
        measure=traffic.away,
        bound=MOVED_BOUND_SECONDS,
        excused=of_a_relay(relays),
        undo=undo,
    )
    rolling("power cut of the holder", strike, expected)


def busiest(cluster: Cluster) -> str:
    """The server whose Asterisk has most calls, and not the one that holds the addresses."""
    count = "asterisk -rx 'core show channels count' | awk '/active call/ {print $1}'"
    holder = cluster.holder()
    calls = {
        name: int(cluster.lab.shell(name, count)) for name in cluster.servers if name != holder
    }
    print(f"calls by PBX node: {calls}")
    return max(calls, key=lambda name: calls[name])
