# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster on the lab: is it whole, and if not, what is missing."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .lab import Lab, everywhere
from .node_report import ENGINE_UNITS, UNITS

REPORT = Path(__file__).with_name("node_report.py").read_text(encoding="utf-8")
RELAY_CONTROL_PORT = 2223


@dataclass(frozen=True)
class Addresses:
    """Where everything is: by name the inside address, and the relay's inside address, which may
    be elsewhere; and the two floating ones of the edges."""

    inside: Mapping[str, str]
    outside_ip: str
    inside_ip: str
    relays: Mapping[str, str]

    @classmethod
    def of_slot(cls, slot: int, servers: Sequence[str]) -> Addresses:
        """As the lab's inventory lays them out."""
        inside = {name: f"198.19.{slot}.{10 + int(name[3:])}" for name in servers}
        relays = {name: f"198.19.{slot}.{20 + int(name[3:])}" for name in servers}
        return cls(inside, f"198.18.{slot}.10", f"198.19.{slot}.10", relays)


class Cluster:
    """Servers that each carry every function."""

    def __init__(self, lab: Lab, addresses: Addresses) -> None:
        self.lab = lab
        self.addresses = addresses
        self.servers = sorted(addresses.inside)
        self.nodes = len(self.servers)
        """How many PBX nodes the edges know; more where one joined that is no database member."""

    def reports(self, *arguments: str) -> dict[str, Any]:
        """What every server says of itself, or the error it gave instead."""

        def ask(name: str) -> Any:
            inside, relay = self.addresses.inside[name], self.addresses.relays[name]
            words = (inside, relay, str(RELAY_CONTROL_PORT), *arguments)
            return json.loads(self.lab.python(name, REPORT, *words, timeout=30))

        return everywhere(self.servers, ask)

    def problems(self) -> list[str]:
        """All that is missing to a whole cluster; empty when it is whole."""
        return problems(self.reports(), self.addresses, self.nodes)

    def wait_until_whole(self, seconds: float, but: str = "$^") -> float:
        """Wait until nothing is missing, but what a pattern names; how long that took.

        Raises AssertionError with what is missing and the journals after so many seconds.
        """
        started = time.monotonic()
        while True:
            missing = [line for line in self.problems() if not re.search(but, line)]
            took = time.monotonic() - started
            if not missing:
                return took
            if took > seconds:
                raise AssertionError(self.evidence(f"not whole after {took:.0f} s", missing))
            time.sleep(1)

    def holder(self) -> str:
        """The one server that holds both floating addresses."""
        found = holders(self.reports(), self.addresses)
        assert len(found) == 1, self.evidence("who holds the floating addresses?", [str(found)])
        return found[0]

    def bystander(self) -> str:
        """The first server that does not hold the floating addresses."""
        holder = self.holder()
        return next(name for name in self.servers if name != holder)

    @property
    def outside_network(self) -> str:
        """The first three numbers of all outside addresses."""
        return self.addresses.outside_ip.rpartition(".")[0]

    def relay_outside(self, server: str) -> str:
        """The outside address of the relay whose home a server is."""
        return f"{self.outside_network}.{self.addresses.relays[server].rpartition('.')[2]}"

    def has_its_relay(self, server: str) -> bool:
        """Whether the relay whose home a server is is there."""
        here = self.lab.shell(
            server, "ip -4 -oneline address show to " + self.addresses.relays[server]
        )
        return bool(here.strip())

    def process(self, server: str, unit: str) -> str:
        """The process id of a service."""
        return self.lab.shell(server, f"systemctl show -P MainPID {unit}.service").strip()

    def evidence(self, headline: str, lines: Sequence[str], seconds: float = 180) -> str:
        """A text for a failed act: the facts, then each server's warnings."""

        def journal(name: str) -> Any:
            watched = [unit for units in ENGINE_UNITS.values() for unit in units]
            return self.lab.journal(name, (*watched, *UNITS), seconds)

        text = [headline, *(f"  {line}" for line in lines)]
        for name, found in everywhere(self.servers, journal).items():
            written = found if isinstance(found, list) else [str(found)]
            text += [f"{name}, journal of the last {seconds:.0f} s:"]
            text += [f"  {line}" for line in written]
        return "\n".join(text)


