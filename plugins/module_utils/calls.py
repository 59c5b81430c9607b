# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The calls that prove a cluster, and the judgement of what the phones measured.

The `judge_*` functions are pure: what was measured goes in, a Result comes out. `Rehearsal` makes
the calls with phones that were started by its caller.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from . import phones, tones

# Multiples of 100 Hz, apart from the tones a PBX plays itself (350-620 Hz), from DTMF and from fax.
CALLER_TONE = 800
CALLEE_TONE = 1200

# After an answer: time for the PBX to send its re-INVITEs and to leave the media path.
SETTLE_SECONDS = 2.0
ECHO_SECONDS = 2.5

# Between two calls of the phone that calls again and again.
PAUSE_SECONDS = 0.2

# A phone that hangs up stops listening at once, while the other one talks until it hears of it:
# what is under way then is not lost. 10 packets are 200 ms of G.711.
UNDER_WAY = 10


@dataclass(frozen=True)
class Limits:
    """What is still a good call."""

    gap_ms: int = 200
    lost_percent: float = 1.0
    start_ms: int = 1000
    answer_seconds: float = 10.0
    hangup_seconds: float = 2.0


@dataclass(frozen=True)
class Result:
    """One line of the report."""

    check: str
    ok: bool
    measured: str
    expected: str
    detail: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Plain data for Ansible and JSON."""
        return {
            "check": self.check,
            "ok": self.ok,
            "measured": self.measured,
            "expected": self.expected,
            "detail": list(self.detail),
        }


@dataclass(frozen=True)
class Side:
    """What one phone knows of a call that has ended. `heard` is None without a recording."""

    name: str
    heard: tones.Heard | None
    packets: phones.Packets | None


@dataclass(frozen=True)
class Services:
    """The numbers the checks dial besides the callee's extension."""

    echo: str
    unknown: str


