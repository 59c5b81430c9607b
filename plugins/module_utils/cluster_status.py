# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole cluster at a glance: what its servers say, put together, judged, and written as text.

Pure functions on plain data: the plan, and for each server what C(ringmain.voip.node_status) found
(C(node)), or C(error), why it could not be asked.
"""

from __future__ import annotations

import json
import re
import typing as t
from collections.abc import Iterator, Mapping, Sequence

from ansible_collections.ringmain.voip.plugins.module_utils.dispatcher import SETS
from ansible_collections.ringmain.voip.plugins.module_utils.node_state import AWAY
from ansible_collections.ringmain.voip.plugins.module_utils.text_table import table

Plan = Mapping[str, t.Any]
Nodes = Mapping[str, Mapping[str, t.Any]]

_RUN_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)?")
_FUNCTIONS = ("edge", "media", "pbx", "database", "storage")
_CALLED = {"edge": "edge", "media": "relay", "pbx": "PBX", "database": "database"}


def build(plan: Plan, nodes: Nodes) -> dict[str, t.Any]:
    """Everything as plain data.

    C(domain), C(whole) (bool), C(verdict), C(problems) and C(notices) (sentences),
    C(addresses) (network to C(address), C(holders)), C(nodes) (each with its C(name), C(functions),
    C(reached) and what was found), C(drains) (C(name), C(function), C(reason), C(run), C(since),
    C(marked_on), C(missing_on)), C(runs) (run-id to C(reason), C(since), C(nodes)).
    """
    found = [
        {
            "name": name,
            "functions": list(host["functions"]),
            "reached": "node" in nodes.get(name, {}),
            **(nodes.get(name, {}).get("node") or {}),
            "error": str(nodes.get(name, {}).get("error", "it was not asked")),
        }
        for name, host in plan["hosts"].items()
    ]
    for node in found:
        if node["reached"]:
            del node["error"]
    addresses = {
        side: {
            "address": plan[f"{side}_ip"],
            "holders": [
                node["name"] for node in found if plan[f"{side}_ip"] in node.get("addresses", [])
            ],
        }
        for side in ("outside", "inside")
    }
    drains = _drains(found)
    away = _relays_away(plan, found)
    problems = [
        *_unreached(found),
        *_addresses(addresses, found),
        *(problem for node in found if node["reached"] for problem in _node(node, drains, away)),
        *(
            f"the relay of {home} is at {host}; it goes home when it has no calls: drain.yml"
            f" -e node={home} -e functions=media -e reason=home, then undrain.yml -e node={home}"
            for home, host in away.items()
        ),
        *_disagreements(drains),
        *_database(found),
        *_capacity(plan, drains),
    ]
    notices = [*_waiting(found)]
    return {
        "domain": plan["domain"],
        "whole": not problems,
        "verdict": _verdict(problems, drains, notices),
        "problems": problems,
        "notices": notices,
        "addresses": addresses,
        "drains": drains,
        "runs": _runs(drains),
        "nodes": found,
    }


def since(run: str) -> str:
    """When a run began, if its identifier tells: C(20261121T0645) is C(2026-11-21 06:45)."""
    parts = _RUN_TIME.search(run)
    return "{}-{}-{} {}:{}".format(*parts.groups()[:5]) if parts else ""


def _part(node: Mapping[str, t.Any], name: str) -> Mapping[str, t.Any]:
    """What one function of a node says; nothing when it says only why it does not."""
    part = node.get(name) or {}
    return {} if "error" in part else part


def _services(node: Mapping[str, t.Any]) -> list[Mapping[str, t.Any]]:
    listed = node.get("services")
    return listed if isinstance(listed, list) else []


def _drains(found: Sequence[Mapping[str, t.Any]]) -> list[dict[str, t.Any]]:
    """What the edges' lists say is drained: one entry for each node in each of its functions."""
    edges = {
        node["name"]: _part(node, "edge")["destinations"] for node in found if _part(node, "edge")
    }
    marks: dict[tuple[int, str, str], list[str]] = {}
    for edge, destinations in edges.items():
        for item in destinations:
            if item["drain"] is not None:
                key = (int(item["set"]), str(item["name"]), str(item["drain"]))
                marks.setdefault(key, []).append(edge)
    drains = []
    for (number, name, mark), marked in sorted(marks.items(), key=lambda one: one[0][1:]):
        reason, _colon, run = mark.partition(":")
        drains.append(
            {
                "name": name,
                "function": SETS.get(number, f"set {number}"),
                "reason": reason,
                "run": run,
                "since": since(run),
                "marked_on": marked,
                "missing_on": [edge for edge in edges if edge not in marked],
            }
        )
    return drains


