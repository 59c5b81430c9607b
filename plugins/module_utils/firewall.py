# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may talk to a host of the cluster, and how a table of nftables is compared with another.

Pure functions on plain data. C(FLOWS) is everything that the roles of this collection let in from
another host; what a host sends is not restricted, and what it sends to itself neither. A role that
listens on a new port adds its flow here.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t
from collections.abc import Mapping, Sequence

Plan = Mapping[str, t.Any]

ANYONE = "anyone"
EVERYWHERE = ("0.0.0.0/0", "::/0")


class FirewallError(ValueError):
    """The rules cannot be made; the message says why."""


class Flow(t.NamedTuple):
    """Packets that the hosts of one function take.

    Parameters:
        name: becomes the name of the rule and of its set.
        function: whose hosts listen.
        protocols: udp, tcp, or a protocol without ports.
        ports: a name in the plan's ports, or the stem of NAME_first and NAME_last; empty where the
            protocol has none.
        to: which of the host's addresses: address (inside), outside_address, outside_ip, inside_ip
            (the floating ones); relay_outside, relay_inside: its own and, where they float, those
            of all relays; relay_store: its own and that of the first relay.
        sources: functions whose hosts may send (from their inside addresses), outside:FUNCTION
            (from their outside addresses), inside_ip (from the floating address, when another host
            can hold it); or ANYONE.
        media: whether it is audio, in which connection tracking has no part. A relay also sends it
            from its floating address. Its range of ports is
            the whole one, of which the plan may give a daemon less: a daemon that waits for a
            restart still uses what an earlier plan gave it.
        engine: only with this database.
        floating_relays: only where the relays' addresses float.
        new_connections_limited: whether one source may only begin so many connections per second.
    """

    name: str
    function: str
    protocols: tuple[str, ...]
    ports: str
    to: str
    sources: tuple[str, ...]
    media: bool = False
    engine: str | None = None
    floating_relays: bool = False
    new_connections_limited: bool = False


FLOWS = (
    # Media first: nearly every packet is one.
    Flow("relay_rtp_outside", "media", ("udp",), "relay_rtp", "relay_outside", (ANYONE,),
         media=True),
    # From a PBX, and from the relay that holds the other half of a call with direct media.
    Flow("relay_rtp_inside", "media", ("udp",), "relay_rtp", "relay_inside", ("pbx", "media"),
         media=True),
    Flow("pbx_rtp", "pbx", ("udp",), "pbx_rtp", "address", ("media",), media=True),
    # Phones and trunks.
    Flow("sip_outside", "edge", ("udp", "tcp"), "sip", "outside_ip", (ANYONE,),
         new_connections_limited=True),
    Flow("sip_inside", "edge", ("udp", "tcp"), "sip", "inside_ip", ("pbx",)),
    # Locations, from edge to edge.
    Flow("sip_cluster", "edge", ("udp",), "sip_cluster", "address", ("edge",)),
    Flow("vrrp_inside", "edge", ("vrrp",), "", "address", ("edge",)),
    Flow("vrrp_outside", "edge", ("vrrp",), "", "outside_address", ("outside:edge",)),
    Flow("relay_control", "media", ("udp",), "relay_control", "relay_inside", ("edge",)),
    # Relays whose addresses float: who holds them, and what another one needs to take over.
    Flow("relay_sessions", "media", ("udp",), "relay_control", "relay_inside", ("media",),
         floating_relays=True),
    Flow("vrrp_relays", "media", ("vrrp",), "", "address", ("media",), floating_relays=True),
    Flow("relay_store", "media", ("tcp",), "relay_store", "relay_store", ("media",),
         floating_relays=True),
    # Calls come from the floating address, OPTIONS of every edge from its own.
    Flow("pbx_sip", "pbx", ("udp", "tcp"), "pbx_sip", "address", ("edge", "inside_ip")),
    # The clients' HAProxy; members ask each other where they stand before they start.
    Flow("database", "database", ("tcp",), "database", "address", ("edge", "pbx")),
    Flow("database_health", "database", ("tcp",), "database_health", "address",
         ("edge", "pbx", "database"), engine="galera"),
    Flow("galera_replication", "database", ("tcp",), "galera_replication", "address",
         ("database",), engine="galera"),
    Flow("galera_ist", "database", ("tcp",), "galera_ist", "address", ("database",),
         engine="galera"),
    Flow("galera_sst", "database", ("tcp",), "galera_sst", "address", ("database",),
         engine="galera"),
    # Patroni says who takes writes, and hands its lock over in the etcd of any member.
    Flow("postgresql_replication", "database", ("tcp",), "database", "address", ("database",),
         engine="postgresql"),
    Flow("patroni_rest", "database", ("tcp",), "patroni_rest", "address",
         ("edge", "pbx", "database"), engine="postgresql"),
    Flow("etcd_client", "database", ("tcp",), "etcd_client", "address", ("database",),
         engine="postgresql"),
    Flow("etcd_peer", "database", ("tcp",), "etcd_peer", "address", ("database",),
         engine="postgresql"),
)  # fmt: skip


