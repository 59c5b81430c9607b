# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a server have the limits that the plan gives it? For containers and real kernels alike.

C(PROGRAM) runs on the server, given to Python on standard input, with C(keys(planned)) as its
arguments; what it prints is the C(report) that C(differences) takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.ringmain.voip.plugins.module_utils import host_kernel

PROGRAM = Path(__file__).with_name("limits_report.py").read_text(encoding="utf-8")
CONNTRACK_MAX = "net.netfilter.nf_conntrack_max"
SERVICES = {
    "kamailio_open_files": "kamailio",
    "rtpengine_open_files": "rtpengine-daemon",
    "asterisk_open_files": "asterisk",
    "galera_open_files": "mariadb",
    "haproxy_open_files": "haproxy",
}


def sysctls(planned: Mapping[str, Any]) -> dict[str, str]:
    """Every key of sysctl that follows from a host's limits, with its value."""
    wanted = {**planned.get("sysctl", {}), "vm.swappiness": 1}
    if planned.get("conntrack_max"):
        wanted[CONNTRACK_MAX] = planned["conntrack_max"]
    if planned.get("conntrack_buckets"):
        wanted[host_kernel.BUCKETS] = planned["conntrack_buckets"]
    return {key: host_kernel.text_of(value) for key, value in wanted.items()}


def keys(planned: Mapping[str, Any]) -> list[str]:
    """What the program on the server is to be asked for."""
    return sorted(sysctls(planned))


def differences(
    planned: Mapping[str, Any],
    report: Mapping[str, Any],
    unsettable: Sequence[str] = (),
    services: bool = True,
) -> list[str]:
    """What is not as planned, in words; empty when all is.

    Parameters:
        planned: C(ringmain_plan.hosts[NAME].limits)
        report: what the program printed
        unsettable: patterns of keys that this kernel may refuse, as the inventory has them
        services: whether the services that the plan names must run, with their limits
    """
    wanted = sysctls(planned)
    readings = {key: host_kernel.Reading(report["sysctl"].get(key)) for key in wanted}
    found = [
        each.describe()
        for each in host_kernel.compare(wanted, readings)
        if not host_kernel.is_allowed(each.key, unsettable)
    ]
    buckets = wanted.get(host_kernel.BUCKETS)
    if buckets and not host_kernel.is_allowed(host_kernel.BUCKETS, unsettable):
        size = str(report["hashsize"])
        if not host_kernel.same(host_kernel.BUCKETS, buckets, size):
            found.append(f"hashsize of nf_conntrack (is {size}, wanted {buckets})")
    for name, unit in SERVICES.items():
        has = report["open_files"].get(unit)
        if services and name in planned and has != planned[name]:
            found.append(f"open files of {unit} (is {has}, wanted {planned[name]})")
    return found
