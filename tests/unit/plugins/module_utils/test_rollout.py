# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rolling runs: who is taken, in which order, when nobody is, and where a broken run goes on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils.rollout import (
    ROOM,
    Decision,
    Intention,
    decide,
    drains,
    split_mark,
    waiting,
)
from hypothesis import given
from hypothesis import strategies as st

ALL = ("edge", "media", "pbx", "database")
RUN = "20261121T064500"
OTHER = "20261121T070000"
SMALL: dict[str, Sequence[str]] = {"srv1": ALL, "srv2": ALL, "srv3": ALL}
STANDARD: dict[str, Sequence[str]] = {
    "edge1": ("edge",),
    "edge2": ("edge",),
    "media1": ("media",),
    "media2": ("media",),
    "pbx1": ("pbx",),
    "pbx2": ("pbx",),
    "pbx3": ("pbx",),
    "db1": ("database",),
    "db2": ("database",),
    "db3": ("database",),
}
TIERS = {
    "edge": {"needed": 1, "carries": 100},
    "media": {"needed": 2, "carries": 100},
    "pbx": {"needed": 2, "carries": 100},
    "database": {"needed": 3, "carries": 100},
}
SETS = {"pbx": 1, "media": 2, "edge": 3}
SERVICES = {
    "edge": ["kamailio", "keepalived", "haproxy"],
    "media": ["rtpengine-daemon"],
    "pbx": ["asterisk", "haproxy"],
    "database": ["mariadb"],
}

Cluster = dict[str, Any]


def service(name: str, waits: bool) -> dict[str, Any]:
    return {"name": name, "waits_for_package": False, "waits_for_configuration": waits}


def cluster(functions: dict[str, Sequence[str]], *waits: str) -> Cluster:
    """A whole one, in which these services wait everywhere."""
    destinations = [
        {"set": SETS[function], "name": name, "drain": None}
        for name, own in functions.items()
        for function in own
        if function in SETS
    ]
    found: Cluster = {}
    for name, own in functions.items():
        names = sorted({each for function in own for each in SERVICES[function]})
        state: dict[str, Any] = {
            "services": [service(each, each in waits) for each in names],
            "addresses": [],
        }
        parts = {
            "edge": {"ready": True, "destinations": [dict(item) for item in destinations]},
            "media": {"sessions": 0},
            "pbx": {"calls": 0},
            "database": {"complaint": "", "role": "Synced"},
        }
        found[name] = {**state, **{function: parts[function] for function in own}}
    return found


def part(states: Cluster, name: str, function: str = "") -> dict[str, Any]:
    state: dict[str, Any] = states[name]
    found: dict[str, Any] = state[function] if function else state
    return found


def mark(states: Cluster, node: str, text: str, *only: str) -> None:
    """Drain a node in the lists of all edges."""
    for state in states.values():
        for item in ((state or {}).get("edge") or {}).get("destinations", ()):
            if item["name"] == node and (not only or item["set"] in {SETS[f] for f in only}):
                item["drain"] = text


def asked(
    states: Cluster,
    functions: dict[str, Sequence[str]] | None = None,
    action: str = "restart",
    run_id: str = RUN,
    **more: Any,
) -> Decision:
    return decide(Intention(action, run_id, **more), functions or SMALL, states, TIERS)


def test_where_nothing_waits_nobody_is_taken() -> None:
    found = asked(cluster(SMALL))
    assert (found.order, found.refusals) == ([], [])
    assert found.describe() == [f"{name}: nothing waits" for name in SMALL]


def test_who_holds_the_addresses_comes_last() -> None:
    states = cluster(SMALL, "kamailio", "asterisk")
    part(states, "srv1")["addresses"] = ["203.0.113.10", "192.0.2.10"]
    found = asked(states)
    assert found.order == ["srv2", "srv3", "srv1"]
    assert found.services["srv1"] == ["asterisk", "kamailio"]
    assert found.drains["srv1"] == ["pbx", "edge"]
    assert found.describe()[0] == "srv2: pbx, edge out of traffic; then asterisk, kamailio"


def test_who_takes_the_writes_comes_last_among_the_database() -> None:
    states = cluster(STANDARD, "mariadb")
    part(states, "db1", "database")["role"] = "primary"
    assert asked(states, STANDARD).order == ["db2", "db3", "db1"]


def test_tiers_follow_one_another() -> None:
    states = cluster(STANDARD, *itertools.chain(*SERVICES.values()))
    part(states, "edge1")["addresses"] = ["203.0.113.10"]
    found = asked(states, STANDARD)
    assert found.order == [
        *("pbx1", "pbx2", "pbx3", "media1", "media2", "edge2", "edge1", "db1", "db2", "db3"),
    ]
    assert found.drains["db1"] == []
    assert set(found.tiers.values()) == {"pbx", "media", "edge", "database"}


