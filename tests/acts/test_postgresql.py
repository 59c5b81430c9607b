# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only a PostgreSQL cluster has: Patroni, etcd, a switchover, a synchronous standby.

For a lab that was built with `ringmain_database_engine: postgresql`; the faults that both engines
share are in test_database_faults.py.
"""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import pytest
from support.cluster import Cluster
from support.database import Database
from support.lab import ROOT, everywhere
from support.playbooks import excerpt, play
from support.postgresql import PATRONICTL, Postgres
from support.show import BEFORE_SECONDS, Show
from test_database_faults import another

# Nobody takes writes for longer: from the timers in roles/postgresql/vars/main.yml.
PROCESS_SECONDS = 15.0
HOST_SECONDS = 30.0
SWITCHOVER_SECONDS = 3.0
# From power-on of a server that makes two of three.
BACK_SECONDS = 60.0

RESTART = ROOT / "playbooks" / "restart.yml"
CERTIFICATE = "/etc/ringmain/tls/cert.pem"


@pytest.fixture(scope="module")
def postgres(cluster: Cluster) -> Postgres:
    """The database of the cluster."""
    return Postgres(cluster.lab, cluster.servers)


def test_switchover(whole: Cluster, show: Show, postgres: Postgres) -> None:
    """An operator moves the writes to the synchronous standby, three times.

    What else the machine has to do makes one longer, never shorter: the shortest is the database's.
    """
    seen = []
    for number in range(1, 4):
        primary, heir = postgres.primary(), postgres.with_role("Sync Standby")
        words = f"switchover --leader {primary} --candidate {heir} --force"
        act = partial(whole.lab.shell, primary, f"{PATRONICTL} {words}")
        spared = another(whole, primary, heir)
        rows = show(f"switchover, number {number}", act, spared, 5.0, PROCESS_SECONDS)
        assert postgres.primary() == heir
        seen.append(rows.longest - rows.stall)
    assert min(seen) <= SWITCHOVER_SECONDS, seen


def test_restart_hands_over(
    whole: Cluster, database: Database, postgres: Postgres, tmp_path: Path
) -> None:
    """Patroni waits for a restart everywhere: `restart.yml` moves the writes before it restarts
    whoever takes them. No calls beside: its proofs are made by the same phones."""
    primary = postgres.primary()
    before = {name: whole.process(name, "patroni") for name in whole.servers}
    more = int(time.time()) % 1000
    inputs = {"ringmain_database_engine": "postgresql", "postgresql_open_files": 65000 + more}
    words = ("-e", json.dumps(inputs))
    site = play(excerpt(("postgresql",), tmp_path), *words)
    assert site.code == 0, site.output
    assert {name: whole.process(name, "patroni") for name in whole.servers} == before
    spared = another(whole, primary)
    with database.writing(spared) as rows:
        time.sleep(BEFORE_SECONDS)
        run = play(RESTART, *words)
    assert run.code == 0, run.output
    database.look_for(rows, spared)
    print(f"restart.yml: {len(rows.missing)} of {len(rows.acknowledged)} rows missing, nobody took"
          f" writes for {rows.longest:.1f} s (bound {PROCESS_SECONDS:.0f} s)")  # fmt: skip
    assert rows.missing == []
    assert rows.longest <= PROCESS_SECONDS + rows.stall, rows
    moved = [line for line in run.changes() if "Hand over | Move the writes" in line]
    assert any(line.endswith(f"[{primary}]") for line in moved), run.output
    after = {name: whole.process(name, "patroni") for name in whole.servers}
    assert [name for name in whole.servers if before[name] == after[name]] == []


def test_patroni_frozen(whole: Cluster, show: Show, postgres: Postgres) -> None:
    """SIGSTOP of the primary's Patroni: its lock ends, and what it wrote before is kept."""
    primary = postgres.primary()
    process = whole.process(primary, "patroni")
    show(
        "SIGSTOP of Patroni",
        partial(whole.lab.shell, primary, f"kill -STOP {process}"),
        another(whole, primary),
        HOST_SECONDS,
        undo=partial(whole.lab.shell, primary, f"kill -CONT {process}"),
    )
    assert postgres.primary() != primary


