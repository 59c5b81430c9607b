# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may talk to whom: three clusters by hand, and what holds for any cluster."""

from __future__ import annotations

import copy
import ipaddress
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ringmain.voip.plugins.module_utils.firewall import (
    FLOWS,
    FirewallError,
    firewall_rules,
    networks_by_version,
    without_state,
)
from hypothesis import given, settings
from hypothesis import strategies as st

FUNCTIONS = ("edge", "media", "pbx", "database", "storage")
ANYONE = "anyone"
ROOT = Path(__file__).resolve().parents[4]
DEFAULTS = yaml.safe_load((ROOT / "roles/ringmain/defaults/main.yml").read_text(encoding="utf-8"))
PORTS = DEFAULTS["ringmain_ports"]


def make_plan(
    functions: Mapping[str, Sequence[str]], one_network: bool = False, relays_float: bool = False
) -> dict[str, Any]:
    """A plan of hosts with functions, in two networks or in one."""
    hosts = {
        name: {
            "address": f"10.20.0.{number}",
            "outside_address": f"10.20.0.{number}" if one_network else f"203.0.113.{number}",
            "functions": list(has),
        }
        for number, (name, has) in enumerate(functions.items(), 11)
    }
    return {
        "outside_ip": "10.20.0.9" if one_network else "203.0.113.10",
        "inside_ip": "10.20.0.10",
        "inside_network": "10.20.0.0/24",
        "one_network": one_network,
        "database_engine": "galera",
        "ports": PORTS,
        "hosts": hosts,
        "relays": [
            {
                "name": name,
                "number": number,
                "address": f"10.20.0.{100 + number}" if relays_float else host["address"],
                "outside_address": (
                    f"{'10.20.0' if one_network else '203.0.113'}.{200 + number}"
                    if relays_float
                    else host["outside_address"]
                ),
            }
            for number, (name, host) in enumerate(
                ((name, host) for name, host in hosts.items() if "media" in host["functions"]), 1
            )
        ],
        "relays_float": relays_float,
        "members": {
            function: [
                {"name": name, "address": host["address"]}
                for name, host in hosts.items()
                if function in host["functions"]
            ]
            for function in FUNCTIONS
        },
    }


SMALL = {"srv1": FUNCTIONS, "srv2": FUNCTIONS, "srv3": FUNCTIONS}
STANDARD = {
    "edge1": ["edge"],
    "edge2": ["edge"],
    "media1": ["media"],
    "media2": ["media"],
    "pbx1": ["pbx"],
    "pbx2": ["pbx"],
    "db1": ["database", "storage"],
    "db2": ["database", "storage"],
}


def written(rules: Mapping[str, Any]) -> list[str]:
    """The rules in short: `protocols ports at address from sources`."""
    lines = []
    for rule in rules["accept"]:
        sources = " ".join(rule["sources"]) or "anyone"
        what = f"{'+'.join(rule['protocols'])} {rule['ports']}".strip()
        lines.append(f"{what} at {' '.join(rule['to'])} from {sources}")
    return lines


OTHERS = "10.20.0.12 10.20.0.13"


