# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fault or work cost the calls of a traffic. Without I/O.

*Dropped*: a phone heard nothing for longer than the limit, or its call ended and neither phone
had asked for it. *Failed*: a call first tried after the beginning and not answered by its callee.
Calls in set-up at the moment of a sudden fault are counted apart.

All moments are seconds of the monotonic clock that the lab's servers share.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Leg = Mapping[str, Any]

# The longest silence that a listener need not take for the end of a conversation.
GAP_SECONDS = 0.2

# A call that has had no answer for so long is not being set up any more.
PATIENCE_SECONDS = 32.0

# A caller waits noticeably.
LATE_SECONDS = 1.0

# What a packet lasts that was heard.
PACKET_SECONDS = 0.02

# The other phone's BYE may arrive before its own clock says that it was sent.
ORDER_SECONDS = 0.05


@dataclass(frozen=True)
class Trouble:
    """Something that went wrong with a call."""

    at: float
    what: str
    call_ids: tuple[str, ...]
    relays: frozenset[str] = frozenset()
    silence: float = 0.0
    """The longest silence in seconds, where that is all that went wrong."""

    def __str__(self) -> str:
        where = f", through {' and '.join(sorted(self.relays))}" if self.relays else ""
        return f"{self.what} (call {self.call_ids[0]}{where})"


@dataclass
class Verdict:
    """What phones noticed between two moments."""

    begin: float
    end: float
    attempts: int = 0
    answered: int = 0
    slowest: float = 0.0
    """The longest time to an answer of those answered."""
    late_until: float = 0.0
    """When the last attempt began that was answered late, in seconds after the beginning."""
    up: int = 0
    """Calls that were up at some time."""
    longest_gap: float = 0.0
    """The longest silence that anybody heard, without what the machine itself stood still."""
    stall: float = 0.0
    """For how long the machine itself stood still at the worst."""
    dropped: list[Trouble] = field(default_factory=list)
    failed: list[Trouble] = field(default_factory=list)
    in_setup: list[Trouble] = field(default_factory=list)
    """Calls that were being set up at the beginning, of which nothing became."""
    setting_up: int = 0
    """All calls that were being set up at the beginning."""
    strays: list[Trouble] = field(default_factory=list)
    """Calls that reached a callee, but whose caller does not hear it."""
    one_sided: int = 0
    """Ends that one phone asked for and the other was not told."""
    seconds: dict[int, dict[str, int]] = field(default_factory=dict)
    """Second since the beginning: what happened in it, and how often."""

    @property
    def clean(self) -> bool:
        """Nobody has noticed anything."""
        return not (self.dropped or self.failed)

    def as_row(self) -> dict[str, Any]:
        """The figures."""
        return {
            "attempts": self.attempts,
            "failed": len(self.failed),
            "up": self.up,
            "dropped": len(self.dropped),
            "setting_up": self.setting_up,
            "setup_lost": len(self.in_setup),
            "strays": len(self.strays),
            "one_sided": self.one_sided,
            "slowest": round(self.slowest, 2),
            "longest_gap_ms": round(self.longest_gap * 1000),
            "stall_ms": round(self.stall * 1000),
        }

    def __str__(self) -> str:
        return (
            f"{len(self.failed)} of {self.attempts} attempts failed, "
            f"{len(self.dropped)} of {self.up} calls dropped; of {self.setting_up} in set-up "
            f"{len(self.in_setup)} came to nothing; slowest answer {self.slowest:.2f} s, longest "
            f"gap {self.longest_gap * 1000:.0f} ms, {self.one_sided} ends told to one side only, "
            f"{len(self.strays)} strays; the machine stood still for {self.stall * 1000:.0f} ms "
            f"at the worst; {self.end - self.begin:.0f} s"
        )

    def timeline(self) -> list[str]:
        """One line for each second in which something other than the usual happened."""
        lines = []
        for second, counts in sorted(self.seconds.items()):
            if set(counts) - {"begun", "answered", "ended"}:
                shown = ", ".join(f"{counts[name]} {name}" for name in sorted(counts))
                lines.append(f"{second:+4d} s: {shown}")
        return lines

    def troubles(self) -> list[Trouble]:
        """All there were, the earliest first."""
        return sorted([*self.failed, *self.dropped, *self.strays], key=lambda one: one.at)

    def count(self, moment: float, what: str) -> None:
        """Note for the timeline."""
        counts = self.seconds.setdefault(math.floor(moment - self.begin), {})
        counts[what] = counts.get(what, 0) + 1


def judge(
    legs: Iterable[Leg],
    begin: float,
    end: float,
    stalls: Sequence[tuple[float, float]] = (),
    gap_limit: float = GAP_SECONDS,
) -> Verdict:
    """What was noticed between two moments.

    ``stalls``: from when to when the machine stood still, as a probe saw that does nothing else.
    What is only late is forgiven by so much; a packet that never came is not.
    """
    legs = list(legs)
    found = Verdict(begin, end)
    found.stall = max((to - since for since, to in within(stalls, begin, end)), default=0.0)
    by_number = {leg["number"]: leg for leg in legs}
    paired: set[int] = set()
    for caller in legs:
        if not caller["dialled"]:
            continue
        callee = partner(caller, by_number)
        if callee:
            paired.add(callee["number"])
        _attempt(found, caller, callee)
        if callee and caller["answered_at"]:
            _conversation(found, caller, callee, stalls, gap_limit)
    for leg in legs:
        if not leg["dialled"] and leg["number"] not in paired and begin <= leg["started"] <= end:
            what = f"{leg['phone']} was called, and heard {leg['packets']} packets of no caller"
            found.strays.append(Trouble(leg["started"], what, (leg["call_id"],), relays(leg)))
            found.count(leg["started"], "strays")
    return found


