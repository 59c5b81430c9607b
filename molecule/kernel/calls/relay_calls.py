# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Calls through relays without SIP: the offers and answers that the edges send, and real RTP.

A call between phones is two sessions. Each begins with the PBX at its inner end; then, as after a
re-INVITE for direct media, each is told that its inner end is the other session's inner port.
"""

from __future__ import annotations

import base64
import contextlib
import re
import shlex
import socket
import struct
import subprocess
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ansible_collections.ringmain.voip.plugins.module_utils import ng

PACKET_SECONDS = 0.02

# RTPEngine decides whom a port hears by the first packet that comes more than three whole seconds
# after the last offer or answer; until then, all are forwarded in user space. And one more.
LEARNING_SECONDS = 5.0
# Not to ask more of an emulated relay's user space than it can do beside everything else.
LEARNING_PACKET_SECONDS = 0.1

# What has to arrive of what is sent, and has to be forwarded in the kernel.
LEAST = 0.99
PAYLOAD = bytes([0xD5]) * 160  # silence in A-law
PCMA = 8

# What Kamailio makes of the flags in its media.cfg.
FLAGS: dict[str, ng.Value] = {
    "replace": ["origin"],
    "flags": ["strict-source", "port-latching"],
    "rtcp-mux": ["demux"],
    "ICE": "remove",
    "transport-protocol": "RTP/AVP",
}

# Runs on the relay itself, from where its control port may be asked: one line there and back.
AGENT = """
import base64, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(20)
s.connect((sys.argv[1], int(sys.argv[2])))
for line in sys.stdin:
    s.send(base64.b64decode(line))
    print(base64.b64encode(s.recv(65535)).decode(), flush=True)
"""


class Relay:
    """One relay, asked over the control protocol through SSH."""

    def __init__(self, ssh: Sequence[str], address: str, port: int) -> None:
        words = ["/usr/bin/python3", "-c", AGENT, address, str(port)]
        self.process = subprocess.Popen(
            [*ssh, "--", *(shlex.quote(word) for word in words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.client = ng.Client(self.exchange)

    def exchange(self, message: bytes) -> bytes:
        """One datagram there and back."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(base64.b64encode(message) + b"\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise OSError("the relay's control port did not answer")
        return base64.b64decode(answer)

    def close(self) -> None:
        """End the agent."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)


@dataclass
class Phone:
    """One end outside: an RTP socket with its RTCP neighbour."""

    address: str
    sequence: int = 0
    received: int = 0
    peer: tuple[str, int] = ("", 0)
    source: int = field(default_factory=lambda: uuid.uuid4().int & 0xFFFFFFFF)

    def __post_init__(self) -> None:
        while True:
            self.rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.rtp.bind((self.address, 0))
            self.port: int = self.rtp.getsockname()[1]
            self.rtcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                if self.port % 2 == 0:
                    self.rtcp.bind((self.address, self.port + 1))
                    break
            except OSError:
                pass
            self.close()
        self.rtp.setblocking(False)

    def send(self) -> None:
        """The next packet of 20 ms."""
        header = struct.pack("!BBHII", 0x80, PCMA, self.sequence, self.sequence * 160, self.source)
        self.rtp.sendto(header + PAYLOAD, self.peer)
        self.sequence = (self.sequence + 1) & 0xFFFF

    def report(self) -> None:
        """A receiver report that says the same each time, as one does while nothing is sent."""
        report = struct.pack("!BBHI", 0x80, 201, 1, self.source)
        self.rtcp.sendto(report, (self.peer[0], self.peer[1] + 1))

    def take(self) -> None:
        """Count what has arrived."""
        while True:
            try:
                data = self.rtp.recv(2048)
            except BlockingIOError:
                return
            self.received += len(data) == 12 + len(PAYLOAD)

    def close(self) -> None:
        """Give the ports back."""
        self.rtp.close()
        self.rtcp.close()


def sdp(address: str, port: int, way: str) -> str:
    """A description of one audio stream."""
    lines = ["v=0", f"o=- 1 1 IN IP4 {address}", "s=-", f"c=IN IP4 {address}", "t=0 0"]
    lines += [f"m=audio {port} RTP/AVP 8", "a=rtpmap:8 PCMA/8000", f"a={way}"]
    return "\r\n".join([*lines, ""])


def where(text: str) -> tuple[str, int]:
    """Address and port that a description names."""
    address = re.search(r"^c=IN IP4 (\S+)", text, re.MULTILINE)
    port = re.search(r"^m=audio (\d+)", text, re.MULTILINE)
    assert address is not None, text
    assert port is not None, text
    return address[1], int(port[1])


class Session:
    """One dialog's session: the phone outside, the PBX or another session inside."""

    def __init__(self, relay: Relay, phone: Phone, phone_calls: bool) -> None:
        self.relay = relay
        self.phone = phone
        self.call_id = uuid.uuid4().hex
        self.tags = {"phone": f"p{self.call_id[:8]}", "pbx": f"b{self.call_id[:8]}"}
        self.inner: tuple[str, int] = ("", 0)
        self.phone_calls = phone_calls

    def negotiate(
        self, offerer: str, inside: tuple[str, int], ways: tuple[str, str] = ("sendrecv",) * 2
    ) -> None:
        """An offer from `phone` or `pbx` and its answer; `inside` is what the PBX names."""
        ends = {"phone": (self.phone.address, self.phone.port), "pbx": inside}
        sides = {"phone": "outside", "pbx": "inside"}
        answerer = "pbx" if offerer == "phone" else "phone"
        common = {**FLAGS, "call-id": self.call_id, "from-tag": self.tags[offerer]}
        offer = {
            **common,
            "direction": [sides[offerer], sides[answerer]],
            "sdp": sdp(*ends[offerer], ways[0]),
        }
        if self.inner[1]:
            offer["to-tag"] = self.tags[answerer]
        answer = {**common, "to-tag": self.tags[answerer], "sdp": sdp(*ends[answerer], ways[1])}
        shown = {
            answerer: where(self.relay.client.request("offer", **offer)["sdp"]),
            offerer: where(self.relay.client.request("answer", **answer)["sdp"]),
        }
        before = self.phone.peer
        self.phone.peer, self.inner = shown["phone"], shown["pbx"]
        assert before in (("", 0), self.phone.peer), "the phone's port at the relay has moved"

    def delete(self) -> None:
        """End it; a session that is gone already is fine."""
        with contextlib.suppress(ng.UnknownCallError):
            self.relay.client.request(
                "delete", **{"call-id": self.call_id, "from-tag": self.tags["phone"]}
            )

    def lives(self) -> bool:
        """Whether the relay knows it."""
        return self.relay.client.query(self.call_id) is not None


