# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The contract: each mistake in the inputs has one exact text; what is right becomes the plan."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ringmain.voip.plugins.module_utils import capacity, contract

COMMAND = "ansible-playbook -i my-cluster ringmain.voip.secrets"


class Cluster:
    """A cluster without mistakes, for a test to make one in."""

    def __init__(self, root: Path) -> None:
        defaults = yaml.safe_load((root / "roles/ringmain/defaults/main.yml").read_text())
        self.inputs: dict[str, Any] = {
            **{name: value for name, value in defaults.items() if value and "{{" not in str(value)},
            "ringmain_domain": "voice.example.com",
            "ringmain_outside_network": "203.0.113.0/24",
            "ringmain_outside_ip": "203.0.113.10",
            "ringmain_inside_network": "10.20.0.0/24",
            "ringmain_inside_ip": "10.20.0.10",
            "ringmain_peak_calls": 200,
            "ringmain_peak_cps": 5,
            "ringmain_registrations": 1000,
            "ringmain_tenants": [
                {"name": "acme"},
                {"name": "globex", "domain": "sip.globex.example"},
            ],
            "ringmain_subscribers": [
                {"tenant": "acme", "extension": "1001", "name": "Ada", "voicemail": True},
                {"tenant": "acme", "extension": "1002"},
                {"tenant": "globex", "extension": "1001", "name": "Cy"},
            ],
            "ringmain_numbers": [{"number": "49301001", "tenant": "acme", "extension": "1001"}],
            "ringmain_services": [{"tenant": "acme", "dialled": "*43", "kind": "echo"}],
        }
        self.hosts: dict[str, dict[str, Any]] = {
            f"srv{number}": {
                "ringmain_address": f"10.20.0.1{number}",
                "ringmain_outside_address": f"203.0.113.1{number}",
                "ringmain_cores": 8,
                "ringmain_memory_mb": 16384,
            }
            for number in (1, 2, 3)
        }
        self.hosts["probe1"] = {}
        servers = ["srv1", "srv2", "srv3"]
        self.members: dict[str, list[str]] = {
            function: list(servers) for function in contract.SERVER_FUNCTIONS
        }
        self.members["probes"] = ["probe1"]
        self.secrets: dict[str, Any] = {
            "ca_key": "k",
            "ca_certificate": "c",
            **dict.fromkeys(contract.PASSWORDS, "p"),
            "subscribers": dict.fromkeys(
                ("1001@acme", "1002@acme", "1001@globex", "901@verify", "902@verify"), "p"
            ),
            "voicemail_pins": {"1001@acme": "123456"},
        }

    def errors(self) -> list[str]:
        """What the contract says of it."""
        return contract.cluster_errors(self.inputs, self.hosts, self.members, self.secrets, COMMAND)


@pytest.fixture
def cluster(root: Path) -> Cluster:
    """One without mistakes."""
    return Cluster(root)


def test_a_right_cluster_has_no_errors(cluster: Cluster) -> None:
    assert cluster.errors() == []


