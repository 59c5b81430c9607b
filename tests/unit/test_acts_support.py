# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge of the acts: it finds whatever a cluster lacks."""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def support(root: Path) -> ModuleType:
    """The package of the acts, which is on nobody's path but theirs."""
    folder = root / "tests" / "acts" / "support"
    spec = importlib.util.spec_from_file_location(
        "acts_support", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["acts_support"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def health(support: ModuleType) -> Any:
    """The module that judges."""
    return importlib.import_module("acts_support.cluster")


@pytest.fixture(scope="module")
def plays(support: ModuleType) -> Any:
    """The module that runs playbooks."""
    return importlib.import_module("acts_support.playbooks")


@pytest.fixture(scope="module")
def database(support: ModuleType) -> Any:
    """The module that keeps what a writer of rows was told."""
    return importlib.import_module("acts_support.database")


INSIDE = {"srv1": "198.19.3.11", "srv2": "198.19.3.12", "srv3": "198.19.3.13"}
FLOATING = ["198.18.3.10", "198.19.3.10"]


def whole(health: Any) -> dict[str, Any]:
    report: dict[str, Any] = {
        "units": {
            unit: {"ActiveState": "active", "SubState": "running"}
            for unit in (*health.ENGINE_UNITS["galera"], *health.UNITS)
        },
        "engine": "galera",
        "patroni": {},
        "galera": {
            "wsrep_cluster_size": "3",
            "wsrep_local_state_comment": "Synced",
            "wsrep_ready": "ON",
            "wsrep_cluster_status": "Primary",
            "wsrep_cluster_state_uuid": "one",
        },
        "edge": {
            "destinations": {
                **{f"1 sip:{address}:5080": "AP" for address in INSIDE.values()},
                **{f"2 sip:{address}:2223": "AN" for address in INSIDE.values()},
            },
            "contacts": 2,
            "relays_out": [],
            "ready": True,
        },
        "relay": "whole d6:result4:ponge",
        "asterisk": "System uptime: 17\nLast reload: 17\n",
        "addresses": ["127.0.0.1"],
    }
    reports: dict[str, Any] = {name: copy.deepcopy(report) for name in INSIDE}
    for name, address in INSIDE.items():
        reports[name]["addresses"] += [address, f"198.19.3.2{name[-1]}"]
    reports["srv2"]["addresses"] += FLOATING
    return reports


def judged(health: Any, reports: dict[str, Any]) -> list[str]:
    addresses = health.Addresses.of_slot(3, ["srv1", "srv2", "srv3"])
    assert dict(addresses.inside) == INSIDE
    found = health.problems(reports, addresses)
    assert isinstance(found, list)
    return found


def test_whole_cluster_has_no_problems(health: Any) -> None:
    assert judged(health, whole(health)) == []


def test_holder_has_both_addresses(health: Any) -> None:
    addresses = health.Addresses.of_slot(3, ["srv1", "srv2", "srv3"])
    assert health.holders(whole(health), addresses) == ["srv2"]


def _set(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(reports: dict[str, Any]) -> None:
        place = reports
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_set("srv1", value=RuntimeError("no power")), "srv1: no report: no power"),
        (
            _set("srv1", "units", "asterisk", "ActiveState", value="failed"),
            "srv1: asterisk is failed/running",
        ),
        (_set("srv3", "units", value={}), "srv3: mariadb is None/None"),
        (
            _set("srv1", "galera", "wsrep_local_state_comment", value="Joined"),
            "srv1: database: {'wsrep_cluster_size': '3', 'wsrep_local_state_comment': 'Joined',",
        ),
        (_set("srv1", "galera", "wsrep_cluster_size", value="2"), "srv1: database: "),
        (
            _set("srv1", "galera", "wsrep_cluster_state_uuid", value="two"),
            "the databases are not of one cluster: ",
        ),
        (
            _set("srv1", "edge", "destinations", "1 sip:198.19.3.12:5080", value="IP"),
            "srv1: edge: PBX nodes {",
        ),
        (_set("srv1", "edge", "destinations", value={}), "srv1: edge: PBX nodes {}"),
        (_set("srv1", "edge", "ready", value=False), "srv1: edge: not ready"),
        (_set("srv1", "edge", value={"error": "gone"}), "srv1: edge: gone"),
        (
            _set("srv1", "edge", "contacts", value=1),
            "the edges hold different numbers of contacts: {'srv1': 1, 'srv2': 2, 'srv3': 2}",
        ),
        (_set("srv1", "relay", value=""), "srv1: relay: no answer"),
        (_set("srv1", "asterisk", value=""), "srv1: asterisk: no answer"),
        (_set("srv1", "addresses", value=[]), "srv1: its relay is not at home"),
        (
            _set("srv2", "addresses", value=["198.18.3.10"]),
            "the floating addresses are not at one server: ",
        ),
        (
            _set("srv1", "addresses", value=["198.19.3.10"]),
            "the floating addresses are not at one server: ",
        ),
    ],
)
def test_problem_is_found(
    health: Any, change: Callable[[dict[str, Any]], None], problem: str
) -> None:
    reports = whole(health)
    change(reports)
    found = judged(health, reports)
    assert [line for line in found if line.startswith(problem)], found


