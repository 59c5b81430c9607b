# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A relay dies, freezes or loses its server under a call: the call goes on, at home or elsewhere.

What is measured is what the phones hear. Audio must be back in 3 s: at most 1.2 s until a freeze
is noticed, or 0.8 s until a server is missed, and the start of a relay. A start without a fault, in
the same run, says by how much one is late here.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from support.booth import Booth
from support.callers import Callers, answered, reasons, troubles
from support.cluster import Cluster
from support.lab import Lab, everywhere
from support.show import all_answered

PROBE = "probe1"
CALLS = 3
# Phones answer in the middle of the second for which their relays are away.
RINGING_SECONDS, BEFORE_AWAY_SECONDS = 2.2, 1.5
AGAIN_SECONDS = 5.0

BACK_MS = 3000
GAP_MS = 200
# So shortly before the end each still hears the other.
LAST_MS = 500

# What a start takes where nothing else wants the processor.
START_MS = 500

RESTART = """
import socket, subprocess, sys, time
started = time.monotonic()
subprocess.run(("systemctl", "restart", "--no-block", "rtpengine-daemon"), check=True)
time.sleep(0.05)
while time.monotonic() - started < 30:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.05)
        try:
            client.connect((sys.argv[1], 2223))
            client.send(b"control d7:command4:pinge")
            client.recv(4096)
            break
        except OSError:
            time.sleep(0.01)
print(round(1000 * (time.monotonic() - started)))
"""

# A relay is away for a second, however slow the machine, then it may start. Answers wait for two.
AWAY = "timeout 1 bash -c 'while sleep 0.05; do pkill -KILL -x rtpengine; done' || true"

# Offers each call that a relay has once more, from a tag that it does not know: so does an edge
# with an INVITE that another one has seen already.
OFFER = r"""
import json, os, re, socket, subprocess, sys
console, relay = sys.argv[1:]
words = ("rtpengine-ctl", "-ip", console, "-port", "9900", "list", "sessions", "own")
said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
lines = ("v=0", "o=- 1 1 IN IP4 192.0.2.1", "s=-", "c=IN IP4 192.0.2.1", "t=0 0")
sdp = "\r\n".join((*lines, "m=audio 4000 RTP/AVP 8", ""))
answers = {}
for call in re.findall(r"^ID: *(\S+)", said, re.MULTILINE):
    fields = {"call-id": call, "command": "offer", "from-tag": "once-more", "sdp": sdp}
    text = "".join(f"{len(key)}:{key}{len(value)}:{value}" for key, value in fields.items())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(3)
        client.connect((relay, 2223))
        client.send(f"{os.urandom(4).hex()} d9:directionl7:outside6:insidee{text}e".encode())
        answers[call] = client.recv(65535).decode().partition(" ")[2]
print(json.dumps(answers))
"""

BEFORE_SECONDS = 3.0
AFTER_SECONDS = 6.0
COLD_START_SECONDS = 180.0
SYNC_SECONDS = 30.0


@dataclass(frozen=True)
class Carrier:
    """A relay's process: its number, the server, the unit, the address of its command line."""

    number: int
    server: str
    unit: str
    cli: str


def running(cluster: Cluster) -> list[str]:
    """The servers that have power."""
    members = cluster.lab.members()
    return [name for name in cluster.servers if members[name]["running"]]


def processes(cluster: Cluster) -> list[Carrier]:
    """All relays that run, at home or as guests."""
    found = []
    script = "systemctl list-units --plain --no-legend --state=active 'rtpengine-*' | cut -d' ' -f1"
    for server in running(cluster):
        for unit in cluster.lab.shell(server, script).split():
            own = int(server[3:])
            number = own if "@" not in unit else int(unit.partition("@")[2].partition(".")[0])
            cli = "127.0.0.1" if number == own else f"127.0.0.{1 + number}"
            found.append(Carrier(number, server, unit, cli))
    return found


def late(cluster: Cluster) -> float:
    """By how many milliseconds the start of a relay without calls is late at the worst."""
    lab, relays = cluster.lab, cluster.addresses.relays
    took = [int(lab.python(server, RESTART, relays[server])) for server in cluster.servers]
    print(f"a relay starts here in {took} ms")
    return max(0.0, max(took) - START_MS)


def sessions(cluster: Cluster, relay: Carrier) -> int:
    """How many sessions it has."""
    command = f"rtpengine-ctl -ip {relay.cli} -port 9900 list numsessions"
    said = cluster.lab.shell(relay.server, command)
    return int(said.partition("own:")[2].split()[0])


