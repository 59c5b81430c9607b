# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""After a reboot, what the running kernel and the running relay have is what was planned."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import kernel_forwarding
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


def test_no_unit_has_failed(machine: Host) -> None:
    """systemd knows of nothing that should run and does not."""
    assert machine.check_output("systemctl --failed --plain --no-legend") == ""


def test_sysctls(machine: Host, limits: dict[str, Any]) -> None:
    """Each key of the plan, asked of the kernel."""
    wanted = dict(limits["sysctl"])
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


def test_the_table_is_the_relays(machine: Host, daemon: int) -> None:
    """In /proc/rtpengine, which is there because the module was loaded before the relay."""
    status = machine.check_output("cat /proc/rtpengine/0/status")
    assert kernel_forwarding.table_owner(status) == daemon


def test_the_relays_rule_is_there(machine: Host) -> None:
    """In a chain of its own."""
    assert kernel_forwarding.has_rule(machine.check_output("nft list chain ip filter rtpengine"))