class Call:
    """Two phones and their two sessions, on one relay or on two."""

    def __init__(self, outside: str, pbx: str, relays: tuple[Relay, Relay]) -> None:
        self.phones = (Phone(outside), Phone(outside))
        self.sessions = (
            Session(relays[0], self.phones[0], phone_calls=True),
            Session(relays[1], self.phones[1], phone_calls=False),
        )
        # The PBX speaks first from ports of its own, where nobody listens here.
        self.sessions[0].negotiate("phone", (pbx, 20000))
        self.sessions[1].negotiate("pbx", (pbx, 20002))

    def join(self, ways: tuple[str, str] = ("sendrecv", "sendrecv")) -> None:
        """Take the PBX out: it tells each phone the other session's inner port.

        `ways` are what the first phone and the second do from now on.
        """
        first, second = self.sessions
        inner = (first.inner, second.inner)
        first.negotiate("pbx", inner[1], (ways[1], ways[0]))
        second.negotiate("pbx", inner[0], (ways[0], ways[1]))
        assert (first.inner, second.inner) == inner, "an inner port has moved"

    def end(self) -> None:
        """Delete both sessions and close the phones' ports."""
        for session in self.sessions:
            session.delete()
        for phone in self.phones:
            phone.close()


def talk(
    calls: Sequence[Call], seconds: float, every: float = PACKET_SECONDS
) -> list[tuple[int, int]]:
    """All phones send for so long; what each sent and heard of the other, caller first.

    A sender that comes late does not catch up: rate and number are bounded.
    """
    phones = [phone for call in calls for phone in call.phones]
    for phone in phones:
        phone.take()
        phone.received = 0
    count = round(seconds / every)
    for _packet in range(count):
        begun = time.monotonic()
        for phone in phones:
            phone.send()
            phone.take()
        time.sleep(max(0.0, every - (time.monotonic() - begun)))
    # Emulated relays take their time: what is on the way arrives within this.
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline and any(phone.received < count for phone in phones):
        for phone in phones:
            phone.take()
        time.sleep(0.01)
    return [(count, phone.received) for phone in phones]


def learn(calls: Sequence[Call]) -> list[tuple[int, int]]:
    """Talk until the relays have learnt where the phones are; as for talk."""
    return talk(calls, LEARNING_SECONDS, LEARNING_PACKET_SECONDS)


def assert_heard(heard: Iterable[tuple[int, int]]) -> None:
    """Nobody missed more than a hundredth."""
    found = list(heard)
    assert all(got >= LEAST * sent for sent, got in found), found


@contextlib.contextmanager
def in_the_kernel(relay: Relay, hops: int) -> Iterator[list[tuple[int, int]]]:
    """What is talked inside is heard, and forwarded in the kernel at each hop.

    Whoever talks puts what talk() gives into the list.
    """
    heard: list[tuple[int, int]] = []
    before = relay.client.forwarded()
    yield heard
    after = relay.client.forwarded()
    sent = sum(count for count, _got in heard)
    grown = {name: after[name] - before[name] for name in after}
    got = sum(got for _count, got in heard)
    print(f"\n{sent} packets sent, {got} heard, {hops} hops: {grown}")
    assert_heard(heard)
    assert grown["kernel"] >= LEAST * sent * hops > 0, grown
    assert grown["user"] <= (1 - LEAST) * sent * hops, grown


@contextlib.contextmanager
def joined(number: int, outside: str, pbx: str, *relays: Relay) -> Iterator[list[Call]]:
    """Direct-media calls in which the relays have learnt where the phones are.

    From the first relay to the last: on one, or on two.
    """
    calls: list[Call] = []
    try:
        for _call in range(number):
            calls.append(Call(outside, pbx, (relays[0], relays[-1])))
        for call in calls:
            call.join()
        learn(calls)
        yield calls
    finally:
        for call in calls:
            call.end()
