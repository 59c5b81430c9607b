# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a probe: phones that go on calling each other without anybody's orders.

The orders are those of `load_agent` and a few more. Two phones hold all the calls; others have
registered once and wait to be called. Every leg knows when what happened to it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import sys
import time
from typing import Any

from support import load_agent, rtp
from support.load_agent import Leg, Phone

# Registrations in a second, when all phones register one after another.
REGISTRATIONS_PER_SECOND = 40.0

# Long calls in a second, until there are enough of them.
FILL_PER_SECOND = 2.0

# A phone whose partner has hung up hears silence and hangs up, too, when no BYE comes.
PATIENCE_SECONDS = 2.0


# Who hears nothing for so long after an answer hears nothing.
AUDIO_SECONDS = 1.0


class Traffic(load_agent.Agent):
    """Calls of two kinds: short ones at an even pace, and long ones, always the same number."""

    # A whole upgrade may pass without an order.
    idle_seconds = 5400.0

    def __init__(self, proxy: str, port: int) -> None:
        super().__init__(proxy, port)
        self.others: dict[str, Phone] = {}
        self.ladders: dict[str, list[tuple[float, str]]] = {}
        self.running = False
        self.per_second = 0.0
        self.standing = 0
        self.turns = itertools.count()

    # --- orders

    def settle(self, accounts: list[dict[str, str]]) -> dict[str, Any]:
        """Register further phones once, for an hour; what each was answered."""
        audio = rtp.Side(self.address)
        assert self.generator is not None
        self.generator.include(audio)
        for number, account in enumerate(accounts):
            words = (account["user"], account["domain"], account["password"])
            phone = Phone(self, self.address, *words, audio=audio)
            self.others[phone.user] = phone
            self.selector.register(phone.socket, selectors.EVENT_READ, phone)
            self.later(number / REGISTRATIONS_PER_SECOND, self._registering(phone))
        self.run(
            len(accounts) / REGISTRATIONS_PER_SECOND + 5,
            lambda: all(phone.registered for phone in self.others.values()),
        )
        return {phone.user: phone.registered for phone in self.others.values()}

    def begin(
        self, per_second: float, hold: float, standing: int, standing_hold: float, limit: float
    ) -> dict[str, Any]:
        """Call from now on: short calls in a second, and long ones that are always up.

        After ``limit`` seconds no further call begins, whatever became of who gave the order.
        """
        self.running = True
        self.pace(per_second, standing)
        until = time.monotonic() + limit

        def short(due: float) -> None:
            if self.running and due < until:
                self._call("short", hold)
                following = due + 1 / self.per_second
                left = following - time.monotonic()
                closest = load_agent.CLOSER / self.per_second
                self.later(max(left, closest), lambda: short(following))

        def fill() -> None:
            if self.running and time.monotonic() < until:
                up = [leg for leg in self.legs if leg.kind == "long" and self._alive(leg)]
                if len(up) < self.standing:
                    self._call("long", standing_hold)
                self.later(1 / FILL_PER_SECOND, fill)

        short(time.monotonic())
        fill()
        return {}

    def pace(self, per_second: float, standing: int) -> dict[str, Any]:
        """Call so often from now on, and have so many long calls; more than that end by and by."""
        self.per_second, self.standing = per_second, standing
        return {}

    def visit(self, users: list[str], per_second: float, hold: float) -> dict[str, Any]:
        """Call phones that only wait, each once; the answer comes when each call has ended."""
        begun: list[Leg] = []

        def call(user: str) -> None:
            leg = self.phones[0].invite(next(self.numbers), user, hold)
            leg.kind = "visit"
            self.legs.append(leg)
            begun.append(leg)

        for number, user in enumerate(users):
            self.later(number / per_second, self._calling(call, user))
        self.run(
            len(users) / per_second + hold + 10,
            lambda: (
                len(begun) == len(users) and all(leg.ended_by or leg.status >= 300 for leg in begun)
            ),
        )
        return {"legs": [self._told(leg) for leg in begun]}

    def settled(self, moment: float, wait: float) -> dict[str, Any]:
        """Wait until it is clear what becomes of each call begun before a moment.

        It has its final answer, and if that is good, audio has had the time to come. The answer is
        how many have none.
        """

        def unclear(leg: Leg) -> bool:
            if leg.status != 200:
                return not leg.status
            heard = leg.stream and leg.stream.heard.packets
            return not heard and time.monotonic() < leg.answered_at + AUDIO_SECONDS

        def open_ones() -> list[Leg]:
            return [leg for leg in self.legs if leg.started < moment and unclear(leg)]

        self.run(wait, lambda: not open_ones())
        return {"open": len(open_ones())}

    def stop(self, wait: float) -> dict[str, Any]:
        """Begin no further call, end all there are and wait for the ends."""
        self.running = False
        up = [leg for leg in self.legs if leg.answered_at and not leg.ended_by and leg.dialled]
        for number, leg in enumerate(up):
            self.later(number / 40, self._ending(leg))
        ended = self.run(
            len(up) / 40 + wait,
            lambda: (
                all(leg.ended_by or not leg.answered_at for leg in self.legs)
                and not any(leg.waiting for leg in self.legs)
            ),
        )
        return {"ended": ended}

    def told(self, since: float) -> dict[str, Any]:
        """All legs that were there after a moment, and the generator's own trouble."""
        legs = [leg for leg in self.legs if not leg.ended_at or leg.ended_at >= since]
        return {
            "legs": [self._told(leg) for leg in legs],
            **{name: value for name, value in self.report().items() if name != "legs"},
        }

    def talking(self) -> dict[str, Any]:
        """How many calls are up."""
        return {
            kind: sum(1 for leg in self.legs if leg.kind == kind and self._alive(leg))
            for kind in ("short", "long")
        }

    def messages(self, call_ids: list[str]) -> dict[str, Any]:
        """What the phones sent and got in some calls."""
        found = [line for call_id in call_ids for line in self.ladders.get(call_id, ())]
        return {"lines": [f"{moment:.3f} {text}" for moment, text in sorted(found)]}

    def report(self) -> dict[str, Any]:
        """What the load agent says, without the legs."""
        assert self.generator is not None
        sides = {phone.audio for phone in (*self.phones, *self.others.values())}
        return {
            "most_at_once": self.most_at_once,
            "generator_latest_ms": round(self.generator.latest_ms, 1),
            "generator_cpu_seconds": round(self.generator.cpu_seconds, 2),
            "cpu_seconds": round(time.process_time(), 2),
            "strangers": sum(side.strangers for side in sides),
            "refused_by_kernel": sum(side.refused for side in sides),
        }

    def close(self) -> None:
        """Take the registrations back and be silent."""
        self.phones += self.others.values()
        super().close()

    # --- what the phones tell

    def seen(self, phone: Phone, direction: str, data: bytes) -> None:
        """Keep the first line of every message of a call."""
        if b"REGISTER" in data[:12]:
            return
        start, rest = data.split(b"\r\n", 1)
        call_id = number = b""
        for line in rest.split(b"\r\n"):
            if line[:8].lower() == b"call-id:":
                call_id = line[8:].strip()
            elif line[:2] == b"i:":
                call_id = line[2:].strip()
            elif line[:5].lower() == b"cseq:":
                number = line[5:].strip()
        arrow = f"{phone.user} -->" if direction == ">" else f"{phone.user} <--"
        text = f"{arrow} {start.decode(errors='replace')} ({number.decode(errors='replace')})"
        self.ladders.setdefault(call_id.decode(errors="replace"), []).append(
            (time.monotonic(), text)
        )

    def began(self, leg: Leg) -> None:
        """Either phone hangs up when the time has come."""
        self.later(leg.hold, self._ending(leg))

    def left(self, leg: Leg) -> None:
        """The partner of a leg that was ended waits for its own BYE."""
        self.later(PATIENCE_SECONDS, self._parting(leg))

    # --- inside

    def _call(self, kind: str, hold: float) -> None:
        turn = next(self.turns)
        caller, callee = self.phones[turn % 2], self.phones[1 - turn % 2]
        leg = caller.invite(next(self.numbers), callee.user, hold)
        leg.kind = kind
        self.legs.append(leg)

    @staticmethod
    def _alive(leg: Leg) -> bool:
        return not leg.ended_by and leg.status < 300

    def _partner(self, leg: Leg) -> Leg | None:
        """The leg whose audio a leg hears."""
        heard = leg.stream.heard.speakers if leg.stream else set()
        return next((other for other in reversed(self.legs) if other.number in heard), None)

    def _end(self, leg: Leg) -> None:
        # One call of two is ended by the callee.
        partner = self._partner(leg)
        by_callee = partner is not None and partner.number % 2
        ender = partner if partner is not None and by_callee else leg
        ender.phone.hang_up(ender)
        self.later(PATIENCE_SECONDS, self._parting(ender))

    def _part(self, leg: Leg) -> None:
        partner = self._partner(leg)
        if partner is not None:
            partner.phone.hang_up(partner)

    # Functions without arguments, for the clock.

    def _registering(self, phone: Phone) -> Any:
        return lambda: phone.register(3600)

    @staticmethod
    def _calling(call: Any, user: str) -> Any:
        return lambda: call(user)

    def _ending(self, leg: Leg) -> Any:
        return lambda: None if leg.ended_by else self._end(leg)

    def _parting(self, leg: Leg) -> Any:
        return lambda: self._part(leg)

    def _told(self, leg: Leg) -> dict[str, Any]:
        heard = leg.stream.heard if leg.stream else rtp.Heard()
        return {
            "number": leg.number,
            "kind": leg.kind,
            "phone": leg.phone.user,
            "dialled": leg.dialled,
            "call_id": leg.call_id,
            "relay": "{}:{}".format(*leg.stream.remote) if leg.stream else "",
            "started": round(leg.started, 3),
            "status": leg.status,
            "reason": leg.reason,
            "final_after": round(leg.final_after, 3),
            "answered_at": round(leg.answered_at, 3),
            "ended_by": leg.ended_by,
            "ended_at": round(leg.ended_at, 3),
            "end_status": leg.end_status,
            "packets": heard.packets,
            "lost": heard.lost,
            "speakers": sorted(heard.speakers),
            "first_at": round(heard.first_at, 3),
            "last_at": round(heard.last_at, 3),
            "gaps": [[round(begin, 3), round(end, 3), lost] for begin, end, lost in heard.gaps],
        }


def main() -> None:
    """Serve until the input ends. Arguments: the cluster's outside address and port."""
    # Phones are machines of their own: they wait for nobody with whom they share one in the lab.
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(2))
    load_agent.serve(Traffic(sys.argv[1], int(sys.argv[2])))


if __name__ == "__main__":
    main()