def _runs(drains: Sequence[Mapping[str, t.Any]]) -> dict[str, dict[str, t.Any]]:
    runs: dict[str, dict[str, t.Any]] = {}
    for drain in drains:
        if drain["run"]:
            run = runs.setdefault(
                drain["run"], {"reason": drain["reason"], "since": drain["since"], "nodes": []}
            )
            if drain["name"] not in run["nodes"]:
                run["nodes"].append(drain["name"])
    return runs


# --- what is wrong ------------------------------------------------------------


def _unreached(found: Sequence[Mapping[str, t.Any]]) -> Iterator[str]:
    for node in found:
        if not node["reached"]:
            yield f"{node['name']} could not be asked: {node['error'].strip().splitlines()[0]}"


def _addresses(
    addresses: Mapping[str, Mapping[str, t.Any]], found: Sequence[Mapping[str, t.Any]]
) -> Iterator[str]:
    unasked = [n["name"] for n in found if not n["reached"] and "edge" in n["functions"]]
    for side, one in addresses.items():
        what = f"the {side} address {one['address']}"
        if len(one["holders"]) > 1:
            yield f"{what} is at {' and '.join(one['holders'])} at once"
        elif not one["holders"] and unasked:
            yield f"{what} is at none of the edges that answer; {', '.join(unasked)} may hold it"
        elif not one["holders"]:
            yield f"{what} is nowhere: no edge is ready"
    holders = [one["holders"] for one in addresses.values()]
    if all(len(each) == 1 for each in holders) and holders[0] != holders[1]:
        yield f"the addresses are apart: outside at {holders[0][0]}, inside at {holders[1][0]}"


def _relays_away(plan: Plan, found: Sequence[Mapping[str, t.Any]]) -> dict[str, str]:
    """Relays that are guests: the server that is their home, and the one where they are."""
    if not plan["relays_float"]:
        return {}
    homes = {relay["address"]: relay["name"] for relay in plan["relays"]}
    return {
        homes[address]: node["name"]
        for node in found
        for address in _part(node, "media").get("addresses", ())
        if homes.get(address, node["name"]) != node["name"]
    }


def _node(
    node: Mapping[str, t.Any], drains: Sequence[Mapping[str, t.Any]], away: Mapping[str, str]
) -> Iterator[str]:
    name = node["name"]
    if isinstance(node.get("services"), Mapping):
        yield f"{name}: its services cannot be listed: {node['services']['error']}"
    for service in _services(node):
        # Where it is a guest it has a service of its own.
        if service["name"] == "rtpengine-daemon" and name in away:
            continue
        if service["state"] != "active":
            yield f"{name}: {service['name']} is {service['state']}"
    for function, called in _CALLED.items():
        part = node.get(function) or {}
        if "error" in part:
            yield f"{name}: its {called} does not answer: {part['error']}"
    edge = _part(node, "edge")
    if not edge:
        return
    drained = {(drain["function"], drain["name"]) for drain in drains}
    if not edge["ready"] and ("edge", name) not in drained:
        yield f"{name}: its edge is not ready: {edge['answer']}"
    for item in edge["destinations"]:
        if item["set"] == 1 and item["state"].startswith("I"):
            yield f"{name}: its edge gets no answer from PBX {item['name']}"
        if item["state"] == AWAY:
            yield f"{name}: its edge gets no answer from the relay of {item['name']}"
    for difference in edge["differences"]:
        yield f"{name}: its edge runs with another list than it has on disk: {difference}"


def _disagreements(drains: Sequence[Mapping[str, t.Any]]) -> Iterator[str]:
    for drain in drains:
        if drain["missing_on"]:
            yield (
                f"{drain['name']} ({_CALLED.get(drain['function'], drain['function'])}) is drained "
                f"on {', '.join(drain['marked_on'])} and not on {', '.join(drain['missing_on'])}"
            )


def _database(found: Sequence[Mapping[str, t.Any]]) -> Iterator[str]:
    members = [(node["name"], _part(node, "database")) for node in found]
    members = [(name, part) for name, part in members if part]
    for name, part in members:
        if part["complaint"]:
            yield f"{name}: its database is not well: {part['complaint']}"
    leaders = [name for name, part in members if part["role"] == "primary"]
    followers = [name for name, part in members if part["role"] == "replica"]
    if followers and not leaders:
        yield f"nobody takes writes: {', '.join(followers)} only follow"
    elif len(leaders) > 1:
        yield f"{' and '.join(leaders)} both take writes"


def _capacity(plan: Plan, drains: Sequence[Mapping[str, t.Any]]) -> Iterator[str]:
    drained = {(drain["function"], drain["name"]) for drain in drains}
    for function in ("pbx", "media", "edge"):
        names = [member["name"] for member in plan["members"][function]]
        if names and all((function, name) in drained for name in names):
            yield f"all of {', '.join(names)} are drained as {_CALLED[function]}: no new calls"