def test_small() -> None:
    """Every function on each of three servers."""
    assert written(firewall_rules(make_plan(SMALL), "srv1")) == [
        "udp 30000-39999 at 203.0.113.11 from anyone",
        f"udp 30000-39999 at 10.20.0.11 from {OTHERS}",
        f"udp 10000-19999 at 10.20.0.11 from {OTHERS}",
        "udp+tcp 5060 at 203.0.113.10 from anyone",
        f"udp+tcp 5060 at 10.20.0.10 from {OTHERS}",
        f"udp 5062 at 10.20.0.11 from {OTHERS}",
        f"vrrp at 10.20.0.11 from {OTHERS}",
        "vrrp at 203.0.113.11 from 203.0.113.12 203.0.113.13",
        f"udp 2223 at 10.20.0.11 from {OTHERS}",
        f"udp+tcp 5080 at 10.20.0.11 from 10.20.0.10 {OTHERS}",
        f"tcp 3306 at 10.20.0.11 from {OTHERS}",
        f"tcp 9200 at 10.20.0.11 from {OTHERS}",
        f"tcp 4567 at 10.20.0.11 from {OTHERS}",
        f"tcp 4568 at 10.20.0.11 from {OTHERS}",
        f"tcp 4444 at 10.20.0.11 from {OTHERS}",
    ]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (
            "edge1",
            [
                "udp+tcp 5060 at 203.0.113.10 from anyone",
                "udp+tcp 5060 at 10.20.0.10 from 10.20.0.15 10.20.0.16",
                "udp 5062 at 10.20.0.11 from 10.20.0.12",
                "vrrp at 10.20.0.11 from 10.20.0.12",
                "vrrp at 203.0.113.11 from 203.0.113.12",
            ],
        ),
        (
            "media2",
            [
                "udp 30000-39999 at 203.0.113.14 from anyone",
                "udp 30000-39999 at 10.20.0.14 from 10.20.0.13 10.20.0.15 10.20.0.16",
                "udp 2223 at 10.20.0.14 from 10.20.0.11 10.20.0.12",
            ],
        ),
        (
            "pbx1",
            [
                "udp 10000-19999 at 10.20.0.15 from 10.20.0.13 10.20.0.14",
                "udp+tcp 5080 at 10.20.0.15 from 10.20.0.10 10.20.0.11 10.20.0.12",
            ],
        ),
        (
            "db1",
            [
                "tcp 3306 at 10.20.0.17 from 10.20.0.11 10.20.0.12 10.20.0.15 10.20.0.16",
                "tcp 9200 at 10.20.0.17 from 10.20.0.11 10.20.0.12 10.20.0.15 "
                "10.20.0.16 10.20.0.18",
                "tcp 4567 at 10.20.0.17 from 10.20.0.18",
                "tcp 4568 at 10.20.0.17 from 10.20.0.18",
                "tcp 4444 at 10.20.0.17 from 10.20.0.18",
            ],
        ),
    ],
)
def test_standard(host: str, expected: list[str]) -> None:
    """Functions on servers of their own."""
    assert written(firewall_rules(make_plan(STANDARD), host)) == expected


def test_one_network() -> None:
    """What anyone may send needs no second rule, and no network is the inside."""
    rules = firewall_rules(make_plan(SMALL, one_network=True), "srv1")
    lines = written(rules)
    assert lines[0] == "udp 30000-39999 at 10.20.0.11 from anyone"
    assert [line for line in lines if "30000" in line] == lines[:1]
    assert [line for line in lines if line.startswith("vrrp")] == [
        f"vrrp at 10.20.0.11 from {OTHERS}"
    ]
    assert "udp+tcp 5060 at 10.20.0.9 from anyone" in lines
    assert f"udp+tcp 5060 at 10.20.0.10 from {OTHERS}" in lines
    assert rules["inside_network"] == ""
    assert firewall_rules(make_plan(SMALL), "srv1")["inside_network"] == "10.20.0.0/24"


def test_relays_whose_addresses_float() -> None:
    """Any media host may hold any of them; each tells the others that it lives."""
    plan = make_plan(STANDARD, relays_float=True)
    assert written(firewall_rules(plan, "media2")) == [
        "udp 30000-39999 at 203.0.113.14 203.0.113.201 203.0.113.202 from anyone",
        "udp 30000-39999 at 10.20.0.14 10.20.0.101 10.20.0.102 from "
        "10.20.0.13 10.20.0.15 10.20.0.16 10.20.0.101 10.20.0.102",
        "udp 2223 at 10.20.0.14 10.20.0.101 10.20.0.102 from 10.20.0.11 10.20.0.12",
        "udp 2223 at 10.20.0.14 10.20.0.101 10.20.0.102 from 10.20.0.13",
        "vrrp at 10.20.0.14 from 10.20.0.13",
        "tcp 6379 at 10.20.0.14 10.20.0.101 from 10.20.0.13",
    ]
    assert written(firewall_rules(plan, "pbx1"))[0] == (
        "udp 10000-19999 at 10.20.0.15 from 10.20.0.13 10.20.0.14 10.20.0.101 10.20.0.102"
    )


def test_only_one_of_a_function() -> None:
    """Nobody is let in where there is nobody else: an empty list of sources would be anyone."""
    lines = written(firewall_rules(make_plan({"only": FUNCTIONS}), "only"))
    assert lines == [
        "udp 30000-39999 at 203.0.113.11 from anyone",
        "udp+tcp 5060 at 203.0.113.10 from anyone",
    ]


def test_untracked_ranges() -> None:
    """Those of the media that comes to the host, whole: see Flow."""
    plan = make_plan(STANDARD)
    assert firewall_rules(plan, "media1")["notrack"] == [[30000, 39999]]
    assert firewall_rules(plan, "pbx1")["notrack"] == [[10000, 19999]]
    assert firewall_rules(plan, "edge1")["notrack"] == []
    assert firewall_rules(make_plan(SMALL), "srv1")["notrack"] == [[10000, 19999], [30000, 39999]]
    plan["hosts"]["media1"]["limits"] = {
        "notrack": [[31000, 31999]],
        "rtpengine_port_first": 31000,
        "rtpengine_port_last": 31999,
    }
    assert firewall_rules(plan, "media1")["notrack"] == [[30000, 39999]]
    assert written(firewall_rules(plan, "media1"))[0] == (
        "udp 30000-39999 at 203.0.113.13 from anyone"
    )