INPUT_ERRORS: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"ringmain_domain": ""},
        [
            "ringmain_domain is not set: name the SIP domain below which the tenants live, "
            "for example voice.example.com"
        ],
    ),
    (
        {"ringmain_domain": "voice_1.example.com"},
        [
            "ringmain_domain 'voice_1.example.com' is no domain name: "
            "use one such as voice.example.com"
        ],
    ),
    (
        {"ringmain_domain": "localhost"},
        ["ringmain_domain 'localhost' is no domain name: use one such as voice.example.com"],
    ),
    # networks
    (
        {"ringmain_outside_network": ""},
        [
            "ringmain_outside_network is not set: give the outside network in CIDR notation, "
            "for example 203.0.113.0/24"
        ],
    ),
    (
        {"ringmain_inside_network": "10.20.0.1/24"},
        [
            "ringmain_inside_network '10.20.0.1/24' is no IPv4 network in CIDR notation without "
            "host bits, such as 203.0.113.0/24"
        ],
    ),
    (
        {"ringmain_inside_network": "10.20.0.0/23", "ringmain_outside_network": "10.20.1.0/24"},
        [
            "ringmain_outside_network 10.20.1.0/24 and ringmain_inside_network 10.20.0.0/23 "
            "overlap: make them two separate networks, or one and the same",
            "ringmain_outside_ip 203.0.113.10 lies outside ringmain_outside_network 10.20.1.0/24: "
            "choose a free address of that network",
            *(
                f"host srv{n}: ringmain_outside_address 203.0.113.1{n} lies outside "
                "ringmain_outside_network 10.20.1.0/24: correct one of them"
                for n in (1, 2, 3)
            ),
        ],
    ),
    # floating addresses
    (
        {"ringmain_outside_ip": ""},
        [
            "ringmain_outside_ip is not set: choose a free address of "
            "ringmain_outside_network 203.0.113.0/24; it floats between the edges"
        ],
    ),
    (
        {"ringmain_inside_ip": "10.20.0"},
        [
            "ringmain_inside_ip '10.20.0' is no IPv4 address: "
            "choose a free address of ringmain_inside_network 10.20.0.0/24"
        ],
    ),
    (
        {"ringmain_inside_ip": "10.21.0.10"},
        [
            "ringmain_inside_ip 10.21.0.10 lies outside ringmain_inside_network 10.20.0.0/24: "
            "choose a free address of that network"
        ],
    ),
    (
        {"ringmain_inside_ip": "10.20.0.255"},
        [
            "ringmain_inside_ip 10.20.0.255 is the network or broadcast address of "
            "ringmain_inside_network 10.20.0.0/24: choose a free address between them"
        ],
    ),
    (
        {"ringmain_outside_ip": "203.0.113.12"},
        [
            "ringmain_outside_ip 203.0.113.12 is the address of host srv2: "
            "choose a free address, it floats between the edges"
        ],
    ),
    # figures
    (
        {"ringmain_peak_calls": 0},
        [
            "ringmain_peak_calls is 0: say how many calls at once the cluster must carry at its "
            "busiest, as a positive whole number"
        ],
    ),
    (
        {"ringmain_peak_cps": -1},
        [
            "ringmain_peak_cps is -1: say how many new calls per second come at the busiest, "
            "as a positive whole number"
        ],
    ),
    (
        {"ringmain_registrations": "many"},
        [
            "ringmain_registrations is 'many': say how many phones are registered at most, "
            "as a positive whole number"
        ],
    ),
    (
        {"ringmain_peak_calls": None},
        [
            "ringmain_peak_calls is not set: say how many calls at once the cluster must carry at "
            "its busiest, as a positive whole number"
        ],
    ),
    (
        {"ringmain_peak_calls": True},
        [
            "ringmain_peak_calls is True: say how many calls at once the cluster must carry at its "
            "busiest, as a positive whole number"
        ],
    ),
    (
        {"ringmain_database_engine": "oracle"},
        ["ringmain_database_engine is 'oracle': choose one of galera, postgresql"],
    ),
    # tenants
    (
        {"ringmain_tenants": [{"name": "acme"}, {"name": "globex"}, {"name": "Big-Corp"}]},
        [
            "ringmain_tenants[2]: the tenant name 'Big-Corp' must begin with a letter a-z and go "
            "on with at most 31 letters a-z and digits: choose another"
        ],
    ),
    (
        {"ringmain_tenants": [{"name": "acme"}, {"name": "globex"}, {"name": "verify"}]},
        [
            "ringmain_tenants[2]: the tenant name verify is reserved for the verification: "
            "choose another"
        ],
    ),
    (
        {"ringmain_tenants": [{"name": "acme"}, {"name": "globex"}, {"name": "acme"}]},
        ["ringmain_tenants[2]: there are two tenants acme: remove or rename one"],
    ),
    (
        {"ringmain_tenants": [{"name": "acme"}, {"name": "globex", "domain": "not a domain"}]},
        [
            "ringmain_tenants[1]: domain 'not a domain' of tenant globex is no domain name: "
            "correct it"
        ],
    ),
    (
        {
            "ringmain_tenants": [
                {"name": "acme"},
                {"name": "globex", "domain": "acme.voice.example.com"},
            ]
        },
        [
            "ringmain_tenants[1]: tenants acme and globex have the same domain "
            "acme.voice.example.com: give each its own"
        ],
    ),
    (
        {
            "ringmain_tenants": [
                {"name": "acme", "domain": "verify.voice.example.com"},
                {"name": "globex"},
            ]
        },
        [
            "ringmain_tenants[0]: tenants verify and acme have the same domain "
            "verify.voice.example.com: give each its own"
        ],
    ),
    (
        {"ringmain_tenants": [{"name": "acme"}, {"name": "globex"}, "third"]},
        ["ringmain_tenants[2] is 'third': write a dictionary with name"],
    ),
    (
        {"ringmain_tenants": [{"name": "acme"}, {"name": "globex"}, {"domain": "x.example"}]},
        ["ringmain_tenants[2] has no name: add what is missing"],
    ),
    (
        {"ringmain_tenants": [{"name": "acme"}, {"name": "globex", "colour": "red"}]},
        ["ringmain_tenants[1] has the unknown key 'colour': it may have name, domain"],
    ),
]


@pytest.mark.parametrize(("change", "expected"), INPUT_ERRORS)
def test_each_mistake_in_the_inputs(
    cluster: Cluster, change: dict[str, Any], expected: list[str]
) -> None:
    cluster.inputs.update(copy.deepcopy(change))
    assert cluster.errors() == expected


