# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a probe: two phones that hold many calls with each other at once, all with audio.

One JSON object a line: an order on standard input, its answer on standard output. Every call is
a whole one: challenged, through the edge, a PBX node and back, with the re-INVITEs that take the
PBX node out of the audio's way. Each leg knows what it sent and what it heard.
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import secrets
import selectors
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from support import rtp, sip

# First time after which a message is sent again, doubled each time (T1), and for how long.
RESEND_SECONDS = 0.5
PATIENCE_SECONDS = 32.0

# Who is late makes up for it with calls this much closer to each other, not with a bunch of them,
# which would be another load than was asked for.
CLOSER = 0.75


@dataclass
class Leg:
    """One phone's end of a call."""

    number: int
    phone: Phone
    call_id: str
    own: str  # From of our requests
    peer: str  # To of our requests
    target: str
    routes: list[str] = field(default_factory=list)
    cseq: int = 1
    version: int = 1
    started: float = 0.0
    final_after: float = -1.0
    status: int = 0
    retry_after: str = ""
    reason: str = ""
    answered_at: float = 0.0
    hold: float = 0.0
    kind: str = ""
    dialled: str = ""
    ended_by: str = ""
    ended_at: float = 0.0
    end_status: int = 0
    resent: int = 0
    challenged: bool = False
    stream: rtp.Stream | None = None
    invite: bytes = b""
    ack: bytes = b""
    answers: dict[tuple[str, int], bytes] = field(default_factory=dict)
    waiting: set[tuple[str, int]] = field(default_factory=set)

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "number": self.number,
            "phone": self.phone.user,
            "call_id": self.call_id,
            "status": self.status,
            "reason": self.reason,
            "retry_after": self.retry_after,
            "final_after": round(self.final_after, 3),
            "ended_by": self.ended_by,
            "resent": self.resent,
            "sent": self.stream.sent if self.stream else 0,
            "heard": self.stream.heard.as_dict() if self.stream else None,
            "first_heard_after": self._first_heard(),
        }

    def _first_heard(self) -> float | None:
        if not self.stream or not self.stream.heard.first_at:
            return None
        return round(self.stream.heard.first_at - self.answered_at, 3)