def test_etcd_loses_its_leader(whole: Cluster, show: Show, postgres: Postgres) -> None:
    """SIGKILL of the leading etcd: PostgreSQL stays where it is, and writes do not wait for it."""
    primary, leader = postgres.primary(), postgres.etcd_leader()
    act = partial(whole.lab.shell, leader, "systemctl kill -s KILL etcd.service")
    show("SIGKILL of etcd's leader", act, another(whole, leader), PROCESS_SECONDS)
    assert postgres.primary() == primary


def test_no_etcd_at_all(whole: Cluster, show: Show, postgres: Postgres) -> None:
    """All three etcd are stopped: the primary reaches the other members, and stays what it is."""
    primary = postgres.primary()

    def all_(verb: str) -> None:
        command = f"systemctl {verb} etcd"
        done = everywhere(whole.servers, lambda name: whole.lab.shell(name, command))
        assert done == dict.fromkeys(whole.servers, ""), done

    show("etcd stopped everywhere", partial(all_, "stop"), primary, HOST_SECONDS,
         PROCESS_SECONDS, partial(all_, "start"))  # fmt: skip
    assert postgres.primary() == primary


def test_no_standby_left(
    whole: Cluster, database: Database, show: Show, postgres: Postgres
) -> None:
    """SIGSTOP of both standbys' PostgreSQL and Patroni: the primary goes on alone."""
    primary = postgres.primary()
    found = {
        name: f"{database.processes(name)} {whole.process(name, 'patroni')}"
        for name in whole.servers
        if name != primary
    }

    def both(signal: str) -> None:
        # Some may have been ended meanwhile.
        done = everywhere(
            list(found),
            lambda name: whole.lab.shell(name, f"kill -{signal} {found[name]} 2>&- || true"),
        )
        assert done == dict.fromkeys(found, ""), done

    show(
        "SIGSTOP of both standbys",
        partial(both, "STOP"),
        primary,
        PROCESS_SECONDS,
        undo=partial(both, "CONT"),
    )
    assert postgres.primary() == primary


def test_most_of_etcd_lost(
    whole: Cluster, database: Database, show: Show, postgres: Postgres
) -> None:
    """Both standbys' servers lose power, and etcd its majority with them.

    Nothing is acknowledged while the primary is alone; one server back is enough.
    """
    primary = postgres.primary()
    first, second = (name for name in whole.servers if name != primary)
    try:
        with database.writing(primary) as rows:
            time.sleep(BEFORE_SECONDS)
            whole.lab.power_off(first, second)
            cut = time.monotonic()
            calls = show.calls_until(cut + HOST_SECONDS)
            on = time.monotonic()
            whole.lab.power_on(first)
            while max(rows.acknowledged.values()) < on:
                assert time.monotonic() < on + BACK_SECONDS, whole.evidence("no write", [])
                time.sleep(0.5)
    finally:
        whole.lab.power_on(first, second)
    back = min(moment for moment in rows.acknowledged.values() if moment > on) - on
    database.look_for(rows, primary)
    show.judge("power cut of both standbys, then one on", rows, back, BACK_SECONDS, calls)
    assert [moment - cut for moment in rows.acknowledged.values() if cut < moment < on] == []


def test_renewed_certificate_is_taken_up(
    whole: Cluster, postgres: Postgres, tmp_path: Path
) -> None:
    """A server's certificate is made anew: its three daemons show it, and none was restarted."""
    server = postgres.primary()
    units = ("patroni", "etcd")
    before = [whole.process(server, unit) for unit in units]
    whole.lab.shell(server, f"rm {CERTIFICATE}")
    outcome = play(
        excerpt(("certificates", "postgresql"), tmp_path),
        *("-e", "ringmain_database_engine=postgresql", "--limit", server),
    )
    assert outcome.code == 0, outcome.output
    assert [whole.process(server, unit) for unit in units] == before
    on_disk = whole.lab.shell(server, f"openssl x509 -noout -serial -in {CERTIFICATE}")
    for name, port, words in (
        ("Patroni", 8008, ""),
        ("etcd", 2379, ""),
        ("PostgreSQL", 3306, "-starttls postgres"),
    ):
        script = (
            f"openssl s_client -connect {whole.addresses.inside[server]}:{port} {words}"
            " </dev/null 2>/dev/null | openssl x509 -noout -serial"
        )
        assert whole.lab.shell(server, script) == on_disk, f"{name} shows an old certificate"
    assert postgres.primary() == server
