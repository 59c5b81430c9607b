# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of a PostgreSQL cluster: what was acknowledged is there, and writes go on in time.

For a lab that was built with `ringmain_database_engine: postgresql`. Calls go on meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from support.booth import Booth, Call
from support.cluster import Cluster
from support.postgresql import Postgres, Rows
from test_faults import all_answered

# Nobody takes writes for longer: from the timers in roles/postgresql/vars/main.yml.
CRASH_SECONDS = 15.0
HOST_SECONDS = 30.0
WHOLE_SECONDS = 120.0


@pytest.fixture(scope="module")
def postgres(cluster: Cluster, inventory: Any) -> Postgres:
    """The database of the cluster."""
    password = inventory["ringmain_secrets"]["database_asterisk_password"]
    return Postgres(cluster.lab, cluster.servers, password)


def show(
    what: str,
    cluster: Cluster,
    booth: Booth,
    postgres: Postgres,
    act: Callable[[], None],
    spared: str,
    seconds: float,
) -> Rows:
    """Write rows and make calls through a fault; no acknowledged row is missing, no call fails."""
    calls: list[Call] = []

    def act_and_call() -> None:
        act()
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            calls.append(booth.call())

    rows = postgres.fault(spared, f"act-{time.time():.0f}", act_and_call, seconds)
    print(
        f"{what}: {len(rows.missing)} of {len(rows.acknowledged)} acknowledged rows missing, "
        f"longest time without one {rows.longest:.1f} s; complaints {rows.complaints}"
    )
    assert rows.acknowledged, rows
    assert rows.missing == [], rows
    all_answered(cluster, booth, calls, what)
    return rows


def test_crash_of_postgresql(whole: Cluster, booth: Booth, postgres: Postgres) -> None:
    """SIGKILL of the primary's PostgreSQL: another member takes over."""
    primary = postgres.primary()
    spared = next(name for name in whole.servers if name != primary)
    pid = "/var/lib/postgresql/17/ringmain/postmaster.pid"

    def act() -> None:
        whole.lab.shell(primary, f"kill -KILL $(head -n 1 {pid})")

    rows = show("SIGKILL of PostgreSQL", whole, booth, postgres, act, spared, 20.0)
    assert rows.longest <= CRASH_SECONDS
    assert postgres.primary() != primary


def test_patroni_frozen(whole: Cluster, booth: Booth, postgres: Postgres) -> None:
    """SIGSTOP of the primary's Patroni: its lock ends, and what it wrote before is kept."""
    primary = postgres.primary()
    spared = next(name for name in whole.servers if name != primary)
    process = whole.process(primary, "patroni")

    def act() -> None:
        whole.lab.shell(primary, f"kill -STOP {process}")

    try:
        rows = show("SIGSTOP of Patroni", whole, booth, postgres, act, spared, HOST_SECONDS)
        assert postgres.with_role("Leader") != primary
    finally:
        whole.lab.shell(primary, f"kill -CONT {process}")
    assert rows.longest <= HOST_SECONDS


def test_power_cut_of_the_primary(whole: Cluster, booth: Booth, postgres: Postgres) -> None:
    """The primary's server loses power and comes back as a standby, without anyone acting."""
    primary = postgres.primary()
    spared = next(name for name in whole.servers if name != primary)
    postgres.servers.sort(key=lambda name: name == primary)

    def act() -> None:
        whole.lab.power_off(primary)

    try:
        rows = show("power cut of the primary", whole, booth, postgres, act, spared, HOST_SECONDS)
    finally:
        whole.lab.power_on(primary)
    assert rows.longest <= HOST_SECONDS
    whole.wait_until_whole(WHOLE_SECONDS)
    assert postgres.primary() != primary


def test_etcd_loses_its_leader(whole: Cluster, booth: Booth, postgres: Postgres) -> None:
    """SIGKILL of the leading etcd: PostgreSQL stays where it is, and writes do not wait for it."""
    primary, leader = postgres.primary(), postgres.etcd_leader()
    spared = next(name for name in whole.servers if name != leader)

    def act() -> None:
        whole.lab.shell(leader, "systemctl kill -s KILL etcd.service")

    rows = show("SIGKILL of etcd's leader", whole, booth, postgres, act, spared, 12.0)
    assert rows.longest <= CRASH_SECONDS
    assert postgres.primary() == primary


def test_switchover(whole: Cluster, booth: Booth, postgres: Postgres) -> None:
    """An operator moves the writes to the synchronous standby."""
    primary, heir = postgres.primary(), postgres.with_role("Sync Standby")
    spared = next(name for name in whole.servers if name not in (primary, heir))

    def act() -> None:
        words = f"switchover --leader {primary} --candidate {heir} --force"
        whole.lab.shell(primary, f"patronictl -c /etc/patroni/config.yml {words}")

    rows = show("switchover", whole, booth, postgres, act, spared, 10.0)
    assert rows.longest <= CRASH_SECONDS
    assert postgres.primary() == heir
