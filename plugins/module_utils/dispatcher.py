# Copyright (c) Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kamailio's dispatcher list: what it says, what it should say, and whether a process agrees.

A destination is drained when it has the attribute C(drain=REASON:RUN-ID) and the flag 4. The list
is where this is kept: whoever writes it leaves these two alone, and a reload brings them back.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field

DISABLED = 4
"""Flag of a destination that gets no new calls, whatever its pings say."""

NO_PINGS = 32
"""Flag of a destination that is not asked whether it lives: one that does not speak SIP."""

SETS = {1: "pbx", 2: "media", 3: "edge"}
"""Sets of the list, and the function whose destinations and drains each of them holds."""

NAME = "duid"
"""Attribute with the node's name in the inventory."""

DRAIN = "drain"
"""Attribute that says who drained a destination, and why."""

LINE_LIMIT = 1023
"""Kamailio reads lines of at most this many bytes, and takes the rest for another line."""

HEADER = (
    "# Destinations: set, URI, flags, priority, attributes. Flag 4 and drain=... mark a drain.\n"
)

Marks = dict[str, dict[int, str]]
"""Name of a node -> set that it is drained in -> REASON:RUN-ID, empty when nobody says."""

_URI = re.compile(r"sips?:[^\s#]+\Z")
_NAME = re.compile(r"[A-Za-z0-9_]+\Z")
_VALUE = re.compile(r"[^\s;#]*\Z")


class DispatcherError(Exception):
    """A list, or a wish for one, that cannot be."""


@dataclass(frozen=True)
class Destination:
    """One line of the list.

    C(flags) is a sum of 1 (inactive), 2 (trying), 4 (disabled), 8 (probing), 16 (its name is not
    resolved), 32 (no pings); C(priority) counts upwards; C(attrs) keeps its order.
    """

    set_id: int
    uri: str
    flags: int = 0
    priority: int = 0
    attrs: tuple[tuple[str, str], ...] = field(default=())

    @property
    def drained(self) -> str | None:
        """REASON:RUN-ID of a drained destination, an empty text when nobody says, else None."""
        value = dict(self.attrs).get(DRAIN)
        if value is not None:
            return value
        return "" if self.flags & DISABLED else None

    @property
    def name(self) -> str:
        """The node's name in the inventory, its URI where the list does not say."""
        return dict(self.attrs).get(NAME) or self.uri

    @property
    def body(self) -> str:
        """The attributes as Kamailio writes them."""
        return ";".join(f"{name}={value}" for name, value in self.attrs)


def parse_attrs(text: str, where: str) -> tuple[tuple[str, str], ...]:
    """Attributes of a line. Raises DispatcherError for what Kamailio would not read either."""
    attrs = []
    for part in text.split(";"):
        if not part:
            continue
        name, equals, value = part.partition("=")
        if not equals or not _NAME.match(name):
            raise DispatcherError(f"{where}: '{part}' is not NAME=VALUE")
        attrs.append((name, value))
    return tuple(attrs)


