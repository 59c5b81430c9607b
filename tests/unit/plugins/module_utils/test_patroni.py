# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Patroni's answers mean."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import patroni


@pytest.mark.parametrize(
    ("status", "complaint"),
    [
        (None, "Patroni does not answer"),
        ({}, "PostgreSQL is unknown"),
        ({"state": "starting", "role": "replica"}, "PostgreSQL is starting"),
        ({"state": "running", "role": "primary"}, ""),
        (
            {"state": "running", "role": "primary", "cluster_unlocked": True},
            "nobody holds the leader's lock in etcd",
        ),
        ({"state": "running", "role": "replica", "replication_state": "streaming"}, ""),
        (
            {"state": "running", "role": "replica"},
            "PostgreSQL follows no primary (its replication is not connected)",
        ),
        (
            {"state": "running", "role": "replica", "replication_state": "in archive recovery"},
            "PostgreSQL follows no primary (its replication is in archive recovery)",
        ),
    ],
)
def test_a_member_leads_or_follows(status: dict[str, Any] | None, complaint: str) -> None:
    assert patroni.complaint(status) == complaint


def test_the_primary_takes_writes() -> None:
    assert patroni.is_primary({"state": "running", "role": "primary"})
    assert not patroni.is_primary({"state": "stopping", "role": "primary"})
    assert not patroni.is_primary({"state": "running", "role": "replica"})


def test_settings_are_compared_by_name() -> None:
    wanted = {"ttl": 20, "postgresql": {"use_slots": True, "parameters": {"a": 1, "b": 2}}}
    assert patroni.differences(wanted, wanted) == []
    found = {"ttl": 30, "pause": True, "postgresql": {"use_slots": True, "parameters": {"a": 1}}}
    assert patroni.differences(wanted, found) == ["pause", "postgresql.parameters.b", "ttl"]


def member(name: str, role: str, state: str = "streaming") -> dict[str, str]:
    """A line of ``GET /cluster``."""
    return {"name": name, "role": role, "state": state}


LEADER, SYNC, REPLICA = (
    member("a", "leader", "running"),
    member("b", "sync_standby"),
    member("c", "replica"),
)


@pytest.mark.parametrize(
    ("me", "members", "number", "goes"),
    [
        ("a", [LEADER, SYNC, REPLICA], 3, True),
        ("b", [LEADER, SYNC, REPLICA], 3, True),
        ("c", [LEADER, SYNC, REPLICA], 3, True),
        # It has crashed, and nobody leads yet.
        ("a", [member("a", "replica", "crashed"), SYNC, REPLICA], 3, True),
        # Nobody has all commits.
        ("a", [LEADER, member("b", "replica"), REPLICA], 3, False),
        # Too few would be left.
        ("a", [LEADER, SYNC], 3, False),
        ("a", [LEADER, SYNC, member("c", "replica", "starting")], 3, False),
        ("a", [LEADER, SYNC, REPLICA], 5, False),
        # Nobody knows.
        ("a", [], 3, False),
    ],
)
def test_without_room_it_goes_where_the_others_go_on(
    me: str, members: list[dict[str, str]], number: int, goes: bool
) -> None:
    assert patroni.makes_way(me, members, number) is goes