ROW_ERRORS: list[tuple[str, dict[str, Any], list[str]]] = [
    # subscribers
    (
        "ringmain_subscribers",
        {"tenant": "initech", "extension": "1001"},
        [": there is no tenant initech: add it to ringmain_tenants or correct the name"],
    ),
    (
        "ringmain_subscribers",
        {"tenant": "verify", "extension": "903"},
        [": tenant verify is reserved for the verification: use a tenant of your own"],
    ),
    (
        "ringmain_subscribers",
        {"tenant": "acme", "extension": "1001"},
        [
            ": tenant acme has the extension 1001 already (ringmain_subscribers[0]): "
            "remove or renumber one"
        ],
    ),
    (
        "ringmain_subscribers",
        {"tenant": "acme", "extension": "ada"},
        [": extension 'ada' must be 1 to 15 digits: correct it"],
    ),
    (
        "ringmain_subscribers",
        {"tenant": "acme", "extension": 1003},
        [': extension 1003 is not in quotes: write extension: "1003", or leading zeros are lost'],
    ),
    (
        "ringmain_subscribers",
        {"tenant": "acme"},
        [" has no extension: add what is missing"],
    ),
    (
        "ringmain_subscribers",
        {"tenant": "acme", "extension": "1003", "name": 'Ada "the voice"'},
        [
            ": the name of extension 1003 must be at most 80 characters without quotes "
            '("), angle brackets and backslashes: correct it'
        ],
    ),
    (
        "ringmain_subscribers",
        {"tenant": "acme", "extension": "1003", "voicemail": "perhaps"},
        [": voicemail is 'perhaps': write true or false"],
    ),
    (
        "ringmain_subscribers",
        {"tenant": "acme", "extension": "1003", "pin": "1234"},
        [" has the unknown key 'pin': it may have tenant, extension, name, voicemail"],
    ),
    # numbers
    (
        "ringmain_numbers",
        {"number": "49301001", "tenant": "globex", "extension": "1001"},
        [": number 49301001 is there already (ringmain_numbers[0]): remove one"],
    ),
    (
        "ringmain_numbers",
        {"number": "49301002", "tenant": "initech", "extension": "1001"},
        [": there is no tenant initech: add it to ringmain_tenants or correct the name"],
    ),
    (
        "ringmain_numbers",
        {"number": "49301002", "tenant": "globex", "extension": "1002"},
        [
            ": number 49301002 leads to extension 1002, which tenant globex does not have: "
            "add it to ringmain_subscribers or correct it"
        ],
    ),
    (
        "ringmain_numbers",
        {"number": "+49301002", "tenant": "globex", "extension": "1001"},
        [
            ": number '+49301002' must be 3 to 15 digits in international form without the plus "
            "sign, such as 4930123456: correct it"
        ],
    ),
    (
        "ringmain_numbers",
        {"number": 49301002, "tenant": "globex", "extension": "1001"},
        [': number 49301002 is not in quotes: write number: "49301002", or leading zeros are lost'],
    ),
    # services
    (
        "ringmain_services",
        {"tenant": "initech", "dialled": "*44", "kind": "echo"},
        [": there is no tenant initech: add it to ringmain_tenants or correct the name"],
    ),
    (
        "ringmain_services",
        {"tenant": "acme", "dialled": "*44", "kind": "weather"},
        [": kind is 'weather': choose one of echo"],
    ),
    (
        "ringmain_services",
        {"tenant": "acme", "dialled": "*43", "kind": "echo"},
        [": tenant acme has a service *43 already (ringmain_services[0]): remove one"],
    ),
    (
        "ringmain_services",
        {"tenant": "acme", "dialled": "1001", "kind": "echo"},
        [": 1001 is also an extension of tenant acme: renumber one of them"],
    ),
    (
        "ringmain_services",
        {"tenant": "acme", "dialled": "echo", "kind": "echo"},
        [": dialled 'echo' must be 1 to 15 digits, * and #: correct it"],
    ),
]


@pytest.mark.parametrize(("variable", "row", "expected"), ROW_ERRORS)
def test_each_mistake_in_a_row(
    cluster: Cluster, variable: str, row: dict[str, Any], expected: list[str]
) -> None:
    """Only the row with the mistake is complained about, by its place."""
    place = f"{variable}[{len(cluster.inputs[variable])}]"
    cluster.inputs[variable].append(row)
    if variable == "ringmain_subscribers" and row.get("extension"):
        cluster.secrets["subscribers"][f"{row['extension']}@{row['tenant']}"] = "p"
        cluster.secrets["voicemail_pins"][f"{row['extension']}@{row['tenant']}"] = "1"
    assert cluster.errors() == [place + text for text in expected]


def test_what_is_no_list_or_table_is_said(cluster: Cluster) -> None:
    for variable in ("ringmain_tenants", "ringmain_subscribers", "ringmain_numbers"):
        cluster.inputs[variable] = "acme"
    cluster.inputs["ringmain_services"] = {"tenant": "acme"}
    cluster.inputs["ringmain_ports"] = [5060]
    assert cluster.errors() == [
        "ringmain_tenants is 'acme': write a list of dictionaries",
        "ringmain_subscribers is 'acme': write a list of dictionaries",
        "ringmain_numbers is 'acme': write a list of dictionaries",
        "ringmain_services is {'tenant': 'acme'}: write a list of dictionaries",
        f"ringmain_ports lacks {', '.join(contract.PORTS)}: copy the whole table from the "
        "defaults of role ringmain and change what you need",
    ]


