# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database without room, and no database at all; of either engine."""

from __future__ import annotations

from functools import partial

from support.booth import Booth
from support.cluster import Cluster
from support.database import Database
from support.show import Show, all_answered
from test_database_faults import another
from test_faults import COLD_START_SECONDS

# By engine: what is on the small disk, and the unit that uses it. With PostgreSQL the archive, too,
# and Patroni may have to make a new directory for the data.
PLACES = {
    "galera": ("/var/lib/mysql", "mariadb.service"),
    "postgresql": ("/var/lib/postgresql", "patroni.service"),
}
SMALL = "/mnt/small"
# What a member keeps free (galera_disk_reserve_mb, postgresql_disk_reserve_mb), twice, and some.
ROOM_MB = 900
# What watches over its room ends it.
FULL_SECONDS = 15.0


def on_a_small_disk(cluster: Cluster, database: Database, server: str) -> None:
    """Move a server's data to a disk with little room; what was there stays below it."""
    data, unit = PLACES[database.engine.name]
    cluster.lab.shell(
        server,
        f"systemctl stop {unit} && mkdir -p {SMALL} && used=$(du -sm {data} | cut -f 1) &&"
        f" mount -t tmpfs -o size=$((used + {ROOM_MB}))m tmpfs {SMALL} &&"
        f" cp -a {data}/. {SMALL} && chown --reference={data} {SMALL} &&"
        f" chmod --reference={data} {SMALL} && mount --bind {SMALL} {data} &&"
        f" systemctl start {unit}",
        timeout=120,
    )


def test_full_disk(whole: Cluster, database: Database, show: Show) -> None:
    """The disk of the database where writes go is full from one moment to the next."""
    victim = database.taker()
    data, unit = PLACES[database.engine.name]
    try:
        on_a_small_disk(whole, database, victim)
        whole.wait_until_whole(COLD_START_SECONDS)
        database.lead(victim)
        # The last pages go while it is being written.
        left = f"$(($(df --output=avail -B 1 {SMALL} | tail -n 1) - 65536))"
        fill = f"fallocate -l {left} {SMALL}/filler"
        show(
            "disk full",
            partial(whole.lab.shell, victim, fill),
            another(whole, victim),
            FULL_SECONDS,
            undo=partial(whole.lab.shell, victim, f"rm -f {SMALL}/filler"),
        )
        # Galera's looks for room once a minute.
        whole.wait_until_whole(COLD_START_SECONDS)
    finally:
        whole.lab.shell(
            victim,
            f"systemctl kill -s KILL {unit}; systemctl stop {unit}; umount {data} {SMALL};"
            f" systemctl start {unit}",
            timeout=120,
        )


def test_no_database_at_all(whole: Cluster, database: Database, booth: Booth) -> None:
    """All members are stopped: calls go on, also where a PBX node starts and knows nobody yet."""
    _data, unit = PLACES[database.engine.name]
    all_answered(whole, booth, booth.calls(2 * len(whole.servers)), "with the database")
    try:
        for server in whole.servers:
            whole.lab.shell(server, f"systemctl stop {unit}", timeout=120)
        all_answered(whole, booth, booth.calls(60), "without a database")
        whole.lab.shell("srv1", f"kill -KILL {whole.process('srv1', 'asterisk')}")
        calls = booth.calls(60)
        log = whole.lab.shell("srv1", "journalctl -u asterisk -o cat --since -3min")
    finally:
        for server in whole.servers:
            whole.lab.shell(server, f"systemctl start --no-block {unit}")
    all_answered(whole, booth, calls, "without a database, one PBX node new")
    assert "Nothing is known about verify-902: is the database there?" in log
