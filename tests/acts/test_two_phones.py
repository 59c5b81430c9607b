# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two phones of one subscriber answer the same call in the same moment."""

from __future__ import annotations

import time
from typing import Any

from support.booth import END_SECONDS, Booth
from support.cluster import Cluster

TALK_SECONDS = 4.0
GAP_MS = 200


def test_the_first_one_has_the_call(whole: Cluster, booth: Booth) -> None:
    """It talks to the caller and hears nobody else; the other one hangs up at once."""
    tones = {Booth.CALLEE: Booth.CALLEE_TONE, Booth.TWIN: Booth.TWIN_TONE}
    words = {"caller": Booth.CALLER, "callee": Booth.CALLEE, "twin": Booth.TWIN}
    for _number in range(2):
        with booth.twin():
            call = booth.ask("dial", **words, target=booth.target, timeout=10.0)
            assert call["answered"], f"{call}\n{booth.evidence()}"
            time.sleep(TALK_SECONDS)
            winner, (own, other) = call["callee"], call["call_ids"]
            loser = next(name for name in tones if name != winner)
            talked = booth.ask("ended", name=loser, call_id=other, timeout=1.0)["param"]
            assert talked, f"{loser} was not told to hang up\n{booth.evidence()}"
            booth.ask("hang_up", name=Booth.CALLER, call_id=own)
            end = booth.ask("ended", name=winner, call_id=other, timeout=END_SECONDS)["param"]
            assert end, f"{winner} is not told of the end\n{booth.evidence()}"
            all_the_time(booth.ask("heard", name=winner, tone=Booth.CALLER_TONE))
            all_the_time(booth.ask("heard", name=Booth.CALLER, tone=tones[winner]))


def all_the_time(heard: dict[str, Any]) -> None:
    """One tone, and nothing beside it."""
    assert heard["longest_gap_ms"] <= GAP_MS, heard
    assert heard["heard_ms"] >= 1000 * TALK_SECONDS - GAP_MS, heard
    assert heard["other_ms"] <= GAP_MS, heard
