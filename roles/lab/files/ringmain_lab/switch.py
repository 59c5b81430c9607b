# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The daemon that keeps a lab's two networks and its package cache.

The networks are bridges in a network namespace of their own: the machine's firewall rules, bridge
settings and forwarding do not touch what the servers say to each other. The machine has one
interface in each. The namespace lives for as long as one of the lab's processes does.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from . import machine, names
from .base import package_cache
from .lab import Lab
from .package_cache import CacheServer


def keep(lab: Lab) -> None:
    """Set the networks up, answer for the package cache, and stay. Does not return normally."""

    def busy(pid: int) -> None:
        raise names.LabError(f"process {pid} keeps the networks of lab '{lab.id}' already")

    with machine.locked(lab.switch_lock, busy):
        if not machine.runs_systemd():
            machine.enter_group(machine.group_of(lab.id, "switch"))
        outer = os.open("/proc/self/ns/net", os.O_RDONLY)
        enter_networks(lab)
        into_machine = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{outer}"]
        machine.run(["ip", "link", "set", "lo", "up"])
        for side in names.NETWORKS:
            make_network(lab.slot, side, into_machine)
        # The sockets belong to the lab's networks, downloads are made in the machine's.
        cache = package_cache(lab.archives, lab.packages_log, into_machine)
        for side in names.NETWORKS:
            address = names.host_address(lab.slot, side, names.CACHE_HOST)
            CacheServer((address, names.CACHE_PORT), cache).start()
        machine.write_atomically(lab.switch_ready, str(os.getpid()))
        signal.pause()


def enter_networks(lab: Lab) -> None:
    """Join the network namespace in which the lab's servers are, or make it."""
    for member in lab.members():
        pid = machine.holder(lab.directory(member.name) / "lock")
        if pid:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
                machine.libc_call("setns", descriptor, machine.CLONE_NEWNET)
                os.close(descriptor)
                return
    machine.libc_call("unshare", machine.CLONE_NEWNET)
    machine.forbid_forwarding()


def make_network(slot: int, side: str, into_machine: list[str]) -> None:
    """Make a bridge and the machine's interface in it, as far as they are missing."""
    have = {path.name for path in _interfaces()}
    ip = ["ip", "link"]
    if side not in have:
        machine.run([*ip, "add", side, "type", "bridge", "stp_state", "0", "mcast_snooping", "0"])
        cache = names.host_address(slot, side, names.CACHE_HOST)
        machine.run(["ip", "address", "add", f"{cache}/24", "dev", side])
    machine.run([*ip, "set", side, "up"])
    port = f"machine-{side}"
    own = names.machine_interface(slot, side)
    if port not in have:
        # The other end, if there is one, belongs to networks that are about to vanish.
        machine.run([*into_machine, *ip, "delete", own], check=False)
        peer = ["type", "veth", "peer", "name", port, "netns", str(os.getpid())]
        machine.run([*into_machine, *ip, "add", own, *peer])
        address = names.host_address(slot, side, names.MACHINE_HOST)
        machine.run([*into_machine, "ip", "address", "add", f"{address}/24", "dev", own])
    machine.run([*ip, "set", port, "master", side, "up"])
    machine.run([*into_machine, *ip, "set", own, "up"])


def _interfaces() -> list[Path]:
    # /sys shows the namespace it was mounted in, /proc/self/net the one of the reader.
    lines = Path("/proc/self/net/dev").read_text(encoding="ascii").splitlines()[2:]
    return [Path(line.partition(":")[0].strip()) for line in lines]
