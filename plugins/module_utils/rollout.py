# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which servers are taken out of traffic one after another, in which order, and whether at all.

All follows from what the servers say of themselves at the start: a run that was interrupted is
continued by asking them again. What they say is what M(ringmain.voip.node_status) returns; a server
that could not be asked says nothing (C(None)).
"""

from __future__ import annotations

import re
import typing as t
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ansible_collections.ringmain.voip.plugins.module_utils.dispatcher import SETS

TIERS = ("pbx", "media", "edge", "database", "storage")
"""The order of a run. A server with several functions is taken once, with the last of them."""

FUNCTIONS_OF = {
    "kamailio": ("edge",),
    # Floating addresses of relays leave with it, too.
    "keepalived": ("edge", "media"),
    "rtpengine-daemon": ("media",),
    "asterisk": ("pbx",),
    "mariadb": ("database",),
    "patroni": ("database",),
    "etcd": ("database",),
    "haproxy": ("edge", "pbx"),
}
"""Service -> functions that must be out of traffic while it restarts. Others carry nothing."""

RESTART_ORDER = (
    *("etcd", "patroni", "mariadb", "haproxy", "rtpengine-daemon", "asterisk"),
    *("kamailio", "keepalived"),
)
"""From what others need to what needs others."""

LOCKS = ("restart", "upgrade", "rollback", "reboot")
"""Runs of which there is one at a time."""

ACTIONS = (*LOCKS, "join", "drain")
"""What a run does to a server; also the reason in its mark."""

RUN_ID = re.compile(r"[0-9]{8}T[0-9]{6}[A-Za-z0-9_-]*\Z")
ROOM = 1.05
"""The nodes that stay must carry this many times the calls that are up now."""

State = Mapping[str, t.Any]


@dataclass(frozen=True)
class Intention:
    """What an operator asks for. C(nodes) (of servers, or of functions for all of theirs) and
    C(services) empty: all that need it."""

    action: str
    run_id: str
    nodes: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    everything: bool = False
    """Take every server, also one where nothing waits."""
    reason: str = ""
    """The reason in the mark, where it is not the action."""
    functions: tuple[str, ...] = ()
    """Of a server only these are taken out of traffic, and its database stays; empty: all."""

    @property
    def mark(self) -> str:
        """What the servers are drained under."""
        return f"{self.reason or self.action}:{self.run_id}"


@dataclass
class Decision:
    """What is to be done. With C(refusals) nothing is."""

    refusals: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    tiers: dict[str, str] = field(default_factory=dict)
    services: dict[str, list[str]] = field(default_factory=dict)
    drains: dict[str, list[str]] = field(default_factory=dict)
    resumed: list[str] = field(default_factory=list)

    def describe(self) -> list[str]:
        """What is going to be done, a line for each server, then what is not."""
        lines = []
        for name in self.order:
            drained = ", ".join(self.drains[name])
            lines.append(
                f"{name}: {drained + ' out of traffic' if drained else 'nothing out of traffic'}"
                + (f"; then {', '.join(self.services[name])}" if self.services[name] else "")
                + (" (continued)" if name in self.resumed else "")
            )
        return lines + self.remarks

    def as_dict(self) -> dict[str, t.Any]:
        """Plain data."""
        return {**vars(self), "said": self.describe()}


def split_mark(mark: str) -> tuple[str, str]:
    """Reason and run-id of a drain."""
    reason, _colon, run_id = mark.partition(":")
    return reason, run_id


def drains(states: Mapping[str, State | None]) -> dict[str, dict[str, str]]:
    """Node -> function -> mark, the union of what all edges say.

    Where edges differ, a mark with a name wins over one without.
    """
    found: dict[str, dict[str, str]] = {}
    for name in sorted(states):
        edge = (states[name] or {}).get("edge") or {}
        for item in edge.get("destinations") or ():
            if item["drain"] is None or item["set"] not in SETS:
                continue
            of_node = found.setdefault(str(item["name"]), {})
            function = SETS[item["set"]]
            of_node[function] = of_node.get(function) or str(item["drain"])
    return found


def waiting(state: State, services: Sequence[str] = ()) -> list[str]:
    """Services of a server that wait for a restart, in the order to restart them."""
    found = {
        each["name"]
        for each in state.get("services") or ()
        if each["waits_for_package"] or each["waits_for_configuration"]
    }
    return [name for name in RESTART_ORDER if name in found and (not services or name in services)]


def out_of_service(name: str, function: str, state: State | None, marks: Mapping[str, str]) -> str:
    """Why a node does not serve a function, empty when it does."""
    if state is None:
        return "not reached"
    if function in marks:
        return f"drained by '{marks[function] or 'somebody unknown'}'"
    part = state.get(function) or {}
    if part.get("error"):
        return str(part["error"])
    if function == "edge" and not part.get("ready"):
        return f"not ready ({part.get('answer', 'no answer')})"
    if function == "database" and part.get("complaint"):
        return str(part["complaint"])
    return ""


def decide(
    intention: Intention,
    functions: Mapping[str, Sequence[str]],
    states: Mapping[str, State | None],
    tiers: Mapping[str, Mapping[str, t.Any]],
    relays: Mapping[str, str] | None = None,
) -> Decision:
    """Membership and order of a run, or why there is none.

    C(functions) are the functions of each server, C(tiers) what the plan says each function
    carries: C(needed) nodes carry C(carries) calls. C(relays) are the addresses of relays that
    may be at another server, by the one that is their home.
    """
    decision = Decision()
    marks = drains(states)
    intention = replace(intention, nodes=_named(intention.nodes, functions))
    _check_words(decision, intention, functions)
    if decision.refusals:
        return decision
    _check_others(decision, intention, marks)
    wanted = _membership(decision, intention, functions, states, marks)
    for name in wanted:
        state = states[name]
        if state is None:
            decision.refusals.append(
                f"{name} is not reached: mend it first, or name the other servers with "
                "rollout_nodes"
            )
            continue
        _take(decision, intention, name, functions[name], state, marks.get(name, {}))
    _check_guests(decision, states, relays or {})
    _check_room(decision, intention, functions, states, tiers, marks)
    decision.order.sort(key=lambda name: _rank(name, decision, states))
    if decision.refusals:
        decision.order = []
    return decision


def _named(names: Sequence[str], functions: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Servers by name; a function that is no server's name stands for all its servers."""
    found: list[str] = []
    for name in names:
        tier = name in TIERS and name not in functions
        found += [server for server in functions if name in functions[server]] if tier else [name]
    return tuple(dict.fromkeys(found))


