# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Capacity: examples worked by hand, and what must hold whatever the load."""

from __future__ import annotations

import dataclasses
import itertools
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ringmain.voip.plugins.module_utils import capacity
from ansible_collections.ringmain.voip.plugins.module_utils.capacity import Host, Load
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[4]
DEFAULTS = yaml.safe_load((ROOT / "roles/ringmain/defaults/main.yml").read_text())
TABLE: dict[str, int] = DEFAULTS["ringmain_ports"]
ALL = ("edge", "media", "pbx", "database", "storage")


def cluster(calls: int, cps: float, phones: int, nodes: int | dict[str, int], **more: Any) -> Load:
    """A load on so many nodes of each function."""
    if isinstance(nodes, int):
        nodes = dict.fromkeys(ALL, nodes)
    return Load(calls, cps, phones, nodes, TABLE, **more)


def plan(load: Load, cores: int = 8, memory_mb: int = 16384, addresses: int = 2) -> capacity.Plan:
    """The plan of hosts that each have one function, or all where each has as many nodes."""
    if len(set(load.nodes.values())) == 1:
        names = [f"srv{n}" for n in range(1, load.nodes["edge"] + 1)]
        members = dict.fromkeys(load.nodes, names)
    else:
        members = {f: [f"{f}{n}" for n in range(1, many + 1)] for f, many in load.nodes.items()}
    hosts = {
        name: Host(cores, memory_mb, tuple(f for f in ALL if name in members.get(f, ())), addresses)
        for names in members.values()
        for name in names
    }
    return capacity.make_plan(load, hosts, members)


# --- by hand ------------------------------------------------------------------


def test_200_calls_on_three_servers_that_do_everything() -> None:
    """The inventory `small`: 200 calls, 5 new ones a second, 1000 phones, one server missing."""
    found = plan(cluster(200, 5, 1000, 3)).limits["srv1"]
    # 5 calls/s come at random: 5 + 3 × √5 = 11.7.
    assert found["kamailio_calls_per_second"] == 12
    # 2 × 200 sessions on the 2 relays that are left: 200 + 3 × √200 = 242.4.
    assert found["rtpengine_max_sessions"] == 243
    # On each of two addresses 243 × 2 = 486 ports; twice that is less than 1000.
    assert (found["rtpengine_port_first"], found["rtpengine_port_last"]) == (30000, 30999)
    # 1.25 × (243 × 4 + 512) = 1855, and up to the next 1024.
    assert found["rtpengine_open_files"] == 2048
    # 200 calls on 2 nodes: 100 + 3 × √100 = 130.
    assert found["asterisk_max_calls"] == 130
    # 130 × 4 = 520 ports; twice that is 1040.
    assert (found["asterisk_rtp_first"], found["asterisk_rtp_last"]) == (10000, 11039)
    # 1.25 × (130 × 10 + 512) = 2265.
    assert found["asterisk_open_files"] == 3072
    # 12 × 24 = 288 messages of calls; 1000 phones × (2 ÷ 60 + 1 ÷ 30) = 66.7 of registrations.
    # 354.7 × 1 s × 4352 = 1,543,509 bytes, and up to the next 65,536.
    assert found["kamailio_receive_buffer"] == 24 * 65536
    # 2 × (354.7 × 0.001 + 12 × 10 × 0.002) = 1.2: the minimum.
    assert found["kamailio_children"] == 4
    # 16 MB + (1000 × (2 + 1 + 20 + 2 × 8) KB + 12 × 80 × 16 KB + 2 × 200 × 2 KB) ÷ 1024
    # = 16 + 38.1 + 15 + 0.8 = 69.9; a quarter more is 87.3; up to the next 16.
    assert found["kamailio_shared_memory"] == 96
    # Audio is not tracked: 4096 + 1000 phones + 120 s × (3 edges' checks, 3 databases', 6
    # clients') + 74 connections to the database = 6610; a quarter more is below the minimum.
    assert (found["conntrack_max"], found["conntrack_buckets"]) == (16384, 32768)
    assert found["notrack"] == [[10000, 11039], [30000, 30999]]
    # 3 × (4 + 4) + 3 × 4 + 32 = 68, a quarter more is 85; up to the next 10.
    assert found["galera_max_connections"] == 90
    # 243 sessions × 2 streams × 50 and 130 calls × 2 × 50 packets, and 354.7 + 6 × 24 messages,
    # a tenth of a second of which is 3,780.
    assert found["sysctl"]["net.core.netdev_max_backlog"] == 3800


