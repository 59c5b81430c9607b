# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of the database, of either engine: what was acknowledged is there, writes go on in time.

A writer inserts numbered rows through the HAProxy of a server to which nothing happens, and phones
call each other meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from support.cluster import Cluster
from support.database import Database
from support.show import BEFORE_SECONDS, Show
from test_faults import COLD_START_SECONDS

# The table of nftables that cuts a server off.
CUT_OFF = "ringmain_act"


def another(cluster: Cluster, *names: str) -> str:
    """The first server that is none of these."""
    return next(name for name in cluster.servers if name not in names)


def test_without_a_fault(whole: Cluster, database: Database, show: Show) -> None:
    """The control: what the writer and the phones see when nothing happens."""
    show("nothing", lambda: None, whole.servers[0], 5.0, bound=2.0)


def test_killed(whole: Cluster, database: Database, show: Show) -> None:
    """SIGKILL of the database where writes go: another member takes them."""
    victim = database.taker()
    kill = partial(whole.lab.shell, victim, f"kill -KILL $({database.engine.main})")
    bound = database.engine.bounds["killed"]
    show("SIGKILL of the database", kill, another(whole, victim), bound)


def test_frozen(whole: Cluster, database: Database, show: Show) -> None:
    """SIGSTOP of all processes of the database where writes go; later they go on."""
    victim = database.taker()
    found = database.processes(victim)
    show(
        "SIGSTOP of the database",
        partial(whole.lab.shell, victim, f"kill -STOP {found}"),
        another(whole, victim),
        database.engine.bounds["frozen"],
        # Some may have been ended meanwhile.
        undo=partial(whole.lab.shell, victim, f"kill -CONT {found} 2>/dev/null || true"),
    )


def test_cut_off(whole: Cluster, database: Database, show: Show) -> None:
    """What the server where writes go and the other two send each other inside gets lost."""
    victim = database.taker()

    def cut() -> None:
        # Where it arrives: who drops what he sends is told so, and the network tells nobody.
        for server in whole.servers:
            senders = [name for name in whole.servers if (name == victim) != (server == victim)]
            addresses = ", ".join(whole.addresses.inside[name] for name in senders)
            whole.lab.shell(
                server,
                f"nft 'add table inet {CUT_OFF}; add chain inet {CUT_OFF} input "
                "{ type filter hook input priority -400; }; "
                f"add rule inet {CUT_OFF} input ip saddr {{ {addresses} }} drop'",
            )

    def mend() -> None:
        for server in whole.servers:
            whole.lab.shell(server, f"nft destroy table inet {CUT_OFF}")

    bound = database.engine.bounds["cut_off"]
    show("server cut off by nft", cut, another(whole, victim), bound, undo=mend)


def test_power_cut(whole: Cluster, database: Database, show: Show) -> None:
    """The server where writes go loses its power; later it comes back without anyone acting."""
    victim = database.taker()
    show(
        "power cut",
        partial(whole.lab.power_off, victim),
        another(whole, victim),
        database.engine.bounds["power_cut"],
        undo=partial(whole.lab.power_on, victim),
    )


def test_all_stopped_in_order(whole: Cluster, database: Database, show: Show) -> None:
    """All servers shut down one after another, then started: nobody has to act."""
    down = partial(whole.lab.shut_down, *whole.servers)
    comes_back("all stopped in order", down, whole, database, show)


def test_all_powered_off_at_once(whole: Cluster, database: Database, show: Show) -> None:
    """All servers lose power in one moment, then get it back: nobody has to act."""
    down = partial(whole.lab.power_off, *whole.servers)
    comes_back("power cut of all", down, whole, database, show)


def comes_back(
    what: str, down: Callable[[], object], cluster: Cluster, database: Database, show: Show
) -> None:
    """Write until everything is off; after power-on it is all there again."""
    server = cluster.servers[-1]
    with database.writing(server) as rows:
        time.sleep(BEFORE_SECONDS)
        down()
    began = time.monotonic()
    cluster.lab.power_on(*cluster.servers)
    bound = database.engine.bounds["cold"]
    with database.writing(server, first_within=bound) as later:
        pass
    cluster.wait_until_whole(COLD_START_SECONDS)
    database.look_for(rows, server)
    show.judge(f"{what}, then on", rows, later.began - began, bound, show.booth.calls(3))
