# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until what a node carries has ended, for no longer than told; clock and pause are arguments.

A long wait is made of many short ones: between them, whoever waits sees what is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

STEP = 0.5
"""Seconds between two looks."""


@dataclass(frozen=True)
class Waited:
    """How it ended: what was C(left) at the last look, and how many C(seconds) it took.

    C(empty) says that there was nothing for as long as asked for, not only at the last look.
    """

    left: int
    empty: bool
    seconds: float


def refusal(wait: float, quiet: float) -> str:
    """Why such a wait can never end well; empty when it can."""
    if wait < 0 or quiet < 0:
        return "wait_seconds and quiet_seconds cannot be negative"
    if 0 < wait < quiet:
        return (
            f"wait_seconds {wait:g} is less than quiet_seconds {quiet:g}: no wait would ever be "
            "long enough to find the node empty"
        )
    return ""


def wait_until_empty(
    count: Callable[[], int],
    wait: float,
    quiet: float,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Waited:
    """Look until there was nothing for C(quiet) seconds, or C(wait) seconds are over.

    With C(wait) 0 there is one look, and nothing means empty. What C(count) raises ends it.
    """
    begun = clock()
    nothing_since: float | None = None
    while True:
        left = count()
        now = clock()
        if left:
            nothing_since = None
        elif nothing_since is None:
            nothing_since = now
        empty = nothing_since is not None and (wait == 0 or now - nothing_since >= quiet)
        if empty or now - begun >= wait:
            return Waited(left, empty, round(now - begun, 1))
        pause(min(STEP, wait - (now - begun)))