def test_what_200_calls_take_of_a_server() -> None:
    seen = plan(cluster(200, 5, 1000, 3)).expected["srv1"]
    # edge 0.1 + 354.7 × 0.0004; media 0.05 + 243 ÷ 1000; pbx 0.1 + 130 ÷ 400 + 12 ÷ 2 × 0.02;
    # database 0.15 + 12 × 0.005
    assert seen["cores"] == {
        "edge": 0.242,
        "media": 0.293,
        "pbx": 0.545,
        "database": 0.21,
        "storage": 0.1,
    }
    # edge 96 + 96 + (4 × 4 + 12) × 4; media 64 + 243 ÷ 8; pbx 128 + 130; haproxy 32 + 88 × 34 KB;
    # database 256 + 1.1 × 128 + 90; kernel: conntrack 5.25 + UDP 64 + 1492 sockets × 2 KB.
    assert seen["memory_mb"] == {
        "system": 384,
        "edge": 304,
        "media": 95,
        "pbx": 258,
        "haproxy": 35,
        "database": 487,
        "storage": 256,
        "kernel": 73,
    }
    # 243 × 2 × 50 packets/s of 160 + 78 bytes.
    assert seen["relay_packets_per_second"] == 24300
    assert seen["relay_mbit_per_second"] == 47


STANDARD = {"edge": 2, "media": 2, "pbx": 3, "database": 3}


def test_800_calls_on_servers_of_their_own() -> None:
    """The inventory `standard`: with one relay of two missing, the other carries everything."""
    found = plan(cluster(800, 20, 8000, STANDARD)).limits
    assert found["media1"]["rtpengine_max_sessions"] == 1600
    # 1600 × 2 = 3200 ports on each address; twice that.
    assert found["media1"]["rtpengine_port_last"] == 30000 + 6400 - 1
    # 1.25 × (1600 × 4 + 512) = 8640.
    assert found["media1"]["rtpengine_open_files"] == 9216
    # 1600 × 2 × 50 = 160,000 packets/s: a tenth of a second.
    assert found["media1"]["sysctl"]["net.core.netdev_max_backlog"] == 16000
    # 160,000 × 0.25 s × 2304 bytes = 92.2 MB; twice that is 45,000 pages; up to the next 1024.
    assert found["media1"]["sysctl"]["net.ipv4.udp_mem"] == "22528 33792 45056"
    # 20 + 3 × √20 = 33.4 calls/s, 34 × 10 commands × 4352 = 1,479,680; up to the next 4096.
    assert found["media1"]["sysctl"]["net.core.rmem_default"] == 1482752
    # 400 + 3 × √400.
    assert found["pbx1"]["asterisk_max_calls"] == 460
    # 34 × 24 + 8000 ÷ 15 = 1349.3 messages/s.
    assert found["edge1"]["kamailio_receive_buffer"] == 90 * 65536
    # 2 × (1.349 + 34 × 10 × 0.002) = 4.06.
    assert found["edge1"]["kamailio_children"] == 5
    # 16 + (8000 × (2 + 1 + 20 + 8) + 34 × 80 × 16 + 1600) ÷ 1024 = 302.3; a quarter more 377.8.
    assert found["edge1"]["kamailio_shared_memory"] == 384
    # 800 ÷ 180 × 3600 = 16,000 calls an hour: (8000 × 16 + 16,000 × 4) ÷ 1024 = 187.5.
    assert found["database1"]["galera_buffer_pool_mb"] == 192


