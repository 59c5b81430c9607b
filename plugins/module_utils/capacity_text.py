# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster's plan as a table that people read, as Markdown, or as JSON."""

from __future__ import annotations

import json
import textwrap
import typing as t
from collections.abc import Iterator, Mapping, Sequence

from ansible_collections.ringmain.voip.plugins.module_utils import capacity
from ansible_collections.ringmain.voip.plugins.module_utils.text_table import Row, table

FORMATS = ("text", "markdown", "json")
NUMBER_WIDTH = 22
FORMULA_WIDTH = 76


def plan_text(plan: Mapping[str, t.Any], form: str = "text") -> str:
    """The sizes in a plan of role C(ringmain), in one of C(FORMATS). Raises ValueError."""
    if form not in FORMATS:
        raise ValueError(f"output {form!r}: choose one of {', '.join(FORMATS)}")
    if form == "json":
        return json.dumps(_data(plan), indent=2)
    return "\n".join(_page(plan, markdown=form == "markdown"))


def _data(plan: Mapping[str, t.Any]) -> dict[str, t.Any]:
    cluster = ("domain", "peak_calls", "peak_cps", "registrations", "spare_nodes", "hold_seconds")
    host = ("cores", "memory_mb", "functions", "limits", "own_limits", "expected")
    return {
        **{key: plan[key] for key in cluster},
        "tiers": plan["tiers"],
        "hosts": {
            name: {key: values[key] for key in host} for name, values in plan["hosts"].items()
        },
        "remarks": plan["remarks"],
        "figures": {name: figure._asdict() for name, figure in capacity.FIGURES.items()},
    }


def _page(plan: Mapping[str, t.Any], markdown: bool) -> Iterator[str]:
    spare = plan["spare_nodes"]
    yield _heading(f"Cluster {plan['domain']}", 1, markdown)
    yield (
        f"{plan['peak_calls']} calls at once of {plan['hold_seconds']} s, {plan['peak_cps']} new "
        f"calls/s, {plan['registrations']} phones; {spare or 'no'} "
        f"node{'' if spare == 1 else 's'} of each function may be missing."
    )
    yield ""
    yield _heading("What each tier carries", 2, markdown)
    yield from table(
        ("function", "nodes", "needed", "cores busy", "carries", "reached first", "then"),
        [
            (
                function,
                str(tier["nodes"]),
                str(tier["needed"]),
                f"{tier['cores']:.1f}",
                f"{tier['carries']} calls",
                tier["first_limit"],
                ", ".join(f"{limit['name']} {limit['carries']}" for limit in tier["limits"][1:3]),
            )
            for function, tier in plan["tiers"].items()
        ],
        markdown,
    )
    for names, host in _alike(plan["hosts"]):
        yield ""
        yield from _host(names, host, markdown)
    if plan["remarks"]:
        yield ""
        yield _heading("Remarks", 2, markdown)
        yield from (f"- {remark}" for remark in plan["remarks"])


def _alike(
    hosts: Mapping[str, Mapping[str, t.Any]],
) -> list[tuple[list[str], Mapping[str, t.Any]]]:
    """Hosts with the same hardware, functions and limits together, in the plan's order."""
    found: dict[str, tuple[list[str], Mapping[str, t.Any]]] = {}
    for name, host in hosts.items():
        keys = ("cores", "memory_mb", "functions", "limits", "expected")
        kind = json.dumps([host[key] for key in keys])
        found.setdefault(kind, ([], host))[0].append(name)
    return list(found.values())


def _host(names: Sequence[str], host: Mapping[str, t.Any], markdown: bool) -> Iterator[str]:
    many = f"Hosts {', '.join(names)}" if len(names) > 1 else f"Host {names[0]}"
    yield _heading(f"{many}: {', '.join(host['functions'])}", 2, markdown)
    seen = host["expected"]
    cores, memory = seen["cores"], seen["memory_mb"]
    usable = host["cores"] * capacity.USABLE_CORES
    bullet = "- " if markdown else ""
    yield f"{bullet}{host['cores']} cores, {usable:g} of them for calls: " + _sum(cores, "{:.2f}")
    yield f"{bullet}{host['memory_mb']} MB of memory: " + _sum(memory, "{}")
    if "relay_packets_per_second" in seen:
        yield (
            f"{bullet}Relay: {seen['relay_packets_per_second']} packets/s and "
            f"{seen['relay_mbit_per_second']} Mbit/s in, and as much out"
        )
    if markdown:
        yield ""
    rows = [
        (
            f"{name}{' (ringmain_limits)' if name in host['own_limits'] else ''}",
            _value(value),
            *capacity.FIGURES[name],
        )
        for name, value in _flat(host["limits"])
    ]
    if markdown:
        yield from table(("limit", "value", "unit", "formula", "source"), rows, markdown)
    else:
        yield from _reasons(rows)


def _reasons(rows: Sequence[Row]) -> Iterator[str]:
    """Limit and value, then the formula in lines of its own width."""
    name_width = max(len(row[0]) for row in rows)
    indent = " " * (name_width + NUMBER_WIDTH + 5)
    for name, value, unit, formula, _source in rows:
        head = f"  {name.ljust(name_width)}  {value} {unit}"
        lines = textwrap.wrap(formula, FORMULA_WIDTH)
        if len(head) < len(indent):
            yield f"{head.ljust(len(indent))}{lines[0]}"
            lines = lines[1:]
        else:
            yield head
        yield from (indent + line for line in lines)


def _flat(limits: Mapping[str, t.Any]) -> Iterator[tuple[str, t.Any]]:
    for name, value in limits.items():
        if isinstance(value, Mapping):
            yield from value.items()
        else:
            yield name, value


def _value(value: t.Any) -> str:
    if isinstance(value, (list, tuple)):
        return capacity.range_text((first, last) for first, last in value) or "none"
    return str(value)


def _sum(parts: Mapping[str, float], form: str) -> str:
    listed = ", ".join(f"{name} {form.format(size)}" for name, size in parts.items())
    return f"{form.format(sum(parts.values()))} ({listed})"


def _heading(text: str, level: int, markdown: bool) -> str:
    return f"{'#' * level} {text}\n" if markdown else text
