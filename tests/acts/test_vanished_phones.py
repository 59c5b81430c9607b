# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Phones that are gone without a word: nobody ends their calls but the cluster itself."""

from __future__ import annotations

import time
from typing import Any

from support.callers import Callers, answered
from support.cluster import Cluster
from support.lab import Lab

PROBE = "probe1"
CALLS = 3
GONE = "ringmain_act_gone"

# The relay ends a session that hears nothing, a PBX node asks each 90 s and believes the second no.
RELAY_SECONDS = 60 + 15
PBX_SECONDS = RELAY_SECONDS + 2 * 90 + 5

# Longer than two questions of a node about a call that is alive.
ALIVE_SECONDS = 200


def test_calls_of_vanished_phones_are_ended(
    lab: Lab, whole: Cluster, booth: Any, inventory: Any
) -> None:
    """The relay ends both sessions, then the PBX node both legs; the call stands in the records.

    A conversation whose phones are there goes on meanwhile, through two questions of its PBX node.
    """
    phones = Callers.of_acme(lab, PROBE, whole.addresses.outside_ip, inventory)
    with booth.conversation() as heard:
        conversation = {count: count(whole) for count in (sessions, channels)}
        assert conversation == {sessions: 2, channels: 2}
        legs = answered(phones.calls(CALLS, 3, 0))
        assert len(legs) == CALLS
        phones.live(2)
        assert channels(whole) == 2 + 2 * CALLS
        began = time.monotonic()
        phones.vanish()
        silenced = ended(whole, sessions, began, RELAY_SECONDS)
        hung_up = ended(whole, channels, began, PBX_SECONDS)
        print(
            f"the relays ended the sessions after {silenced:.0f} s, the calls after {hung_up:.0f} s"
        )
        time.sleep(max(0.0, ALIVE_SECONDS - (time.monotonic() - began)))
        assert {count: count(whole) for count in (sessions, channels)} == conversation
    for name, what in heard.items():
        assert what["longest_gap_ms"] <= 200, f"{name}: {what}"
    records = "".join(text_of_each(whole, "cat /var/log/asterisk/cdr.log"))
    for leg in legs:
        assert leg["call_id"] in records, f"{leg['call_id']} is not in the records"


def ended(cluster: Cluster, count: Any, began: float, seconds: float) -> float:
    """Wait until only the conversation is left to count; when that was."""
    while (left := count(cluster)) > 2:
        took = time.monotonic() - began
        assert took < seconds, f"{left} {count.__name__} are left after {took:.0f} s"
        time.sleep(1)
    return time.monotonic() - began


def channels(cluster: Cluster) -> int:
    """Channels of all PBX nodes."""
    command = "asterisk -rx 'core show channels count' | awk '/active channel/ {print $1}'"
    return sum(int(text) for text in text_of_each(cluster, command))


def sessions(cluster: Cluster) -> int:
    """Sessions of all relays."""
    command = "rtpengine-ctl -ip 127.0.0.1 -port 9900 list numsessions"
    said = text_of_each(cluster, command)
    return sum(int(text.partition("own:")[2].split()[0]) for text in said)


def text_of_each(cluster: Cluster, command: str) -> list[str]:
    """What each server says."""
    return [cluster.lab.shell(name, command) for name in cluster.servers]