def test_10000_calls() -> None:
    """Six relays, six PBX nodes: what is left of each carries a fifth and three deviations."""
    nodes = {"edge": 2, "media": 6, "pbx": 6, "database": 3}
    made = plan(cluster(10_000, 100, 100_000, nodes), cores=16, memory_mb=65536)
    assert made.errors == []
    # 20,000 ÷ 5 + 3 × √4000 = 4189.7
    assert made.limits["media1"]["rtpengine_max_sessions"] == 4190
    # 4190 × 2 = 8380 of 10,000 ports: no room to double, the whole range.
    assert made.limits["media1"]["rtpengine_port_last"] == 39999
    # 10,000 ÷ 5 + 3 × √2000 = 2134.2: 8540 ports.
    assert made.limits["pbx1"]["asterisk_max_calls"] == 2135
    assert made.limits["pbx1"]["asterisk_rtp_last"] == 19999
    # 100 + 3 × √100
    assert made.limits["edge1"]["kamailio_calls_per_second"] == 130
    # 130 × 24 + 100,000 ÷ 15 = 9786.7 messages/s; 2 × (9.79 + 2.6) = 24.8.
    assert made.limits["edge1"]["kamailio_children"] == 25
    # 0.1 + 9786.7 × 0.0004
    assert made.expected["edge1"]["cores"] == {"edge": 4.015}
    # 10,000 ÷ 180 × 3600 = 200,000 an hour: (1,600,000 + 800,000) ÷ 1024 = 2343.75.
    assert made.limits["database1"]["galera_buffer_pool_mb"] == 2368
    assert made.tiers["media"]["needed"] == 6


def test_conntrack_with_audio_in_it() -> None:
    """One relay, 800 calls: what the firewall takes out of the table."""
    load = cluster(800, 20, 0, {"media": 2}, untracked=False)
    host = Host(8, 8192, ("media",))
    # 34 calls/s that ended in the last 120 s are 4080 more: 4096 + 2 × 4880 × 4 + 4080 × 4 = 59,456
    assert capacity.conntrack_entries(load, host) == 59456
    # a quarter more is 74,320; up to the next 1024
    assert capacity.limits(load, host)["conntrack_max"] == 74752
    assert capacity.limits(load, host)["notrack"] == []
    tracked = dataclasses.replace(load, untracked=True)
    assert capacity.conntrack_entries(tracked, host) == 4096


def test_one_network_takes_twice_the_ports_of_its_one_address() -> None:
    both, one = (capacity.ports_per_session(addresses) for addresses in (2, 1))
    assert (2 * both, 2 * one) == (4, 8)
    needs = capacity.needs(cluster(800, 20, 0, {"media": 2}), Host(8, 8192, ("media",), 1))
    assert needs["rtpengine_port_last"] == 30000 + 800 * 8 - 1


@pytest.mark.parametrize(
    ("codecs", "packet_ms", "bits"),
    [
        (["PCMA"], 20, (160 + 78) * 8),
        (["G729", "g722"], 20, (160 + 78) * 8),
        (["G729"], 20, (20 + 78) * 8),
        (["PCMU"], 30, (240 + 78) * 8),
    ],
)
def test_bits_of_a_packet(codecs: list[str], packet_ms: int, bits: int) -> None:
    assert capacity.packet_bits(codecs, packet_ms) == bits


# --- ports --------------------------------------------------------------------


def test_every_port_of_the_table_is_reserved() -> None:
    reserved = capacity.reserved_ports(TABLE)
    assert capacity.range_text(reserved) == (
        "2223,2379-2380,3306-3307,4444,4567-4568,5038,5060,5062-5063,5080,6379,8008,9200,9900,10000-19999,30000-39999"
    )
    assert all(any(a <= port <= b for a, b in reserved) for port in TABLE.values())


@pytest.mark.parametrize(
    ("reserved", "expected"),
    [
        ([(30000, 39999)], (32768, 60999, 21000)),
        ([(30000, 65535)], (1024, 29999, 28976)),
        ([(10000, 60000)], (1024, 9999, 8976)),
        ([(2000, 64000)], (64001, 65535, 1535)),
    ],
)
def test_outgoing_connections_keep_out_of_it(
    reserved: list[tuple[int, int]], expected: tuple[int, int, int]
) -> None:
    assert capacity.ephemeral_range(reserved) == expected


