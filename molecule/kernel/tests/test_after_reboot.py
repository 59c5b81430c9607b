# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""After a reboot, what the running kernel and the running relay have is what was planned."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import firewall, kernel_forwarding
from testinfra.host import Host


@pytest.fixture
def limits(plan: dict[str, Any]) -> dict[str, Any]:
    """What is planned for the virtual machine."""
    found: dict[str, Any] = plan["hosts"]["vm1"]["limits"]
    return found


@pytest.fixture
def daemon(machine: Host) -> int:
    """Process id of the relay."""
    return int(machine.check_output("systemctl show -P MainPID rtpengine-daemon.service"))


def test_no_value_of_the_plan_is_left_out(limits: dict[str, Any]) -> None:
    """Each one is asked for below; one that is new in the plan needs its question here."""
    assert set(limits) == {
        *("sysctl", "conntrack_max", "conntrack_buckets", "notrack", "rtpengine_open_files"),
        *("rtpengine_port_first", "rtpengine_port_last"),
        *("rtpengine_threads", "rtpengine_max_sessions"),
    }


def test_it_runs_as_it_should(machine: Host) -> None:
    """What the roles start by itself has started, and nothing has failed."""
    assert machine.check_output("systemctl --failed --plain --no-legend") == ""
    for unit in ("chrony", "ringmain-host", "ringmain-firewall", "rtpengine-daemon"):
        assert machine.check_output(f"systemctl is-active {unit}") == "active", unit


def test_sysctls(machine: Host, limits: dict[str, Any]) -> None:
    """Each key of the plan, and the role's own, asked of the kernel."""
    wanted = {"vm.swappiness": 1, **limits["sysctl"]}
    wanted["net.netfilter.nf_conntrack_max"] = limits["conntrack_max"]
    wanted["net.netfilter.nf_conntrack_buckets"] = limits["conntrack_buckets"]
    lines = machine.check_output("sysctl " + " ".join(wanted)).splitlines()
    pairs = [line.partition(" = ")[::2] for line in lines]
    found = {key: " ".join(value.split()) for key, value in pairs}
    assert found == {key: str(value) for key, value in wanted.items()}


def test_limits_of_the_relay(machine: Host, limits: dict[str, Any], daemon: int) -> None:
    """Soft and hard, as the kernel holds them for this process."""
    text = machine.check_output(f"cat /proc/{daemon}/limits")
    found = re.search(r"^Max open files +(\d+) +(\d+) ", text, re.MULTILINE)
    assert found is not None
    assert {int(number) for number in found.groups()} == {limits["rtpengine_open_files"]}


def test_parameters_of_the_relay(machine: Host, limits: dict[str, Any]) -> None:
    """What the running daemon says of itself."""
    said = machine.check_output("rtpengine-ctl -ip 127.0.0.1 -port 9900 params start")
    found = dict(re.findall(r"^([a-z-]+) = (-?\d+)$", said, re.MULTILINE))
    wanted = {
        "port-min": limits["rtpengine_port_first"],
        "port-max": limits["rtpengine_port_last"],
        "num-threads": limits["rtpengine_threads"],
        "max-sessions": limits["rtpengine_max_sessions"],
        "table": 0,
        "no-fallback": 1,
    }
    assert {key: int(found[key]) for key in wanted} == wanted


def test_the_relay_goes_ahead_of_other_services(machine: Host) -> None:
    """By the weight that the kernel shares processors by; a service has 100 unless it says more."""
    group = machine.check_output("systemctl show -P ControlGroup rtpengine-daemon.service")
    assert int(machine.check_output(f"cat /sys/fs/cgroup{group}/cpu.weight")) == 1000


def test_the_table_is_the_relays(machine: Host, daemon: int) -> None:
    """In /proc/rtpengine, which is there because the module was loaded before the relay."""
    status = machine.check_output("cat /proc/rtpengine/0/status")
    assert kernel_forwarding.table_owner(status) == daemon


def test_the_relays_rule_is_there(machine: Host) -> None:
    """In a chain of its own."""
    assert kernel_forwarding.has_rule(machine.check_output("nft list chain ip filter rtpengine"))


def untracked(ruleset: dict[str, Any]) -> Iterator[tuple[str, str, tuple[int, int]]]:
    """Chain, side and range of ports of every rule that takes packets out of tracking."""
    for rule in (entry["rule"] for entry in ruleset["nftables"] if "rule" in entry):
        if {"notrack": None} not in rule["expr"]:
            continue
        (match,) = (each["match"] for each in rule["expr"] if "match" in each)
        assert match["left"]["payload"]["protocol"] == "udp", rule
        right = match["right"]
        for each in right.get("set", [right]):
            first, last = each["range"]
            yield rule["chain"], match["left"]["payload"]["field"], (first, last)


def test_audio_is_not_tracked(machine: Host, plan: dict[str, Any], limits: dict[str, Any]) -> None:
    """Neither in nor out, in all ports that a relay may be given; the planned ones are of these."""
    ruleset = json.loads(machine.check_output("nft --json list table inet ringmain"))
    ranges = [tuple(each) for each in firewall.firewall_rules(plan, "vm1")["notrack"]]
    assert sorted(untracked(ruleset)) == [
        *(("untracked_in", "dport", each) for each in ranges),
        *(("untracked_out", "sport", each) for each in ranges),
    ]
    for first, last in limits["notrack"]:
        assert any(low <= first <= last <= high for low, high in ranges)


def test_cards_and_cores_are_tuned(machine: Host) -> None:
    """The unit did it at boot: nothing is left to be set."""
    tune = "/usr/bin/python3 -I /usr/local/lib/ringmain-host/tune.py --check"
    assert json.loads(machine.check_output(tune))["set"] == []
