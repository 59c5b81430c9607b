# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server's only disk is full from one moment to the next, under some eighty calls.

The database there gives up by itself; edge, relay and PBX node have nothing to write for a call.
"""

from __future__ import annotations

import time
from functools import partial

import pytest
from support.cluster import Cluster, holders
from support.rolling import WHOLE_SECONDS, Expected, Rolling, relay_goes_home
from support.traffic import Fault, Traffic

# For what is copied when it is opened for writing, the database's files above all, and its reserve.
ROOM_MB = 3000
FULL_SECONDS = 30.0
AFTER_SECONDS = 10.0
FILLER = "/root/filler"

# All but 1 MB at once, the rest as long as there is any: others write meanwhile.
FILL = f"""
left=$(df --output=avail -B 1 / | tail -n 1)
fallocate -l $((left - 1000000)) {FILLER}
! dd if=/dev/zero of={FILLER}.more bs=4k status=none 2>/dev/null
! sh -c 'echo one more >> {FILLER}.more' 2>/dev/null
"""


TAKES_SECONDS = 20.0


def take_addresses(cluster: Cluster, server: str) -> None:
    """Have a server hold the edges' addresses: no other one has an edge for a moment."""
    others = [name for name in cluster.servers if name != server]
    for name in others:
        cluster.lab.shell(name, "systemctl stop kamailio")
    end = time.monotonic() + TAKES_SECONDS
    while holders(cluster.reports(), cluster.addresses) != [server]:
        assert time.monotonic() < end, f"{server} does not take the addresses"
        time.sleep(0.5)
    for name in others:
        cluster.lab.shell(name, "systemctl start kamailio")


@pytest.mark.parametrize("holder", [False, True])
def test_full_disk(cluster: Cluster, traffic: Traffic, rolling: Rolling, holder: bool) -> None:
    """Nobody notices, and every call of that time has its record."""
    victim = cluster.bystander()
    cluster.lab.power_off(victim)
    cluster.lab.power_on_with_room(victim, ROOM_MB)
    try:
        relay_goes_home(cluster, victim)
        if holder:
            take_addresses(cluster, victim)
        cluster.wait_until_whole(WHOLE_SECONDS)
        assert (cluster.holder() == victim) == holder
        undo = partial(cluster.lab.shell, victim, f"rm -f {FILLER} {FILLER}.more")

        def strike(fault: Fault) -> None:
            cluster.lab.shell(victim, FILL)
            fault.happens()

        expected = Expected(FULL_SECONDS, undo=undo, after=AFTER_SECONDS)
        what = f"disk full on {'the holder' if holder else 'another server'}"
        for case in rolling(what, strike, expected):
            missing = traffic.without_record(case.verdict.begin, case.verdict.end)
            assert not missing, f"{len(missing)} calls have no record: {missing[:5]}"
    finally:
        # Its own disk again, without what was written meanwhile.
        cluster.lab.power_off(victim)
        cluster.lab.power_on(victim)
        relay_goes_home(cluster, victim)