def test_the_filters_ranges_are_those_of_the_table() -> None:
    assert {name: TABLE[name] for name in capacity.PORTS} == capacity.PORTS


# --- refusals -----------------------------------------------------------------


def test_20000_calls_on_one_address_a_relay() -> None:
    nodes = {"edge": 2, "media": 2, "pbx": 20, "database": 3}
    made = plan(cluster(20_000, 120, 1000, nodes), cores=96, memory_mb=262144)
    assert made.errors == [
        "group media: 20000 calls with 1 of 2 hosts missing are 40000 relay sessions on one relay "
        "(2 for each call), which take 80000 ports on its outside and its inside address alike; "
        "relay_rtp 30000-39999 has 10000. It takes 10 relays with addresses of their own, the "
        "spare among them (or 4 with ringmain_ports.relay_rtp_last 65535): add relays, or lower "
        "ringmain_peak_calls"
    ]
    # 40,000 ÷ 9 + 3 × √4444 = 4644.5 sessions: 9290 ports. With 8 left: 5213 sessions, 10,426.
    assert (
        plan(cluster(20_000, 120, 1000, nodes | {"media": 10}), cores=96, memory_mb=262144).errors
        == []
    )
    assert (
        len(
            plan(
                cluster(20_000, 120, 1000, nodes | {"media": 9}), cores=96, memory_mb=262144
            ).errors
        )
        == 1
    )


def test_one_address_for_both_sides_takes_twice_as_many_relays() -> None:
    nodes = {"edge": 2, "media": 2, "pbx": 20, "database": 3}
    load = cluster(20_000, 120, 1000, nodes)
    made = plan(load, cores=96, memory_mb=262144, addresses=1)
    assert "which take 160000 ports on its one address;" in made.errors[0]
    assert "It takes 18 relays" in made.errors[0]


def test_one_edge_with_one_spare_required() -> None:
    members = {"edge": ["edge1"], "media": ["m1", "m2"]}
    assert list(capacity.node_errors(members, 1)) == [
        "group edge has 1 host (edge1), and ringmain_spare_nodes 1 may be missing: 1 carries all "
        "calls, so it takes 2; add 1"
    ]


def test_a_database_keeps_its_majority_with_the_spare_missing() -> None:
    assert list(capacity.node_errors({"database": ["a", "b", "c"]}, 2)) == [
        "group database has 3 hosts (a, b, c), and ringmain_spare_nodes 2 may be missing: 3 are a "
        "majority, so it takes 5; add 2, or lower ringmain_spare_nodes"
    ]


def test_800_calls_on_hosts_with_too_little_memory() -> None:
    made = plan(cluster(800, 20, 8000, 3), cores=8, memory_mb=2048)
    needed = sum(made.expected["srv1"]["memory_mb"].values())
    (error,) = made.errors
    assert error.startswith(
        f"hosts srv1, srv2, srv3 each have 2048 MB of memory, and the plan needs {needed} (system "
        "384, edge "
    )
    assert error.endswith("or lower ringmain_peak_calls or ringmain_registrations")


def test_too_few_cores() -> None:
    # 0.05 + 1600 sessions ÷ 400 in user space; the other functions have what they need.
    nodes = {"edge": 2, "media": 2, "pbx": 3, "database": 3}
    made = plan(cluster(800, 20, 8000, nodes, forwarding="userspace"), cores=4)
    assert made.errors == [
        "hosts media1, media2 each have 4 cores, of which 3 may be busy, and the plan needs 4.0 "
        "(media 4.0): add 2 cores, add hosts, or lower ringmain_peak_calls"
    ]


