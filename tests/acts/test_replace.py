# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that is lost for good, and a new one in its place."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from support.booth import Booth, Call
from support.cluster import Cluster
from support.lab import ROOT
from support.playbooks import SITE, play
from support.show import all_answered

REPLACE = ROOT / "playbooks" / "replace_node.yml"


def new_server(cluster: Cluster, name: str) -> None:
    """Take a server away with all that it holds, and put an empty one at its place."""
    members = cluster.lab.members()
    probes = ",".join(each for each in members if each not in cluster.servers)
    for servers in ([each for each in cluster.servers if each != name], cluster.servers):
        cluster.lab.run("up", "--servers", ",".join(servers), "--probes", probes)


def test_a_new_server_takes_a_lost_ones_place(whole: Cluster, booth: Booth, inventory: Any) -> None:
    """Built while calls go on; it knows what the others know, and a second run changes nothing."""
    lost = next(name for name in whole.servers if name != whole.holder())
    whole.lab.power_off(lost)
    new_server(whole, lost)

    unmeant = play(REPLACE, "-e", f"replace_node={lost}")
    assert unmeant.code != 0, unmeant.output
    assert f"-e ringmain_confirm={inventory['ringmain_domain']}" in unmeant.output

    words = ("-e", f"replace_node={lost}", "-e", f"ringmain_confirm={inventory['ringmain_domain']}")
    calls: list[Call] = []
    with ThreadPoolExecutor(max_workers=1) as pool:
        run = pool.submit(play, REPLACE, *words)
        while not run.done():
            calls.append(booth.call())
    done = run.result()
    assert done.code == 0, done.output[-6000:]
    print(f"{lost} replaced in {done.seconds:.0f} s")
    all_answered(whole, booth, calls, f"while {lost} was replaced")
    whole.wait_until_whole(60.0)
    again = play(SITE)
    assert again.code == 0, again.output
    assert again.changes() == [], again.output