def test_a_database_alone_takes_nothing_out_of_traffic() -> None:
    found = asked(cluster(SMALL, "mariadb"))
    assert found.drains == {name: [] for name in SMALL}
    assert "nothing out of traffic; then mariadb" in found.describe()[0]


def test_services_and_nodes_narrow_a_run() -> None:
    states = cluster(SMALL, "kamailio", "asterisk", "mariadb")
    found = asked(states, nodes=("srv2",), services=("asterisk",))
    assert (found.order, found.services) == (["srv2"], {"srv2": ["asterisk"]})


def test_a_function_stands_for_all_its_servers() -> None:
    states = cluster(STANDARD, "asterisk", "kamailio")
    assert asked(states, STANDARD, nodes=("pbx",)).order == ["pbx1", "pbx2", "pbx3"]
    named = {**STANDARD, "pbx": ["edge"]}
    assert asked(cluster(named, "kamailio"), named, nodes=("pbx",)).order == ["pbx"]


def test_everything_takes_all_functions_of_all() -> None:
    found = asked(cluster(SMALL), action="reboot", everything=True)
    assert found.drains == {name: ["pbx", "media", "edge"] for name in SMALL}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"action": "explode"}, "the action is one of restart"),
        ({"run_id": "yesterday"}, "'yesterday' is no run"),
        ({"nodes": ("srv9",)}, "srv9 is no server of this cluster; it has srv1, srv2, srv3"),
        ({"services": ("nginx",)}, "nginx is no service that a run restarts"),
    ],
)
def test_strange_words_are_refused(more: dict[str, Any], message: str) -> None:
    assert message in asked(cluster(SMALL, "asterisk"), **more).refusals[0]


def test_another_run_is_refused_with_how_to_continue_it() -> None:
    states = cluster(SMALL, "asterisk")
    mark(states, "srv2", f"upgrade:{OTHER}")
    found = asked(states)
    assert found.order == []
    assert f"run {OTHER} (upgrade) has srv2" in found.refusals[0]
    assert f"upgrade.yml -e rollout_run={OTHER}" in found.refusals[0]


def test_what_an_operator_has_drained_is_left_alone_and_counts_as_missing() -> None:
    states = cluster(STANDARD, "asterisk")
    mark(states, "pbx1", "disk:anna")
    found = asked(states, STANDARD)
    assert found.refusals == [
        "pbx1 is drained by 'disk:anna': undrain it first, or name the other servers with "
        "rollout_nodes"
    ]
    found = asked(states, STANDARD, nodes=("pbx2", "pbx3"))
    assert found.order == ["pbx2", "pbx3"]
    mark(states, "pbx3", "disk:anna")
    found = asked(states, STANDARD, nodes=("pbx2",))
    assert "without pbx2 no pbx node would be left" in found.refusals[0]
    assert "pbx1: drained by 'disk:anna'" in found.refusals[0]


def test_calls_that_the_rest_cannot_carry_are_a_refusal() -> None:
    states = cluster(STANDARD, "asterisk")
    states["pbx3"] = None
    for name in ("pbx1", "pbx2"):
        part(states, name, "pbx")["calls"] = 25
    found = asked(states, STANDARD, nodes=("pbx1",))
    assert found.refusals == [
        "1 pbx node would be left, which carry 50 calls, and 50 are up (pbx3: not reached): "
        "wait for a quieter hour"
    ]
    part(states, "pbx2", "pbx")["calls"] = 15
    assert asked(states, STANDARD, nodes=("pbx1",)).refusals == []


def test_a_guest_goes_home_first() -> None:
    states = cluster(SMALL, "rtpengine-daemon")
    relays = {"srv1": "192.0.2.21", "srv2": "192.0.2.22", "srv3": "192.0.2.23"}
    part(states, "srv1", "media")["addresses"] = ["192.0.2.21"]
    part(states, "srv2", "media")["addresses"] = []
    part(states, "srv3", "media")["addresses"] = ["192.0.2.23", "192.0.2.22"]
    intention = Intention("reboot", RUN, everything=True)
    assert decide(intention, SMALL, states, TIERS, relays).refusals == [
        "srv3 has the relay of srv2 as a guest: let it go home first, with drain.yml -e node=srv2 "
        "-e functions=media -e reason=home, then undrain.yml -e node=srv2"
    ]
    home = Intention("drain", "anna", ("srv2",), everything=True, reason="home")
    assert decide(home, SMALL, states, TIERS, relays).refusals == []


def test_a_drain_of_one_function_asks_nothing_of_the_others() -> None:
    states = cluster(SMALL)
    for name in SMALL:
        part(states, name, "pbx")["calls"] = 100
    part(states, "srv3", "database")["complaint"] = "it sees 2 of 3 members"
    more: dict[str, Any] = {"nodes": ("srv1",), "everything": True}
    assert len(asked(states, SMALL, "drain", "anna", **more).refusals) == 2
    intention = Intention("drain", "anna", **more, functions=("media",))
    only = decide(intention, SMALL, states, TIERS)
    assert (only.refusals, only.drains) == ([], {"srv1": ["media"]})