def _waiting(found: Sequence[Mapping[str, t.Any]]) -> Iterator[str]:
    for node in found:
        for service in _services(node):
            reasons = [
                reason
                for key, reason in (
                    ("waits_for_configuration", "a changed configuration"),
                    ("waits_for_package", "a newer package"),
                )
                if service[key]
            ]
            if reasons:
                yield f"{node['name']}: {service['name']} waits for a restart: " + " and ".join(
                    reasons
                )
        if _part(node, "database").get("waits_for_restart"):
            yield f"{node['name']}: PostgreSQL waits for a restart: changed parameters"
        kernel = _part(node, "kernel")
        if kernel and kernel["next"] != kernel["running"]:
            yield f"{node['name']} waits for a reboot: kernel {kernel['next']}"


def _verdict(
    problems: Sequence[str], drains: Sequence[Mapping[str, t.Any]], notices: Sequence[str]
) -> str:
    if problems:
        words = [
            "one thing is wrong" if len(problems) == 1 else f"{len(problems)} things are wrong"
        ]
    else:
        words = ["all is well"]
    drained = {drain["name"] for drain in drains}
    if drained:
        words.append(f"{len(drained)} node{'s are' if len(drained) > 1 else ' is'} drained")
    if notices:
        words.append(f"{len(notices)} wait{'s' if len(notices) == 1 else ''} for a restart")
    return ", ".join(words)


# --- as text ------------------------------------------------------------------


def text(status: Mapping[str, t.Any], output: str = "text") -> str:
    """The status to read, as text or Markdown, or as JSON. Raises ValueError for other outputs."""
    if output == "json":
        return json.dumps(status, indent=2)
    if output not in ("text", "markdown"):
        raise ValueError(f"output {output!r} is none of text, markdown and json")
    markdown = output == "markdown"
    bullet = "- " if markdown else "  "
    lines = [f"{'# ' if markdown else ''}{status['domain']}: {status['verdict']}", ""]
    for side, one in status["addresses"].items():
        holder = " and ".join(one["holders"]) or "nobody"
        lines.append(f"{bullet}{side} address {one['address']}: {holder}")
    head = ("server", "functions", "calls", "sessions", "phones", "database", "drained as")
    lines += ["", *table(head, [_row(node, status) for node in status["nodes"]], markdown)]
    versions = list(_versions(status["nodes"]))
    lines += ["", *table(("daemon", "version", "on"), versions, markdown)] if versions else []
    for title, sentences in (
        ("Drained", [_drain_line(drain) for drain in status["drains"]]),
        ("Runs under way", [_run_line(run, one) for run, one in status["runs"].items()]),
        ("Waiting", status["notices"]),
        ("Wrong", status["problems"]),
    ):
        if sentences:
            lines += ["", f"## {title}" if markdown else f"{title}:", *([""] if markdown else [])]
            lines += [f"{bullet}{sentence}" for sentence in sentences]
    return "\n".join(lines)


def _row(node: Mapping[str, t.Any], status: Mapping[str, t.Any]) -> tuple[str, ...]:
    functions = " ".join(name for name in _FUNCTIONS if name in node["functions"])
    if not node["reached"]:
        return (node["name"], functions, "not reached", "", "", "", _drained_as(node, status))

    def number(function: str, key: str) -> str:
        if function not in node["functions"]:
            return "-"
        return str(_part(node, function).get(key, "?"))

    database = "-"
    if "database" in node["functions"]:
        database = str(_part(node, "database").get("role", "")) or "?"
    return (
        node["name"],
        functions,
        number("pbx", "calls"),
        number("media", "sessions"),
        number("edge", "registrations"),
        database,
        _drained_as(node, status),
    )


def _drained_as(node: Mapping[str, t.Any], status: Mapping[str, t.Any]) -> str:
    functions = [d["function"] for d in status["drains"] if d["name"] == node["name"]]
    return " ".join(name for name in _FUNCTIONS if name in functions) or "-"


def _versions(nodes: Sequence[Mapping[str, t.Any]]) -> Iterator[tuple[str, ...]]:
    where: dict[tuple[str, str], list[str]] = {}
    for node in nodes:
        for service in _services(node):
            if service["version"]:
                where.setdefault((service["name"], service["version"]), []).append(node["name"])
    for (name, version), names in sorted(where.items()):
        yield (name, version, ", ".join(names))


def _drain_line(drain: Mapping[str, t.Any]) -> str:
    words = f"{drain['name']} as {_CALLED.get(drain['function'], drain['function'])}"
    words += f": {drain['reason'] or 'nobody says why'}"
    words += f", run {drain['run']}" if drain["run"] else ""
    return words + (f", since {drain['since']}" if drain["since"] else "")


def _run_line(run: str, one: Mapping[str, t.Any]) -> str:
    words = f"{run}: {one['reason']}, {', '.join(one['nodes'])}"
    return words + (f", since {one['since']}" if one["since"] else "")