def test_a_row_that_is_no_dictionary_does_not_hide_the_others(cluster: Cluster) -> None:
    for variable in ("ringmain_subscribers", "ringmain_numbers", "ringmain_services"):
        cluster.inputs[variable].append("1001")
    assert cluster.errors() == [
        "ringmain_subscribers[3] is '1001': write a dictionary with tenant, extension",
        "ringmain_numbers[1] is '1001': write a dictionary with number, tenant, extension",
        "ringmain_services[1] is '1001': write a dictionary with tenant, dialled, kind",
    ]


CODECS = ", ".join(capacity.CODECS)


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        (
            "ringmain_spare_nodes",
            -1,
            "ringmain_spare_nodes is -1: say how many nodes of each function may be missing at the "
            "busiest, as a whole number from 0",
        ),
        (
            "ringmain_hold_seconds",
            "3m",
            "ringmain_hold_seconds is '3m': say how long a call lasts on average, in whole seconds",
        ),
        (
            "ringmain_packet_ms",
            5,
            "ringmain_packet_ms is 5: say how many milliseconds of audio are in one packet, "
            "from 10 to 60",
        ),
        (
            "ringmain_codecs",
            [],
            f"ringmain_codecs is []: list what phones and trunks may use, of {CODECS}",
        ),
        (
            "ringmain_codecs",
            ["PCMA", "MP3"],
            f"ringmain_codecs has 'MP3', of which nothing is known: choose of {CODECS}",
        ),
        (
            "ringmain_media_forwarding",
            "fast",
            "ringmain_media_forwarding is 'fast': choose one of kernel, userspace",
        ),
        ("ringmain_firewall", "maybe", "ringmain_firewall is 'maybe': write true or false"),
        (
            "ringmain_ssh_from",
            [],
            "ringmain_ssh_from is []: list the networks from which administrators come, such as "
            "192.0.2.0/24; 0.0.0.0/0 is everywhere",
        ),
        (
            "ringmain_ssh_from",
            ["192.0.2.7/24"],
            "ringmain_ssh_from has '192.0.2.7/24', which is no network in CIDR notation without "
            "host bits: write one such as 192.0.2.0/24",
        ),
        (
            "ringmain_database_engine",
            "sqlite",
            "ringmain_database_engine is 'sqlite': choose one of galera, postgresql",
        ),
    ],
)
def test_choices_of_the_cluster(
    cluster: Cluster, variable: str, value: object, expected: str
) -> None:
    """Each with what it may be."""
    cluster.inputs[variable] = value
    assert cluster.errors() == [expected]


# --- members and hosts ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "names", "expected"),
    [
        (
            "edge",
            [],
            "group edge has no hosts: the floating addresses need at least 2 to move between; "
            "add hosts to the group",
        ),
        (
            "edge",
            ["srv1"],
            "group edge has 1 host (srv1), and ringmain_spare_nodes 1 may be missing: "
            "1 carries all calls, so it takes 2; add 1",
        ),
        (
            "media",
            [],
            "group media has no hosts: nothing would relay audio; add hosts to the group, "
            "two or more to survive the loss of one",
        ),
        (
            "pbx",
            [],
            "group pbx has no hosts: nothing would serve calls; add hosts to the group, "
            "two or more to survive the loss of one",
        ),
        (
            "database",
            ["srv1"],
            "group database has 1 host (srv1): it takes 3 to lose one and keep a majority; "
            "use 3 or 5",
        ),
        (
            "database",
            ["srv1", "srv2"],
            "group database has 2 hosts (srv1, srv2): it takes 3 to lose one and keep a "
            "majority; use 3 or 5",
        ),
        (
            "database",
            ["srv1", "srv2", "srv3", "srv4"],
            "group database has 4 hosts (srv1, srv2, srv3, srv4): an even number has no majority "
            "when it splits in half; use 3 or 5",
        ),
    ],
)
def test_each_mistake_in_the_groups(
    cluster: Cluster, function: str, names: list[str], expected: str
) -> None:
    if "srv4" in names:
        cluster.hosts["srv4"] = {**cluster.hosts["srv3"], "ringmain_address": "10.20.0.14"}
        cluster.hosts["srv4"]["ringmain_outside_address"] = "203.0.113.14"
    cluster.members[function] = names
    assert cluster.errors() == [expected]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"ringmain_address": None},
            [
                "host srv2 has no ringmain_address: set its address in "
                "ringmain_inside_network 10.20.0.0/24"
            ],
        ),
        (
            {"ringmain_outside_address": ""},
            [
                "host srv2 has no ringmain_outside_address: it is in group edge, so set its "
                "address in ringmain_outside_network 203.0.113.0/24"
            ],
        ),
        (
            {"ringmain_address": "srv2.example.com"},
            [
                "host srv2: ringmain_address 'srv2.example.com' is no IPv4 address: set one in "
                "ringmain_inside_network 10.20.0.0/24"
            ],
        ),
        (
            {"ringmain_address": "10.20.1.12"},
            [
                "host srv2: ringmain_address 10.20.1.12 lies outside ringmain_inside_network "
                "10.20.0.0/24: correct one of them"
            ],
        ),
        (
            {"ringmain_outside_address": "203.0.114.12"},
            [
                "host srv2: ringmain_outside_address 203.0.114.12 lies outside "
                "ringmain_outside_network 203.0.113.0/24: correct one of them"
            ],
        ),
        (
            {"ringmain_address": "10.20.0.11"},
            [
                "hosts srv1 and srv2 have the same address 10.20.0.11: correct ringmain_address "
                "or ringmain_outside_address of all but one"
            ],
        ),
        (
            {"ringmain_cores": None},
            ["host srv2 has no ringmain_cores: say how many processor cores it has"],
        ),
        (
            {"ringmain_cores": 0},
            [
                "host srv2: ringmain_cores is 0: say how many processor cores it has, "
                "as a positive whole number"
            ],
        ),
        (
            {"ringmain_memory_mb": None},
            ["host srv2 has no ringmain_memory_mb: say how much memory it has in megabytes"],
        ),
        (
            {"ringmain_memory_mb": "16G"},
            [
                "host srv2: ringmain_memory_mb is '16G': say how much memory it has in megabytes, "
                "as a positive whole number"
            ],
        ),
    ],
)
def test_each_mistake_in_a_host(
    cluster: Cluster, change: dict[str, Any], expected: list[str]
) -> None:
    cluster.hosts["srv2"].update(change)
    assert cluster.errors() == expected


