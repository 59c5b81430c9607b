# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What rows and calls become through a fault of the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from .booth import Booth, Call
from .cluster import Cluster
from .database import Database, Rows
from .results import Results

# Rows are written so long before a fault and after the last call.
BEFORE_SECONDS = 3.0
AFTER_SECONDS = 2.0
WHOLE_SECONDS = 180.0


def all_answered(cluster: Cluster, booth: Booth, calls: Sequence[Call], what: str) -> None:
    """Fail with the evidence if one of the calls was not answered."""
    failed = [
        f"call {number}: {call.reason}"
        for number, call in enumerate(calls, start=1)
        if not call.answered
    ]
    slowest = max(call.seconds for call in calls)
    print(
        f"{what}: {len(failed)} of {len(calls)} calls failed; "
        f"the first was answered after {calls[0].seconds:.2f} s, the slowest after {slowest:.2f} s"
    )
    if failed:
        raise AssertionError(f"{cluster.evidence(what, failed)}\n{booth.evidence()}")


class Show:
    """Write rows and make calls through something, then say what was lost."""

    def __init__(
        self, cluster: Cluster, booth: Booth, database: Database, results: Results
    ) -> None:
        self.cluster = cluster
        self.booth = booth
        self.database = database
        self.results = results

    def __call__(
        self,
        what: str,
        act: Callable[[], object],
        spared: str,
        seconds: float,
        bound: float | None = None,
        undo: Callable[[], object] = lambda: None,
    ) -> Rows:
        """Write on the spared server; act, call for so many seconds meanwhile, undo.

        No acknowledged row may be missing, no call may fail, and nobody may take writes for longer
        than the bound (if not given: than it is called for).
        """
        calls: list[Call] = []
        try:
            with self.database.writing(spared) as rows:
                time.sleep(BEFORE_SECONDS)
                began = time.monotonic()
                with ThreadPoolExecutor(max_workers=1) as pool:
                    acting = pool.submit(act)
                    calls += self.calls_until(began + seconds)
                    acting.result()
                time.sleep(AFTER_SECONDS)
        finally:
            undo()
        # Who was out of it may take a moment to be asked again.
        self.cluster.wait_until_whole(WHOLE_SECONDS)
        self.database.look_for(rows, spared)
        self.judge(what, rows, rows.longest, seconds if bound is None else bound, calls)
        return rows

    def calls_until(self, moment: float) -> list[Call]:
        """Calls, one after another, until a moment of the monotonic clock."""
        calls = []
        while time.monotonic() < moment:
            calls.append(self.booth.call())
        return calls

    def judge(self, what: str, rows: Rows, gap: float, bound: float, calls: list[Call]) -> None:
        """Note what was seen, and fail if it is not what was promised.

        ``gap`` is for how many seconds nobody took writes.
        """
        self.results.add(
            what,
            {
                "acknowledged": len(rows.acknowledged),
                "missing": len(rows.missing),
                "gap": round(gap, 1),
                "bound": bound,
                "calls": len(calls),
                "failed": sum(not call.answered for call in calls),
            },
        )
        print(
            f"{what}: {len(rows.missing)} of {len(rows.acknowledged)} acknowledged rows missing, "
            f"nobody took writes for {gap:.1f} s (bound {bound:.0f} s, stall "
            f"{rows.stall:.2f} s); complaints {rows.complaints}"
        )
        assert rows.missing == [], rows
        # A machine that keeps all of its processes waiting is no fault of the database's.
        assert gap <= bound + rows.stall, self.cluster.evidence(what, [str(rows.complaints)])
        all_answered(self.cluster, self.booth, calls, what)
