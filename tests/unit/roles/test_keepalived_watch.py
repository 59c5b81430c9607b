# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tells keepalived of the edge, and a keepalived that stands still from one that waits."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
from programs import load

watch = load("roles/keepalived/files/keepalived_watch.py")


def verdicts(looks: Iterable[tuple[float, Mapping[int, int]]]) -> list[bool]:
    one = watch.Watch()
    return [one.frozen(now, woken) for now, woken in looks]


def test_one_that_wakes_lives() -> None:
    looks = [(10 + number * 0.2, {1: 30, 2: 100 + number // 3}) for number in range(60)]
    assert not any(verdicts(looks))


def test_one_that_does_not_wake_for_a_second_is_frozen() -> None:
    looks = [(10 + number * 0.2, {1: 30, 2: 100}) for number in range(8)]
    assert verdicts(looks) == [False] * 5 + [True] * 3


def test_none_is_not_frozen() -> None:
    assert not any(verdicts([(10 + number * 0.2, {}) for number in range(20)]))


def test_a_machine_that_stands_still_freezes_nobody() -> None:
    looks = [(10 + number * 0.2, {2: 100}) for number in range(4)]
    looks += [(15 + number * 0.2, {2: 100}) for number in range(5)]
    assert not any(verdicts(looks))


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterable[subprocess.Popen[bytes]]:
    """A process by the daemon's name that wakes twenty times a second, beside another one."""
    program = tmp_path / "keepalived"
    program.symlink_to(sys.executable)
    script = "import time\nwhile True: time.sleep(0.05)"
    with subprocess.Popen([str(program), "-c", script]) as process:
        (tmp_path / "group").write_text(f"{process.pid}\n{os.getpid()}\n999999999\n")
        yield process
        process.kill()


def test_only_keepalived_is_counted_and_a_stopped_one_does_not_wake(
    sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    def count() -> int:
        found = watch.wakings(tmp_path / "group")
        return int(found[sleeper.pid]) if list(found) == [sleeper.pid] else 0

    first = wait_for_more(count, 0)
    wait_for_more(count, first)
    sleeper.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED)
    stopped = count()
    time.sleep(0.3)
    assert count() == stopped


def wait_for_more(count: Callable[[], int], than: int) -> int:
    """The next greater count; it has to come within ten seconds."""
    deadline = time.monotonic() + 10
    while (found := count()) <= than:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


Look = tuple[float, tuple[bool, ...], bool]


def states(looks: Iterable[Look], ready: bool = False) -> list[bool]:
    """What is said of the edge after each look: when it was, the answers, dead or drained."""
    readiness = watch.Readiness(10.0, ready)
    return [readiness.look(*look) for look in looks]


def steady(
    begin: float, count: int, answers: tuple[bool, ...] = (), out: bool = False
) -> list[Look]:
    return [(begin + number * watch.TICK, answers, out) for number in range(count)]


def test_two_good_answers_make_an_edge_ready() -> None:
    assert states([(10.2, (True,), False), (10.4, (), False), (10.6, (True,), False)]) == [
        False,
        False,
        True,
    ]


def test_one_bad_answer_ends_it_at_once() -> None:
    """It lives and says no: its locations are not there yet."""
    said = states([(10.2, (True, True), False), (10.4, (False,), False), (10.6, (True,), False)])
    assert said == [True, False, False]


def test_silence_ends_it_after_a_while() -> None:
    said = states(steady(10.2, 12), ready=True)
    assert said == [True] * 8 + [False] * 4, "the last moment is 1.6 s after the first"


def test_dead_or_drained_ends_it_at_once_and_it_has_to_answer_anew() -> None:
    looks = [*steady(10.2, 1, (True, True), out=True), *steady(10.4, 2, (True,))]
    assert states(looks, ready=True) == [False, False, True]


def test_what_the_service_had_to_wait_is_not_silence_of_the_edge() -> None:
    said = states([(10.2, (), False), (15.0, (), False), (15.2, (), False)], ready=True)
    assert said == [True] * 3
    assert states(steady(10.2, 2) + steady(15.0, 9), ready=True)[-1] is False


def test_the_word_of_the_process_before_stands_at_first() -> None:
    assert states(steady(10.2, 1), ready=True) == [True]
    assert states(steady(10.2, 1)) == [False]


def test_known_is_what_had_the_time_to_be() -> None:
    assert watch.Readiness(10.0, ready=True).known(10.0)
    assert not watch.Readiness(10.0).known(11.0)
    assert watch.Readiness(10.0).known(11.7)


@pytest.fixture
def edge() -> Iterable[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        found.settimeout(5)
        yield found


def answer(edge: socket.socket, status: str) -> None:
    request, client = edge.recvfrom(4096)
    call_id = request.partition(b"Call-ID: ")[2].split(b"\r\n")[0]
    edge.sendto(f"SIP/2.0 {status}\r\nCall-ID: ".encode() + call_id + b"\r\n\r\n", client)


@pytest.mark.parametrize(("status", "good"), [("200 Ready", True), ("503 Not Synchronised", False)])
def test_the_answer_decides(edge: socket.socket, status: str, good: bool) -> None:
    question = watch.Question(edge.getsockname()[1])
    assert question.answers(0.0) == []
    question.ask(0.0)
    answer(edge, status)
    assert question.answers(0.4) == [good]
    assert question.answers(0.6) == []


def test_late_answers_say_nothing(edge: socket.socket) -> None:
    """An edge that thaws answers everything that it was asked meanwhile."""
    question = watch.Question(edge.getsockname()[1])
    for number in range(5):
        question.ask(number * 0.4)
    for _number in range(5):
        answer(edge, "200 Ready")
    assert question.answers(3.0) == []


def test_nobody_there_is_no_answer(edge: socket.socket) -> None:
    port = edge.getsockname()[1]
    edge.close()
    question = watch.Question(port)
    for number in range(3):
        question.ask(number * 0.4)
        time.sleep(0.05)
        assert question.answers(number * 0.4) == []


def test_a_drained_edge_is_found_in_the_list(tmp_path: Path) -> None:
    listed = tmp_path / "dispatcher.list"
    assert not watch.is_drained("sip:127.0.0.1:5062", listed)
    for flags, drained in ((32, False), (36, True), ("x", False)):
        listed.write_text(
            f"# a comment\n1 sip:127.0.0.1:5080 4 0 duid=a\n3 sip:127.0.0.1:5062 {flags} 0\n"
        )
        assert watch.is_drained("sip:127.0.0.1:5062", listed) == drained


def test_a_file_that_is_not_there_does_not_say_no(tmp_path: Path) -> None:
    file = tmp_path / "dead"
    assert not watch.says_no(file)
    file.write_text("0\n")
    assert watch.says_no(file)
    file.write_text("1\n")
    assert not watch.says_no(file)
