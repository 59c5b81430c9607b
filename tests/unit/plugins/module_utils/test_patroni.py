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