def carriers(cluster: Cluster) -> list[Carrier]:
    """The relays that carry calls."""
    return [relay for relay in processes(cluster) if sessions(cluster, relay)]


def nothing_left(cluster: Cluster, stored: bool = True) -> None:
    """No relay has a session, and the store, if there is one, knows of none either."""
    end = time.monotonic() + SYNC_SECONDS
    while True:
        left = {
            f"relay {relay.number} on {relay.server}": sessions(cluster, relay)
            for relay in processes(cluster)
        }
        if stored:
            left |= {f"store of relay {number}": count for number, count in keys(cluster).items()}
        if not any(left.values()):
            return
        assert time.monotonic() < end, f"sessions are left: {left}"
        time.sleep(0.5)


def keys(cluster: Cluster, server: str | None = None) -> dict[int, int]:
    """How many sessions of each relay a server's Valkey, or the first server's, knows."""
    script = (
        ". /etc/ringmain-relay/relay.env; export REDISCLI_AUTH=$RTPENGINE_REDIS_AUTH_PW;"
        " for n in 1 2 3; do valkey-cli -n $n dbsize; done"
    )
    counts = cluster.lab.shell(server or running(cluster)[0], script).split()
    return {number: int(count) for number, count in enumerate(counts, 1)}


def synchronised(cluster: Cluster, relays: Sequence[Carrier]) -> float:
    """Wait until every server's Valkey has the sessions of these relays; how long that took."""
    started = time.monotonic()
    while True:
        wanted = {relay.number: sessions(cluster, relay) for relay in relays}
        found = {server: keys(cluster, server) for server in cluster.servers}
        if all(
            counts[number] == count for counts in found.values() for number, count in wanted.items()
        ):
            return time.monotonic() - started
        took = time.monotonic() - started
        assert took < SYNC_SECONDS, (
            f"after {took:.0f} s the relays have {wanted}, the stores {found}"
        )
        time.sleep(0.2)


def heard_again(call: dict[str, dict[str, Any]], booth: Booth, what: str, bound: float) -> None:
    """Both phones heard each other, but for so many milliseconds."""
    gaps = {name: heard["longest_gap_ms"] for name, heard in call.items()}
    print(f"{what}: longest silence {gaps} ms")
    for name, heard in call.items():
        assert heard["last_ms"] >= heard["recorded_ms"] - LAST_MS, f"{what}: {name} heard {heard}"
        assert heard["longest_gap_ms"] <= bound, f"{what}: {name} heard {heard}\n{booth.evidence()}"


@contextmanager
def carried_call(
    cluster: Cluster, booth: Booth, what: str, bound: float, both: bool = False, stored: bool = True
) -> Iterator[Carrier]:
    """A call, and a relay that carries it; afterwards it is heard again and leaves nothing behind.

    ``both``: both phones hang up. ``stored``: there is a store.
    """
    if bound == BACK_MS:
        bound += late(cluster)
    ends = (booth.CALLER, booth.CALLEE) if both else (booth.CALLER,)
    with booth.conversation(hang_up=ends) as call:
        time.sleep(BEFORE_SECONDS)
        yield carriers(cluster)[0]
        time.sleep(AFTER_SECONDS)
    heard_again(call, booth, what, bound)
    nothing_left(cluster, stored)


def signal(cluster: Cluster, relay: Carrier, name: str) -> str:
    """Send a signal to a relay's process; its number."""
    process = cluster.process(relay.server, relay.unit.removesuffix(".service"))
    cluster.lab.shell(relay.server, f"kill -{name} {process}")
    return process


def test_a_killed_relay_comes_back_with_its_calls(whole: Cluster, booth: Booth) -> None:
    """SIGKILL: systemd starts it again, it takes up its sessions, and nothing has to move."""
    with carried_call(whole, booth, "SIGKILL of a relay", BACK_MS) as relay:
        process = signal(whole, relay, "KILL")
    again = whole.process(relay.server, relay.unit.removesuffix(".service"))
    assert again not in ("0", process)
    all_answered(whole, booth, booth.calls(5), "after SIGKILL of a relay")


def test_a_relay_that_came_back_takes_offers(whole: Cluster, booth: Booth) -> None:
    """A phone holds a call after its relay was killed, and goes on: both hear each other again.

    The phone begins its recording anew, so this says nothing of the silence before.
    """
    with carried_call(whole, booth, "hold after SIGKILL of the relay", BACK_MS) as relay:
        signal(whole, relay, "KILL")
        time.sleep(AFTER_SECONDS)
        booth.hold(booth.CALLER)


