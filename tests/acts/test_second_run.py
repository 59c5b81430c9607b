# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A second run of site.yml changes nothing, and --check finds nothing to change."""

from __future__ import annotations

from typing import Any

from support import playbooks
from support.cluster import Cluster, snapshot

# What the design allows for three servers on two cores; the number of tasks is what counts.
SECONDS = 120
TASKS_PER_SERVER = 80


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is not the same in two snapshots, by server and file or service."""
    return [
        f"{server}: {name}: {before[server].get(name)} became {after[server].get(name)}"
        for server in before
        for name in sorted({*before[server], *after[server]})
        if before[server].get(name) != after[server].get(name)
    ]


def test_second_run_changes_nothing(whole: Cluster) -> None:
    """No task changes anything; files, processes and schema are the same afterwards."""
    before = snapshot(whole)
    second = playbooks.play(playbooks.SITE)
    print(
        f"second run: {second.seconds:.0f} s (design: {SECONDS} s), "
        f"{second.tasks} tasks executed on {len(whole.servers)} servers"
    )
    assert second.code == 0, second.output
    assert second.changes() == []
    assert second.changed == 0, second.output
    assert differences(before, snapshot(whole)) == []
    assert second.tasks <= TASKS_PER_SERVER * len(whole.servers)


def test_check_finds_nothing_to_change(whole: Cluster) -> None:
    """--check --diff on the built cluster succeeds and shows no difference."""
    before = snapshot(whole)
    check = playbooks.play(playbooks.SITE, "--check", "--diff")
    print(f"--check --diff: {check.seconds:.0f} s")
    assert check.code == 0, check.output
    assert check.changes() == []
    assert check.changed == 0, check.output
    shown = [line for line in check.output.splitlines() if line.startswith(("--- ", "+++ "))]
    assert shown == []
    assert differences(before, snapshot(whole)) == []
