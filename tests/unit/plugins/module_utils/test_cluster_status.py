# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster of three servers at a glance, well and in all kinds of trouble."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.ringmain.voip.plugins.filter import cluster_status as status_filter
from ansible_collections.ringmain.voip.plugins.filter import cluster_status_text as text_filter
from ansible_collections.ringmain.voip.plugins.module_utils import cluster_status

NAMES = ["srv1", "srv2", "srv3"]
OUTSIDE, INSIDE = "203.0.113.10", "192.0.2.10"
FUNCTIONS = ["edge", "media", "pbx", "database"]
PLAN: dict[str, Any] = {
    "domain": "voice.example.com",
    "outside_ip": OUTSIDE,
    "inside_ip": INSIDE,
    "hosts": {name: {"functions": FUNCTIONS} for name in NAMES},
    "members": {function: [{"name": name} for name in NAMES] for function in FUNCTIONS},
    "relays": [{"name": name, "address": f"192.0.2.2{name[-1]}"} for name in NAMES],
    "relays_float": True,
}

Nodes = dict[str, dict[str, Any]]


def well() -> Nodes:
    """Three servers that want nothing; srv1 holds the addresses."""
    destinations = [
        {"set": number, "name": name, "uri": f"sip:{name}", "state": "AP", "drain": None}
        for number in (1, 2, 3)
        for name in NAMES
    ]
    service = {
        "name": "kamailio",
        "state": "active",
        "since": "",
        "restarts": 0,
        "version": "6.0.1",
        "waits_for_package": False,
        "waits_for_configuration": False,
    }
    node: dict[str, Any] = {
        "addresses": [],
        "services": [service],
        "kernel": {"running": "6.12.1-amd64", "next": "6.12.1-amd64"},
        "edge": {
            "ready": True,
            "answer": "200 Ready",
            "registrations": 200,
            "destinations": destinations,
            "differences": [],
        },
        "media": {"sessions": 6},
        "pbx": {"calls": 3, "channels": 6, "oldest": 42},
        "database": {"role": "Synced", "complaint": ""},
    }
    nodes = {name: {"node": copy.deepcopy(node)} for name in NAMES}
    nodes["srv1"]["node"]["addresses"] = [OUTSIDE, INSIDE]
    for name, node in nodes.items():
        node["node"]["media"]["addresses"] = [f"192.0.2.2{name[-1]}"]
    return nodes


def drain(nodes: Nodes, name: str, mark: str, edges: list[str], sets: tuple[int, ...]) -> None:
    for edge in edges:
        for item in nodes[edge]["node"]["edge"]["destinations"]:
            if item["name"] == name and item["set"] in sets:
                item["drain"] = mark


def test_a_cluster_that_is_well() -> None:
    status = cluster_status.build(PLAN, well())
    assert (status["whole"], status["verdict"]) == (True, "all is well")
    assert status["addresses"]["inside"] == {"address": INSIDE, "holders": ["srv1"]}
    lines = cluster_status.text(status).splitlines()
    assert lines[0] == "voice.example.com: all is well"
    assert lines[2] == f"  outside address {OUTSIDE}: srv1"
    assert lines[6].split() == ["srv1", *FUNCTIONS, "3", "6", "200", "Synced", "-"]
    assert "  kamailio  6.0.1    srv1, srv2, srv3" in lines
    assert "Wrong:" not in lines


def unit(nodes: Nodes) -> None:
    nodes["srv2"]["node"]["services"][0]["state"] = "failed"


def part(nodes: Nodes) -> None:
    nodes["srv2"]["node"]["pbx"] = {"error": "no answer in time"}


def lost(nodes: Nodes) -> None:
    nodes["srv3"] = {"error": "ssh: connection timed out\nmore words"}


def holder_lost(nodes: Nodes) -> None:
    nodes["srv1"] = {"error": "ssh: connection timed out"}


def nowhere(nodes: Nodes) -> None:
    nodes["srv1"]["node"]["addresses"] = []


def twice(nodes: Nodes) -> None:
    nodes["srv2"]["node"]["addresses"] = [OUTSIDE]


def apart(nodes: Nodes) -> None:
    nodes["srv1"]["node"]["addresses"] = [OUTSIDE]
    nodes["srv2"]["node"]["addresses"] = [INSIDE]


