# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Names, numbers, addresses and slots."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from ringmain_lab import names
from ringmain_lab.names import INSIDE, MACHINE, OUTSIDE, PROBE, SERVER, LabError, Member


@pytest.mark.parametrize("lab_id", ["demo", "a", "7", "run-2", "x" * 40])
def test_usable_ids(lab_id: str) -> None:
    """What can name a directory, a control group and a unit."""
    assert names.check_id(lab_id) == lab_id


@pytest.mark.parametrize("lab_id", ["", "-a", "Demo", "a.b", "a/b", "..", "x" * 41, "a b", "ä"])
def test_unusable_ids(lab_id: str) -> None:
    """A dot would make one lab's units look like another's; a slash would leave the directory."""
    with pytest.raises(LabError) as error:
        names.check_id(lab_id)
    assert str(error.value) == (
        f"lab id '{lab_id}' cannot be used: take up to 40 lower-case letters, digits and hyphens, "
        "the first one a letter or a digit"
    )


def test_members_of_the_default_lab() -> None:
    """The numbers at the end of the names count."""
    assert names.members(["srv1", "srv2", "srv3"], ["probe1"]) == [
        Member("srv1", SERVER, 1),
        Member("srv2", SERVER, 2),
        Member("srv3", SERVER, 3),
        Member("probe1", PROBE, 1),
    ]


def test_a_member_keeps_its_number_when_others_go() -> None:
    """Addresses must not move when a server is taken out."""
    assert names.members(["srv3", "srv1"], []) == [
        Member("srv3", SERVER, 3),
        Member("srv1", SERVER, 1),
    ]


def test_names_without_a_usable_number_fill_the_gaps() -> None:
    """The lowest free ones, whatever the order."""
    found = names.members(["edge", "srv1", "db", "x90", "y0"], ["phone"])
    assert [(m.name, m.number) for m in found] == [
        ("edge", 2),
        ("srv1", 1),
        ("db", 3),
        ("x90", 4),
        ("y0", 5),
        ("phone", 1),
    ]


@pytest.mark.parametrize(
    ("servers", "probes", "text"),
    [
        (
            [],
            [],
            "a lab needs at least one server: name them with --servers, --machines or --probes",
        ),
        (["a"], ["a"], "the name 'a' is given twice: every server needs its own"),
        (
            ["db1", "edge1"],
            [],
            "'db1' and 'edge1' end with the same number and would share their addresses: rename "
            "one of them",
        ),
        (
            ["Srv1"],
            [],
            "server name 'Srv1' cannot be a host name here: take up to 31 lower-case letters, "
            "digits and hyphens, the first one a letter",
        ),
        (
            [chr(97 + n // 26) + chr(97 + n % 26) for n in range(71)],
            [],
            "a lab holds at most 70 machines of kind server",
        ),
    ],
)
def test_members_that_cannot_be(servers: list[str], probes: list[str], text: str) -> None:
    """Each complaint says what to change."""
    with pytest.raises(LabError) as error:
        names.members(servers, probes)
    assert str(error.value) == text


def test_a_virtual_machine_is_a_server_with_addresses_of_its_own() -> None:
    """Machine K has .8K on both sides, so that it can stand beside server K."""
    server, machine = names.members(["srv1"], [], ["vm1"])
    assert machine == Member("vm1", MACHINE, 1)
    assert (machine.is_virtual, server.is_virtual) == (True, False)
    assert machine.networks == (OUTSIDE, INSIDE)
    assert names.member_address(3, OUTSIDE, machine) == "198.18.3.81"
    assert names.reach_address(3, machine) == "198.19.3.81"


def test_addresses() -> None:
    """Server K has .1K on both sides, probe K .10K outside."""
    server, probe = Member("srv2", SERVER, 2), Member("probe1", PROBE, 1)
    assert names.member_address(3, OUTSIDE, server) == "198.18.3.12"
    assert names.member_address(3, INSIDE, server) == "198.19.3.12"
    assert names.member_address(3, OUTSIDE, probe) == "198.18.3.101"
    assert server.networks == (OUTSIDE, INSIDE)
    assert probe.networks == (OUTSIDE,)
    assert names.reach_address(3, server) == "198.19.3.12"
    assert names.reach_address(3, probe) == "198.18.3.101"
    assert names.host_address(255, INSIDE, names.CACHE_HOST) == "198.19.255.2"


def test_no_two_machines_share_an_address_or_an_interface() -> None:
    """Over everything that a full lab, and all slots, can hold; names fit into 15 characters."""
    kinds = (SERVER, MACHINE, PROBE)
    everyone = [Member("", kind, k) for kind in kinds for k in (1, 2, names.MOST[kind])]
    pairs = [(slot, m, side) for slot in (0, 255) for m in everyone for side in m.networks]
    hardware = [names.hardware_address(slot, side, m) for slot, m, side in pairs]
    addresses = [names.member_address(slot, side, m) for slot, m, side in pairs]
    addresses += [
        names.host_address(slot, side, host)
        for slot in (0, 255)
        for side in names.NETWORKS
        for host in (names.MACHINE_HOST, names.CACHE_HOST, 10)
    ]
    interfaces = [names.machine_interface(s, side) for s in names.SLOTS for side in names.NETWORKS]
    ports = [names.port_name(side, m) for m in everyone for side in m.networks]
    for group in (hardware, addresses, interfaces, ports):
        assert len(set(group)) == len(group)
    assert max(map(len, interfaces + ports)) <= 15


def test_a_lab_keeps_its_slot() -> None:
    """Even though its own routes make that slot look taken."""
    assert names.choose_slot("b", {"a": 0, "b": 4}, [IPv4Network("198.18.4.0/24")]) == 4


@pytest.mark.parametrize(
    ("registry", "busy", "slot"),
    [
        ({}, [], 0),
        ({"a": 0, "b": 1, "c": 3}, [], 2),
        ({}, ["0.0.0.0/0", "10.0.0.0/8"], 0),
        # A machine that is a server of a lab itself: it stands in both networks of slot 0.
        ({}, ["198.18.0.0/24", "198.19.0.0/24"], 1),
        ({"a": 1}, ["198.19.0.0/24"], 2),
        ({}, ["198.18.0.128/25"], 1),
        ({}, ["198.18.0.0/16"], None),
    ],
)
def test_a_new_lab_gets_the_lowest_free_slot(
    registry: dict[str, int], busy: list[str], slot: int | None
) -> None:
    """Neither a lab's nor one whose networks the machine uses otherwise."""
    networks = [IPv4Network(text) for text in busy]
    if slot is None:
        with pytest.raises(LabError, match=r"^no slot is free for another lab"):
            names.choose_slot("new", registry, networks)
    else:
        assert names.choose_slot("new", registry, networks) == slot
