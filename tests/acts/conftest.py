# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The acts run on a lab with a built cluster, one after another; RINGMAIN_LAB_ID says which.

Each starts from a whole cluster and leaves a whole one. Needs root.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.plugins.loader import init_plugin_loader

sys.path.insert(0, str(Path(__file__).resolve().parent))

from support.booth import Booth
from support.cluster import Addresses, Cluster
from support.database import Database
from support.lab import Lab
from support.playbooks import INVENTORY
from support.results import Results
from support.rolling import Rolling
from support.show import Show
from support.traffic import Accounts, Load, Traffic

# The collection's own modules under their full names, before any act imports them.
init_plugin_loader([str(Path(__file__).resolve().parents[2] / ".cache" / "collections")])

SERVERS = ("srv1", "srv2", "srv3")
PROBE = "probe1"

# The load that this machine carries, once it has been found.
FOUND = pytest.StashKey[Load]()

# A cluster that something was done to may take its time, but not for ever.
WHOLE_SECONDS = 120.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--count``: how often an act that measures does so; ``--standing``: its long calls."""
    parser.addoption("--count", type=int, default=1, help="runs of each fault under load")
    parser.addoption("--standing", type=float, default=90.0, help="seconds of the long calls")


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab that carries the cluster."""
    lab_id = os.environ.get("RINGMAIN_LAB_ID")
    assert lab_id, "RINGMAIN_LAB_ID does not say which lab carries the cluster"
    return Lab(lab_id)


@pytest.fixture(scope="session")
def inventory() -> Any:
    """The lab's inputs and secrets, as the inventory has them."""
    folder = INVENTORY / "group_vars" / "all"
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.yml")):
        found |= yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="session")
def cluster(lab: Lab) -> Cluster:
    """The cluster, in whatever state it is."""
    slot = int(os.environ["RINGMAIN_LAB_SLOT"])
    return Cluster(lab, Addresses.of_slot(slot, SERVERS))


@pytest.fixture(scope="session")
def booth(lab: Lab, cluster: Cluster, inventory: Any) -> Iterator[Booth]:
    """Two phones that registered once, for an hour."""
    cluster.wait_until_whole(WHOLE_SECONDS)
    phones = Booth(
        lab,
        PROBE,
        cluster.addresses.outside_ip,
        f"verify.{inventory['ringmain_domain']}",
        inventory["ringmain_secrets"]["subscribers"],
    )
    yield phones
    phones.close()


@pytest.fixture
def whole(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, whole before the act and again after it."""
    cluster.wait_until_whole(30.0)
    yield cluster
    took = cluster.wait_until_whole(WHOLE_SECONDS)
    print(f"whole {took:.1f} s after the act")


@pytest.fixture(scope="session")
def database(cluster: Cluster, inventory: Any) -> Database:
    """The cluster's database, of whichever engine."""
    return Database(cluster, inventory["ringmain_secrets"]["database_asterisk_password"])


@pytest.fixture(scope="session")
def results() -> Results:
    """Where the rows of a table go: into the file that RINGMAIN_RESULTS names, if it does."""
    path = os.environ.get("RINGMAIN_RESULTS")
    return Results(Path(path) if path else None)


@pytest.fixture(scope="session")
def show(cluster: Cluster, booth: Booth, database: Database, results: Results) -> Show:
    """What writes rows and makes calls through a fault."""
    return Show(cluster, booth, database, results)


@pytest.fixture(scope="module")
def traffic(
    lab: Lab,
    cluster: Cluster,
    database: Database,
    inventory: Any,
    request: pytest.FixtureRequest,
) -> Iterator[Traffic]:
    """The load of scenario `rolling`, from the first act of a module to its last."""
    cluster.wait_until_whole(WHOLE_SECONDS)
    stash, standing = request.config.stash, request.config.getoption("--standing")
    # What an earlier module found is where this one begins to look.
    load = stash.get(FOUND, Load(standing_hold=standing))
    accounts = Accounts(cluster, database, inventory["ringmain_domain"], load.registrations)
    accounts.create()
    try:
        with Traffic(lab, cluster, PROBE, accounts, load) as calls:
            stash[FOUND] = calls.load
            yield calls
    finally:
        cluster.wait_until_whole(WHOLE_SECONDS)
        accounts.remove()


@pytest.fixture
def rolling(
    cluster: Cluster, traffic: Traffic, results: Results, request: pytest.FixtureRequest
) -> Rolling:
    """What strikes under that load, as often as `--count` says."""
    return Rolling(cluster, traffic, results, request.config.getoption("--count"))
