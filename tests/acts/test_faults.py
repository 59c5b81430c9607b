# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults: what a caller notices of them, and that the cluster mends itself.

A failed attempt is a call that was begun after the fault and is not answered by its callee.
"""

from __future__ import annotations

import time

from support.booth import Booth
from support.cluster import Cluster
from support.show import all_answered

# From power-on of all servers to a whole cluster.
COLD_START_SECONDS = 180.0
# A call that was being set up may hold its relay away from home for rtpengine_offer_timeout, 240 s.
RELAY_HOME_SECONDS = 300.0

# A conversation before and after a fault, and the longest silence that is not a drop.
BEFORE_SECONDS = 3.0
AFTER_SECONDS = 6.0
GAP_MS = 200


def test_control_without_a_fault(whole: Cluster, booth: Booth) -> None:
    """What a call takes on a whole cluster, and that all of 20 are answered and end."""
    calls = booth.calls(20)
    all_answered(whole, booth, calls, "without a fault")
    assert all(call.ended_everywhere for call in calls), booth.evidence()


def test_killed_pbx_costs_no_call(whole: Cluster, booth: Booth) -> None:
    """SIGKILL of one Asterisk: none of the next 20 calls fails."""
    process = whole.process("srv2", "asterisk")
    whole.lab.shell("srv2", f"kill -KILL {process}")
    all_answered(whole, booth, booth.calls(20), "after SIGKILL of Asterisk on srv2")
    whole.wait_until_whole(60.0)
    assert whole.process("srv2", "asterisk") != process


def test_killed_pbx_costs_a_conversation_nothing(whole: Cluster, booth: Booth) -> None:
    """SIGKILL of the Asterisk that set a call up: both phones go on hearing each other.

    When one hangs up the other is told, by the edge.
    """
    with booth.conversation() as call:
        time.sleep(BEFORE_SECONDS)
        carrier = next(
            server
            for server in whole.servers
            if "verify-901" in whole.lab.shell(server, "asterisk -rx 'core show channels concise'")
        )
        whole.lab.shell(carrier, f"kill -KILL {whole.process(carrier, 'asterisk')}")
        time.sleep(AFTER_SECONDS)
    print(f"SIGKILL of Asterisk on {carrier}: {call}")
    wanted = (BEFORE_SECONDS + AFTER_SECONDS - 1) * 1000
    for name, heard in call.items():
        assert heard["longest_gap_ms"] <= GAP_MS, f"{name} heard {heard}\n{booth.evidence()}"
        assert heard["heard_ms"] >= wanted, f"{name} heard {heard}\n{booth.evidence()}"


def test_power_cut_of_the_holder(whole: Cluster, booth: Booth) -> None:
    """The server that holds the addresses loses power: the callee is callable at the other edge."""
    victim = whole.holder()
    whole.lab.power_off(victim)
    all_answered(whole, booth, booth.calls(20), f"after the power cut of {victim}")
    heir = whole.holder()
    assert heir != victim
    whole.lab.power_on(victim)
    took = whole.wait_until_whole(RELAY_HOME_SECONDS)
    print(f"whole {took:.1f} s after power came back, without anyone acting")
    all_answered(whole, booth, booth.calls(3), f"with {victim} back")
    assert whole.holder() == heir, "the addresses moved without need"


def test_all_stopped_in_order(whole: Cluster, booth: Booth) -> None:
    """All servers shut down one after another and switched on again."""
    whole.lab.shut_down(*whole.servers)
    comes_back(whole, booth, "after all were stopped in order")


def test_all_powered_off_at_once(whole: Cluster, booth: Booth) -> None:
    """All servers lose power in the same moment and get it back."""
    whole.lab.power_off(*whole.servers)
    comes_back(whole, booth, "after a power cut of all")


def comes_back(cluster: Cluster, booth: Booth, what: str) -> None:
    """Switch all servers on; the cluster becomes whole and knows the phones it knew."""
    started = time.monotonic()
    cluster.lab.power_on(*cluster.servers)
    cluster.wait_until_whole(COLD_START_SECONDS)
    print(f"{what}: whole {time.monotonic() - started:.1f} s after power-on, without anyone acting")
    all_answered(cluster, booth, booth.calls(3), what)