def parse(text: str) -> list[Destination]:
    """Destinations of a list file, in its order. Raises DispatcherError with the line."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"line {number}"
        for index, word in enumerate(words):
            if word.startswith("#"):
                words = words[:index]
                break
        if not 2 <= len(words) <= 5:
            raise DispatcherError(f"{where}: '{line.strip()}' is not SET URI FLAGS PRIORITY ATTRS")
        numbers = [words[0], *words[2:4]]
        if not all(word.isascii() and word.isdigit() for word in numbers):
            raise DispatcherError(f"{where}: set, flags and priority are numbers")
        if not _URI.match(words[1]):
            raise DispatcherError(f"{where}: '{words[1]}' is not a SIP URI")
        found.append(
            Destination(
                set_id=int(words[0]),
                uri=words[1],
                flags=int(words[2]) if len(words) > 2 else 0,
                priority=int(words[3]) if len(words) > 3 else 0,
                attrs=parse_attrs(words[4], where) if len(words) > 4 else (),
            )
        )
    return found


def render(destinations: t.Iterable[Destination]) -> str:
    """The list file for C(destinations). Raises DispatcherError for a line that is too long."""
    lines = [HEADER]
    for item in destinations:
        words = [str(item.set_id), item.uri, str(item.flags), str(item.priority)]
        if item.attrs:
            words.append(item.body)
        line = " ".join(words) + "\n"
        if len(line.encode()) > LINE_LIMIT:
            raise DispatcherError(f"{item.uri}: its line is longer than {LINE_LIMIT} bytes")
        lines.append(line)
    return "".join(lines)


def wish(set_id: int, items: t.Iterable[t.Mapping[str, t.Any]]) -> list[Destination]:
    """Destinations of a set from plain data: C(uri), and if wanted C(flags), C(priority), C(attrs).

    Raises DispatcherError for a URI or attribute that cannot stand in a list, for a duplicate, and
    for a drain: that is not a wish of the configuration.
    """
    if set_id < 0:
        raise DispatcherError(f"set {set_id}: sets are numbered from 0")
    wanted: dict[str, Destination] = {}
    for item in items:
        uri = str(item["uri"])
        if not _URI.match(uri):
            raise DispatcherError(f"'{uri}' is not a SIP URI")
        if uri in wanted:
            raise DispatcherError(f"{uri} stands twice in set {set_id}")
        flags = int(item.get("flags") or 0)
        if not 0 <= flags <= 63:
            raise DispatcherError(f"{uri}: flags are a sum of 1, 2, 8, 16 and 32, not {flags}")
        attrs = dict(item.get("attrs") or {})
        if flags & DISABLED or DRAIN in attrs:
            raise DispatcherError(f"{uri}: a drain is set by draining, not by configuration")
        for name, value in attrs.items():
            if not _NAME.match(str(name)) or not _VALUE.match(str(value)):
                raise DispatcherError(f"{uri}: '{name}={value}' cannot stand in a list")
        wanted[uri] = Destination(
            set_id=set_id,
            uri=uri,
            flags=flags,
            priority=int(item.get("priority") or 0),
            attrs=tuple((str(name), str(value)) for name, value in attrs.items()),
        )
    return list(wanted.values())


def merge(
    current: t.Iterable[Destination],
    set_id: int,
    wanted: t.Iterable[Destination],
    newcomers: str = "",
) -> list[Destination]:
    """The list with set C(set_id) as C(wanted), what is drained there still drained.

    Other sets stay as they are and where they are. Within the set the order is that of C(wanted).
    With a mark for C(newcomers), who joins a set that there was is drained under it.
    """
    current = list(current)
    known = {item.uri for item in current if item.set_id == set_id}
    marks = {
        item.uri: item.drained
        for item in current
        if item.set_id == set_id and item.drained is not None
    }
    replaced = []
    for item in wanted:
        mark = marks.get(item.uri)
        if newcomers and known and item.uri not in known:
            mark = newcomers
        if mark is not None:
            attrs = item.attrs + (((DRAIN, mark),) if mark else ())
            item = Destination(set_id, item.uri, item.flags | DISABLED, item.priority, attrs)
        replaced.append(item)
    merged: list[Destination] = []
    placed = False
    for item in current:
        if item.set_id != set_id:
            merged.append(item)
        elif not placed:
            merged.extend(replaced)
            placed = True
    return merged if placed else merged + replaced


def marks(listed: t.Iterable[Destination]) -> Marks:
    """Who is drained in which sets, and what the marks say."""
    found: Marks = {}
    for item in listed:
        if item.drained is not None:
            found.setdefault(item.name, {})[item.set_id] = item.drained
    return found


def make_mark(reason: str, run_id: str) -> str:
    """The mark of a drain. Raises DispatcherError for what cannot stand in one."""
    for what, text in (("reason", reason), ("run", run_id)):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", text):
            raise DispatcherError(
                f"the {what} of a drain is letters, digits, '-', '_' and '.', not '{text}'"
            )
    return f"{reason}:{run_id}"


def _chosen(
    listed: t.Sequence[Destination], nodes: t.Collection[str], sets: t.Collection[int]
) -> list[Destination]:
    """The destinations of nodes, in all sets or some. Raises DispatcherError for a strange name."""
    missing = sorted(set(nodes) - {item.name for item in listed})
    if missing:
        known = ", ".join(sorted({item.name for item in listed})) or "nobody"
        raise DispatcherError(f"{', '.join(missing)} is not in the list; it has {known}")
    return [item for item in listed if item.name in nodes and (not sets or item.set_id in sets)]


def drain(
    listed: t.Iterable[Destination],
    nodes: t.Collection[str],
    mark: str,
    sets: t.Collection[int] = (),
) -> list[Destination]:
    """The list with nodes drained under a mark, in all their sets or in some.

    Raises DispatcherError for a node that is not in the list, and for one under another mark:
    whoever drained it counts on it.
    """
    listed = list(listed)
    chosen = _chosen(listed, nodes, sets)
    for item in chosen:
        if item.drained not in (None, mark):
            raise DispatcherError(
                f"{item.name} is drained already, by '{item.drained or 'somebody unknown'}'"
            )
    return [
        Destination(
            item.set_id,
            item.uri,
            item.flags | DISABLED,
            item.priority,
            (*(pair for pair in item.attrs if pair[0] != DRAIN), (DRAIN, mark)),
        )
        if item in chosen
        else item
        for item in listed
    ]


def undrain(
    listed: t.Iterable[Destination],
    nodes: t.Collection[str],
    mark: str | None = None,
    sets: t.Collection[int] = (),
) -> list[Destination]:
    """The list with nodes in traffic again, in all their sets or in some.

    With C(mark) only a drain under this one is taken back. Raises DispatcherError for one under
    another, and for a node that is not in the list.
    """
    listed = list(listed)
    chosen = [item for item in _chosen(listed, nodes, sets) if item.drained is not None]
    for item in chosen:
        if mark is not None and item.drained != mark:
            raise DispatcherError(
                f"{item.name} is drained by '{item.drained or 'somebody unknown'}', not by '{mark}'"
            )
    return [
        Destination(
            item.set_id,
            item.uri,
            item.flags & ~DISABLED,
            item.priority,
            tuple(pair for pair in item.attrs if pair[0] != DRAIN),
        )
        if item in chosen
        else item
        for item in listed
    ]


def parse_process(answer: t.Mapping[str, t.Any]) -> list[Destination]:
    """Destinations as C(dispatcher.list) of a running Kamailio reports them.

    Of the flags only DISABLED is taken over: the others follow pings and calls by themselves.
    Raises DispatcherError when the answer has another shape.
    """
    found = []
    try:
        for record in answer.get("RECORDS") or []:
            for target in record["SET"]["TARGETS"]:
                dest = target["DEST"]
                body = str((dest.get("ATTRS") or {}).get("BODY") or "")
                found.append(
                    Destination(
                        set_id=int(record["SET"]["ID"]),
                        uri=str(dest["URI"]),
                        flags=DISABLED if str(dest["FLAGS"]).startswith("D") else 0,
                        priority=int(dest["PRIORITY"]),
                        attrs=parse_attrs(body, str(dest["URI"])),
                    )
                )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DispatcherError(
            f"the answer to dispatcher.list is not understood: {error!r}"
        ) from error
    return found


def differences(listed: t.Iterable[Destination], running: t.Iterable[Destination]) -> list[str]:
    """What a running process has otherwise than the list, one sentence each."""

    def index(items: t.Iterable[Destination]) -> dict[tuple[int, str], Destination]:
        return {(item.set_id, item.uri): item for item in items}

    wanted, found = index(listed), index(running)
    said = []
    for key in sorted(wanted.keys() | found.keys()):
        name = f"set {key[0]}: {key[1]}"
        if key not in found:
            said.append(f"{name} is listed and not in the process")
        elif key not in wanted:
            said.append(f"{name} is in the process and not listed")
        else:
            one, other = wanted[key], found[key]
            if dict(one.attrs) != dict(other.attrs):
                said.append(f"{name} has attributes '{other.body}' instead of '{one.body}'")
            if one.priority != other.priority:
                said.append(f"{name} has priority {other.priority} instead of {one.priority}")
            if (one.flags ^ other.flags) & DISABLED:
                state = "disabled" if other.flags & DISABLED else "not disabled"
                said.append(f"{name} is {state} in the process")
    return said


def number(address: str) -> str:
    """The last three numbers of an IPv4 address as one: it fits in Kamailio's 31 bits."""
    parts = address.split(".")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() for part in parts):
        raise DispatcherError(f"'{address}' is not an IPv4 address")
    return str(int("".join(f"{int(part):03d}" for part in parts[1:])))


