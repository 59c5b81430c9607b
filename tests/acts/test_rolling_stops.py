# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that do not get through, under the load of scenario `rolling`, and boots of all servers.

Whatever stops a run, calls go on, and the same run started again brings it to its end.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from support.cluster import Cluster
from support.lab import ROOT
from support.playbooks import begin, play, until_task
from support.rolling import Expected, Rolling, drains, run_id

RESTART = ROOT / "playbooks" / "restart.yml"
REBOOT = ROOT / "playbooks" / "reboot.yml"
BROKEN = "ringmain_act_broken"
BOOT = "systemctl show -P UserspaceTimestampMonotonic"


def drop(cluster: Cluster, server: str, rule: str) -> None:
    """Let a server drop something that comes in."""
    chain = f"chain input {{ type filter hook input priority -400; {rule} drop; }}"
    cluster.lab.shell(server, f"nft 'table inet {BROKEN} {{ {chain}; }}'")


def mend(cluster: Cluster) -> None:
    """Take what was broken back, wherever it was."""
    for name in cluster.servers:
        cluster.lab.shell(name, f"nft destroy table inet {BROKEN}")


def stopped(
    cluster: Cluster,
    rolling: Rolling,
    what: str,
    task: str,
    rule: str,
    judge: Callable[[str, str, str], None],
) -> None:
    """Take one server; when a task begins it drops something, and the run has to end in words.

    Then it is mended, and the same run again brings it through.
    """

    def strike(_fault: Any) -> None:
        victim, run = cluster.bystander(), run_id()
        told = {
            "rollout_nodes": [victim],
            "rollout_all": True,
            "rollout_run": run,
            "rollout_slice_seconds": 5,
        }
        words = ("-e", json.dumps(told))
        process = begin(RESTART, *words)
        said = until_task(process, name=task)
        drop(cluster, victim, rule)
        said += process.communicate()[0]
        assert process.returncode != 0, said
        judge(victim, run, " ".join(said.split()))
        mend(cluster)
        again = play(RESTART, *words)
        assert again.code == 0, again.output

    expected = Expected(2, undo=lambda: mend(cluster))
    rolling(what, strike, expected)
    assert not any(drains(cluster).values())


def test_a_failed_proof_leaves_the_server_out_of_traffic(
    cluster: Cluster, rolling: Rolling
) -> None:
    """No call gets through it after the work: it gets none, and the run says how to go on."""

    def judge(victim: str, run: str, said: str) -> None:
        assert f"{victim} stays out of traffic: the call through it failed" in said, said
        assert f"go on with restart.yml -e rollout_run={run}" in said, said
        assert all(victim in " ".join(marks) for marks in drains(cluster).values())

    stopped(cluster, rolling, "proof fails", "Do the work", "udp dport 5080", judge)


def test_ssh_lost_while_it_waits(cluster: Cluster, rolling: Rolling) -> None:
    """Nothing has been done to it yet: the others send it calls again."""

    def judge(victim: str, _run: str, said: str) -> None:
        assert f"{victim} is not reached any more" in said, said
        assert f"{victim} is in traffic again, as it was" in said, said
        marks = drains(cluster)
        assert not any(lines for name, lines in marks.items() if name != victim), marks

    task = "Wait | Count the calls"
    stopped(cluster, rolling, "SSH lost while it waits", task, "tcp dport 22", judge)


def test_ssh_lost_in_the_work(cluster: Cluster, rolling: Rolling) -> None:
    """Nobody knows how far it came: it stays out of traffic."""

    def judge(victim: str, _run: str, said: str) -> None:
        assert "unreachable=1" in said or f"{victim} is not reached any more" in said, said
        assert all(victim in " ".join(marks) for marks in drains(cluster).values())

    stopped(cluster, rolling, "SSH lost in the work", "Do the work", "tcp dport 22", judge)


def test_reboot(cluster: Cluster, rolling: Rolling) -> None:
    """Every server boots, one after the other."""
    before = {name: cluster.lab.shell(name, BOOT) for name in cluster.servers}

    def strike(_fault: Any) -> None:
        outcome = play(REBOOT, "-e", "rollout_slice_seconds=10")
        print(f"reboot.yml took {outcome.seconds:.0f} s")
        assert outcome.code == 0, outcome.output

    rolling("reboot.yml", strike, Expected(2))
    after = {name: cluster.lab.shell(name, BOOT) for name in cluster.servers}
    assert [name for name in cluster.servers if before[name] == after[name]] == []
    assert not any(drains(cluster).values())
