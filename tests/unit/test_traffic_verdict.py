# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the judge of a traffic says of calls that something happened to, and of those that not."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

BEGIN, END = 100.0, 130.0


@pytest.fixture(scope="module")
def verdict(root: Path) -> Any:
    """The judge."""
    path = root / "tests" / "acts" / "support" / "verdict.py"
    spec = importlib.util.spec_from_file_location("traffic_verdict", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["traffic_verdict"] = module
    spec.loader.exec_module(module)
    return module


def leg(number: int, **more: Any) -> dict[str, Any]:
    """One end of a call that began at 105 and ended at 125, without a fault."""
    caller = number % 2 == 1
    return {
        "number": number,
        "kind": "short" if caller else "",
        "phone": "1" if caller else "2",
        "dialled": "2" if caller else "",
        "call_id": f"call-{number}",
        "relay": "192.0.2.1",
        "started": 105.0 if caller else 105.05,
        "status": 200,
        "reason": "OK",
        "final_after": 0.1,
        "answered_at": 105.1 if caller else 105.05,
        "ended_by": "itself" if caller else "other",
        "ended_at": 125.0 if caller else 125.02,
        "end_status": 200,
        "packets": 990,
        "lost": 0,
        "speakers": [number + 1 if caller else number - 1],
        "first_at": 105.15,
        "last_at": 124.98,
        "gaps": [],
        **more,
    }


def call(caller: dict[str, Any] | None = None, callee: dict[str, Any] | None = None) -> list[Any]:
    """Both ends of one call."""
    return [leg(1, **(caller or {})), leg(2, **(callee or {}))]


NOBODY = {"speakers": [], "packets": 0, "first_at": 0.0, "last_at": 0.0}
UNANSWERED = {"status": 0, "reason": "", "final_after": -1.0, "answered_at": 0.0} | NOBODY
REFUSED = UNANSWERED | {"status": 503, "reason": "No PBX", "final_after": 1.5, "ended_by": ""}


def test_nothing_happened(verdict: Any) -> None:
    """A call that a phone ended is an attempt that was answered, and no more."""
    found = verdict.judge(call(), BEGIN, END)
    assert found.clean
    assert (found.attempts, found.answered, found.up, found.strays) == (1, 1, 1, [])
    assert (found.slowest, found.one_sided, found.timeline()) == (0.1, 0, [])
    assert found.longest_gap == pytest.approx(0.05)


def test_callee_may_end_it(verdict: Any) -> None:
    """Its BYE may even be in before the clock of the sender says so."""
    ends = {"ended_by": "other", "ended_at": 124.99}, {"ended_by": "itself", "ended_at": 125.0}
    assert verdict.judge(call(*ends), BEGIN, END).clean


@pytest.mark.parametrize("legs", [({"ended_by": "other"}, {}), ({}, {"ended_at": 110.0})])
def test_end_that_nobody_asked_for(verdict: Any, legs: tuple[dict[str, Any], ...]) -> None:
    """A BYE from the system, to both or to one of them before the other one hangs up."""
    found = verdict.judge(call(*legs), BEGIN, END)
    assert len(found.dropped) == 1
    assert "nobody asked for it" in str(found.dropped[0])
    assert not found.failed


@pytest.mark.parametrize(
    ("gap", "dropped"),
    [
        ([110.0, 110.21, 9], 0),
        ([110.0, 110.25, 0], 1),
        ([110.0, 110.1, 11], 1),  # lost, then the next ones in one heap
    ],
)
def test_gap_over_the_limit(verdict: Any, gap: list[float], dropped: int) -> None:
    """Late or lost, for either of them."""
    for legs in (call({"gaps": [gap]}), call({}, {"gaps": [gap]})):
        found = verdict.judge(legs, BEGIN, END)
        assert len(found.dropped) == dropped
        assert found.longest_gap > 0.18


def test_stall_of_the_machine_is_forgiven_but_no_lost_packet(verdict: Any) -> None:
    """What was only late by as much as a probe that sleeps."""
    stalls = [(109.0, 110.15), (110.2, 111.0)]
    late = call({"gaps": [[110.0, 110.4, 0]]})
    lost = call({"gaps": [[110.0, 110.4, 19]]})
    assert verdict.judge(late, BEGIN, END, stalls).longest_gap == pytest.approx(0.05)
    assert len(verdict.judge(lost, BEGIN, END, stalls).dropped) == 1
    assert verdict.judge(late, BEGIN, END, stalls).stall == pytest.approx(1.15)


def test_audio_that_never_comes_back(verdict: Any) -> None:
    """There is no packet after it that would show the gap."""
    found = verdict.judge(call({"last_at": 112.0}), BEGIN, END)
    assert [one.at for one in found.dropped] == [112.02]
    assert "heard nothing for 12.98 s" in str(found.dropped[0])


def test_audio_that_is_away_now(verdict: Any) -> None:
    """The call is still up when the judge looks."""
    up = {"ended_by": "", "ended_at": 0.0, "last_at": 129.9}
    assert verdict.judge(call(up, up), BEGIN, END).clean
    assert len(verdict.judge(call(up, up | {"last_at": 129.0}), BEGIN, END).dropped) == 1


def test_audio_that_begins_late(verdict: Any) -> None:
    """From the answer on somebody has to be heard."""
    assert len(verdict.judge(call({"first_at": 106.0}), BEGIN, END).dropped) == 1


@pytest.mark.parametrize(
    ("caller", "words"),
    [
        (UNANSWERED, "no final answer"),
        (REFUSED, "503 No PBX after 1.5 s"),
        (NOBODY, "the callee is not heard"),
        ({"speakers": [3]}, "the callee is not heard"),
    ],
)
def test_attempt_that_fails(verdict: Any, caller: dict[str, Any], words: str) -> None:
    """Not answered, or not by its callee; one more that ended well stands beside it."""
    legs = [leg(1, **caller), leg(3), leg(4, phone="2")]
    found = verdict.judge(legs, BEGIN, END)
    assert (found.attempts, found.answered) == (2, 1)
    assert [words in str(one) for one in found.failed] == [True]
    assert found.timeline() == ["  +5 s: 1 answered, 2 begun, 1 failed"]


def test_answer_of_another_phone_is_none(verdict: Any) -> None:
    """The callee is who was dialled."""
    assert len(verdict.judge(call({}, {"phone": "3"}), BEGIN, END).failed) == 1


def test_in_setup_at_the_fault(verdict: Any) -> None:
    """Begun before and not answered yet: no failed attempt; answered afterwards: fine."""
    before = {"started": 99.5}
    found = verdict.judge([leg(1, **REFUSED | before)], BEGIN, END)
    assert (found.attempts, found.setting_up, len(found.in_setup)) == (0, 1, 1)
    assert found.clean
    found = verdict.judge(call(before | {"final_after": 5.6}), BEGIN, END)
    assert (found.attempts, found.setting_up, found.in_setup) == (0, 1, [])
    found = verdict.judge([leg(1, **REFUSED | before | {"final_after": 0.1})], BEGIN, END)
    assert (found.attempts, found.setting_up) == (0, 0)
    found = verdict.judge([leg(1, **UNANSWERED | {"started": 60.0})], BEGIN, END)
    assert (found.attempts, found.setting_up) == (0, 0)


def test_what_was_before_or_comes_after_is_another_matter(verdict: Any) -> None:
    """Each act judges its own time."""
    gap = call({"gaps": [[110.0, 112.0, 100]]})
    assert verdict.judge(gap, 113.0, END).clean
    assert verdict.judge(gap, 100.0, 109.0).clean
    assert not verdict.judge(gap, 111.0, END).clean
    ended = call({"ended_by": "other"})
    assert verdict.judge(ended, 126.0, END).up == 0
    assert verdict.judge(ended, 100.0, 120.0).clean
    assert verdict.judge(call(REFUSED), 90.0, 104.0).attempts == 0


def test_stray(verdict: Any) -> None:
    """A phone that is called by nobody, as when a node takes up late what another one has done."""
    found = verdict.judge([*call(), leg(4, phone="2", **NOBODY)], BEGIN, END)
    assert [one.call_ids for one in found.strays] == [("call-4",)]
    assert found.clean


def test_end_that_one_side_is_not_told(verdict: Any) -> None:
    """Both hang up: nobody was left to tell the other."""
    found = verdict.judge(call({}, {"ended_by": "itself", "ended_at": 127.0}), BEGIN, END)
    assert found.clean
    assert found.one_sided == 1


def test_quantile(verdict: Any) -> None:
    """The middle one, and the greatest."""
    assert [verdict.quantile([3.0, 1.0, 2.0], share) for share in (0.5, 1.0)] == [2.0, 3.0]
