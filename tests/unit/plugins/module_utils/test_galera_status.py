# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a member says of itself, and what is made of it."""

from __future__ import annotations

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import galera_status

WELL = {
    "wsrep_local_state_comment": "Synced",
    "wsrep_ready": "ON",
    "wsrep_cluster_status": "Primary",
    "wsrep_cluster_size": "3",
    "wsrep_cluster_state_uuid": "86ca",
    "wsrep_last_committed": "47",
    "wsrep_local_recv_queue": "0",
}


def test_a_member_that_is_well() -> None:
    found = galera_status.describe(WELL)
    assert found == {
        "running": True,
        "synced": True,
        "state": "Synced",
        "cluster_status": "Primary",
        "cluster_size": 3,
        "cluster_uuid": "86ca",
        "last_committed": 47,
        "receive_queue": 0,
    }
    assert galera_status.complaint(found, 3) == ""


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"wsrep_cluster_status": "non-Primary"}, "it has no quorum (non-Primary)"),
        ({"wsrep_cluster_status": ""}, "it has no quorum (no cluster)"),
        ({"wsrep_local_state_comment": "Donor/Desynced"}, "it is Donor/Desynced, not Synced"),
        ({"wsrep_ready": "OFF"}, "it is Synced, not Synced"),
        ({"wsrep_cluster_size": "2"}, "it sees 2 of 3 members"),
    ],
)
def test_a_member_that_is_not(changes: dict[str, str], complaint: str) -> None:
    assert galera_status.complaint(galera_status.describe({**WELL, **changes}), 3) == complaint


def test_a_member_that_says_nothing() -> None:
    found = galera_status.describe({})
    assert (found["running"], found["synced"], found["cluster_size"]) == (False, False, None)
    assert galera_status.complaint(found, 3) == "MariaDB does not answer"