class Phone:
    """An account with a socket for SIP and one for audio."""

    def __init__(
        self,
        agent: Agent,
        address: str,
        user: str,
        domain: str,
        password: str,
        *,
        audio: rtp.Side | None = None,
    ) -> None:
        self.agent = agent
        self.user, self.domain, self.password = user, domain, password
        self.address = address
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]
        self.audio = audio or rtp.Side(address)
        self.legs: dict[str, Leg] = {}
        self.registered = 0
        self.registration: tuple[str, str, int] = ("", "", 0)

    @property
    def aor(self) -> str:
        """Address of record."""
        return f"sip:{self.user}@{self.domain}"

    @property
    def contact(self) -> str:
        """Where this phone is."""
        return f"<sip:{self.user}@{self.address}:{self.port}>"

    def via(self) -> tuple[str, str]:
        """The header that brings the answer back."""
        branch = f"z9hG4bK{secrets.token_hex(8)}"
        return ("Via", f"SIP/2.0/UDP {self.address}:{self.port};rport;branch={branch}")

    def send(self, data: bytes) -> None:
        """To the cluster."""
        self.agent.seen(self, ">", data)
        self.socket.sendto(data, self.agent.proxy)

    # --- registration

    def register(self, expires: int) -> None:
        """Begin to register."""
        self.registered = 0
        self.registration = (f"{secrets.token_hex(8)}-reg", secrets.token_hex(4), expires)
        self.send(self._register(1, ()))

    def _register(self, number: int, more: tuple[tuple[str, str], ...]) -> bytes:
        call_id, tag, expires = self.registration
        return sip.build(
            f"REGISTER sip:{self.domain} SIP/2.0",
            (
                self.via(),
                ("Max-Forwards", "70"),
                ("From", f"<{self.aor}>;tag={tag}"),
                ("To", f"<{self.aor}>"),
                ("Call-ID", call_id),
                ("CSeq", f"{number} REGISTER"),
                ("Contact", self.contact),
                ("Expires", str(expires)),
                *more,
            ),
        )

    def _registered(self, message: sip.Message) -> None:
        if message.status == 401 and message.number == 1:
            asked = sip.challenge(message.get("www-authenticate"))
            words = sip.credentials(
                asked, self.user, self.password, "REGISTER", f"sip:{self.domain}", "c0ffee"
            )
            self.send(self._register(2, (("Authorization", words),)))
        else:
            self.registered = message.status

    # --- calling

    def invite(self, number: int, dialled: str, hold: float) -> Leg:
        """Begin a call that this phone ends after so many seconds of talk."""
        own = f"<{self.aor}>;tag={secrets.token_hex(4)}"
        target = f"sip:{dialled}@{self.domain}"
        leg = Leg(number, self, f"{secrets.token_hex(8)}@load", own, f"<{target}>", target)
        leg.started, leg.hold, leg.dialled = time.monotonic(), hold, dialled
        self.legs[leg.call_id] = leg
        self._invite(leg, ())
        return leg

    def _invite(self, leg: Leg, more: tuple[tuple[str, str], ...]) -> None:
        body = sip.description(self.address, self.audio.port, leg.version)
        leg.invite = self.request(leg, "INVITE", leg.cseq, more, body)
        self._send_until(leg, leg.invite, ("INVITE", leg.cseq))

    def request(
        self,
        leg: Leg,
        method: str,
        number: int,
        more: tuple[tuple[str, str], ...] = (),
        body: str = "",
    ) -> bytes:
        """A request in or for a dialog."""
        return sip.build(
            f"{method} {leg.target} SIP/2.0",
            (
                self.via(),
                ("Max-Forwards", "70"),
                *(("Route", route) for route in leg.routes),
                ("From", leg.own),
                ("To", leg.peer),
                ("Call-ID", leg.call_id),
                ("CSeq", f"{number} {method}"),
                ("Contact", self.contact),
                ("Allow", sip.METHODS),
                *more,
            ),
            body,
        )

    def hang_up(self, leg: Leg) -> None:
        """End a call."""
        if leg.ended_by or not leg.answered_at:
            return
        leg.ended_by, leg.ended_at = "itself", time.monotonic()
        self.silence(leg)
        leg.cseq += 1
        self._send_until(leg, self.request(leg, "BYE", leg.cseq), ("BYE", leg.cseq))

    def silence(self, leg: Leg) -> None:
        """No audio for this leg any more; what was heard is kept."""
        if leg.stream:
            self.audio.remove(leg.stream)

    def _send_until(
        self, leg: Leg, data: bytes, key: tuple[str, int], pause: float = RESEND_SECONDS
    ) -> None:
        leg.waiting.add(key)
        self.send(data)

        def again(wait: float) -> None:
            if key not in leg.waiting or wait > PATIENCE_SECONDS:
                return
            leg.resent += 1
            self.send(data)
            self.agent.later(wait, lambda: again(wait * 2))

        self.agent.later(pause, lambda: again(pause * 2))

    # --- what arrives

    def take(self, data: bytes) -> None:
        """One datagram."""
        if len(data) < 20 or data[0] & 0x80:
            return  # a keep-alive, or RTCP for the audio socket whose port is one less
        self.agent.seen(self, "<", data)
        message = sip.parse(data)
        if message.status:
            if message.method == "REGISTER":
                self._registered(message)
            elif leg := self.legs.get(message.get("call-id")):
                self._answered(leg, message)
        else:
            self._asked(message)

    def _answered(self, leg: Leg, message: sip.Message) -> None:
        leg.waiting.discard((message.method, message.number))
        if message.method == "BYE" and message.status >= 200:
            leg.end_status = leg.end_status or message.status
        if message.method != "INVITE" or message.status < 200:
            return
        if message.status >= 300:
            self._acknowledge_refusal(leg, message)
            if message.number < leg.cseq:
                return  # the challenge once more
            if message.status in (401, 407) and not leg.challenged:
                leg.challenged = True
                self._authenticate(leg, message)
            elif not leg.status:
                self._final(leg, message)
            return
        if leg.status:
            self._answered_again(leg, message)
            return
        self._final(leg, message)
        leg.answered_at = time.monotonic()
        leg.peer = message.get("to")
        leg.target = sip.uri(message.get("contact"))
        leg.routes = list(reversed(message.all("record-route")))
        leg.ack = self.request(leg, "ACK", message.number)
        self.send(leg.ack)
        self._talk(leg, message.body)
        talking = sum(1 for one in self.legs.values() if one.answered_at and not one.ended_by)
        self.agent.most_at_once = max(self.agent.most_at_once, talking)
        self.agent.began(leg)

    def _answered_again(self, leg: Leg, message: sip.Message) -> None:
        if leg.status == 200 and message.get("to") == leg.peer:
            self.send(leg.ack)  # the same answer once more
            return
        # Another one takes the call, when it is too late: this dialog ends at once.
        late = Leg(leg.number, self, leg.call_id, leg.own, message.get("to"), "")
        late.target = sip.uri(message.get("contact"))
        late.routes = list(reversed(message.all("record-route")))
        self.send(self.request(late, "ACK", message.number))
        self.send(self.request(late, "BYE", message.number + 1))

    def _final(self, leg: Leg, message: sip.Message) -> None:
        leg.status = message.status
        leg.reason = message.start.split(" ", 2)[2]
        leg.retry_after = message.get("retry-after")
        leg.final_after = time.monotonic() - leg.started

    def _acknowledge_refusal(self, leg: Leg, message: sip.Message) -> None:
        # The same transaction: its Via, its request address.
        invite = sip.parse(leg.invite)
        headers = (
            ("Via", invite.get("via")),
            ("Max-Forwards", "70"),
            ("From", leg.own),
            ("To", message.get("to")),
            ("Call-ID", leg.call_id),
            ("CSeq", f"{message.number} ACK"),
        )
        self.send(sip.build(f"ACK {invite.start.split()[1]} SIP/2.0", headers))

    def _authenticate(self, leg: Leg, message: sip.Message) -> None:
        proxy = message.status == 407
        asked = sip.challenge(message.get("proxy-authenticate" if proxy else "www-authenticate"))
        words = sip.credentials(asked, self.user, self.password, "INVITE", leg.target, "c0ffee")
        leg.cseq += 1
        name = "Proxy-Authorization" if proxy else "Authorization"
        self._invite(leg, ((name, words),))

    def _asked(self, message: sip.Message) -> None:
        leg = self.legs.get(message.get("call-id"))
        method = message.method
        if method == "ACK":
            if leg:
                leg.waiting.discard(("ACK", message.number))
            return
        if leg and (sent := leg.answers.get((method, message.number))):
            self.send(sent)
        elif method == "OPTIONS":
            self.send(self._answer(message, "200 OK", ""))
        elif method == "INVITE":
            self._called(message) if leg is None else self._changed(leg, message)
        elif leg is None:
            self.send(self._answer(message, "481 Call Does Not Exist", "none"))
        else:
            if method == "BYE" and not leg.ended_by:
                leg.ended_by, leg.ended_at = "other", time.monotonic()
                self.silence(leg)
                self.agent.left(leg)
            leg.answers[method, message.number] = self._answer(message, "200 OK", "")
            self.send(leg.answers[method, message.number])

    def _called(self, message: sip.Message) -> None:
        tag = secrets.token_hex(4)
        own = f"{message.get('to')};tag={tag}"
        target = sip.uri(message.get("contact"))
        leg = Leg(
            next(self.agent.numbers),
            self,
            message.get("call-id"),
            own,
            message.get("from"),
            target,
            message.all("record-route"),
            100,
            started=time.monotonic(),
        )
        self.legs[leg.call_id] = leg
        self.agent.legs.append(leg)
        ringing = self._answer(message, "180 Ringing", tag)
        leg.answers["INVITE", message.number] = ringing
        self.send(ringing)
        if self.agent.rings:
            self.agent.later(self.agent.rings, lambda: self._pick_up(leg, message, tag))
        else:
            self._pick_up(leg, message, tag)

    def _pick_up(self, leg: Leg, message: sip.Message, tag: str) -> None:
        leg.status, leg.reason, leg.final_after = 200, "OK", 0.0
        leg.answered_at = time.monotonic()
        self._talk(leg, message.body)
        self._agree(leg, message, tag)

    def _changed(self, leg: Leg, message: sip.Message) -> None:
        if message.body:
            self._talk(leg, message.body)
        leg.version += 1
        self._agree(leg, message, "")

    def _agree(self, leg: Leg, message: sip.Message, tag: str) -> None:
        body = sip.description(self.address, self.audio.port, leg.version)
        answer = self._answer(message, "200 OK", tag, body)
        leg.answers["INVITE", message.number] = answer
        self._send_until(leg, answer, ("ACK", message.number))

    def _answer(self, message: sip.Message, status: str, tag: str, body: str = "") -> bytes:
        to = message.get("to") + (f";tag={tag}" if tag else "")
        kept = [
            (name.title(), value)
            for name, value in message.headers
            if name in ("via", "record-route", "from", "call-id", "cseq")
        ]
        own = (("To", to), ("Contact", self.contact), ("Allow", sip.METHODS))
        return sip.build(f"SIP/2.0 {status}", (*kept, *own), body)

    def _talk(self, leg: Leg, body: str) -> None:
        remote = sip.endpoint(body)
        if leg.stream is None:
            leg.stream = rtp.Stream(leg.number, remote)
            self.audio.add(leg.stream)
        elif not leg.ended_by:
            self.audio.move(leg.stream, remote)


