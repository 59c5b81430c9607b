# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Audio of direct-media calls through relays: heard on both sides, forwarded in the kernel.

Counts, never speeds: the relay may be an emulated machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import kernel_forwarding
from relay_calls import Call, Relay, talk
from testinfra.host import Host

CALLS = 4
SECONDS = 6.0
# RTPEngine decides whom a port hears by the first packet that comes more than three whole seconds
# after the last offer or answer; until then, all are forwarded in user space. And one more.
LEARNING = 5.0
LEAST = 0.99
# rtpengine_media_timeout of the scenario, and a hold that lasts longer.
TIMEOUT = 12
HOLD = TIMEOUT + 6

OTHER_TABLE = """destroy table inet reloaded
table inet reloaded {
    chain untracked { type filter hook prerouting priority raw; meta l4proto udp notrack; }
    chain input { type filter hook input priority filter - 10; policy accept; udp dport 9 drop; }
}
"""

# What a call passes on the relay under test: both of its sessions, or one.
HOPS = {"one relay": 2, "two relays": 1}


@contextmanager
def joined(number: int, outside: str, pbx: str, *relays: Relay) -> Iterator[list[Call]]:
    """Direct-media calls in which the relays have learnt where the phones are."""
    calls: list[Call] = []
    try:
        for _call in range(number):
            calls.append(Call(outside, pbx, (relays[0], relays[-1])))
        for call in calls:
            call.join()
        talk(calls, LEARNING)
        yield calls
    finally:
        for call in calls:
            call.end()


def assert_heard(heard: list[tuple[int, int]]) -> None:
    """Nobody missed more than a hundredth."""
    assert all(got >= LEAST * sent for sent, got in heard), heard


@pytest.fixture(params=sorted(HOPS))
def way(request: pytest.FixtureRequest) -> Any:
    """The relays of a call, and how often a packet passes the one in the kernel."""
    needed = ["in_kernel", "in_user_space"][: 3 - HOPS[request.param]]
    return [request.getfixturevalue(name) for name in needed], HOPS[request.param]


def test_the_kernel_forwards_both_sessions_of_a_call(way: Any, outside: str, pbx: str) -> None:
    """Once it has learnt where the phones are, on one relay and on two."""
    relays, hops = way
    with joined(CALLS, outside, pbx, *relays) as calls:
        before = relays[0].client.forwarded()
        heard = talk(calls, SECONDS)
        after = relays[0].client.forwarded()
    assert_heard(heard)
    sent = sum(count for count, _got in heard)
    grown = {name: after[name] - before[name] for name in after}
    print(f"\n{len(calls)} calls, {sent} packets sent, {hops} hops: {grown}")
    assert grown["kernel"] >= LEAST * sent * hops, grown
    assert grown["user"] <= (1 - LEAST) * sent * hops, grown


def test_the_kernel_lists_every_stream(
    machine: Host, in_kernel: Relay, outside: str, pbx: str
) -> None:
    """Four ports of one call, each bound to the address it has learnt, with somewhere to go."""
    with joined(1, outside, pbx, in_kernel) as calls:
        listed = machine.check_output("cat /proc/rtpengine/0/list")
        sessions = [in_kernel.client.query(session.call_id) for session in calls[0].sessions]
    by_port = {target.local: target for target in kernel_forwarding.parse_list(listed)}
    for session in sessions:
        assert session is not None
        assert len(session.streams) == 2
        for stream in session.streams:
            target = by_port[stream.local]
            assert target.forwards, target
            assert (target.expected, target.on_mismatch) == (stream.endpoint, "drop"), target


def test_held_calls_live_and_are_heard_again(in_kernel: Relay, outside: str, pbx: str) -> None:
    """Held for longer than the relay waits for audio, with nothing but reports that repeat.

    The third call is muted without a word to anybody. Reports between the two sessions of one relay
    are dropped there as a loop after thirty that look the same; those of the phones keep it alive.
    """
    ways = (("sendonly", "recvonly"), ("inactive", "inactive"), ("sendrecv", "sendrecv"))
    with joined(len(ways), outside, pbx, in_kernel) as calls:
        for call, each in zip(calls, ways, strict=True):
            call.join(each)
        held_until = time.monotonic() + HOLD
        while time.monotonic() < held_until:
            for call in calls:
                for phone in call.phones:
                    phone.report()
            time.sleep(0.3)
        assert [session.lives() for call in calls for session in call.sessions] == [True] * 6
        for call in calls:
            call.join()
        assert_heard(talk(calls, LEARNING))
        before = in_kernel.client.forwarded()
        heard = talk(calls, 2.0)
        after = in_kernel.client.forwarded()
    assert_heard(heard)
    assert after["kernel"] - before["kernel"] >= LEAST * 2 * sum(sent for sent, _got in heard)


def test_a_call_without_any_packet_ends(in_kernel: Relay, outside: str, pbx: str) -> None:
    """The control of the hold: the same time in silence, and the relay lets go."""
    with joined(1, outside, pbx, in_kernel) as calls:
        time.sleep(HOLD)
        assert [session.lives() for session in calls[0].sessions] == [False, False]


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


def test_the_kernel_goes_on_through_a_reload_of_other_tables(
    machine: Host, in_kernel: Relay, outside: str, pbx: str
) -> None:
    """A firewall that replaces its own table as a whole leaves the relay's rule alone."""
    with joined(CALLS, outside, pbx, in_kernel) as calls:
        before = in_kernel.client.forwarded()
        for _time in range(2):
            machine.check_output("printf %s | nft -f -", OTHER_TABLE)
        heard = talk(calls, 3.0)
        after = in_kernel.client.forwarded()
        machine.check_output("nft destroy table inet reloaded")
    assert_heard(heard)
    assert after["kernel"] - before["kernel"] >= LEAST * 2 * sum(sent for sent, _got in heard)
    assert after["user"] == before["user"]
