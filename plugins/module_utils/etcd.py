# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Decide how a new server takes a lost member's place in etcd. Pure functions on plain data.

A member is its data: etcd keeps out one that comes back without them, because it may have
acknowledged what it no longer knows. The others first have to forget it, then to expect a new one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Replacement:
    """What the cluster has to do, and why, in words for the operator.

    ``forget`` is the id of the member to remove ("": none), ``expect`` whether to add a new one,
    ``refused`` whether an operator has to decide.
    """

    reason: str
    forget: str = ""
    expect: bool = False
    refused: bool = False


def replacement(
    members: Sequence[Mapping[str, Any]], name: str, peer_url: str, has_data: bool
) -> Replacement:
    """Decide from the cluster's list of members, as ``/v3/cluster/member/list`` has it.

    ``has_data`` says whether the server that is there now holds a member's data.
    """
    theirs = [
        member
        for member in members
        if member.get("name") == name or peer_url in member.get("peerURLs", ())
    ]
    started = [member for member in theirs if member.get("name")]
    if len(theirs) > 1:
        return Replacement(
            f"etcd knows {len(theirs)} members by the name {name} or at {peer_url}: remove the one "
            "that is gone (etcdctl member remove)",
            refused=True,
        )
    if started and has_data:
        return Replacement(f"{name} holds its data: it is not lost")
    if has_data:
        return Replacement(
            f"{name} holds the data of a member that the others do not know: stop etcd and patroni "
            "there, move /var/lib/etcd/ringmain away and run this again",
            refused=True,
        )
    if started:
        return Replacement(f"{name} has lost its data", forget=str(started[0]["ID"]), expect=True)
    if theirs:
        return Replacement(f"{name} is expected already")
    return Replacement(f"{name} is no member any more", expect=True)