def test_a_frozen_relay_comes_back_with_its_calls(whole: Cluster, booth: Booth) -> None:
    """SIGSTOP: the relay service notices and kills it."""
    with carried_call(whole, booth, "freeze of a relay", BACK_MS) as relay:
        process = signal(whole, relay, "STOP")
    again = whole.process(relay.server, relay.unit.removesuffix(".service"))
    assert again not in ("0", process)
    all_answered(whole, booth, booth.calls(5), "after the freeze of a relay")


def test_a_lost_server_s_relay_goes_on_elsewhere(whole: Cluster, booth: Booth) -> None:
    """Power cut of the server: another one takes the relay with its call, and gives it back."""
    with carried_call(whole, booth, "power cut of a relay's server", BACK_MS, both=True) as relay:
        whole.lab.power_off(relay.server)
        survivors = [name for name in whole.servers if name != relay.server]
    heirs = [
        name
        for name in survivors
        if whole.addresses.relays[relay.server] in whole.reports()[name]["addresses"]
    ]
    assert len(heirs) == 1, heirs
    all_answered(whole, booth, booth.calls(10), f"with relay {relay.number} at {heirs[0]}")
    whole.lab.power_on(relay.server)
    took = whole.wait_until_whole(COLD_START_SECONDS)
    print(f"relay {relay.number} at home {took:.1f} s after power came back, without anyone acting")


def test_calls_survive_the_loss_of_all_stores(whole: Cluster, booth: Booth) -> None:
    """SIGKILL of every Valkey in a call, then of the relay: it comes back all the same."""
    with carried_call(whole, booth, "SIGKILL of all Valkeys, then of the relay", BACK_MS) as relay:
        for server in whole.servers:
            whole.lab.shell(server, f"kill -KILL {whole.process(server, 'valkey-server')}")
        took = synchronised(whole, carriers(whole))
        print(f"every store has the sessions again {took:.1f} s after the loss of all")
        signal(whole, relay, "KILL")


def test_calls_go_on_without_any_store(whole: Cluster, booth: Booth) -> None:
    """All Valkeys are stopped in a call: it goes on, and others begin. When they are back, so is
    the synchronisation: a relay that is killed then comes back with its call."""
    with carried_call(whole, booth, "without any Valkey", GAP_MS, stored=False):
        for server in whole.servers:
            whole.lab.shell(server, "systemctl stop valkey-server")
    all_answered(whole, booth, booth.calls(5), "without any Valkey")
    with carried_call(whole, booth, "SIGKILL of a relay after that", BACK_MS) as relay:
        for server in whole.servers:
            whole.lab.shell(server, "systemctl start valkey-server")
        took = synchronised(whole, carriers(whole))
        print(f"every store has the sessions {took:.1f} s after all were started")
        signal(whole, relay, "KILL")


def test_a_call_that_was_offered_twice(whole: Cluster, booth: Booth) -> None:
    """It ends as a whole: nothing of it is left on its relays, which would count as a call."""
    with booth.conversation() as call:
        found: dict[str, str] = {}
        for relay in carriers(whole):
            address = whole.addresses.relays[relay.server]
            found |= json.loads(whole.lab.python(relay.server, OFFER, relay.cli, address))
        assert len(found) == 2, found
        assert all("6:result2:ok" in answer for answer in found.values()), found
        time.sleep(BEFORE_SECONDS)
    heard_again(call, booth, "offered twice", GAP_MS)
    nothing_left(whole)


def test_a_phone_answers_while_its_relay_is_away(whole: Cluster, lab: Lab, inventory: Any) -> None:
    """All relays die while phones ring, which answer before one is back: both sides are heard."""
    callers = Callers.of_acme(lab, PROBE, whole.addresses.outside_ip, inventory)
    with contextlib.closing(callers):
        callers.ring(RINGING_SECONDS)
        callers.calls(CALLS, 10, 0, wait=BEFORE_AWAY_SECONDS - CALLS / 10)
        everywhere(whole.servers, lambda name: lab.shell(name, AWAY))
        # Whoever is not heard at once is asked for another offer within four seconds.
        callers.live(AGAIN_SECONDS)
        callers.mark()
        callers.live(2)
        legs = callers.report()["legs"]
        callers.hang_up()
    assert len(answered(legs)) == 2 * CALLS, reasons(legs)
    assert not troubles(legs)
    nothing_left(whole)