def _check_words(
    decision: Decision, intention: Intention, functions: Mapping[str, Sequence[str]]
) -> None:
    if intention.action not in ACTIONS:
        decision.refusals.append(f"the action is one of {', '.join(ACTIONS)}")
    if intention.action != "drain" and not RUN_ID.match(intention.run_id):
        decision.refusals.append(
            f"'{intention.run_id}' is no run: it looks like 20261121T064500, as an interrupted run "
            "has printed it and status.yml shows it"
        )
    strange = sorted(set(intention.nodes) - set(functions))
    if strange:
        decision.refusals.append(
            f"{', '.join(strange)} is no server of this cluster; it has {', '.join(functions)}"
        )
    strange = sorted(set(intention.services) - set(FUNCTIONS_OF))
    if strange:
        decision.refusals.append(
            f"{', '.join(strange)} is no service that a run restarts; those are "
            f"{', '.join(RESTART_ORDER)}"
        )


def _check_others(
    decision: Decision, intention: Intention, marks: Mapping[str, Mapping[str, str]]
) -> None:
    """Another run's marks anywhere: two at once would each count on what the other takes."""
    others: dict[str, list[str]] = {}
    for name, of_node in marks.items():
        for mark in set(of_node.values()):
            reason, run_id = split_mark(mark)
            if reason in LOCKS and run_id != intention.run_id:
                others.setdefault(mark, []).append(name)
    for mark, names in sorted(others.items()):
        reason, run_id = split_mark(mark)
        decision.refusals.append(
            f"run {run_id} ({reason}) has {', '.join(sorted(names))}: it is under way or was "
            f"interrupted. If the latter, continue it with {reason}.yml -e rollout_run={run_id}"
        )


def _membership(
    decision: Decision,
    intention: Intention,
    functions: Mapping[str, Sequence[str]],
    states: Mapping[str, State | None],
    marks: Mapping[str, Mapping[str, str]],
) -> list[str]:
    own = intention.mark
    decision.resumed = sorted(
        name for name, of_node in marks.items() if own in of_node.values() and name in functions
    )
    found = []
    for name in functions:
        if intention.nodes and name not in intention.nodes and name not in decision.resumed:
            continue
        state = states[name]
        if (state or {}).get("done") == own and name not in decision.resumed:
            decision.remarks.append(f"{name}: done in this run")
            continue
        needs = (
            state is None
            or intention.everything
            or name in decision.resumed
            or bool(waiting(state, intention.services))
        )
        if needs:
            found.append(name)
        else:
            decision.remarks.append(f"{name}: nothing waits")
    return found


