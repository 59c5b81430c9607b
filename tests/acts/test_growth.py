# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server joins as edge, relay and PBX node while calls are up, carries its share, and leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.cluster import Cluster
from support.growth import newcomer
from support.lab import ROOT, Lab
from support.playbooks import SITE, Outcome, play
from support.rolling import Expected, Rolling, begun

NEW = "srv4"
SCALE_OUT = ROOT / "playbooks" / "scale_out.yml"
REMOVE_NODE = ROOT / "playbooks" / "remove_node.yml"
RESTART = ROOT / "playbooks" / "restart.yml"

# What it has to have of all calls begun, where an even share is a quarter.
LEAST_SHARE = 0.15
SECONDS = 30.0


@pytest.fixture(scope="module")
def words(
    lab: Lab, cluster: Cluster, inventory: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """A bare fourth server, and what playbooks are told of it."""
    members = {"lab_servers": [*cluster.servers, NEW]}
    functions = ("edge", "media", "pbx")
    folder = tmp_path_factory.mktemp("grown")
    yield newcomer(folder, members, NEW, 14, functions, inventory, ringmain_memory_mb=4096)
    lab.power_off(NEW)


def test_a_server_joins(cluster: Cluster, rolling: Rolling, words: tuple[str, ...]) -> None:
    """Built out of traffic, known to all others, proved by a call, and then given calls."""

    def strike(_fault: Any) -> None:
        done = good(play(SCALE_OUT, *words, "-e", f"nodes={NEW}"))
        cluster.nodes += 1
        print(f"scale_out.yml took {done.seconds:.0f} s")
        before = begun(cluster, NEW)
        rolling.traffic.go_on(SECONDS)
        share = {name: count - before[name] for name, count in begun(cluster, NEW).items()}
        print(f"calls begun in {SECONDS:.0f} s: {share}")
        assert share[NEW] >= LEAST_SHARE * sum(share.values()), share

    rolling("scale_out.yml", strike, Expected(2))


def test_it_leaves(cluster: Cluster, rolling: Rolling, words: tuple[str, ...]) -> None:
    """No new calls, those there are end, its daemons stop, and the others forget it."""

    def strike(_fault: Any) -> None:
        confirmed = ("-e", f"node={NEW}", "-e", "by=act", "-e", "ringmain_confirm=lab.example")
        done = good(play(REMOVE_NODE, *words, *confirmed))
        cluster.nodes -= 1
        site = good(play(SITE))
        restart = good(play(RESTART, "-e", "rollout_services=kamailio,keepalived"))
        took = [f"{one.seconds:.0f} s" for one in (done, site, restart)]
        print(f"remove_node.yml, site.yml and restart.yml took {', '.join(took)}")

    rolling("remove_node.yml, site.yml and restart.yml", strike, Expected(2))
    lists = [
        cluster.lab.shell(name, "grep -c duid=srv4 /var/lib/ringmain/dispatcher.list || true")
        for name in cluster.servers
    ]
    assert [text.strip() for text in lists] == ["0"] * len(cluster.servers)


def good(outcome: Outcome) -> Outcome:
    """A run that has to succeed."""
    assert outcome.code == 0, outcome.output
    return outcome
