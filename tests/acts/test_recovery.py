# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the database's members cannot decide alone, and an operator's playbook for it."""

from __future__ import annotations

import time
from typing import Any

from support.booth import Booth
from support.cluster import Cluster
from support.lab import ROOT
from support.playbooks import Outcome, play
from support.show import all_answered
from test_faults import COLD_START_SECONDS

RECOVER = ROOT / "playbooks" / "recover_database.yml"
OTHER = "99999999-0000-11f1-8000-000000000000"
WAITS_SECONDS = 60.0
CALLS_SECONDS = 20.0

# Whatever would make a member bootstrap at its next start.
FLAGS = (
    "ls /run/ringmain-galera/bootstrap-order /run/ringmain-galera/bootstrap.env 2>/dev/null;"
    " grep -h 'safe_to_bootstrap: 1' /var/lib/mysql/grastate.dat; true"
)


def recover(inventory: Any, *arguments: str) -> Outcome:
    """The playbook, with the operator's confirmation."""
    return play(RECOVER, "-e", f"ringmain_confirm={inventory['ringmain_domain']}", *arguments)


def says(cluster: Cluster, server: str, words: str) -> None:
    """Wait until the member's start helper has said this since the server's boot."""
    deadline = time.monotonic() + WAITS_SECONDS
    while words not in (text := cluster.lab.shell(server, "journalctl -b -u mariadb -o cat")):
        if time.monotonic() > deadline:
            raise AssertionError(f"{server} did not say {words!r}:\n{text[-2000:]}")
        time.sleep(1)


def test_recovery_without_a_lost_member(whole: Cluster, booth: Booth, inventory: Any) -> None:
    """After a power cut one server stays off: two wait for it until an operator gives it up."""
    up = recover(inventory)
    assert up.code != 0, up.output
    assert "nothing was touched: the cluster is up" in up.output

    *left, lost = whole.servers
    whole.lab.power_off(*whole.servers)
    whole.lab.power_on(*left)
    for server in left:
        says(whole, server, f"wait: not all members answer, and one of them may hold newer data"
             f" (waiting for {lost})")  # fmt: skip

    unmeant = play(RECOVER, "-e", f"recover_without={lost}")
    assert unmeant.code != 0, unmeant.output
    assert f"-e ringmain_confirm={inventory['ringmain_domain']}" in unmeant.output

    done = recover(inventory, "-e", f"recover_without={lost}")
    assert done.code == 0, done.output
    print(f"recovered without {lost} in {done.seconds:.0f} s")
    # HAProxy has to see the members up, and Asterisk to ask again: a few seconds.
    began = time.monotonic()
    while not booth.call().answered:
        assert time.monotonic() - began < CALLS_SECONDS, whole.evidence("no call is answered", [])
    print(f"calls are answered {time.monotonic() - began:.1f} s after the playbook's end")
    all_answered(whole, booth, booth.calls(3), f"with the database back, without {lost}")
    assert {server: whole.lab.shell(server, FLAGS) for server in left} == dict.fromkeys(left, "")

    # The lost server comes back after all: it joins by itself.
    whole.lab.power_on(lost)
    whole.wait_until_whole(COLD_START_SECONDS)


def test_another_clusters_data_is_not_overwritten(whole: Cluster) -> None:
    """A member that holds another cluster's data waits instead of joining, which would erase it."""
    stranger = whole.servers[-1]
    state = "/var/lib/mysql/grastate.dat"
    whole.lab.shell(stranger, f"systemctl stop mariadb && cp -a {state} {state}.kept")
    whole.lab.shell(stranger, f"sed -i 's/^uuid:.*/uuid: {OTHER}/' {state}")
    whole.lab.shell(stranger, "systemctl start --no-block mariadb")
    says(whole, stranger, "holds another cluster's data than this member")
    assert OTHER in whole.lab.shell(stranger, f"cat {state}")
    whole.lab.shell(stranger, "systemctl stop mariadb")
    whole.lab.shell(stranger, f"mv {state}.kept {state} && systemctl start mariadb")
