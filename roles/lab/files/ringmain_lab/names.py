# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Names, numbers and addresses of a lab: pure functions."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

OUTSIDE = "outside"
INSIDE = "inside"
NETWORKS = (OUTSIDE, INSIDE)
SERVER = "server"
PROBE = "probe"
MACHINE = "machine"
SLOTS = range(256)
PREFIX = {OUTSIDE: "198.18", INSIDE: "198.19"}
FIRST_HOST = {SERVER: 10, MACHINE: 80, PROBE: 100}
MOST = {SERVER: 70, MACHINE: 19, PROBE: 150}
MACHINE_HOST = 1
CACHE_HOST = 2
CACHE_PORT = 3142


class LabError(Exception):
    """Something an operator can act upon: the text says what is wrong and what to do next."""


@dataclass(frozen=True)
class Member:
    """One machine of the lab.

    `kind` is "server" (a container in both networks), "machine" (a virtual machine in both) or
    "probe" (a container in the outside network only).
    """

    name: str
    kind: str
    number: int

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks it stands in."""
        return (OUTSIDE,) if self.kind == PROBE else NETWORKS

    @property
    def is_virtual(self) -> bool:
        """Whether it has a kernel of its own."""
        return self.kind == MACHINE


def check_id(lab_id: str) -> str:
    """Return the id when it can name units, groups and directories; LabError otherwise."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", lab_id):
        raise LabError(
            f"lab id '{lab_id}' cannot be used: take up to 40 lower-case letters, digits and "
            "hyphens, the first one a letter or a digit"
        )
    return lab_id


def members(
    servers: Iterable[str], probes: Iterable[str], machines: Iterable[str] = ()
) -> list[Member]:
    """Give every name its number: the one its name ends with, else the lowest that is free.

    The number decides the addresses, so it stays the same when other servers come and go.
    """
    found: list[Member] = []
    seen: set[str] = set()
    kinds = ((SERVER, list(servers)), (MACHINE, list(machines)), (PROBE, list(probes)))
    for kind, names in kinds:
        taken: dict[int, str] = {}
        unnumbered: list[str] = []
        for name in names:
            if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
                raise LabError(
                    f"server name '{name}' cannot be a host name here: take up to 31 lower-case "
                    "letters, digits and hyphens, the first one a letter"
                )
            if name in seen:
                raise LabError(f"the name '{name}' is given twice: every server needs its own")
            seen.add(name)
            digits = re.search(r"[0-9]+$", name)
            number = int(digits.group()) if digits else 0
            if not 1 <= number <= MOST[kind]:
                unnumbered.append(name)
            elif number in taken:
                raise LabError(
                    f"'{taken[number]}' and '{name}' end with the same number and would share "
                    "their addresses: rename one of them"
                )
            else:
                taken[number] = name
        for name in unnumbered:
            free = next((n for n in range(1, MOST[kind] + 1) if n not in taken), None)
            if free is None:
                raise LabError(f"a lab holds at most {MOST[kind]} machines of kind {kind}")
            taken[free] = name
        by_name = {name: number for number, name in taken.items()}
        found.extend(Member(name, kind, by_name[name]) for name in names)
    if not found:
        raise LabError(
            "a lab needs at least one server: name them with --servers, --machines or --probes"
        )
    return found


def network(slot: int, side: str) -> ipaddress.IPv4Network:
    """The network of one side ("outside" or "inside") of the lab in this slot."""
    return ipaddress.IPv4Network(f"{PREFIX[side]}.{slot}.0/24")


def host_address(slot: int, side: str, host: int) -> str:
    """Address number `host` in one of the lab's networks."""
    return str(network(slot, side)[host])


def member_address(slot: int, side: str, member: Member) -> str:
    """The member's address there: server K has .1K (11, 12, …), machine K .8K, probe K .10K."""
    return host_address(slot, side, FIRST_HOST[member.kind] + member.number)


def reach_address(slot: int, member: Member) -> str:
    """Where the machine reaches the member: inside where it stands there, else outside."""
    return member_address(slot, member.networks[-1], member)


def hardware_address(slot: int, side: str, member: Member) -> str:
    """A locally administered MAC address, the same at every start."""
    host = FIRST_HOST[member.kind] + member.number
    return f"02:52:4d:{NETWORKS.index(side):02x}:{slot:02x}:{host:02x}"


def machine_interface(slot: int, side: str) -> str:
    """The machine's own interface in one of the lab's networks (15 characters are the limit)."""
    return f"rm{slot}-{side}"


def port_name(side: str, member: Member) -> str:
    """The member's port at the bridge, a name in the lab's own network namespace."""
    return f"{member.kind[0]}{member.number}-{side}"


def choose_slot(
    lab_id: str, registry: Mapping[str, int], busy: Iterable[ipaddress.IPv4Network]
) -> int:
    """The slot this lab already has, else the lowest one that neither a lab nor a route uses.

    Parameters:
        registry: slots of the known labs by id.
        busy: networks that the machine already has addresses in or routes to.
    """
    if lab_id in registry:
        return registry[lab_id]
    used = set(registry.values())
    # A default route covers everything and stands in nobody's way.
    others = [net for net in busy if net.prefixlen > 0]
    for slot in SLOTS:
        if slot in used:
            continue
        if any(network(slot, side).overlaps(net) for side in NETWORKS for net in others):
            continue
        return slot
    raise LabError("no slot is free for another lab: take one down with 'lab.py --id ID down'")
