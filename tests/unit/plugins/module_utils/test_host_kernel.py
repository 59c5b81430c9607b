# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which keys differ, which cannot be set, and what an operator is told of it."""

from __future__ import annotations

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import host_kernel
from ansible_collections.ringmain.voip.plugins.module_utils.host_kernel import Difference, Reading

RMEM = "net.core.rmem_max"
PORTS = "net.ipv4.ip_local_port_range"
RESERVED = "net.ipv4.ip_local_reserved_ports"


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.core.rmem_max", "net/core/rmem_max"),
        ("net.ipv4.conf.eth0/100.rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
        ("net/ipv4/conf/eth0.100/rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
    ],
)
def test_a_key_has_its_file(key: str, path: str) -> None:
    assert host_kernel.path_of(key) == path


@pytest.mark.parametrize(
    ("key", "wanted", "found"),
    [
        (RMEM, "8388608", "8388608\n"),
        (PORTS, "40000 60999", "40000\t60999\n"),
        (RESERVED, "30000-39999,5060,5061,5062", "5060-5062,30000-39999\n"),
        (RESERVED, "10000-19999, 20000-29999", "10000-29999\n"),
        (RESERVED, "", "\n"),
        (host_kernel.BUCKETS, "100000", "100352\n"),
    ],
)
def test_the_kernel_may_put_a_value_in_its_own_way(key: str, wanted: str, found: str) -> None:
    assert host_kernel.compare({key: wanted}, {key: Reading(found)}) == []


@pytest.mark.parametrize(
    ("key", "wanted", "found"),
    [
        (PORTS, "40000 60999", "32768\t60999\n"),
        (RESERVED, "30000-39999", "30000-39998\n"),
        (RESERVED, "30000-39999", "\n"),
        (host_kernel.BUCKETS, "100000", "100864\n"),
        (host_kernel.BUCKETS, "100000", "65536\n"),
        (RESERVED, "no ports", "30000-39999\n"),
    ],
)
def test_another_value_is_another(key: str, wanted: str, found: str) -> None:
    expected = [Difference(key, wanted, host_kernel.text_of(found))]
    assert host_kernel.compare({key: wanted}, {key: Reading(found)}) == expected


def test_values_of_an_inventory_are_as_the_kernel_writes_them() -> None:
    texts = [host_kernel.text_of(value) for value in (True, False, 1, "4096  87380\t6291456\n")]
    assert texts == ["1", "0", "1", "4096 87380 6291456"]


def test_what_cannot_be_set_says_why() -> None:
    """A read-only key that is already as wanted is none of them."""
    wanted = {"vm.swappiness": "1", RMEM: "8388608", "net.core.somaxconn": "4096", "net.no": "1"}
    readings = {
        "vm.swappiness": Reading("60\n", writable=False),
        RMEM: Reading("212992\n"),
        "net.core.somaxconn": Reading("4096\n", writable=False),
        "net.no": Reading(None),
    }
    assert host_kernel.compare(wanted, readings) == [
        Difference(RMEM, "8388608", "212992"),
        Difference("net.no", "1", None, host_kernel.ABSENT),
        Difference("vm.swappiness", "1", "60", host_kernel.READ_ONLY),
    ]


def test_a_module_that_would_be_loaded_may_bring_the_key() -> None:
    key = "net.netfilter.nf_conntrack_max"
    found = host_kernel.compare({key: "1"}, {key: Reading(None)}, modules_to_come=True)
    assert found == [Difference(key, "1", None)]


def test_the_error_names_host_keys_and_next_step() -> None:
    text = host_kernel.sysctl_problem(
        "media1",
        [
            Difference("net.no", "1", None, host_kernel.ABSENT),
            Difference("vm.swappiness", "1", "60", host_kernel.READ_ONLY),
        ],
    )
    assert text.startswith(
        "media1 has a kernel that does not let these be set: net.no (wanted 1; absent), "
        "vm.swappiness (is 60, wanted 1; read-only). "
    )
    assert text.endswith("allow it here with host_sysctl_unsettable_allowed")


def test_a_module_that_cannot_be_loaded_is_named() -> None:
    text = host_kernel.module_problem("media1", {"nf_conntrack": "not found"})
    assert text.startswith("media1 cannot load kernel modules: nf_conntrack (not found). Install ")


@pytest.mark.parametrize(
    ("cores", "memory_mb", "words"),
    [
        (8, 16384, []),
        (16, 14400, []),  # 16 GB as their kernel shows them
        (4, 16384, ["db1 has 4 cores, 8 are declared: correct ringmain_cores"]),
        (8, 8192, ["db1 has 8192 MB of memory, 16384 MB are declared: correct ringmain_memory_mb"]),
        (1, 1, ["db1 has 1 cores", "db1 has 1 MB"]),
    ],
)
def test_a_server_smaller_than_declared_is_named(
    cores: int, memory_mb: int, words: list[str]
) -> None:
    found = host_kernel.hardware_problems("db1", 8, cores, 16384, memory_mb)
    assert len(found) == len(words)
    assert all(text.startswith(begin) for text, begin in zip(found, words, strict=True))


def test_nothing_declared_is_not_compared() -> None:
    assert host_kernel.hardware_problems("db1", 0, 1, 0, 512) == []


def test_files_for_the_next_boot() -> None:
    """A key that may be refused is no failure of systemd-sysctl."""
    assert host_kernel.sysctl_file({RMEM: "1", "vm.swappiness": "1"}, ["vm.*"]) == (
        "# Ansible managed\nnet.core.rmem_max = 1\n-vm.swappiness = 1\n"
    )
    assert host_kernel.modules_file(["b", "a"]) == "# Ansible managed\nb\na\n"
    assert host_kernel.options_file({"nf_conntrack": "hashsize=512"}) == (
        "# Ansible managed\noptions nf_conntrack hashsize=512\n"
    )