def not_ready(nodes: Nodes) -> None:
    edge = nodes["srv2"]["node"]["edge"]
    edge |= {"ready": False, "answer": "503 Locations Not Synchronised"}


def deaf(nodes: Nodes) -> None:
    nodes["srv2"]["node"]["edge"]["destinations"][2]["state"] = "IP"


def relay_away(nodes: Nodes) -> None:
    nodes["srv2"]["node"]["edge"]["destinations"][3]["state"] = "away"


def another_list(nodes: Nodes) -> None:
    nodes["srv2"]["node"]["edge"]["differences"] = ["set 1: sip:x is disabled in the process"]


def one_edge_only(nodes: Nodes) -> None:
    drain(nodes, "srv3", "test:r1", ["srv1"], (1,))


def all_drained(nodes: Nodes) -> None:
    for name in NAMES:
        drain(nodes, name, "test:r1", NAMES, (2,))


def database(nodes: Nodes) -> None:
    nodes["srv2"]["node"]["database"]["complaint"] = "it sees 2 of 3 members"


def no_leader(nodes: Nodes) -> None:
    for name in NAMES:
        nodes[name]["node"]["database"]["role"] = "replica"


def two_leaders(nodes: Nodes) -> None:
    for name in NAMES[:2]:
        nodes[name]["node"]["database"]["role"] = "primary"


def no_services(nodes: Nodes) -> None:
    nodes["srv2"]["node"]["services"] = {"error": "no systemd"}


MAYBE = "is at none of the edges that answer; srv1 may hold it"


@pytest.mark.parametrize(
    ("trouble", "problems"),
    [
        (unit, ["srv2: kamailio is failed"]),
        (part, ["srv2: its PBX does not answer: no answer in time"]),
        (lost, ["srv3 could not be asked: ssh: connection timed out"]),
        (
            holder_lost,
            [
                "srv1 could not be asked: ssh: connection timed out",
                f"the outside address {OUTSIDE} {MAYBE}",
                f"the inside address {INSIDE} {MAYBE}",
            ],
        ),
        (
            nowhere,
            [
                f"the outside address {OUTSIDE} is nowhere: no edge is ready",
                f"the inside address {INSIDE} is nowhere: no edge is ready",
            ],
        ),
        (twice, [f"the outside address {OUTSIDE} is at srv1 and srv2 at once"]),
        (apart, ["the addresses are apart: outside at srv1, inside at srv2"]),
        (not_ready, ["srv2: its edge is not ready: 503 Locations Not Synchronised"]),
        (deaf, ["srv2: its edge gets no answer from PBX srv3"]),
        (relay_away, ["srv2: its edge gets no answer from the relay of srv1"]),
        (
            another_list,
            [
                "srv2: its edge runs with another list than it has on disk: "
                "set 1: sip:x is disabled in the process"
            ],
        ),
        (one_edge_only, ["srv3 (PBX) is drained on srv1 and not on srv2, srv3"]),
        (all_drained, ["all of srv1, srv2, srv3 are drained as relay: no new calls"]),
        (database, ["srv2: its database is not well: it sees 2 of 3 members"]),
        (no_leader, ["nobody takes writes: srv1, srv2, srv3 only follow"]),
        (two_leaders, ["srv1 and srv2 both take writes"]),
        (no_services, ["srv2: its services cannot be listed: no systemd"]),
    ],
)
def test_troubles_are_named(trouble: Callable[[Nodes], None], problems: list[str]) -> None:
    nodes = well()
    trouble(nodes)
    status = cluster_status.build(PLAN, nodes)
    assert status["problems"] == problems
    assert status["whole"] is False
    count = "one thing is" if len(problems) == 1 else f"{len(problems)} things are"
    assert status["verdict"].startswith(f"{count} wrong")
    text = cluster_status.text(status)
    assert "Wrong:" in text
    assert f"  {problems[0]}" in text