def test_ports_that_leave_none_for_outgoing_connections() -> None:
    load = dataclasses.replace(
        cluster(200, 5, 100, 3),
        ports=TABLE
        | {
            "pbx_rtp_first": 5100,
            "pbx_rtp_last": 9199,
            "relay_rtp_first": 10000,
            "relay_rtp_last": 65535,
        },
    )
    assert capacity.ephemeral_range(capacity.reserved_ports(load.ports))[2] < 4096
    assert plan(load).errors == [
        "ringmain_ports leaves 1199 ports in a row for outgoing connections, and a host needs "
        "4096: make relay_rtp or pbx_rtp narrower"
    ]


@pytest.mark.parametrize(
    ("calls", "cps", "hold", "expected"),
    [
        # 800 ÷ 180 = 4.4 a second keep 800 calls up.
        (800, 4, 180, ["take 4.4 new calls per second, and ringmain_peak_cps is 4: raise it to 5"]),
        (800, 5, 180, []),
        (800, 20, 180, []),
        (3, 1, 180, []),
    ],
)
def test_littles_law(calls: int, cps: int, hold: int, expected: list[str]) -> None:
    errors = list(capacity.pace_errors(calls, cps, hold))
    assert len(errors) == len(expected)
    assert all(text in error for text, error in zip(expected, errors, strict=True))


def test_more_new_calls_than_the_hold_time_allows_are_a_burst() -> None:
    (remark,) = plan(cluster(800, 20, 100, 3)).remarks
    assert "would be 3600 calls: it is taken for a burst, of 40 s at most" in remark


# --- the operator's own limits ------------------------------------------------


def test_own_limits_replace_planned_ones_and_are_named() -> None:
    load = cluster(200, 5, 1000, 3)
    hosts = {f"srv{n}": Host(8, 16384, ALL) for n in (1, 2, 3)}
    members = {function: list(hosts) for function in ALL}
    own: dict[str, dict[str, Any]] = {
        "srv2": {"galera_buffer_pool_mb": 4096, "sysctl": {"net.core.rmem_max": 33554432}},
        "srv3": {"rtpengine_max_sessions": 100},
    }
    made = capacity.make_plan(load, hosts, members, own)
    assert made.own == {
        "srv1": [],
        "srv2": ["galera_buffer_pool_mb", "net.core.rmem_max"],
        "srv3": ["rtpengine_max_sessions"],
    }
    assert made.limits["srv2"]["sysctl"]["net.core.rmem_max"] == 33554432
    assert made.limits["srv2"]["sysctl"]["net.core.rmem_default"] == 626688
    # 1.1 × (4096 - 128)
    database = [made.expected[name]["memory_mb"]["database"] for name in ("srv1", "srv2")]
    assert database[1] - database[0] == pytest.approx(4365, abs=1)
    # 100 sessions a relay: x + 3 × √x = 100 for x = 74.2, of 2 sessions a call on 2 relays.
    assert made.tiers["media"]["carries"] == 74
    assert made.remarks[1:] == [
        "media carries 74 calls, fewer than ringmain_peak_calls 200: ringmain_limits sets "
        "rtpengine_max_sessions lower than planned"
    ]


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, []),
        (None, []),
        (["x"], ["ringmain_limits is ['x']: write a dictionary of limits and numbers"]),
        (
            {"kamailio_childern": 8},
            [
                "ringmain_limits has kamailio_childern, which is no limit: playbooks/plan.yml "
                "lists those there are"
            ],
        ),
        (
            {"cores": 8},
            [
                "ringmain_limits has cores, which is no limit: playbooks/plan.yml lists "
                "those there are"
            ],
        ),
        (
            {"kamailio_children": "many"},
            ["ringmain_limits.kamailio_children is 'many': write a positive whole number"],
        ),
        (
            {"sysctl": {"vm.swappiness": 1, "net.core.rmem_max": 0}},
            [
                "ringmain_limits.sysctl has vm.swappiness, which is not planned: "
                "playbooks/plan.yml lists those there are",
                "ringmain_limits.sysctl.net.core.rmem_max is 0: write a positive whole number",
            ],
        ),
        ({"sysctl": {"net.ipv4.udp_mem": "1 2 3"}, "galera_max_connections": 500}, []),
    ],
)
def test_each_mistake_in_own_limits(own: Any, expected: list[str]) -> None:
    assert list(capacity.own_errors("srv1", own)) == [f"host srv1: {text}" for text in expected]