# --- who may talk to a host ---------------------------------------------------


def firewall_rules(
    plan: Plan,
    host: str,
    ssh_from: Sequence[str] = EVERYWHERE,
    ssh_port: int = 22,
) -> dict[str, t.Any]:
    """The rules of one host, as plain data:

    C(accept)
        List of C(name), C(protocols), C(ports) (C("5060"), C("30000-39999") or empty), C(to)
        (addresses), C(sources) (addresses; empty for anyone), C(new_connections_limited).
    C(known)
        What is dropped although it knocks on a port that this host serves, by function: C(name),
        C(ports) (protocol to list of ports), C(protocols) (those without ports).
    C(ssh)
        C(port), C(sources4), C(sources6) (networks).
    C(notrack)
        Ranges of UDP ports that connection tracking leaves alone: those of the host's media.
    C(inside_network)
        The network whose addresses must come in by the interface that leads there; empty where
        there is only one network.

    Raises FirewallError.
    """
    if host not in plan["hosts"]:
        raise FirewallError(f"{host} is no server of this cluster: {', '.join(plan['hosts'])} are")
    own = plan["hosts"][host]
    accept: list[dict[str, t.Any]] = []
    known: dict[str, dict[str, t.Any]] = {}
    for flow in FLOWS:
        if flow.function not in own["functions"]:
            continue
        if flow.engine not in (None, plan["database_engine"]):
            continue
        if flow.floating_relays and not plan["relays_float"]:
            continue
        rule = _rule(plan, own, flow)
        seen = known.setdefault(
            flow.function, {"name": flow.function, "ports": {}, "protocols": []}
        )
        for protocol in flow.protocols:
            if not flow.ports:
                _add(seen["protocols"], protocol)
            else:
                _add(seen["ports"].setdefault(protocol, []), rule["ports"])
        if (rule["sources"] or ANYONE in flow.sources) and not any(
            _covers(other, rule) for other in accept
        ):
            accept.append(rule)
    sources4, sources6 = networks_by_version(ssh_from)
    return {
        "accept": accept,
        "known": list(known.values()),
        "ssh": {"port": int(ssh_port), "sources4": sources4, "sources6": sources6},
        "notrack": _untracked(plan, own),
        "inside_network": "" if plan["one_network"] else plan["inside_network"],
    }


def _untracked(plan: Plan, own: Mapping[str, t.Any]) -> list[list[int]]:
    media = (flow for flow in FLOWS if flow.media and flow.function in own["functions"])
    return [list(pair) for pair in sorted({_port_range(plan, flow) for flow in media})]


def _rule(plan: Plan, own: Mapping[str, t.Any], flow: Flow) -> dict[str, t.Any]:
    first, last = _port_range(plan, flow) if flow.ports else (0, 0)
    return {
        "name": flow.name,
        "protocols": list(flow.protocols),
        "ports": "" if not flow.ports else str(first) if first == last else f"{first}-{last}",
        "to": _destinations(plan, own, flow.to),
        "sources": _sources(plan, own, flow),
        "new_connections_limited": flow.new_connections_limited,
    }


