# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Patroni says of a member, who makes way, and what the cluster's settings lack.

Pure functions on what Patroni's REST API answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def is_primary(status: Mapping[str, Any]) -> bool:
    """Whether this member takes writes."""
    return status.get("state") == "running" and status.get("role") == "primary"


def complaint(status: Mapping[str, Any] | None) -> str:
    """What keeps a member from being part of the cluster; empty when nothing does.

    ``status`` is the answer to ``GET /patroni``, None when there was none.
    """
    if status is None:
        return "Patroni does not answer"
    state, role = status.get("state", "unknown"), status.get("role", "unknown")
    if state not in ("running", "streaming"):
        return f"PostgreSQL is {state}"
    # A new cluster's first PostgreSQL runs before its settings are in etcd and its lock is taken.
    if status.get("cluster_unlocked"):
        return "nobody holds the leader's lock in etcd"
    if role == "primary":
        return ""
    following = status.get("replication_state", "not connected")
    if following != "streaming":
        return f"PostgreSQL follows no primary (its replication is {following})"
    return ""


def makes_way(me: str, members: Sequence[Mapping[str, Any]], number: int) -> bool:
    """Decide whether a member that has no room left must go.

    ``members`` is what ``GET /cluster`` lists, ``number`` how many the whole cluster has.

    A primary without room stays what it is: statements that need some fail, for as long as the log
    has a segment left. It goes where most members are in step without it, and one of them has every
    commit that was acknowledged; nobody else would be promoted.
    """
    others = {
        member["name"]: member.get("role")
        for member in members
        if member["name"] != me and member.get("state") in ("running", "streaming")
    }
    return 2 * len(others) > number and not {"leader", "sync_standby"}.isdisjoint(others.values())


def differences(wanted: Mapping[str, Any], found: Mapping[str, Any], above: str = "") -> list[str]:
    """The names of all settings that are not as wanted, dotted, sorted."""
    names: list[str] = []
    for key in sorted({*wanted, *found}):
        name = f"{above}{key}"
        mine, theirs = wanted.get(key), found.get(key)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            names += differences(mine, theirs, f"{name}.")
        elif mine != theirs:
            names.append(name)
    return names
