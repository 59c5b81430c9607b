# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tells a keepalived that stands still from one that waits, by how often it has woken."""

from __future__ import annotations

import os
import signal
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