def _take(
    decision: Decision,
    intention: Intention,
    name: str,
    functions: Sequence[str],
    state: State,
    marks: Mapping[str, str],
) -> None:
    own = intention.mark
    foreign = sorted({mark for mark in marks.values() if mark != own})
    if foreign:
        decision.refusals.append(
            f"{name} is drained by {', '.join(repr(mark) for mark in foreign)}: undrain it first, "
            "or name the other servers with rollout_nodes"
        )
        return
    services = waiting(state, intention.services)
    drained = [
        function
        for function in TIERS
        if function in functions
        and (intention.everything or any(function in FUNCTIONS_OF[each] for each in services))
    ]
    decision.order.append(name)
    decision.tiers[name] = max((f for f in functions if f in TIERS), key=TIERS.index)
    decision.services[name] = services
    of_traffic = set(intention.functions or SETS.values())
    decision.drains[name] = sorted({*drained, *marks} & of_traffic, key=TIERS.index)


def _check_guests(
    decision: Decision, states: Mapping[str, State | None], relays: Mapping[str, str]
) -> None:
    """Another server's relay would have to move with its calls."""
    homes = {address: home for home, address in relays.items()}
    for name in decision.order:
        if "media" not in decision.drains[name]:
            continue
        for address in ((states[name] or {}).get("media") or {}).get("addresses") or ():
            home = homes.get(address, name)
            if home != name:
                decision.refusals.append(
                    f"{name} has the relay of {home} as a guest: let it go home first, with "
                    f"drain.yml -e node={home} -e functions=media -e reason=home, then undrain.yml "
                    f"-e node={home}"
                )


def _check_room(
    decision: Decision,
    intention: Intention,
    functions: Mapping[str, Sequence[str]],
    states: Mapping[str, State | None],
    tiers: Mapping[str, Mapping[str, t.Any]],
    marks: Mapping[str, Mapping[str, str]],
) -> None:
    """With any one of the chosen out, the others must carry the calls that there are."""
    calls = {
        "pbx": sum(_count(state, "pbx", "calls") for state in states.values()),
        # A call between phones is two sessions.
        "media": (sum(_count(state, "media", "sessions") for state in states.values()) + 1) // 2,
        "edge": 0,
    }
    for function in ("pbx", "media", "edge", "database"):
        members = [name for name in functions if function in functions[name]]
        chosen = [
            name
            for name in decision.order
            if function in functions[name]
            and (
                function in decision.drains[name]
                or (function == "database" and not intention.functions)
            )
        ]
        if not chosen:
            continue
        out = {
            name: why
            for name in members
            if (why := out_of_service(name, function, states[name], marks.get(name, {})))
            and name not in decision.resumed
        }
        told = "; ".join(f"{name}: {why}" for name, why in sorted(out.items()))
        if function == "database":
            if out:
                decision.refusals.append(
                    f"the database is not whole ({told}): no other member is taken before it is"
                )
            continue
        left = min(
            len([other for other in members if other not in out and other != name])
            for name in chosen
        )
        if not left:
            decision.refusals.append(
                f"without {' or '.join(sorted(chosen))} no {function} node would be left"
                + (f" ({told})" if told else "")
            )
            continue
        tier = tiers.get(function) or {}
        each = float(tier.get("carries") or 0) / max(int(tier.get("needed") or 1), 1)
        if each and each * left < calls[function] * ROOM:
            decision.refusals.append(
                f"{left} {function} node{'s' if left > 1 else ''} would be left, which carry "
                f"{each * left:.0f} calls, and {calls[function]} are up"
                + (f" ({told})" if told else "")
                + ": wait for a quieter hour"
            )


def _count(state: State | None, function: str, what: str) -> int:
    return int(((state or {}).get(function) or {}).get(what) or 0)


def _rank(
    name: str, decision: Decision, states: Mapping[str, State | None]
) -> tuple[int, int, int, int, str]:
    """Interrupted ones first, then tier by tier; who holds the addresses or the writes comes last
    among its own kind, so that both move once."""
    state = states[name] or {}
    primary = (state.get("database") or {}).get("role") in ("primary", "master", "leader")
    return (
        0 if name in decision.resumed else 1,
        TIERS.index(decision.tiers[name]),
        1 if state.get("addresses") else 0,
        1 if primary else 0,
        name,
    )