def test_only_edges_and_relays_need_an_outside_address(cluster: Cluster) -> None:
    del cluster.hosts["srv3"]["ringmain_outside_address"]
    for function in ("edge", "media"):
        cluster.members[function] = ["srv1", "srv2"]
    assert cluster.errors() == []
    plan = contract.make_plan(cluster.inputs, cluster.hosts, cluster.members)
    assert plan["hosts"]["srv3"]["outside_address"] == "10.20.0.13"


def test_both_networks_may_be_one(cluster: Cluster) -> None:
    cluster.inputs["ringmain_outside_network"] = "10.20.0.0/24"
    cluster.inputs["ringmain_outside_ip"] = "10.20.0.9"
    for name in ("srv1", "srv2", "srv3"):
        del cluster.hosts[name]["ringmain_outside_address"]
    assert cluster.errors() == []
    assert contract.make_plan(cluster.inputs, cluster.hosts, cluster.members)["one_network"]
    cluster.inputs["ringmain_outside_ip"] = "10.20.0.10"
    assert cluster.errors() == [
        "ringmain_outside_ip and ringmain_inside_ip are both 10.20.0.10: choose two free "
        "addresses, also when both networks are one"
    ]


def test_a_probe_with_the_address_of_a_server_is_found(cluster: Cluster) -> None:
    cluster.hosts["probe1"]["ringmain_outside_address"] = "203.0.113.13"
    assert cluster.errors() == [
        "hosts srv3 and probe1 have the same address 203.0.113.13: correct ringmain_address "
        "or ringmain_outside_address of all but one"
    ]


FLOATING = [{"outside": f"203.0.113.2{n}", "inside": f"10.20.0.2{n}"} for n in (1, 2, 3)]


def test_relays_with_floating_addresses(cluster: Cluster) -> None:
    """The first pair belongs to the first media host; their store has a password."""
    cluster.inputs["ringmain_media_addresses"] = FLOATING
    assert cluster.errors() == [
        "ringmain_secrets lacks relay_store_password: add them, without changing the others, "
        f"with  {COMMAND}"
    ]
    plan = contract.make_plan(cluster.inputs, cluster.hosts, cluster.members)
    assert plan["relays_float"] is True
    assert plan["relays"][1] == {
        "name": "srv2",
        "number": 2,
        "address": "10.20.0.22",
        "outside_address": "203.0.113.22",
    }
    assert plan["hosts"]["srv2"]["through"] == ";node=10.20.0.12:5080;relay=20000022"


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (
            FLOATING[:2],
            "ringmain_media_addresses has 2 pairs, and group media has 3 hosts (srv1, srv2, srv3): "
            "give each relay one pair, or none to any",
        ),
        (
            [*FLOATING[:2], {"outside": "203.0.113.23"}],
            "ringmain_media_addresses[2] has no inside: add what is missing",
        ),
        (
            [*FLOATING[:2], {"outside": "203.0.113.23", "inside": "10.20.1.23"}],
            "ringmain_media_addresses[2]: inside 10.20.1.23 lies outside ringmain_inside_network "
            "10.20.0.0/24: choose a free address of it",
        ),
        (
            [*FLOATING[:2], {"outside": "203.0.113.255", "inside": "10.20.0.23"}],
            "ringmain_media_addresses[2]: outside 203.0.113.255 is the network or broadcast "
            "address of ringmain_outside_network 203.0.113.0/24: choose a free address between "
            "them",
        ),
        (
            [*FLOATING[:2], {"outside": "relay3", "inside": "10.20.0.23"}],
            "ringmain_media_addresses[2]: outside 'relay3' is no IPv4 address: choose a free one "
            "of ringmain_outside_network 203.0.113.0/24",
        ),
        (
            [*FLOATING[:2], {"outside": "203.0.113.23", "inside": "10.20.0.12"}],
            "ringmain_media_addresses[2]: inside 10.20.0.12 is the address of host srv2 already: "
            "choose a free address",
        ),
        (
            [*FLOATING[:2], {"outside": "203.0.113.10", "inside": "10.20.0.23"}],
            "ringmain_media_addresses[2]: outside 203.0.113.10 is ringmain_outside_ip already: "
            "choose a free address",
        ),
        (
            [*FLOATING[:2], {"outside": "203.0.113.22", "inside": "10.20.0.23"}],
            "ringmain_media_addresses[2]: outside 203.0.113.22 is ringmain_media_addresses[1], "
            "outside already: choose a free address",
        ),
    ],
)
def test_each_mistake_in_the_relays_addresses(
    cluster: Cluster, pairs: list[dict[str, str]], expected: str
) -> None:
    cluster.inputs["ringmain_media_addresses"] = pairs
    cluster.secrets["relay_store_password"] = "p"
    assert cluster.errors() == [expected]