def test_what_is_known_is_counted_apart() -> None:
    """By function; a range and a port of one protocol together."""
    assert firewall_rules(make_plan(SMALL), "srv1")["known"] == [
        {"name": "media", "ports": {"udp": ["30000-39999", "2223"]}, "protocols": []},
        {
            "name": "pbx",
            "ports": {"udp": ["10000-19999", "5080"], "tcp": ["5080"]},
            "protocols": [],
        },
        {
            "name": "edge",
            "ports": {"udp": ["5060", "5062"], "tcp": ["5060"]},
            "protocols": ["vrrp"],
        },
        {
            "name": "database",
            "ports": {"tcp": ["3306", "9200", "4567", "4568", "4444"]},
            "protocols": [],
        },
    ]


def test_ssh() -> None:
    """Networks of both versions, joined where one holds the other."""
    rules = firewall_rules(
        make_plan(SMALL), "srv1", ["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"], 2222
    )
    assert rules["ssh"] == {
        "port": 2222,
        "sources4": ["10.0.0.0/8"],
        "sources6": ["2001:db8::/32"],
    }


@pytest.mark.parametrize(
    ("networks", "complaint"),
    [
        (
            [],
            "SSH must be let in from somewhere: list at least one network; 0.0.0.0/0 is everywhere",
        ),
        (
            "10.0.0.0/8",
            "SSH must be let in from somewhere: list at least one network; 0.0.0.0/0 is everywhere",
        ),
        (
            ["10.0.0.1/8"],
            "'10.0.0.1/8' is no network in CIDR notation without host bits, such as 192.0.2.0/24: "
            "correct it",
        ),
    ],
)
def test_ssh_errors(networks: Any, complaint: str) -> None:
    """A mistake does not shut everybody out."""
    with pytest.raises(FirewallError) as caught:
        networks_by_version(networks)
    assert str(caught.value) == complaint


def test_a_host_that_is_none() -> None:
    """Probes are no servers."""
    with pytest.raises(FirewallError, match="probe1 is no server of this cluster: srv1, srv2"):
        firewall_rules(make_plan(SMALL), "probe1")


# --- any cluster --------------------------------------------------------------


Packet = tuple[str, str, str, str]
"""Source (or ANYONE), destination, protocol, ports."""


def needed(plan: Mapping[str, Any], host: str) -> Iterator[Packet]:
    """What must get through to a host. Written down anew, from what the roles configure."""
    own, hosts = plan["hosts"][host], plan["hosts"]
    me, outside = own["address"], own["outside_address"]
    if "edge" in own["functions"]:
        yield ANYONE, plan["outside_ip"], "udp", "5060"
        yield ANYONE, plan["outside_ip"], "tcp", "5060"
    floating = plan["relays"] if plan["relays_float"] else []
    inside_media = [me, *(relay["address"] for relay in floating)]
    if "media" in own["functions"]:
        for address in [outside, *(relay["outside_address"] for relay in floating)]:
            yield ANYONE, address, "udp", "30000-39999"
    # A floating address may be anywhere, also here: then its packets come over the loopback.
    for relay, function in itertools.product(floating, own["functions"]):
        if function == "pbx":
            yield relay["address"], me, "udp", "10000-19999"
        elif function == "media":
            for address in inside_media:
                yield relay["address"], address, "udp", "30000-39999"
    for name, other in hosts.items():
        his = other["address"]
        for function in own["functions"] if name != host else ():
            for theirs in other["functions"]:
                pair = (function, theirs)
                if pair == ("edge", "pbx"):
                    yield his, plan["inside_ip"], "udp", "5060"
                    yield his, plan["inside_ip"], "tcp", "5060"
                elif pair == ("edge", "edge"):
                    yield his, me, "udp", "5062"
                    yield his, me, "vrrp", ""
                    yield other["outside_address"], outside, "vrrp", ""
                elif pair == ("media", "edge"):
                    for address in inside_media:
                        yield his, address, "udp", "2223"
                elif pair in (("media", "pbx"), ("media", "media")):
                    for address in inside_media:
                        yield his, address, "udp", "30000-39999"
                    if floating and pair == ("media", "media"):
                        for address in inside_media:
                            yield his, address, "udp", "2223"
                        yield his, me, "vrrp", ""
                        yield his, me, "tcp", "6379"
                        yield his, floating[0]["address"], "tcp", "6379"
                elif pair == ("pbx", "media"):
                    yield his, me, "udp", "10000-19999"
                elif pair == ("pbx", "edge"):
                    for source in (his, plan["inside_ip"]):
                        yield source, me, "udp", "5080"
                        yield source, me, "tcp", "5080"
                elif pair in (("database", "edge"), ("database", "pbx")):
                    yield his, me, "tcp", "3306"
                    yield his, me, "tcp", "9200"
                elif pair == ("database", "database"):
                    for port in ("9200", "4567", "4568", "4444"):
                        yield his, me, "tcp", port


