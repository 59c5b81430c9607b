# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Audio of direct-media calls through relays: heard on both sides, forwarded in the kernel.

Counts, never speeds: the relay may be an emulated machine.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import kernel_forwarding
from relay_calls import Relay, assert_heard, in_the_kernel, joined, learn, talk
from testinfra.host import Host

CALLS = 4
SECONDS = 6.0
# rtpengine_media_timeout of the scenario, and a hold that lasts longer.
TIMEOUT = 12
HOLD = TIMEOUT + 6

RELOAD = "systemctl reload ringmain-firewall"

# What a call passes on the relay under test: both of its sessions, or one.
HOPS = {"one relay": 2, "two relays": 1}


@pytest.fixture(params=sorted(HOPS))
def way(request: pytest.FixtureRequest) -> Any:
    """The relays of a call, and how often a packet passes the one in the kernel."""
    needed = ["in_kernel", "in_user_space"][: 3 - HOPS[request.param]]
    return [request.getfixturevalue(name) for name in needed], HOPS[request.param]


def test_the_kernel_forwards_both_sessions_of_a_call(way: Any, outside: str, pbx: str) -> None:
    """Once it has learnt where the phones are, on one relay and on two."""
    relays, hops = way
    with joined(CALLS, outside, pbx, *relays) as calls, in_the_kernel(relays[0], hops) as heard:
        heard += talk(calls, SECONDS)


def test_the_kernel_lists_every_stream(
    machine: Host, in_kernel: Relay, outside: str, pbx: str
) -> None:
    """Four ports of one call, each bound to the address it has learnt, with somewhere to go.

    None of them is in the connection table.
    """
    with joined(1, outside, pbx, in_kernel) as calls:
        listed = machine.check_output("cat /proc/rtpengine/0/list")
        tracked = machine.check_output("cat /proc/net/nf_conntrack")
        sessions = [in_kernel.client.query(session.call_id) for session in calls[0].sessions]
    assert "dport=22 " in tracked  # the one that asks
    by_port = {target.local: target for target in kernel_forwarding.parse_list(listed)}
    for session in sessions:
        assert session is not None
        assert len(session.streams) == 2
        for stream in session.streams:
            target = by_port[stream.local]
            assert target.forwards, target
            assert (target.expected, target.on_mismatch) == (stream.endpoint, "drop"), target
            assert f"port={stream.local.rpartition(':')[2]} " not in tracked


def test_held_calls_live_and_are_heard_again(in_kernel: Relay, outside: str, pbx: str) -> None:
    """Held for longer than the relay waits for audio, with nothing but reports that repeat.

    The third call is muted without a word to anybody. Reports between the two sessions of one relay
    are dropped there as a loop after thirty that look the same; those of the phones keep it alive.
    The fourth is the control: not a packet in the same time, and the relay lets go.
    """
    ways = (("sendonly", "recvonly"), ("inactive", "inactive"), ("sendrecv", "sendrecv"))
    with joined(len(ways) + 1, outside, pbx, in_kernel) as calls:
        held, silent = calls[:-1], calls[-1]
        for call, each in zip(held, ways, strict=True):
            call.join(each)
        held_until = time.monotonic() + HOLD
        while time.monotonic() < held_until:
            for call in held:
                for phone in call.phones:
                    phone.report()
            time.sleep(0.3)
        assert [session.lives() for session in silent.sessions] == [False, False]
        assert [session.lives() for call in held for session in call.sessions] == [True] * 6
        for call in held:
            call.join()
        assert_heard(learn(held))
        with in_the_kernel(in_kernel, hops=2) as heard:
            heard += talk(held, 2.0)


def test_a_stranger_is_not_heard(in_kernel: Relay, outside: str, pbx: str) -> None:
    """Strict source: what comes from elsewhere than the phone is dropped, in the kernel too."""
    with joined(1, outside, pbx, in_kernel) as calls, joined(1, outside, pbx, in_kernel) as other:
        stranger = other[0].phones[0]
        stranger.peer = calls[0].phones[0].peer
        for phone in calls[0].phones:
            phone.take()
            phone.received = 0
        for _packet in range(50):
            stranger.send()
            time.sleep(0.02)
        time.sleep(2)
        for phone in calls[0].phones:
            phone.take()
        assert [phone.received for phone in calls[0].phones] == [0, 0]
        assert_heard(talk(calls, 1.0))


def test_the_kernel_goes_on_through_a_reload_of_the_firewall(
    machine: Host, in_kernel: Relay, outside: str, pbx: str
) -> None:
    """It replaces its own table as a whole and leaves the relay's rule alone."""
    with (
        joined(CALLS, outside, pbx, in_kernel) as calls,
        in_the_kernel(in_kernel, hops=2) as heard,
        ThreadPoolExecutor(1) as elsewhere,
    ):
        reloads = elsewhere.submit(machine.check_output, f"{RELOAD} && {RELOAD}")
        while not reloads.done():
            heard += talk(calls, 1.0)
        reloads.result()
        heard += talk(calls, 2.0)