# --- what tiers carry ---------------------------------------------------------


def test_a_tier_carries_what_is_planned_and_not_one_call_more_than_its_limits() -> None:
    tiers = plan(cluster(800, 20, 8000, STANDARD)).tiers
    for function, first in (("media", "rtpengine_max_sessions"), ("pbx", "asterisk_max_calls")):
        assert (tiers[function]["carries"], tiers[function]["first_limit"]) == (800, first)
        assert [limit["carries"] for limit in tiers[function]["limits"]] == sorted(
            limit["carries"] for limit in tiers[function]["limits"]
        )
    # 8 cores × 0.75 - 0.05 = 5.95 cores for sessions: 5950 on one relay.
    assert {"name": "cores", "carries": 2975} in tiers["media"]["limits"]
    # 6400 ports hold 1600 calls.
    assert {"name": "rtpengine_port_last", "carries": 1600} in tiers["media"]["limits"]
    assert {name: tier["needed"] for name, tier in tiers.items()} == {
        "edge": 2,
        "media": 2,
        "pbx": 2,
        "database": 3,
    }


# --- the catalogue ------------------------------------------------------------


def test_every_limit_is_in_the_catalogue_and_every_entry_is_a_limit() -> None:
    load = cluster(200, 5, 1000, 3)
    found: dict[str, Any] = {}
    for engine in ("galera", "postgresql"):
        found |= capacity.limits(dataclasses.replace(load, engine=engine), Host(8, 16384, ALL))
    names = (set(found) - {"sysctl"}) | set(found["sysctl"]) | {"cores", "memory_mb"}
    assert names == set(capacity.FIGURES)
    assert all(all(figure) for figure in capacity.FIGURES.values())
    assert set(capacity.TEXTS) < names


def test_the_page_lists_every_limit_as_the_catalogue_has_it() -> None:
    page = (ROOT / "docs/capacity.md").read_text()
    rows = [
        f"| `{name}` | {figure.unit} | {figure.formula} | {figure.source} |"
        for name, figure in capacity.FIGURES.items()
    ]
    assert [row for row in rows if row not in page] == []


# --- whatever the load --------------------------------------------------------

CALLS = st.integers(1, 30_000)
LOADS = st.builds(
    Load,
    calls=CALLS,
    cps=st.integers(1, 500),
    registrations=st.integers(0, 200_000),
    nodes=st.fixed_dictionaries({function: st.integers(1, 12) for function in ALL}),
    ports=st.just(TABLE),
    spare=st.integers(0, 3),
    hold_seconds=st.integers(10, 1800),
    packet_ms=st.sampled_from([10, 20, 30, 40, 60]),
    forwarding=st.sampled_from(capacity.FORWARDINGS),
    untracked=st.booleans(),
)
HOSTS = st.builds(
    Host,
    cores=st.integers(1, 128),
    memory_mb=st.integers(512, 524_288),
    functions=st.sets(st.sampled_from(ALL), min_size=1).map(
        lambda chosen: tuple(f for f in ALL if f in chosen)
    ),
    addresses=st.sampled_from([1, 2]),
)


# How long an example takes says nothing on a busy machine.
patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def numbers(found: dict[str, Any]) -> dict[str, list[int]]:
    """Every number of every limit, but for the table's own ports."""
    fixed = ("net.ipv4.ip_local_reserved_ports", "net.ipv4.ip_local_port_range")
    flat = {**{k: v for k, v in found.items() if k not in ("sysctl", "notrack")}, **found["sysctl"]}
    return {k: [int(n) for n in str(v).split()] for k, v in flat.items() if k not in fixed}


@patiently
@given(LOADS, HOSTS, CALLS)
def test_more_calls_never_yield_a_smaller_limit(load: Load, host: Host, more: int) -> None:
    smaller, larger = (
        numbers(capacity.limits(load, host)),
        numbers(capacity.limits(load.at(load.calls + more), host)),
    )
    assert [name for name in smaller if larger[name] < smaller[name]] == []