def let_in(rules: Mapping[str, Any]) -> Iterator[Packet]:
    """What the rules let in."""
    for rule in rules["accept"]:
        for protocol in rule["protocols"]:
            for source, to in itertools.product(rule["sources"] or [ANYONE], rule["to"]):
                yield source, to, protocol, rule["ports"]


def simplest(packets: Iterable[Packet]) -> set[Packet]:
    """Without what anyone may send anyway."""
    found = set(packets)
    return {each for each in found if each[0] == ANYONE or (ANYONE, *each[1:]) not in found}


clusters = st.builds(
    lambda functions, one, floating: make_plan(
        {f"srv{number}": sorted(has) for number, has in enumerate(functions)}, one, floating
    ),
    st.lists(st.sets(st.sampled_from(FUNCTIONS), min_size=1), min_size=1, max_size=7),
    st.booleans(),
    st.booleans(),
)


@settings(deadline=None)
@given(clusters)
def test_those_that_must_talk_can_and_nobody_else(plan: dict[str, Any]) -> None:
    """For every host of any cluster: all that it needs, and nothing beyond."""
    for name in plan["hosts"]:
        assert simplest(let_in(firewall_rules(plan, name))) == simplest(needed(plan, name))


def test_every_port_is_for_someone_or_for_the_host_itself() -> None:
    """A new port in the table needs a flow, or a reason to stand here."""
    loopback = {"pbx_ami", "relay_cli", "database_local", "sip_check"}
    named = {flow.ports for flow in FLOWS if flow.ports}
    stems = {name.removesuffix("_first").removesuffix("_last") for name in PORTS}
    assert stems - loopback == named


def test_postgresql() -> None:
    """Its members copy from each other and agree; its clients ask who takes writes."""
    plan = make_plan(STANDARD) | {"database_engine": "postgresql"}
    clients = "10.20.0.11 10.20.0.12 10.20.0.15 10.20.0.16"
    assert written(firewall_rules(plan, "db1")) == [
        f"tcp 3306 at 10.20.0.17 from {clients}",
        "tcp 3306 at 10.20.0.17 from 10.20.0.18",
        f"tcp 8008 at 10.20.0.17 from {clients} 10.20.0.18",
        "tcp 2379 at 10.20.0.17 from 10.20.0.18",
        "tcp 2380 at 10.20.0.17 from 10.20.0.18",
    ]


def test_nothing_is_changed() -> None:
    """The plan stays as it was."""
    plan = make_plan(SMALL)
    before = copy.deepcopy(plan)
    firewall_rules(plan, "srv1")
    assert plan == before
    rules = firewall_rules(plan, "srv1")["accept"]
    assert all(ipaddress.ip_address(address) for rule in rules for address in rule["to"])


# nft indents by tabs.
LISTING = """table inet ringmain {
    counter dropped_other {
    }

    set friends {
        type ipv4_addr
        elements = { 10.20.0.12, 10.20.0.13 }
    }

    set sip_connections {
        type ipv4_addr
        size 65535
        flags dynamic,timeout
        timeout 1m
%s    }

    chain input {
        type filter hook input priority filter - 10; policy drop;
        ip saddr @friends counter accept
    }
}
""".replace("    ", "\t")


def test_state_is_no_difference() -> None:
    """What packets added is left out, over several lines too; what is configured is not."""
    filled = (
        "\t\telements = { 192.0.2.1 limit rate over 50/second burst 500 packets,\n"
        "\t\t\t     192.0.2.2 limit rate over 50/second burst 500 packets }\n"
    )
    assert without_state(LISTING % filled) == LISTING % ""
    assert without_state(LISTING % "") == LISTING % ""
    fewer = (LISTING % "").replace(", 10.20.0.13", "")
    assert without_state(fewer) == fewer
