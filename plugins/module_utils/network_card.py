# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a network card spreads many small UDP packets over a server's cores.

Media is a flood of packets of 200 bytes. What limits it first is one core that takes all packets
of a card: because the card has one queue, or because its hash leaves out UDP's ports, so that all
streams between two relays share a queue. And packets are dropped when a ring is too short for the
time until that core gets round to it.

A card is described by plain data, as C(tune.py) of the role ringmain.voip.host reads it; here
stands what it should be. The role copies this file to its hosts: nothing but Python is needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

HASH_ADDRESSES_AND_PORTS = 0xF0
"""Source, destination and both ports; what ethtool calls sdfn."""

QUEUE_INTERRUPT = re.compile(
    r"(?:txrx|rx|tx|input|output|comp|queue|fp)[-_.@ ]?(\d+)", re.IGNORECASE
)


@dataclass(frozen=True)
class Limit:
    """Something of which a card has a number, and can have up to a maximum."""

    now: int
    maximum: int


@dataclass(frozen=True)
class Card:
    """A card as it is. What its driver does not offer is missing.

    C(rings) and C(channels) are by ethtool's names (rx, tx, combined); C(hashes) by flow (udp4,
    udp6); C(packet_steering) has each receive queue's mask of cores; C(interrupts) has, by number,
    what C(/proc/interrupts) calls it and the cores it may go to.
    """

    name: str
    rings: dict[str, Limit] = field(default_factory=dict)
    channels: dict[str, Limit] = field(default_factory=dict)
    hashes: dict[str, int] = field(default_factory=dict)
    packet_steering: dict[str, int] = field(default_factory=dict)
    interrupts: dict[int, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """Something to set: C(kind) and C(item) say what, C(resets) that the card drops its link."""

    card: str
    kind: str  # ring, channels, hash, steering, interrupt
    item: str
    found: str
    wanted: str
    resets: bool = False

    def __str__(self) -> str:
        return f"{self.card}: {self.kind} {self.item} {self.found} -> {self.wanted}"


def queues_and_rings(card: Card, cores: int) -> list[Setting]:
    """The longest rings, and a queue for each core as far as the card has them.

    Comes first: afterwards a card has other queues and interrupts.
    """
    found = [
        Setting(card.name, "ring", name, str(ring.now), str(ring.maximum), resets=True)
        for name, ring in sorted(card.rings.items())
        if ring.now < ring.maximum
    ]
    for name, channel in sorted(card.channels.items()):
        wanted = min(channel.maximum, cores)
        if channel.now < wanted:
            found.append(
                Setting(card.name, "channels", name, str(channel.now), str(wanted), resets=True)
            )
    return found


def spreading(card: Card, cores: int) -> list[Setting]:
    """Which packet goes to which core."""
    if cores == 1:
        return []
    if len(card.packet_steering) == 1:
        # One queue, one interrupt, one core: that core hands the packets on to the others.
        every_core = (1 << cores) - 1
        queue, mask = next(iter(card.packet_steering.items()))
        if mask == every_core:
            return []
        return [Setting(card.name, "steering", queue, f"{mask:x}", f"{every_core:x}")]
    found = [
        Setting(card.name, "hash", flow, f"{now:#x}", f"{HASH_ADDRESSES_AND_PORTS:#x}")
        for flow, now in sorted(card.hashes.items())
        if now != HASH_ADDRESSES_AND_PORTS
    ]
    for number, (name, now) in sorted(card.interrupts.items()):
        queue_number = QUEUE_INTERRUPT.search(name)
        if queue_number:
            core = str(int(queue_number[1]) % cores)
            if now != core:
                found.append(Setting(card.name, "interrupt", str(number), now, core))
    return found


def mask_of(text: str) -> int:
    """A mask of cores as the kernel writes it, C(00000000,0000000f)."""
    return int(text.strip().replace(",", "") or "0", 16)


def text_of_mask(mask: int) -> str:
    """A mask of cores as the kernel reads it: groups of 32 cores."""
    groups = []
    while True:
        groups.append(f"{mask & 0xFFFFFFFF:08x}")
        mask >>= 32
        if not mask:
            return ",".join(reversed(groups))