def _port_range(plan: Plan, flow: Flow) -> tuple[int, int]:
    ports = plan["ports"]
    if flow.media:
        return int(ports[f"{flow.ports}_first"]), int(ports[f"{flow.ports}_last"])
    return int(ports[flow.ports]), int(ports[flow.ports])


def _destinations(plan: Plan, own: Mapping[str, t.Any], to: str) -> list[str]:
    if to in ("outside_ip", "inside_ip"):
        return [plan[to]]
    if to not in ("relay_outside", "relay_inside", "relay_store"):
        return [own[to]]
    side = "outside_address" if to == "relay_outside" else "address"
    relays = plan["relays"] if plan["relays_float"] else []
    floating = [relay[side] for relay in relays]
    return [own[side], *(floating[:1] if to == "relay_store" else floating)]


def _sources(plan: Plan, own: Mapping[str, t.Any], flow: Flow) -> list[str]:
    """Addresses of the sources; the host's own come over the loopback, where all is let in."""
    found: set[str] = set()
    for source in flow.sources:
        if source == ANYONE:
            return []
        if source == "inside_ip":
            if any(edge["address"] != own["address"] for edge in plan["members"]["edge"]):
                found.add(plan["inside_ip"])
            continue
        key = "outside_address" if source.startswith("outside:") else "address"
        names = (member["name"] for member in plan["members"][source.removeprefix("outside:")])
        found |= {plan["hosts"][name][key] for name in names}
        if flow.media and source == "media" and plan["relays_float"]:
            found |= {relay["address"] for relay in plan["relays"]}
    found -= {own["address"], own["outside_address"]}
    return sorted(found, key=ipaddress.ip_address)


def _covers(wide: Mapping[str, t.Any], narrow: Mapping[str, t.Any]) -> bool:
    """Whether a rule lets in everything that another one does: the two networks may be one."""
    return (
        set(wide["protocols"]) >= set(narrow["protocols"])
        and wide["ports"] == narrow["ports"]
        and set(wide["to"]) >= set(narrow["to"])
        and (not wide["sources"] or set(wide["sources"]) >= set(narrow["sources"]) != set())
    )


def networks_by_version(networks: Sequence[str]) -> tuple[list[str], list[str]]:
    """Networks of IPv4 and of IPv6, from which SSH is let in. Raises FirewallError."""
    if isinstance(networks, str) or not networks:
        raise FirewallError(
            "SSH must be let in from somewhere: list at least one network; 0.0.0.0/0 is everywhere"
        )
    found: dict[int, list[t.Any]] = {4: [], 6: []}
    for network in networks:
        try:
            parsed = ipaddress.ip_network(network)
        except ValueError as error:
            raise FirewallError(
                f"{network!r} is no network in CIDR notation without host bits, such as "
                "192.0.2.0/24: correct it"
            ) from error
        found[parsed.version].append(parsed)
    versions = ([str(each) for each in ipaddress.collapse_addresses(found[key])] for key in (4, 6))
    sources4, sources6 = versions
    return sources4, sources6


def _add(values: list[t.Any], value: t.Any) -> None:
    if value not in values:
        values.append(value)


# --- comparing tables ---------------------------------------------------------

_SET = re.compile(r"^\t(?:set|map) .*?^\t}\n", re.MULTILINE | re.DOTALL)
_ELEMENTS = re.compile(r"^\t\telements = {.*?}\n", re.MULTILINE | re.DOTALL)


def without_state(listing: str) -> str:
    """What C(nft --stateless list table) prints, without what packets added to its sets."""

    def emptied(match: re.Match[str]) -> str:
        text = match[0]
        return _ELEMENTS.sub("", text) if re.search(r"^\t\tflags .*dynamic", text, re.M) else text

    return _SET.sub(emptied, listing)