def make_set(
    members: t.Iterable[t.Mapping[str, t.Any]],
    port: int,
    transport: str = "udp",
    pinged: bool = True,
) -> list[dict[str, t.Any]]:
    """Wishes for one set from cluster members: C(name), C(address), and if wanted C(weight).

    Weights are any positive numbers, cores for example. The heaviest member gets rweight 100, the
    others their share of it, at least 1: Kamailio's relative weights go from 1 to 100. The
    attribute C(number) is made of the address and stays when others come and go. Members that do
    not speak SIP are not C(pinged). Raises DispatcherError for a member without name or IPv4
    address and for a weight that is not positive.
    """
    members = list(members)
    if transport not in ("udp", "tcp"):
        raise DispatcherError(f"transport '{transport}' is neither udp nor tcp")
    weights = []
    for member in members:
        if not member.get("name") or not member.get("address"):
            raise DispatcherError(f"a member needs a name and an address, not {dict(member)}")
        number(str(member["address"]))
        weight = float(1 if member.get("weight") is None else member["weight"])
        if weight <= 0:
            raise DispatcherError(f"{member['name']}: the weight {weight:g} is not positive")
        weights.append(weight)
    heaviest = max(weights, default=1.0)
    suffix = "" if transport == "udp" else f";transport={transport}"
    return [
        {
            "uri": f"sip:{member['address']}:{int(port)}{suffix}",
            "flags": 0 if pinged else NO_PINGS,
            "priority": 0,
            "attrs": {
                NAME: str(member["name"]),
                "rweight": str(max(1, round(100 * weight / heaviest))),
                "number": number(str(member["address"])),
            },
        }
        for member, weight in zip(members, weights, strict=True)
    ]