OUTPUT = """\
TASK [ringmain.voip.haproxy : Render, check and swap the configuration] ********
ok: [srv1]
changed: [srv2]

RUNNING HANDLER [ringmain.voip.haproxy : Reload HAProxy] ***
changed: [srv2]

PLAY RECAP *****
srv1 : ok=11   changed=0    unreachable=0    failed=0    skipped=2    rescued=0    ignored=0
srv2 : ok=12   changed=2    unreachable=0    failed=0    skipped=2    rescued=0    ignored=0
"""


def test_changes_of_a_run_are_named(plays: Any) -> None:
    outcome = plays.Outcome(0, OUTPUT, 1.0)
    assert outcome.changed == 2
    assert outcome.tasks == 23
    assert outcome.changes() == [
        "ringmain.voip.haproxy : Render, check and swap the configuration: [srv2]",
        "ringmain.voip.haproxy : Reload HAProxy: [srv2]",
    ]


def test_excerpt_has_the_plan_and_the_role(plays: Any, tmp_path: Path) -> None:
    text = plays.excerpt(["kamailio"], tmp_path).read_text(encoding="utf-8")
    assert "ringmain.voip.ringmain\n" in text
    assert "role: ringmain.voip.kamailio\n" in text
    assert "role: ringmain.voip.keepalived\n" not in text
    with pytest.raises(AssertionError, match=r"site\.yml does not run"):
        plays.excerpt(["nothing"], tmp_path)


def test_longest_time_without_a_row_counts_from_the_first_to_the_end(database: Any) -> None:
    rows = database.Rows("act")
    for line in ("5.0 - refused", "10.0 + 2", "10.5 + 3", "10.6 - gone", "12.0 + 5"):
        rows.hear(f"{line}\n")
    rows.began = 10.0
    assert list(rows.acknowledged) == [2, 3, 5]
    assert rows.complaints == {"refused": 1, "gone": 1}
    assert rows.longest == 1.5
    rows.hear("15.0 . 0.250\n")
    assert (rows.longest, rows.stall) == (3.0, 0.25)


def test_idle_share_counts_what_processors_did_between_two_readings(
    support: ModuleType, tmp_path: Path
) -> None:
    """Waiting for a disk is idle, time that another machine took is not."""
    traffic = importlib.import_module("acts_support.traffic")
    readings = []
    for line in ("cpu  100 0 100 100 0 0 0 0 9 9", "cpu  130 0 110 130 10 0 0 20 9 9"):
        (tmp_path / "stat").write_text(f"{line}\ncpu0 1 2 3\n")
        readings.append(traffic.processor_times(tmp_path / "stat"))
    assert traffic.idle_share(*readings) == 0.4


def test_a_row_of_many_runs_says_which_loads_they_had(support: ModuleType) -> None:
    """Fewer calls than in another run are not added to a row in silence."""
    rolling = importlib.import_module("acts_support.rolling")
    verdict = importlib.import_module("acts_support.verdict")
    case = rolling.Case(verdict.Verdict(0.0, 9.0, attempts=5, slowest=0.5), 0.5)
    expected = rolling.Expected(1.0)
    rows = [rolling.row({}, case, expected, 80.0)]
    assert (rows[0]["load"], rows[0]["runs"]) == ("80", 1)
    for calls in (33.75, 60.0):
        rows.append(rolling.row(rows[-1], case, expected, calls))
    assert (rows[-1]["load"], rows[-1]["runs"], rows[-1]["attempts"]) == ("34 to 80", 3, 15)