def snapshot(cluster: Cluster) -> dict[str, dict[str, str]]:
    """What a run must not change, by server: its files, its processes, the schema."""
    found = {}
    for name, report in cluster.reports("files").items():
        assert isinstance(report, dict), f"{name}: {report}"
        processes = {
            f"process of {unit}": f"{state['MainPID']}, {state['ExecMainStartTimestampMonotonic']}"
            for unit, state in report["units"].items()
        }
        assert report["schema"] != "unknown", f"{name}: the schema cannot be read"
        found[name] = {**report["files"], **processes, "schema": report["schema"]}
    return found


def holders(reports: Mapping[str, Any], addresses: Addresses) -> list[str]:
    """The servers that hold both floating addresses."""
    both = {addresses.outside_ip, addresses.inside_ip}
    return [
        name
        for name, report in reports.items()
        if isinstance(report, dict) and both <= set(report["addresses"])
    ]


def problems(reports: Mapping[str, Any], addresses: Addresses, nodes: int = 0) -> list[str]:
    """What the reports lack of a whole cluster, in words; with ``nodes`` PBX nodes."""
    found = []
    contacts = {}
    clusters = set()
    for name, report in sorted(reports.items()):
        if not isinstance(report, dict):
            found.append(f"{name}: no report: {str(report).strip()[-300:]}")
            continue
        found += [
            f"{name}: {line}" for line in _server(report, len(reports), nodes or len(reports))
        ]
        if addresses.relays[name] not in report["addresses"]:
            found.append(f"{name}: its relay is not at home")
        contacts[name] = report["edge"].get("contacts")
        clusters.add(report["galera"].get("wsrep_cluster_state_uuid"))
    if len(set(contacts.values())) > 1:
        found.append(f"the edges hold different numbers of contacts: {contacts}")
    if len(clusters) > 1:
        found.append(f"the databases are not of one cluster: {clusters}")
    both = holders(reports, addresses)
    some = {
        name: sorted({addresses.outside_ip, addresses.inside_ip} & set(report["addresses"]))
        for name, report in reports.items()
        if isinstance(report, dict)
    }
    if len(both) != 1 or any(held for name, held in some.items() if name not in both):
        found.append(f"the floating addresses are not at one server: {some}")
    return found


def _server(report: Mapping[str, Any], servers: int, pbx_nodes: int) -> list[str]:
    found = []
    for unit in (*ENGINE_UNITS[report["engine"]], *UNITS):
        state = report["units"].get(unit, {})
        if (state.get("ActiveState"), state.get("SubState")) != ("active", "running"):
            found.append(f"{unit} is {state.get('ActiveState')}/{state.get('SubState')}")
    found += _database(report, servers)
    edge = report["edge"]
    if "error" in edge:
        found.append(f"edge: {edge['error']}")
    else:
        if edge["relays_out"]:
            found.append(f"edge: it hears nothing of the relays {edge['relays_out']}")
        if not edge["ready"]:
            found.append("edge: not ready")
        # Set 1 are the PBX nodes. Relays and edges, sets 2 and 3, are not pinged by dispatcher.
        flags = edge["destinations"]
        nodes = {name: state for name, state in flags.items() if name.startswith("1 ")}
        if len(nodes) != pbx_nodes or set(nodes.values()) != {"AP"}:
            found.append(f"edge: PBX nodes {nodes}")
        drained = [name for name, state in flags.items() if state.startswith("D")]
        if drained:
            found.append(f"edge: drained {drained}")
    if "4:pong" not in report["relay"]:
        found.append(f"relay: {report['relay'] or 'no answer'}")
    if "System uptime" not in report["asterisk"]:
        found.append(f"asterisk: {report['asterisk'] or 'no answer'}")
    return found


def _database(report: Mapping[str, Any], servers: int) -> list[str]:
    if report["engine"] == "postgresql":
        roles = sorted(report["patroni"].values())
        whole = sorted(["leader", "sync_standby", *["replica"] * (servers - 2)])
        return [] if roles == whole else [f"database: {report['patroni']}"]
    wanted = {
        "wsrep_cluster_size": str(servers),
        "wsrep_local_state_comment": "Synced",
        "wsrep_ready": "ON",
        "wsrep_cluster_status": "Primary",
    }
    seen = {key: report["galera"].get(key) for key in wanted}
    return [] if seen == wanted else [f"database: {seen}"]