def test_sessions_of_a_relay_count_by_two() -> None:
    states = cluster(STANDARD, "rtpengine-daemon")
    part(states, "media1", "media")["sessions"] = 97
    assert "which carry 50 calls, and 49 are up" in asked(states, STANDARD).refusals[0]
    part(states, "media1", "media")["sessions"] = 80
    assert asked(states, STANDARD).refusals == []


def test_the_only_edge_that_is_ready_stays() -> None:
    states = cluster(STANDARD, "kamailio")
    part(states, "edge2", "edge")["ready"] = False
    part(states, "edge2", "edge")["answer"] = "503 Locations Not Synchronised"
    found = asked(states, STANDARD, nodes=("edge1",))
    assert "without edge1 no edge node would be left (edge2: not ready (503" in found.refusals[0]


def test_no_member_is_taken_from_a_database_that_is_not_whole() -> None:
    states = cluster(STANDARD, "mariadb")
    part(states, "db3", "database")["complaint"] = "MariaDB does not answer"
    found = asked(states, STANDARD)
    assert found.refusals == [
        "the database is not whole (db3: MariaDB does not answer): no other member is taken "
        "before it is"
    ]
    states["db3"] = None
    assert "db3: not reached" in " ".join(asked(states, STANDARD, nodes=("db1",)).refusals)


def test_a_server_with_a_database_is_not_taken_either_then() -> None:
    states = cluster(SMALL, "asterisk")
    part(states, "srv3", "database")["complaint"] = "it sees 2 of 3 members"
    assert "the database is not whole" in asked(states, nodes=("srv1",)).refusals[0]


def test_a_server_that_is_not_reached_is_no_candidate() -> None:
    states = cluster(STANDARD, "asterisk")
    states["pbx2"] = None
    assert "pbx2 is not reached" in " ".join(asked(states, STANDARD).refusals)
    assert asked(states, STANDARD, nodes=("pbx1", "pbx3")).order == ["pbx1", "pbx3"]


def test_what_its_own_run_has_taken_comes_first_even_if_nothing_waits_any_more() -> None:
    states = cluster(STANDARD, "asterisk")
    for each in part(states, "pbx2")["services"]:
        each["waits_for_configuration"] = False
    mark(states, "pbx2", f"restart:{RUN}")
    found = asked(states, STANDARD)
    assert (found.order, found.resumed) == (["pbx2", "pbx1", "pbx3"], ["pbx2"])
    assert (found.services["pbx2"], found.drains["pbx2"]) == ([], ["pbx"])
    assert "(continued)" in found.describe()[0]


def test_a_mark_that_one_edge_missed_counts() -> None:
    states = cluster(SMALL, "asterisk")
    for item in part(states, "srv3", "edge")["destinations"]:
        if item["name"] == "srv2":
            item["drain"] = f"restart:{RUN}"
    assert asked(states).resumed == ["srv2"]
    for item in part(states, "srv1", "edge")["destinations"]:
        if item["name"] == "srv2":
            item["drain"] = ""
    assert drains(states)["srv2"]["pbx"] == f"restart:{RUN}"


def test_words() -> None:
    assert split_mark("upgrade:run7") == ("upgrade", "run7")
    assert split_mark("") == ("", "")
    state = {"services": [service("kamailio", True), service("mariadb", True)]}
    assert waiting(state) == ["mariadb", "kamailio"]
    assert waiting(state, ["kamailio"]) == ["kamailio"]


@given(
    calls=st.lists(st.integers(0, 60), min_size=3, max_size=3),
    absent=st.sets(st.sampled_from(sorted(STANDARD))),
    nodes=st.sets(st.sampled_from(sorted(STANDARD)), min_size=1),
)
def test_a_run_never_leaves_too_little(calls: list[int], absent: set[str], nodes: set[str]) -> None:
    states = cluster(STANDARD, *itertools.chain(*SERVICES.values()))
    for number, count in enumerate(calls, start=1):
        part(states, f"pbx{number}", "pbx")["calls"] = count
    for name in absent:
        states[name] = None
    found = asked(states, STANDARD, nodes=tuple(nodes))
    if found.refusals:
        assert found.order == []
        return
    assert set(found.order) == nodes
    assert not absent & nodes
    there = {name: state for name, state in states.items() if state}
    up = sum(part(states, name, "pbx")["calls"] for name in there if "pbx" in STANDARD[name])
    for name in found.order:
        for function in STANDARD[name]:
            left = [other for other in there if other != name and function in STANDARD[other]]
            assert left
            if function == "pbx":
                assert len(left) * 50 >= up * ROOM
            if function == "database":
                assert len(left) == 2