@patiently
@given(LOADS, HOSTS)
def test_ranges_never_overlap(load: Load, host: Host) -> None:
    found = capacity.limits(load, host)
    taken = [
        (found[f"{daemon}_first"], found[f"{daemon}_last"])
        for daemon in ("asterisk_rtp", "rtpengine_port")
        if f"{daemon}_first" in found
    ]
    fixed = [(n, n) for name, n in TABLE.items() if not name.endswith(("_first", "_last"))]
    ordered = sorted(taken + fixed)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ordered))
    assert all(first <= last <= 65535 for first, last in taken)
    reserved = capacity.reserved_ports(TABLE)
    assert all(any(a <= first and last <= b for a, b in reserved) for first, last in ordered)
    assert [tuple(pair) for pair in found["notrack"]] == (sorted(taken) if load.untracked else [])


@patiently
@given(LOADS, HOSTS)
def test_parts_never_exceed_the_host_without_an_error(load: Load, host: Host) -> None:
    members = {function: ["a"] for function in host.functions}
    made = capacity.make_plan(load, {"a": host}, members)
    memory = sum(made.expected["a"]["memory_mb"].values())
    cores = sum(made.expected["a"]["cores"].values())
    text = "\n".join(made.errors)
    assert (memory > host.memory_mb) == ("MB of memory, and the plan needs" in text)
    assert (cores > host.cores * capacity.USABLE_CORES) == ("may be busy, and the plan" in text)


@patiently
@given(LOADS, HOSTS)
def test_limits_hold_what_is_needed_where_the_plan_has_no_error(load: Load, host: Host) -> None:
    members = {function: ["a"] for function in host.functions}
    made = capacity.make_plan(load, {"a": host}, members)
    if not made.errors:
        found = made.limits["a"]
        needs = capacity.needs(load, host)
        assert [name for name, need in needs.items() if found[name] < need] == []
        assert all(tier["carries"] >= load.calls for tier in made.tiers.values())


@patiently
@given(LOADS, HOSTS)
def test_the_nodes_that_are_needed_do_carry_it_and_one_less_does_not(
    load: Load, host: Host
) -> None:
    for function in ("media", "pbx"):
        if function in host.functions:
            alone = dataclasses.replace(host, functions=(function,), cores=max(2, host.cores))
            needed = capacity.needed_nodes(load, function, alone)
            fits = [not plan_errors(load, alone, function, nodes) for nodes in (needed, needed - 1)]
            assert fits[0]
            assert not fits[1] or needed == load.spare + 1


def plan_errors(load: Load, host: Host, function: str, nodes: int) -> list[str]:
    """What is wrong with so many hosts of one function, memory aside."""
    names = [f"{function}{n}" for n in range(nodes)]
    other = dataclasses.replace(load, nodes={function: nodes})
    roomy = dataclasses.replace(host, memory_mb=10**7)
    return capacity.make_plan(other, dict.fromkeys(names, roomy), {function: names}).errors


def timed_plan(many: int) -> tuple[float, capacity.Plan]:
    """Seconds of processor time for the plan of so many hosts, each with one function."""
    nodes = {"edge": 3, "media": many // 2 - 6, "pbx": many // 2 - 2, "database": 5}
    # Every second host is its own, so that nothing that is kept of one serves for all.
    hosts = {
        f"{function}{n}": Host(96 + n % 32, 262144 + n // 2, (function,))
        for function, number in nodes.items()
        for n in range(number)
    }
    members = {f: [name for name in hosts if name.startswith(f)] for f in nodes}
    load = cluster(100 * many, 0.56 * many, 30 * many, nodes)
    start = time.process_time()
    made = capacity.make_plan(load, hosts, members)
    return time.process_time() - start, made


def test_ten_thousand_hosts_take_ten_times_as_long_as_a_thousand() -> None:
    """About. Machines differ, so both are measured."""
    few = min(timed_plan(1000)[0] for _number in range(3))
    many, made = timed_plan(10_000)
    assert many < 20 * few
    assert len(made.limits) == 10_000
    assert made.errors == []
