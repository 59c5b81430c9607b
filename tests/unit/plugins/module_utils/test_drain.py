# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for a node to be empty, with a clock that only moves when somebody waits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import drain


class Time:
    """A clock; `left` says what is there at which second."""

    def __init__(self, left: Callable[[float], int]) -> None:
        self.now = 100.0
        self.left = left
        self.looks = 0

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def count(self) -> int:
        self.looks += 1
        return self.left(self.now - 100)

    def wait(self, wait: float, quiet: float) -> drain.Waited:
        return drain.wait_until_empty(self.count, wait, quiet, self.clock, self.pause)


def test_nothing_must_last() -> None:
    time = Time(lambda second: 0 if second >= 4 else 2)
    assert time.wait(20, 3) == drain.Waited(0, True, 7.0)


def test_a_call_that_comes_back_begins_the_quiet_time_anew() -> None:
    time = Time(lambda second: 1 if second < 2 or 4 <= second < 5 else 0)
    assert time.wait(20, 3) == drain.Waited(0, True, 8.0)


def test_the_wait_ends_with_what_is_left() -> None:
    time = Time(lambda second: 3)
    assert time.wait(10, 3) == drain.Waited(3, False, 10.0)


def test_nothing_that_is_too_young_is_not_empty() -> None:
    time = Time(lambda second: 0 if second >= 9 else 1)
    assert time.wait(10, 3) == drain.Waited(0, False, 10.0)


@pytest.mark.parametrize(("left", "empty"), [(0, True), (4, False)])
def test_without_a_wait_it_is_one_look(left: int, empty: bool) -> None:
    time = Time(lambda second: left)
    assert time.wait(0, 3) == drain.Waited(left, empty, 0.0)
    assert time.looks == 1


def test_what_cannot_end_well_is_refused() -> None:
    assert drain.refusal(10, 3) == ""
    assert drain.refusal(0, 3) == ""
    assert drain.refusal(3, 3) == ""
    assert "wait_seconds 2 is less than quiet_seconds 3" in drain.refusal(2, 3)
    assert "negative" in drain.refusal(-1, 0)
    assert "negative" in drain.refusal(1, -1)