class Agent:
    """The two phones, and the clock of their calls."""

    # Without an order for so long it ends, whatever became of the program that started it.
    idle_seconds = 600.0

    def __init__(self, proxy: str, port: int) -> None:
        self.proxy = (proxy, port)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
            way.connect(self.proxy)
            self.address = str(way.getsockname()[0])
        self.phones: list[Phone] = []
        self.legs: list[Leg] = []
        self.numbers = itertools.count(1)
        self.selector = selectors.DefaultSelector()
        self.generator: rtp.Generator | None = None
        self.most_at_once = 0
        self.rings = 0.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._ordered = False

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), act))

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Live for so many seconds, or until a condition holds; whether it does."""
        end = time.monotonic() + seconds
        while not until():
            now = time.monotonic()
            if now >= end:
                return False
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()
            next_timer = self._timers[0][0] if self._timers else end
            for key, _events in self.selector.select(max(0.0, min(next_timer, end) - now)):
                if key.data is None:
                    self._ordered = True
                else:
                    self._drain(key.data)
        return True

    def wait_for_order(self) -> bool:
        """Let the calls go on until there is something to read on standard input."""
        self._ordered = False
        self.selector.register(sys.stdin, selectors.EVENT_READ, None)
        found = self.run(self.idle_seconds, lambda: self._ordered)
        self.selector.unregister(sys.stdin)
        return found

    @staticmethod
    def _drain(phone: Phone) -> None:
        while True:
            try:
                data = phone.socket.recv(65535)
            except BlockingIOError:
                return
            phone.take(data)

    # --- what the phones tell

    def seen(self, phone: Phone, direction: str, data: bytes) -> None:
        """A message that a phone sends (``>``) or gets (``<``)."""

    def began(self, leg: Leg) -> None:
        """A phone's call was answered."""
        if leg.hold:
            self.later(leg.hold, lambda: leg.phone.hang_up(leg))

    def left(self, leg: Leg) -> None:
        """The other side has ended a call."""

    # --- orders

    def open(self, accounts: list[dict[str, str]]) -> dict[str, Any]:
        """Make the phones, the caller first, and register them."""
        for account in accounts:
            words = (account["user"], account["domain"], account["password"])
            phone = Phone(self, self.address, *words)
            self.phones.append(phone)
            self.selector.register(phone.socket, selectors.EVENT_READ, phone)
        self.generator = rtp.Generator(phone.audio for phone in self.phones)
        self.generator.start()
        return self.register(3600)

    def register(self, expires: int) -> dict[str, Any]:
        """Register all phones for so many seconds; 0 takes them back."""
        for phone in self.phones:
            phone.register(expires)
        self.run(5.0, lambda: all(phone.registered for phone in self.phones))
        return {phone.user: phone.registered for phone in self.phones}

    def calls(self, count: int, per_second: float, hold: float, wait: float) -> dict[str, Any]:
        """Begin calls at an even pace, then wait until each is answered or refused."""
        caller, callee = self.phones
        begun: list[Leg] = []
        start = time.monotonic()

        def begin(number: int) -> None:
            leg = caller.invite(next(self.numbers), callee.user, hold)
            begun.append(leg)
            self.legs.append(leg)
            if number + 1 < count:
                left = start + (number + 1) / per_second - time.monotonic()
                self.later(max(left, CLOSER / per_second), lambda: begin(number + 1))

        begin(0)
        self.run(
            count / per_second + wait,
            lambda: len(begun) == count and all(leg.status for leg in begun),
        )
        return {"legs": [leg.as_dict() for leg in begun]}

    def ring(self, seconds: float) -> dict[str, Any]:
        """From now on a phone that is called rings for so long before it answers."""
        self.rings = seconds
        return {}

    def live(self, seconds: float) -> dict[str, Any]:
        """Let the calls go on."""
        self.run(seconds)
        return {}

    def mark(self) -> dict[str, Any]:
        """Count anew what is heard."""
        for leg in self.legs:
            if leg.stream:
                leg.stream.heard.reset()
        assert self.generator is not None
        self.generator.reset()
        return {}

    def report(self) -> dict[str, Any]:
        """All legs there ever were, and the generator's own trouble."""
        assert self.generator is not None
        return {
            "legs": [leg.as_dict() for leg in self.legs],
            "most_at_once": self.most_at_once,
            "generator_latest_ms": round(self.generator.latest_ms, 1),
            "generator_cpu_seconds": round(self.generator.cpu_seconds, 2),
            "strangers": sum(phone.audio.strangers for phone in self.phones),
            "refused_by_kernel": sum(phone.audio.refused for phone in self.phones),
        }

    def hang_up(self) -> dict[str, Any]:
        """End all calls, and forget them when both ends know."""
        caller = self.phones[0]
        for leg in list(caller.legs.values()):
            caller.hang_up(leg)

        def quiet() -> bool:
            return all(
                (leg.ended_by or not leg.answered_at) and not leg.waiting for leg in self.legs
            )

        ended = self.run(10.0, quiet)
        unfinished = [leg.as_dict() for leg in self.legs if leg.waiting or not leg.ended_by]
        for phone in self.phones:
            for leg in phone.legs.values():
                phone.silence(leg)
            phone.legs.clear()
        self.legs.clear()
        self.most_at_once = 0
        return {"ended": ended, "unfinished": [leg for leg in unfinished if leg["status"] == 200]}

    def vanish(self) -> None:
        """Be gone without a word, like a phone whose battery is out."""
        os._exit(0)

    def close(self) -> None:
        """Take the registrations back and be silent."""
        if self.generator is not None:
            self.register(0)
            self.generator.stop()


def serve(agent: Agent) -> None:
    """Take orders until the input ends."""
    try:
        while agent.wait_for_order():
            line = sys.stdin.readline()
            if not line:
                break
            order = json.loads(line)
            try:
                answer = getattr(agent, order.pop("do"))(**order)
            except ValueError as error:
                answer = {"error": str(error)}
            print(json.dumps(answer), flush=True)
    finally:
        agent.close()


def main() -> None:
    """Serve until the input ends. Arguments: the cluster's outside address and port."""
    serve(Agent(sys.argv[1], int(sys.argv[2])))


if __name__ == "__main__":
    main()
