# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that is lost for good, and a new one in its place."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from support.booth import Booth, Call
from support.cluster import Cluster
from support.database import Database
from support.lab import ROOT
from support.playbooks import SITE, play
from support.show import Show
from test_database_faults import another

REPLACE = ROOT / "playbooks" / "replace_node.yml"
# If writes went to the lost server: as after a power cut. If one that comes back takes them again,
# the pools have to notice.
LOST_SECONDS = 30.0


def new_server(cluster: Cluster, name: str) -> None:
    """Take a server away with all that it holds, and put an empty one at its place."""
    members = cluster.lab.members()
    probes = ",".join(each for each in members if each not in cluster.servers)
    for servers in ([each for each in cluster.servers if each != name], cluster.servers):
        cluster.lab.run("up", "--servers", ",".join(servers), "--probes", probes)


def test_a_new_server_takes_a_lost_ones_place(
    whole: Cluster, booth: Booth, database: Database, show: Show, inventory: Any
) -> None:
    """A new one is built while calls and writes go on.

    It knows what the others know, and a second run changes nothing.
    """
    lost = next(name for name in whole.servers if name != whole.holder())
    engine = ("-e", f"ringmain_database_engine={database.engine.name}")
    calls: list[Call] = []
    with database.writing(another(whole, lost)) as rows, ThreadPoolExecutor(max_workers=1) as pool:
        whole.lab.power_off(lost)
        new_server(whole, lost)
        unmeant = play(REPLACE, *engine, "-e", f"replace_node={lost}")
        meant = f"ringmain_confirm={inventory['ringmain_domain']}"
        words = (*engine, "-e", f"replace_node={lost}", "-e", meant)
        run = pool.submit(play, REPLACE, *words)
        while not run.done():
            calls.append(booth.call())
    assert unmeant.code != 0, unmeant.output
    assert f"-e {meant}" in unmeant.output
    done = run.result()
    assert done.code == 0, done.output[-6000:]
    print(f"{lost} replaced in {done.seconds:.0f} s")
    whole.wait_until_whole(60.0)
    database.look_for(rows, another(whole, lost))
    show.judge("server replaced", rows, rows.longest, LOST_SECONDS, calls)
    again = play(SITE, *engine)
    assert again.code == 0, again.output
    assert again.changes() == [], again.output