@dataclass
class Report:
    """Everything a rehearsal found out."""

    results: list[Result] = field(default_factory=list)
    call_ids: list[str] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there are results and all of them are good."""
        return bool(self.results) and all(result.ok for result in self.results)


def judge_registration(
    check: str, event: phones.Event | None, seconds: float, expected: Sequence[int]
) -> Result:
    """A REGISTER against the codes it should end with."""
    wanted = " or ".join(str(code) for code in expected)
    if event is None:
        return Result(check, False, f"no answer in {seconds:.1f} s", wanted)
    measured = f"{event.param} after {seconds * 1000:.0f} ms"
    return Result(check, event.code in expected, measured, wanted)


def judge_attempt(check: str, attempt: phones.Attempt, expected: Sequence[int]) -> Result:
    """A dialled number against the codes it should end with; 200 stands for answered."""
    wanted = " or ".join("answered" if code == 200 else str(code) for code in expected)
    outcome = "answered" if attempt.answered else attempt.reason
    measured = f"{outcome} after {attempt.seconds * 1000:.0f} ms"
    return Result(check, attempt.code in expected, measured, wanted)


def judge_tone(
    check: str, heard: tones.Heard | None, talk_ms: int, frequency: int, limits: Limits
) -> Result:
    """A recording of a call that lasted `talk_ms` against the tone that should fill it."""
    least = max(talk_ms - limits.start_ms, 1)
    expected = f"{frequency} Hz for {least} ms, no gap over {limits.gap_ms} ms"
    if heard is None:
        return Result(check, False, "nothing was recorded", expected)
    measured = f"{heard.heard_ms} ms, longest gap {heard.longest_gap_ms} ms"
    if heard.other_ms:
        measured += f", {heard.other_ms} ms of other sounds"
    ok = heard.heard_ms >= least and heard.longest_gap_ms <= limits.gap_ms
    return Result(check, ok, measured, expected, (f"recording: {heard.as_dict()}",))


def judge_packets(
    check: str, sender: phones.Packets | None, receiver: phones.Packets | None, limits: Limits
) -> Result:
    """What one phone sent against what the other received."""
    expected = f"at most {limits.lost_percent:g} % lost"
    if sender is None or receiver is None:
        return Result(check, False, "a phone did not count its packets", expected)
    missing = max(sender.sent - receiver.received, 0)
    lost = max(missing - UNDER_WAY, 0)
    measured = f"{sender.sent} sent, {receiver.received} received"
    allowed = sender.sent * limits.lost_percent / 100
    return Result(check, sender.sent > 0 and lost <= allowed, measured, expected)


def judge_attempts(check: str, attempts: Sequence[phones.Attempt]) -> Result:
    """Calls made one after another: all of them should be answered."""
    answered = [one for one in attempts if one.answered]
    slowest = max((one.seconds for one in answered), default=0.0)
    measured = f"{len(answered)} of {len(attempts)}, the slowest after {slowest * 1000:.0f} ms"
    failed = tuple(
        f"call {number}: {one.reason} after {one.seconds:.1f} s"
        for number, one in enumerate(attempts, 1)
        if not one.answered
    )
    return Result(check, bool(attempts) and not failed, measured, "all", failed)


def judge_hangup(check: str, event: phones.Event | None, seconds: float, limits: Limits) -> Result:
    """The end of a call as the phone saw it that did not ask for it."""
    expected = f"ends within {limits.hangup_seconds:g} s"
    if event is None:
        return Result(check, False, f"still in the call after {seconds:.1f} s", expected)
    return Result(check, True, f"{event.param} after {seconds * 1000:.0f} ms", expected)


def not_tried(check: str, why: str) -> Result:
    """A check that makes no sense any more."""
    return Result(check, False, "not tried", why)


class Rehearsal:
    """Makes the calls. All phones exist and have no account yet.

    `hold` is called in the middle of the conversation with the Call-IDs of both legs; the caller
    hangs up when it returns, at the earliest after `talk_seconds`.
    """

    def __init__(
        self,
        proxy: phones.Proxy,
        caller: phones.Phone,
        callee: phones.Phone,
        stranger: phones.Phone,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._proxy = proxy
        self._caller = caller
        self._callee = callee
        self._stranger = stranger
        self._limits = limits
        self._clock = clock
        self._sleep = sleep
        self.report = Report()

    def run(
        self,
        accounts: tuple[phones.Account, phones.Account],
        services: Services,
        talk_seconds: float,
        hold: Callable[[list[str]], None],
        refusals: Sequence[int] = (401, 403),
        through: str = "",
        only: bool = False,
    ) -> Report:
        """Register, talk, listen to the echo, be refused. Returns the report.

        `refusals` are the SIP codes with which a wrong password may be refused. With URI parameters
        in `through` (";node=ADDRESS:PORT") the conversation's target has them; with these, and with
        `only`, the conversation is all.
        """
        try:
            self._run(accounts, services, talk_seconds, hold, refusals, through, only)
        except phones.PhoneError as error:
            self._add(Result("the test phones work", False, str(error), "they do"))
        return self.report

    def _run(
        self,
        accounts: tuple[phones.Account, phones.Account],
        services: Services,
        talk_seconds: float,
        hold: Callable[[list[str]], None],
        refusals: Sequence[int],
        through: str,
        only: bool,
    ) -> None:
        first, second = accounts
        one = self._register(self._caller, first)
        two = self._register(self._callee, second)
        if one and two:
            self._talk(first, second, talk_seconds, hold, through)
        else:
            self._add(not_tried(f"{first.user} calls {second.user}", "both phones registered"))
            hold([])
        if through or only:
            return
        if one:
            self._echo(f"sip:{services.echo}@{first.domain}", services.echo)
            self._unknown(f"sip:{services.unknown}@{first.domain}", services.unknown)
        else:
            self._add(not_tried(f"echo number {services.echo} answers", "the caller registered"))
            self._add(
                not_tried(f"unknown number {services.unknown} is refused", "the caller registered")
            )
        self._refused(first, refusals)

    def call_until(
        self, over: Callable[[], bool], account: phones.Account, services: Services
    ) -> None:
        """The third phone calls the echo number again and again. For `hold`."""
        attempts = []
        if self._register(self._stranger, account):
            while not over():
                attempt = self._stranger.dial(
                    f"sip:{services.echo}@{account.domain}", self._limits.answer_seconds
                )
                attempts.append(attempt)
                if attempt.answered:
                    self._stranger.hang_up(attempt.call_id)
                    self._stranger.closed(attempt.call_id, self._limits.hangup_seconds)
                self._sleep(PAUSE_SECONDS)
        self._add(judge_attempts("new calls are answered", attempts))

    def _add(self, result: Result) -> bool:
        self.report.results.append(result)
        return result.ok

    def _register(self, phone: phones.Phone, account: phones.Account) -> bool:
        started = self._clock()
        phone.add_account(account, self._proxy, 300)
        event = phone.registered(self._limits.answer_seconds)
        seconds = self._clock() - started
        return self._add(judge_registration(f"{account.user} registers", event, seconds, (200,)))

    def _refused(self, account: phones.Account, expected: Sequence[int]) -> None:
        wrong = phones.Account(account.user, account.domain, "not-" + account.password[::-1])
        started = self._clock()
        self._stranger.add_account(wrong, self._proxy, 300)
        event = self._stranger.registered(self._limits.answer_seconds)
        seconds = self._clock() - started
        check = f"{account.user} with a wrong password is refused"
        self._add(judge_registration(check, event, seconds, expected))

    def _unknown(self, target: str, number: str) -> None:
        attempt = self._caller.dial(target, self._limits.answer_seconds)
        self._add(judge_attempt(f"unknown number {number} is refused", attempt, (404,)))
        if attempt.answered:
            self._caller.hang_up(attempt.call_id)

    def _echo(self, target: str, number: str) -> None:
        position = self._caller.position()
        attempt = self._caller.dial(target, self._limits.answer_seconds)
        if not self._add(judge_attempt(f"echo number {number} answers", attempt, (200,))):
            return
        legs = [(self._caller, attempt.call_id)]
        talk_ms = self._stay(f"call to {number}", ECHO_SECONDS, self._clock(), legs)
        side = self._side(self._caller, CALLER_TONE, position)
        check = f"echo number {number} sends the caller's own tone back"
        self._add(judge_tone(check, side.heard, talk_ms, CALLER_TONE, self._limits))

    def _talk(
        self,
        first: phones.Account,
        second: phones.Account,
        talk_seconds: float,
        hold: Callable[[list[str]], None],
        through: str,
    ) -> None:
        since = len(self._callee.control.events)
        positions = self._caller.position(), self._callee.position()
        target = f"sip:{second.user}@{second.domain}{through}"
        attempt = self._caller.dial(target, self._limits.answer_seconds)
        check = f"{first.user} calls {second.user}"
        incoming = self._callee.incoming(2.0, since) if attempt.answered else None
        if not self._add(judge_attempt(check, attempt, (200,))) or incoming is None:
            if attempt.answered:
                self._add(not_tried(f"{second.user} is in the call", "the callee answered it"))
                self._caller.hang_up(attempt.call_id)
            hold([])
            return
        started = self._clock()
        self.report.call_ids = [attempt.call_id, incoming.call_id]
        # By then audio flows both ways and the PBX has taken itself out of it.
        self._sleep(min(SETTLE_SECONDS, talk_seconds))
        hold(self.report.call_ids)
        legs = [(self._caller, attempt.call_id), (self._callee, incoming.call_id)]
        talk_ms = self._stay("conversation", talk_seconds, started, legs)
        one = self._side(self._caller, CALLEE_TONE, positions[0])
        two = self._side(self._callee, CALLER_TONE, positions[1])
        limits = self._limits
        there, back = f"{first.user} to {second.user}", f"{second.user} to {first.user}"
        self._add(judge_tone(f"audio {there}", two.heard, talk_ms, CALLER_TONE, limits))
        self._add(judge_tone(f"audio {back}", one.heard, talk_ms, CALLEE_TONE, limits))
        self._add(judge_packets(f"packets {there}", one.packets, two.packets, limits))
        self._add(judge_packets(f"packets {back}", two.packets, one.packets, limits))

    def _stay(
        self,
        what: str,
        talk_seconds: float,
        started: float,
        legs: Sequence[tuple[phones.Phone, str]],
    ) -> int:
        """Stay in the call until its time is over and see that every leg ends.

        The first leg's phone hangs up. Returns how long the call lasted, in ms.
        """
        until = started + talk_seconds
        ends = (phone.closed(call_id, max(until - self._clock(), 0)) for phone, call_id in legs)
        early = next((event for event in ends if event), None)
        over = self._clock()
        measured = f"ended early: {early.param}" if early else f"{over - started:.1f} s"
        self._add(Result(f"{what} lasts", early is None, measured, f"{talk_seconds:g} s"))
        if early is None:
            caller, call_id = legs[0]
            caller.hang_up(call_id)
            over = self._clock()
        for phone, call_id in legs:
            event = phone.closed(call_id, self._limits.hangup_seconds)
            if phone is not legs[0][0]:
                check = f"{phone.name} learns of the end"
                self._add(judge_hangup(check, event, self._clock() - over, self._limits))
        return int((over - started) * 1000)

    def _side(self, phone: phones.Phone, frequency: int, position: int) -> Side:
        recording = phone.recording()
        heard = None
        if recording:
            heard = tones.listen(tones.read_wave(recording), frequency)
        return Side(phone.name, heard, phones.packet_counts(phone.log(position)))
