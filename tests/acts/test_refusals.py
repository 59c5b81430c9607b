# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What playbooks refuse before it touches anything, on a cluster of either engine."""

from __future__ import annotations

from support.cluster import Cluster, snapshot
from support.database import ENGINES, Database
from support.lab import ROOT
from support.playbooks import SITE, play

# Far above whatever this release runs on.
LEVEL = 999

RESTART = ROOT / "playbooks" / "restart.yml"


def refused(cluster: Cluster, engine: str, *words: str) -> None:
    """Run site.yml; it says these words, and nothing is changed."""
    before = snapshot(cluster)
    outcome = play(SITE, "-e", f"ringmain_database_engine={engine}")
    assert outcome.code != 0, outcome.output
    told = " ".join(outcome.output.split())
    assert all(word in told for word in words), outcome.output
    assert outcome.changes() == []
    assert outcome.changed == 0, outcome.output
    assert snapshot(cluster) == before


def test_another_engine_than_the_one_that_holds_the_data(
    whole: Cluster, database: Database
) -> None:
    """The engine is not switched under a cluster's data."""
    (other,) = set(ENGINES) - {database.engine.name}
    refused(
        whole,
        other,
        f"holds a database of {database.engine.name}",
        "Nothing was changed",
    )


def test_schema_outside_of_the_range(whole: Cluster, database: Database) -> None:
    """A newer release has raised the schema to a level that this one does not run on."""
    ask = f'{database.engine.ask} "%s"'
    raised = f"INSERT INTO ringmain_level VALUES ({LEVEL}, '2000-01-01 00:00:00')"
    server = database.taker()
    whole.lab.shell(server, ask % raised)
    try:
        refused(whole, database.engine.name, f"has schema level {LEVEL}", "use the newer release")
    finally:
        whole.lab.shell(server, ask % f"DELETE FROM ringmain_level WHERE level = {LEVEL}")


def test_a_server_that_is_not_reached(whole: Cluster) -> None:
    """No rolling run begins while a server is off; it says which, and takes no other."""
    lost = whole.servers[-1]
    whole.lab.power_off(lost)
    try:
        outcome = play(RESTART, "-e", "rollout_all=true")
    finally:
        whole.lab.power_on(lost)
    told = " ".join(outcome.output.split())
    assert outcome.code != 0, outcome.output
    assert "nothing was touched" in told, outcome.output
    assert f"{lost} is not reached: mend it first" in told, outcome.output
    assert "the database is not whole" in told, outcome.output
    assert outcome.changes() == []