def partner(caller: Leg, by_number: Mapping[int, Leg]) -> Leg | None:
    """The leg that a caller hears, if it is that of the phone it has called."""
    heard = [by_number[number] for number in caller["speakers"] if number in by_number]
    return next((leg for leg in heard if leg["phone"] == caller["dialled"]), None)


def _attempt(found: Verdict, caller: Leg, callee: Leg | None) -> None:
    began = caller["started"]
    final_at = began + caller["final_after"] if caller["status"] else math.inf
    good = caller["status"] == 200 and callee is not None
    if not caller["status"]:
        what = "no final answer"
    elif caller["status"] != 200:
        what = f"{caller['status']} {caller['reason']} after {caller['final_after']:.1f} s"
    else:
        what = "answered, but the callee is not heard"
    call_ids = (caller["call_id"],)
    trouble = Trouble(began, f"{caller['kind']} call: {what}", call_ids, relays(caller))
    if began < found.begin:
        if began + PATIENCE_SECONDS > found.begin and final_at > found.begin:
            found.setting_up += 1
            if not good:
                found.in_setup.append(trouble)
        return
    if began > found.end:
        return
    found.attempts += 1
    found.count(began, "begun")
    if good:
        found.answered += 1
        found.slowest = max(found.slowest, caller["final_after"])
        found.count(final_at, "answered")
        if caller["final_after"] >= LATE_SECONDS:
            found.late_until = max(found.late_until, began - found.begin)
            found.count(began, "answered late")
    else:
        found.failed.append(trouble)
        found.count(began, "failed")


def _conversation(
    found: Verdict,
    caller: Leg,
    callee: Leg,
    stalls: Sequence[tuple[float, float]],
    gap_limit: float,
) -> None:
    ends = [leg["ended_at"] or math.inf for leg in (caller, callee)]
    if min(ends) < found.begin or caller["answered_at"] > found.end:
        return
    found.up += 1
    call_ids = (caller["call_id"], callee["call_id"])
    reasons: list[tuple[float, str]] = []
    silence = 0.0
    hung_up = False
    for leg, other in ((caller, callee), (callee, caller)):
        for since, to, lost in silences(leg, caller["answered_at"], min(*ends, found.end)):
            if to < found.begin or since > found.end:
                continue
            length = max(to - since - overlap(stalls, since, to), lost * PACKET_SECONDS)
            found.longest_gap = max(found.longest_gap, length)
            if length > gap_limit:
                words = f"{leg['phone']} heard nothing for {length:.2f} s ({lost} packets lost)"
                reasons.append((since, words))
                silence = max(silence, length)
        ended = leg["ended_at"]
        asked = other["ended_by"] == "itself" and other["ended_at"] <= ended + ORDER_SECONDS
        if leg["ended_by"] == "other" and not asked and found.begin <= ended <= found.end:
            reasons.append((ended, f"{leg['phone']} was hung up on and nobody asked for it"))
            hung_up = True
    by = (caller["ended_by"], callee["ended_by"])
    if min(ends) <= found.end:
        found.count(min(ends), "ended")
        if by == ("itself", "itself"):
            found.one_sided += 1
            found.count(min(ends), "ended to one side only")
    if reasons:
        at = min(reasons)[0]
        age = at - caller["answered_at"]
        what = f"{caller['kind']} call, {age:.1f} s old: {'; '.join(said for _at, said in reasons)}"
        silence = 0.0 if hung_up else silence
        found.dropped.append(Trouble(at, what, call_ids, relays(caller, callee), silence))
        found.count(at, "dropped")


def relays(*legs: Leg) -> frozenset[str]:
    """The outside addresses of the relays that some legs talk through."""
    return frozenset(leg["relay"].partition(":")[0] for leg in legs if leg["relay"])


def silences(leg: Leg, begin: float, end: float) -> list[tuple[float, float, int]]:
    """From when to when a leg heard nothing, the first and the last moments too; packets lost."""
    found = [(since + PACKET_SECONDS, to, lost) for since, to, lost in leg["gaps"]]
    found.append((begin, min(leg["first_at"] or end, end), 0))
    if leg["last_at"]:
        found.append((leg["last_at"] + PACKET_SECONDS, end, 0))
    return [(since, to, lost) for since, to, lost in found if to > since]


def within(
    spans: Iterable[tuple[float, float]], begin: float, end: float
) -> list[tuple[float, float]]:
    """What of some spans of time lies between two moments."""
    cut = ((max(since, begin), min(to, end)) for since, to in spans)
    return [(since, to) for since, to in cut if to > since]


def overlap(spans: Iterable[tuple[float, float]], begin: float, end: float) -> float:
    """How long of the time between two moments some spans cover together, at the most."""
    return sum(to - since for since, to in within(spans, begin, end))


def quantile(values: Sequence[float], share: float) -> float:
    """The value below or at which so great a share of the values lies."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