def test_addresses_need_two_hosts_to_move_between(cluster: Cluster) -> None:
    cluster.inputs["ringmain_media_addresses"] = FLOATING[:1]
    cluster.inputs["ringmain_spare_nodes"] = 0
    cluster.members["media"] = ["srv1"]
    cluster.secrets["relay_store_password"] = "p"
    assert cluster.errors() == [
        "ringmain_media_addresses is set, and group media has 1 host (srv1): addresses need "
        "2 hosts to move between; add hosts to the group or leave the addresses out"
    ]


def test_a_pair_in_one_network_may_be_one_address(cluster: Cluster) -> None:
    cluster.inputs |= {
        "ringmain_outside_network": "10.20.0.0/24",
        "ringmain_outside_ip": "10.20.0.9",
        "ringmain_media_addresses": [
            {"outside": f"10.20.0.2{n}", "inside": f"10.20.0.2{n}"} for n in (1, 2, 3)
        ],
    }
    for name in cluster.members["media"]:
        del cluster.hosts[name]["ringmain_outside_address"]
    cluster.secrets["relay_store_password"] = "p"
    assert cluster.errors() == []


def test_without_networks_hosts_are_still_checked(cluster: Cluster) -> None:
    for side in ("outside", "inside"):
        cluster.inputs[f"ringmain_{side}_network"] = None
        cluster.inputs[f"ringmain_{side}_ip"] = None
    cluster.hosts["srv1"]["ringmain_address"] = ""
    assert cluster.errors() == [
        "ringmain_outside_network is not set: give the outside network in CIDR notation, "
        "for example 203.0.113.0/24",
        "ringmain_inside_network is not set: give the inside network in CIDR notation, "
        "for example 203.0.113.0/24",
        "ringmain_outside_ip is not set: choose a free address of ringmain_outside_network; "
        "it floats between the edges",
        "ringmain_inside_ip is not set: choose a free address of ringmain_inside_network; "
        "it floats between the edges",
        "host srv1 has no ringmain_address: set its address in ringmain_inside_network",
    ]


# --- ports ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"pbx_sip": 5060},
            [
                "ringmain_ports: pbx_sip 5060 and sip 5060 overlap, and every function must be "
                "able to live on one host: change one"
            ],
        ),
        (
            {"relay_rtp_first": 15000},
            [
                "ringmain_ports: pbx_rtp 10000-19999 and relay_rtp 15000-39999 overlap, and every "
                "function must be able to live on one host: change one"
            ],
        ),
        (
            {"pbx_ami": 12000, "galera_sst": 30001},
            [
                "ringmain_ports: pbx_rtp 10000-19999 and pbx_ami 12000 overlap, and every function "
                "must be able to live on one host: change one",
                "ringmain_ports: relay_rtp 30000-39999 and galera_sst 30001 overlap, and every "
                "function must be able to live on one host: change one",
            ],
        ),
        (
            {"pbx_ami": 12000, "relay_cli": 13000},
            [
                "ringmain_ports: pbx_rtp 10000-19999 and pbx_ami 12000 overlap, and every function "
                "must be able to live on one host: change one",
                "ringmain_ports: pbx_rtp 10000-19999 and relay_cli 13000 overlap, and every "
                "function must be able to live on one host: change one",
            ],
        ),
        (
            {"relay_control": 45000},
            [
                "ringmain_ports.relay_control 45000 lies in 32768-60999, from which the kernel "
                "serves outgoing connections: choose one outside"
            ],
        ),
        (
            {"pbx_rtp_last": 10002},
            [
                "ringmain_ports: pbx_rtp_first 10000 to pbx_rtp_last 10002 holds no call: "
                "a call needs 4 ports; make the range wider"
            ],
        ),
        (
            {"sip": 0},
            ["ringmain_ports.sip is 0: choose a number from 1 to 65535"],
        ),
        (
            {"sip": "high"},
            ["ringmain_ports.sip is 'high': choose a number from 1 to 65535"],
        ),
        (
            {"relay_rtp_last": 70000},
            ["ringmain_ports.relay_rtp_last is 70000: choose a number from 1 to 65535"],
        ),
        (
            {"sips": 5061},
            ["ringmain_ports has unknown names: sips; remove them"],
        ),
    ],
)
def test_each_mistake_in_the_ports(
    cluster: Cluster, change: dict[str, Any], expected: list[str]
) -> None:
    cluster.inputs["ringmain_ports"].update(change)
    assert cluster.errors() == expected