def test_a_run_shows_with_its_nodes_and_its_time() -> None:
    nodes = well()
    drain(nodes, "srv2", "upgrade:20261121T0645", NAMES, (1, 2, 3))
    # An edge that is drained says that it is not ready, and should.
    nodes["srv2"]["node"]["edge"]["ready"] = False
    status = cluster_status.build(PLAN, nodes)
    assert status["problems"] == []
    assert status["verdict"] == "all is well, 1 node is drained"
    assert status["runs"] == {
        "20261121T0645": {"reason": "upgrade", "since": "2026-11-21 06:45", "nodes": ["srv2"]}
    }
    text = cluster_status.text(status)
    assert "srv2 as PBX: upgrade, run 20261121T0645, since 2026-11-21 06:45" in text
    assert "  20261121T0645: upgrade, srv2, since 2026-11-21 06:45" in text
    row = next(line for line in text.splitlines() if line.startswith("  srv2"))
    assert row.endswith("edge media pbx")


def test_a_drain_that_nobody_explains_is_shown() -> None:
    nodes = well()
    drain(nodes, "srv2", "", NAMES, (1,))
    status = cluster_status.build(PLAN, nodes)
    assert status["runs"] == {}
    assert "  srv2 as PBX: nobody says why" in cluster_status.text(status)


def test_what_waits_is_no_trouble() -> None:
    nodes = well()
    node = nodes["srv2"]["node"]
    node["services"][0] |= {"waits_for_package": True, "waits_for_configuration": True}
    node["kernel"]["next"] = "6.12.9-amd64"
    node["database"]["waits_for_restart"] = True
    status = cluster_status.build(PLAN, nodes)
    assert (status["whole"], status["verdict"]) == (True, "all is well, 3 wait for a restart")
    assert status["notices"] == [
        "srv2: kamailio waits for a restart: a changed configuration and a newer package",
        "srv2: PostgreSQL waits for a restart: changed parameters",
        "srv2 waits for a reboot: kernel 6.12.9-amd64",
    ]


def test_two_versions_show_where_they_run() -> None:
    nodes = well()
    nodes["srv2"]["node"]["services"][0]["version"] = "6.0.2"
    lines = cluster_status.text(cluster_status.build(PLAN, nodes)).splitlines()
    assert "  kamailio  6.0.1    srv1, srv3" in lines
    assert "  kamailio  6.0.2    srv2" in lines


def test_nobody_answers() -> None:
    filters = {**status_filter.FilterModule().filters(), **text_filter.FilterModule().filters()}
    results = {
        "srv1": {"msg": "Task failed: no route to host", "unreachable": True},
        "srv2": {"msg": "Timed out after 8 second(s).", "failed": True},
        "srv3": {},
    }
    status = filters["cluster_status"](results, PLAN)
    assert status["problems"][:3] == [
        "srv1 could not be asked: no route to host",
        "srv2 could not be asked: Timed out after 8 second(s).",
        "srv3 could not be asked: it was not asked",
    ]
    assert "not reached" in filters["cluster_status_text"](status)
    assert json.loads(filters["cluster_status_text"](status, "json")) == status


def test_markdown_has_the_same_in_its_own_signs() -> None:
    nodes = well()
    deaf(nodes)
    text = cluster_status.text(cluster_status.build(PLAN, nodes), "markdown")
    assert text.startswith("# voice.example.com: one thing is wrong\n")
    assert "| kamailio | 6.0.1 | srv1, srv2, srv3 |" in text
    assert "\n## Wrong\n\n- srv2: its edge gets no answer from PBX srv3" in text


def test_there_are_no_other_outputs() -> None:
    status = cluster_status.build(PLAN, well())
    with pytest.raises(ValueError, match="output 'yaml' is none of text, markdown and json"):
        cluster_status.text(status, "yaml")


def test_a_relay_that_is_a_guest() -> None:
    nodes = well()
    own = nodes["srv2"]["node"]
    away = {**own["services"][0], "name": "rtpengine-daemon", "state": "inactive"}
    own["services"].append(away)
    own["media"]["addresses"] = []
    nodes["srv3"]["node"]["media"]["addresses"].append("192.0.2.22")
    assert cluster_status.build(PLAN, nodes)["problems"] == [
        "the relay of srv2 is at srv3; it goes home when it has no calls: drain.yml -e node=srv2"
        " -e functions=media -e reason=home, then undrain.yml -e node=srv2"
    ]
    assert cluster_status.build({**PLAN, "relays_float": False}, nodes)["problems"] == [
        "srv2: rtpengine-daemon is inactive"
    ]
