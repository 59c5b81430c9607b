# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls with scripted phones: what is judged, what is skipped, what ends early."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import calls, phones, tones

FIRST = phones.Account("901", "verify.example.net", "geheim")
SECOND = phones.Account("902", "verify.example.net", "auch-geheim")
PROXY = phones.Proxy("198.18.0.10", 5060)
SERVICES = calls.Services("*43", "990099")
LIMITS = calls.Limits()


def event(kind: str, call_id: str = "", param: str = "") -> phones.Event:
    return phones.Event(0.0, kind, call_id, param, "", "", {})


def recording(frequency: int, milliseconds: int) -> bytes:
    return tones.wave_file(tones.sine(frequency, milliseconds))


class Clock:
    """Time passes when somebody sleeps or waits."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class ScriptedPhone:
    """A phone that does what its fields say."""

    name: str
    clock: Clock
    registration: phones.Event | None = None
    attempts: list[phones.Attempt] = field(default_factory=list)
    answers: phones.Event | None = None
    early_end: str = ""
    deaf_to_hangup: bool = False
    recordings: list[bytes] = field(default_factory=list)
    packets: str = "packets: 300 300\n"
    accounts: list[tuple[phones.Account, int]] = field(default_factory=list)
    dialled: list[str] = field(default_factory=list)
    hung_up: int = 0
    peers: list[ScriptedPhone] = field(default_factory=list)
    ended: bool = False
    error: str = ""

    def __post_init__(self) -> None:
        self.control = SimpleNamespace(events=[])

    def add_account(self, account: phones.Account, _proxy: phones.Proxy, expires: int) -> None:
        if self.error:
            raise phones.PhoneError(self.error)
        self.accounts.append((account, expires))

    def registered(self, timeout: float) -> phones.Event | None:
        self.clock.sleep(timeout if self.registration is None else 0.02)
        return self.registration

    def dial(self, target: str, _timeout: float) -> phones.Attempt:
        self.dialled.append(target)
        self.ended = False
        return self.attempts.pop(0)

    def incoming(self, _timeout: float, _since: int) -> phones.Event | None:
        self.ended = False
        return self.answers

    def closed(self, call_id: str, timeout: float) -> phones.Event | None:
        if self.early_end:
            return event("CALL_CLOSED", call_id, self.early_end)
        if self.ended and not self.deaf_to_hangup:
            return event("CALL_CLOSED", call_id, "Connection reset by peer")
        self.clock.sleep(timeout)
        return None

    def hang_up(self, call_id: str) -> None:
        assert call_id in {"c1", "c2", "c3"}
        self.hung_up += 1
        for phone in (self, *self.peers):
            phone.ended = True

    def recording(self) -> bytes:
        return self.recordings.pop(0)

    def position(self) -> int:
        return 7

    def log(self, since: int) -> str:
        assert since == 7
        return self.packets


ANSWERED = phones.Attempt("c1", True, 0.12, 200, "sip:902@verify.example.net")
ECHO = phones.Attempt("c2", True, 0.05, 200, "sip:*43@verify.example.net")
UNKNOWN = phones.Attempt("c3", False, 0.01, 404, "404 Not Found")


class Scene:
    """Three phones that do everything right, until a test changes them."""

    def __init__(self) -> None:
        clock = Clock()
        good = event("REGISTER_OK", param="200 OK")
        self.callee = ScriptedPhone(
            "902",
            clock,
            good,
            answers=event("CALL_ESTABLISHED", "c9"),
            recordings=[recording(calls.CALLER_TONE, 5900)],
        )
        self.caller = ScriptedPhone(
            "901",
            clock,
            good,
            [ANSWERED, ECHO, UNKNOWN],
            recordings=[
                recording(calls.CALLEE_TONE, 5900),
                recording(calls.CALLER_TONE, 2400),
            ],
            peers=[self.callee],
        )
        self.stranger = ScriptedPhone(
            "stranger", clock, event("REGISTER_FAIL", param="403 Forbidden")
        )
        self.clock = clock
        self.held: list[list[str]] = []

    def rehearsal(self) -> calls.Rehearsal:
        phones_: tuple[Any, Any, Any] = (self.caller, self.callee, self.stranger)
        return calls.Rehearsal(PROXY, *phones_, LIMITS, clock=self.clock, sleep=self.clock.sleep)

    def run(self) -> calls.Report:
        return self.rehearsal().run((FIRST, SECOND), SERVICES, 6.0, self.held.append)

    def run_while_calling(self, attempts: list[phones.Attempt]) -> calls.Report:
        """The third phone makes these calls during the conversation, and nothing else is tried."""
        rehearsal = self.rehearsal()
        self.stranger.registration = event("REGISTER_OK", param="200 OK")
        self.stranger.attempts = list(attempts)

        def hold(call_ids: list[str]) -> None:
            self.held.append(call_ids)
            rehearsal.call_until(lambda: not self.stranger.attempts, FIRST, SERVICES)

        return rehearsal.run((FIRST, SECOND), SERVICES, 6.0, hold, only=True)


def verdicts(report: calls.Report) -> dict[str, bool]:
    return {result.check: result.ok for result in report.results}


def test_everything_good() -> None:
    scene = Scene()
    report = scene.run()
    assert [(result.check, result.measured) for result in report.results] == [
        ("901 registers", "200 OK after 20 ms"),
        ("902 registers", "200 OK after 20 ms"),
        ("901 calls 902", "answered after 120 ms"),
        ("conversation lasts", "6.0 s"),
        ("902 learns of the end", "Connection reset by peer after 0 ms"),
        ("audio 901 to 902", "5900 ms, longest gap 0 ms"),
        ("audio 902 to 901", "5900 ms, longest gap 0 ms"),
        ("packets 901 to 902", "300 sent, 300 received"),
        ("packets 902 to 901", "300 sent, 300 received"),
        ("echo number *43 answers", "answered after 50 ms"),
        ("call to *43 lasts", "2.5 s"),
        ("echo number *43 sends the caller's own tone back", "2400 ms, longest gap 0 ms"),
        ("unknown number 990099 is refused", "404 Not Found after 10 ms"),
        ("901 with a wrong password is refused", "403 Forbidden after 20 ms"),
    ]
    assert report.ok
    assert report.call_ids == ["c1", "c9"]
    assert scene.held == [["c1", "c9"]]
    assert scene.caller.dialled == [
        "sip:902@verify.example.net",
        "sip:*43@verify.example.net",
        "sip:990099@verify.example.net",
    ]
    wrong, _expires = scene.stranger.accounts[0]
    assert wrong.user == FIRST.user
    assert wrong.password != FIRST.password


def test_calls_during_the_conversation() -> None:
    scene = Scene()
    report = scene.run_while_calling([ECHO, phones.Attempt("c3", True, 1.5, 200, ""), ECHO])
    assert report.ok
    measured = {result.check: result.measured for result in report.results}
    assert measured["new calls are answered"] == "3 of 3, the slowest after 1500 ms"
    assert scene.stranger.hung_up == 3
    assert not any("echo" in check or "wrong" in check for check in measured)


@pytest.mark.parametrize("attempts", [[], [ECHO, UNKNOWN]])
def test_calls_during_the_conversation_that_fail(attempts: list[phones.Attempt]) -> None:
    report = Scene().run_while_calling(attempts)
    assert not verdicts(report)["new calls are answered"]


def test_without_results_nothing_is_proved() -> None:
    assert not calls.Report().ok


def test_unregistered_callee_leaves_the_conversation_out() -> None:
    scene = Scene()
    scene.callee.registration = None
    scene.caller.attempts = [ECHO, UNKNOWN]
    scene.caller.recordings = scene.caller.recordings[1:]
    report = scene.run()
    found = verdicts(report)
    assert found["902 registers"] is False
    assert found["901 calls 902"] is False
    assert found["echo number *43 answers"] is True
    assert "audio 901 to 902" not in found
    assert scene.held == [[]]
    assert report.results[1].measured == "no answer in 10.0 s"


def test_unregistered_caller_leaves_all_calls_out() -> None:
    scene = Scene()
    scene.caller.registration = event("REGISTER_FAIL", param="403 Forbidden")
    report = scene.run()
    assert [result.check for result in report.results if result.measured == "not tried"] == [
        "901 calls 902",
        "echo number *43 answers",
        "unknown number 990099 is refused",
    ]
    assert scene.caller.dialled == []


def test_refused_call_is_not_a_conversation() -> None:
    scene = Scene()
    scene.caller.attempts[0] = phones.Attempt("c1", False, 0.2, 480, "480 Unavailable")
    scene.caller.recordings = scene.caller.recordings[1:]
    report = scene.run()
    assert verdicts(report)["901 calls 902"] is False
    assert "conversation lasts" not in verdicts(report)
    assert report.call_ids == []
    assert scene.held == [[]]
    assert scene.caller.hung_up == 1


def test_call_answered_by_somebody_else_is_noticed() -> None:
    scene = Scene()
    scene.callee.answers = None
    scene.caller.recordings = scene.caller.recordings[1:]
    report = scene.run()
    assert verdicts(report)["902 is in the call"] is False
    assert scene.caller.hung_up == 2


def test_dropped_call_is_noticed() -> None:
    scene = Scene()
    scene.callee.early_end = "Connection reset by peer"
    report = scene.run()
    found = next(result for result in report.results if result.check == "conversation lasts")
    assert (found.ok, found.measured) == (False, "ended early: Connection reset by peer")


def test_unheard_hangup_is_noticed() -> None:
    scene = Scene()
    scene.callee.deaf_to_hangup = True
    found = next(
        result for result in scene.run().results if result.check == "902 learns of the end"
    )
    assert not found.ok
    assert found.measured.startswith("still in the call after")


def test_refused_echo_is_not_listened_to() -> None:
    scene = Scene()
    scene.caller.attempts[1] = phones.Attempt("c2", False, 0.2, 503, "503 Service Unavailable")
    found = verdicts(scene.run())
    assert found["echo number *43 answers"] is False
    assert "call to *43 lasts" not in found


def test_unknown_number_that_is_answered_is_hung_up() -> None:
    scene = Scene()
    scene.caller.attempts[2] = phones.Attempt("c3", True, 0.2, 200, "")
    assert verdicts(scene.run())["unknown number 990099 is refused"] is False
    assert scene.caller.hung_up == 3


def test_wrong_password_that_works_is_noticed() -> None:
    scene = Scene()
    scene.stranger.registration = event("REGISTER_OK", param="200 OK")
    assert verdicts(scene.run())["901 with a wrong password is refused"] is False


def test_phone_without_recording_or_counts_is_noticed() -> None:
    scene = Scene()
    scene.callee.recordings = [b""]
    scene.callee.packets = ""
    found = {result.check: result.measured for result in scene.run().results}
    assert found["audio 901 to 902"] == "nothing was recorded"
    assert found["packets 901 to 902"] == "a phone did not count its packets"
    assert found["packets 902 to 901"] == "a phone did not count its packets"


def test_phone_that_fails_ends_the_report() -> None:
    scene = Scene()
    scene.caller.error = "901: the phone has closed its control connection"
    report = scene.run()
    assert [result.as_dict() for result in report.results] == [
        {
            "check": "the test phones work",
            "ok": False,
            "measured": "901: the phone has closed its control connection",
            "expected": "they do",
            "detail": [],
        }
    ]


@pytest.mark.parametrize(
    ("samples", "ok", "measured"),
    [
        (tones.sine(800, 5000), True, "5000 ms, longest gap 0 ms"),
        (tones.sine(800, 4990), False, "4990 ms, longest gap 0 ms"),
        (tones.sine(1200, 6000), False, "0 ms, longest gap 0 ms, 6000 ms of other sounds"),
    ],
)
def test_tone_has_to_fill_the_call(samples: Any, ok: bool, measured: str) -> None:
    result = calls.judge_tone("x", tones.listen(samples, 800), 6000, 800, LIMITS)
    assert (result.ok, result.measured) == (ok, measured)
    assert result.expected == "800 Hz for 5000 ms, no gap over 200 ms"


@pytest.mark.parametrize(("gap", "ok"), [(200, True), (210, False)])
def test_gap_over_the_limit_fails(gap: int, ok: bool) -> None:
    quiet = tones.wave_file([0] * (8 * gap))
    samples = tones.sine(800, 3000) + tones.read_wave(quiet) + tones.sine(800, 3000)
    assert calls.judge_tone("x", tones.listen(samples, 800), 6200, 800, LIMITS).ok is ok


@pytest.mark.parametrize(
    ("sent", "received", "ok"),
    [(300, 300, True), (300, 287, True), (300, 286, False), (0, 0, False), (300, 310, True)],
)
def test_lost_packets_count_beyond_those_under_way(sent: int, received: int, ok: bool) -> None:
    one, two = phones.Packets(sent, 0), phones.Packets(0, received)
    assert calls.judge_packets("x", one, two, LIMITS).ok is ok