def test_ports_must_be_complete(cluster: Cluster) -> None:
    for name in ("sip", "pbx_rtp_first"):
        del cluster.inputs["ringmain_ports"][name]
    assert cluster.errors() == [
        "ringmain_ports lacks sip, pbx_rtp_first: copy the whole table from the defaults of role "
        "ringmain and change what you need"
    ]


def test_the_defaults_hold_exactly_the_ports_of_the_contract(cluster: Cluster) -> None:
    assert tuple(cluster.inputs["ringmain_ports"]) == contract.PORTS


# --- secrets -------------------------------------------------------------------------------------


def test_missing_secrets_name_the_command(cluster: Cluster) -> None:
    cluster.secrets = {}
    assert cluster.errors() == [
        f"ringmain_secrets is not there: make the passwords and keys with  {COMMAND}"
    ]


def test_incomplete_secrets_are_listed(cluster: Cluster) -> None:
    del cluster.secrets["asterisk_ami_password"]
    cluster.inputs["ringmain_subscribers"] += [
        {"tenant": "acme", "extension": "1003", "voicemail": True},
        {"tenant": "acme", "extension": "1004"},
    ]
    assert cluster.errors() == [
        "ringmain_secrets lacks asterisk_ami_password, subscribers.1003@acme, "
        "subscribers.1004@acme, voicemail_pins.1003@acme: add them, without changing the others, "
        f"with  {COMMAND}"
    ]


def test_without_any_inner_dictionary_everything_inside_is_missing(cluster: Cluster) -> None:
    missing = contract.missing_secrets(cluster.inputs, {"subscribers": "text"})
    assert missing == [
        "ca_key",
        "ca_certificate",
        *contract.PASSWORDS,
        "subscribers.1001@acme",
        "subscribers.1002@acme",
        "subscribers.1001@globex",
        "subscribers.901@verify",
        "subscribers.902@verify",
        "voicemail_pins.1001@acme",
    ]


def test_secrets_merge_inside_and_the_later_wins() -> None:
    parts = [{"a": "1", "subscribers": {"x": "1", "y": "1"}}, {"b": "2", "subscribers": {"y": "2"}}]
    merged = contract.merge_secrets(parts)
    assert merged == {"a": "1", "b": "2", "subscribers": {"x": "1", "y": "2"}}
    assert parts[0]["subscribers"] == {"x": "1", "y": "1"}


# --- everything at once, and nothing -------------------------------------------------------------


def test_all_mistakes_are_reported_at_once(cluster: Cluster) -> None:
    cluster.inputs["ringmain_outside_ip"] = "198.51.100.1"
    cluster.inputs["ringmain_peak_calls"] = 0
    cluster.members["edge"] = ["srv1"]
    cluster.hosts["srv3"]["ringmain_address"] = "10.20.0.12"
    cluster.secrets = {}
    assert [error.split(":")[0] for error in cluster.errors()] == [
        "ringmain_outside_ip 198.51.100.1 lies outside ringmain_outside_network 203.0.113.0/24",
        "group edge has 1 host (srv1), and ringmain_spare_nodes 1 may be missing",
        "hosts srv2 and srv3 have the same address 10.20.0.12",
        "ringmain_peak_calls is 0",
        "ringmain_secrets is not there",
    ]


def test_an_empty_inventory_is_reported_and_does_not_crash() -> None:
    errors = contract.cluster_errors({}, {}, {}, {}, COMMAND)
    assert len(errors) == 22
    assert all(error.startswith(("ringmain_", "group ")) for error in errors)


# --- the plan ------------------------------------------------------------------------------------


