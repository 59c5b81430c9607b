# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a network card should be set to, by what its driver offers."""

from __future__ import annotations

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import network_card
from ansible_collections.ringmain.voip.plugins.module_utils.network_card import Card, Limit

SERVER_CARD = Card(
    name="eno1",
    rings={"rx": Limit(512, 4096), "tx": Limit(4096, 4096)},
    channels={"combined": Limit(2, 63)},
    hashes={"udp4": 0x30, "udp6": 0xF0},
    packet_steering={"rx-0": 0, "rx-1": 0},
    interrupts={
        120: ("eno1-TxRx-0", "0-7"),
        121: ("eno1-TxRx-1", "1"),
        130: ("eno1-TxRx-9", "0-7"),
        131: ("eno1", "0-7"),
    },
)
GUEST_CARD = Card(
    name="ens3",
    rings={"rx": Limit(256, 256)},
    channels={"combined": Limit(1, 1)},
    hashes={"udp4": 0},
    packet_steering={"rx-0": 0},
    interrupts={38: ("virtio2-input.0", "0-1"), 39: ("virtio2-output.0", "0-1")},
)


def words(settings: list[network_card.Setting]) -> list[str]:
    """The settings in words, those first that drop the link marked."""
    return [f"{each}{' (resets)' if each.resets else ''}" for each in settings]


def test_rings_and_queues_as_far_as_the_card_has_them() -> None:
    assert words(network_card.queues_and_rings(SERVER_CARD, 8)) == [
        "eno1: ring rx 512 -> 4096 (resets)",
        "eno1: channels combined 2 -> 8 (resets)",
    ]
    assert network_card.queues_and_rings(GUEST_CARD, 8) == []


def test_streams_are_told_apart_by_ports_and_each_queue_has_a_core() -> None:
    """What somebody set so is left so; an interrupt that is no queue's is let be."""
    assert words(network_card.spreading(SERVER_CARD, 8)) == [
        "eno1: hash udp4 0x30 -> 0xf0",
        "eno1: interrupt 120 0-7 -> 0",
        "eno1: interrupt 130 0-7 -> 1",
    ]


def test_a_card_with_one_queue_hands_packets_on() -> None:
    """Its hash chooses among one queue, and its interrupt stays where the system has it."""
    assert words(network_card.spreading(GUEST_CARD, 4)) == ["ens3: steering rx-0 0 -> f"]


def test_a_server_with_one_core_has_nothing_to_spread() -> None:
    assert network_card.spreading(SERVER_CARD, 1) == []
    assert network_card.spreading(GUEST_CARD, 1) == []


def test_a_card_that_offers_nothing_is_left_alone() -> None:
    bare = Card(name="usb0")
    assert network_card.queues_and_rings(bare, 8) + network_card.spreading(bare, 8) == []


@pytest.mark.parametrize(
    ("text", "mask"), [("3\n", 3), ("00000000,0000000f\n", 15), ("00000001,00000000\n", 1 << 32)]
)
def test_masks_of_many_cores(text: str, mask: int) -> None:
    assert network_card.mask_of(text) == mask
    assert network_card.mask_of(network_card.text_of_mask(mask)) == mask