def test_the_plan(cluster: Cluster) -> None:
    plan = contract.make_plan(cluster.inputs, cluster.hosts, cluster.members)
    assert list(plan.pop("tiers")) == ["edge", "media", "pbx", "database"]
    for host in plan["hosts"].values():
        assert host.pop("limits")["rtpengine_max_sessions"] == 243
        assert set(host.pop("expected")) >= {"cores", "memory_mb"}
        assert host.pop("own_limits") == []
    servers = [{"name": f"srv{n}", "address": f"10.20.0.1{n}"} for n in (1, 2, 3)]
    assert plan == {
        "domain": "voice.example.com",
        "outside_ip": "203.0.113.10",
        "inside_ip": "10.20.0.10",
        "outside_network": "203.0.113.0/24",
        "inside_network": "10.20.0.0/24",
        "one_network": False,
        "database_engine": "galera",
        "database": {
            "driver": "mariadb",
            "socket": "/run/mysqld/mysqld.sock",
            "health": {
                "port": 9200,
                "method": "GET",
                "path": "/",
                "tls": False,
                "rise": 3,
            },
            "others": {"postgresql": "/var/lib/postgresql/17/ringmain/PG_VERSION"},
        },
        "peak_calls": 200,
        "peak_cps": 5,
        "registrations": 1000,
        "spare_nodes": 1,
        "hold_seconds": 180,
        "packet_ms": 20,
        "codecs": ["PCMA", "PCMU"],
        "media_forwarding": "kernel",
        "firewall": True,
        "ssh_from": ["0.0.0.0/0", "::/0"],
        "remarks": [
            "ringmain_peak_cps 5 for ringmain_hold_seconds 180 would be 900 calls: it is taken for "
            "a burst, of 40 s at most, after which ringmain_peak_calls 200 is reached"
        ],
        "ports": cluster.inputs["ringmain_ports"],
        "members": {
            **dict.fromkeys(contract.SERVER_FUNCTIONS, servers),
            "probes": [{"name": "probe1", "address": ""}],
        },
        "hosts": {
            f"srv{n}": {
                "address": f"10.20.0.1{n}",
                "outside_address": f"203.0.113.1{n}",
                "cores": 8,
                "memory_mb": 16384,
                "functions": ["edge", "media", "pbx", "database", "storage"],
                "through": f";node=10.20.0.1{n}:5080;relay=2000001{n}",
            }
            for n in (1, 2, 3)
        },
        "relays": [
            {
                "name": f"srv{n}",
                "number": n,
                "address": f"10.20.0.1{n}",
                "outside_address": f"203.0.113.1{n}",
            }
            for n in (1, 2, 3)
        ],
        "relays_float": False,
        "tenants": [
            {"name": "acme", "domain": "acme.voice.example.com"},
            {"name": "globex", "domain": "sip.globex.example"},
            {"name": "verify", "domain": "verify.voice.example.com"},
        ],
        "verify": {
            "tenant": "verify",
            "domain": "verify.voice.example.com",
            "caller": "901",
            "callee": "902",
            "echo": "*43",
        },
    }


def test_figures_that_came_as_texts_are_numbers_in_the_plan(cluster: Cluster) -> None:
    cluster.inputs["ringmain_peak_calls"] = "200"
    cluster.hosts["srv1"]["ringmain_cores"] = "8"
    assert cluster.errors() == []
    plan = contract.make_plan(cluster.inputs, cluster.hosts, cluster.members)
    assert (plan["peak_calls"], plan["hosts"]["srv1"]["cores"]) == (200, 8)


# --- rows of the database ------------------------------------------------------------------------


def test_directory_rows(cluster: Cluster) -> None:
    rows = contract.directory_rows(
        "voice.example.com",
        cluster.inputs["ringmain_tenants"],
        cluster.inputs["ringmain_subscribers"],
        cluster.inputs["ringmain_numbers"],
        cluster.inputs["ringmain_services"],
        {**cluster.secrets["subscribers"], "1001@globex": "Circle Of Life"},
    )
    assert list(rows) == ["tenants", "subscribers", "numbers", "services"]
    assert rows["tenants"][1:] == [
        {"name": "globex", "domain": "sip.globex.example"},
        {"name": "verify", "domain": "verify.voice.example.com"},
    ]
    assert [
        (row["tenant"], row["extension"], row["display_name"]) for row in rows["subscribers"]
    ] == [
        ("acme", "1001", "Ada"),
        ("acme", "1002", "1002"),
        ("globex", "1001", "Cy"),
        ("verify", "901", "Verification 901"),
        ("verify", "902", "Verification 902"),
    ]
    assert rows["subscribers"][2]["ha1"] == contract.ha1(
        "1001", "sip.globex.example", "Circle Of Life"
    )
    assert rows["numbers"] == [{"number": "49301001", "tenant": "acme", "extension": "1001"}]
    assert rows["services"] == [
        {"tenant": "acme", "dialled": "*43", "kind": "echo"},
        {"tenant": "verify", "dialled": "*43", "kind": "echo"},
    ]


def test_ha1_is_that_of_the_example_in_rfc_2617() -> None:
    value = contract.ha1("Mufasa", "testrealm@host.com", "Circle Of Life")
    assert value == "939e7578ed9e3c518a452acee763bce9"


def test_a_subscriber_without_password_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"^subscriber 901@verify has no password: run the playbook"
    ):
        contract.directory_rows("voice.example.com", [], [], [], [], {})


def test_another_engine_changes_what_clients_need_to_know(cluster: Cluster) -> None:
    cluster.inputs["ringmain_database_engine"] = "postgresql"
    assert cluster.errors() == []
    plan = contract.make_plan(cluster.inputs, cluster.hosts, cluster.members)
    assert plan["database"] == {
        "driver": "postgresql",
        "socket": "/run/postgresql",
        "health": {
            "port": 8008,
            "method": "OPTIONS",
            "path": "/primary",
            "tls": True,
            "rise": 1,
        },
        "others": {"galera": "/var/lib/mysql/grastate.dat"},
    }
    for host in plan["hosts"].values():
        names = {name.partition("_")[0] for name in host["limits"]}
        assert "galera" not in names
        assert ("postgresql" in names) == ("database" in host["functions"])
