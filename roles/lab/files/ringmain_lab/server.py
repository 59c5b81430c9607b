# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One server: the process that looks after it, and its boot."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from . import base, machine, names, virtual
from .lab import Lab

REBOOT = 133  # what systemd-nspawn --keep-unit returns when the container asked for a reboot
NSPAWN = (
    "systemd-nspawn",
    "--quiet",
    "--boot",
    "--keep-unit",
    "--register=no",
    "--settings=no",
    "--network-namespace-path=/proc/self/ns/net",
    "--resolv-conf=off",
    "--timezone=off",
    "--link-journal=no",
    "--console=read-only",
    "--kill-signal=SIGRTMIN+4",
)


def serve(lab: Lab, name: str) -> int:
    """Boot a server, and again whenever it reboots; returns when it is off."""

    def busy(pid: int) -> None:
        raise names.LabError(f"server '{name}' is running already under process {pid}")

    with machine.locked(lab.directory(name) / "lock", busy):
        group = machine.group_of(lab.id, name)
        # A group with processes of its own cannot delegate controllers: hence one level more.
        machine.enter_group(group / "manager")
        command = machine.own_command(lab.id, "_boot", name)
        if not lab.member(name).is_virtual:
            command = ["unshare", "--mount", "--net", *command]
        status = REBOOT
        while status == REBOOT:
            status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
            machine.remove_group(group / "machine")
        # Still under the lock: who takes it next makes the same group again.
        if not machine.runs_systemd():
            machine.enter_group(machine.control_groups())
            machine.remove_group(group)
    return status


def boot(lab: Lab, name: str) -> None:
    """Become the server's machine: network, disk, control groups, then systemd-nspawn, or QEMU.

    A container runs in fresh network and mount namespaces, started by the process that looks after
    the server, which is in the network namespace of the lab.
    """
    if lab.member(name).is_virtual:
        virtual.boot(lab, name)
    keeper = os.getppid()
    machine.enter_group(machine.group_of(lab.id, name) / "machine")
    machine.forbid_forwarding()
    member = lab.member(name)
    at_bridge = ["nsenter", f"--net=/proc/{keeper}/ns/net", "ip", "link"]
    for net in member.networks:
        port = names.port_name(net, member)
        # After a power cut the last one lingers until the kernel has cleaned up.
        machine.run([*at_bridge, "delete", port], check=False)
        address = names.hardware_address(lab.slot, net, member)
        peer = ["peer", "name", port, "netns", str(keeper)]
        machine.run(["ip", "link", "add", net, "address", address, "type", "veth", *peer])
        machine.run([*at_bridge, "set", port, "master", net, "up"])
    mount_disk(lab, name)
    mount_control_groups()
    environment = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
    # As with a network of nspawn's own making: the server sets what belongs to its networks.
    environment["SYSTEMD_NSPAWN_API_VFS_WRITABLE"] = "network"
    command = [*NSPAWN, f"--machine={name}", f"--directory={lab.directory(name) / 'root'}"]
    if Path("/dev/fuse").exists():
        command.append("--bind=/dev/fuse")
    if lab.spec(name)["nested"]:
        # A machine that is to hold a lab of its own: an overlay cannot lie on an overlay.
        command += ["--capability=all", f"--bind={lab.directory(name)}/nested:{machine.RUNTIME}"]
        if Path("/dev/net/tun").exists():
            command.append("--bind=/dev/net/tun")
        environment["SYSTEMD_NSPAWN_API_VFS_WRITABLE"] = "1"
    else:
        command.append("--capability=CAP_NET_ADMIN")
    os.execvpe(command[0], command, environment)


def mount_disk(lab: Lab, name: str) -> None:
    """Mount the server's layers, seen by nobody but the server."""
    directory = lab.directory(name)
    spec = lab.spec(name)
    lower = [str(lab.path / "layers" / layer) for layer in spec["layers"]]
    lower.append(str(base.tree(spec["base"])))
    top = directory
    if room := take_room(directory):
        lower.insert(0, f"{directory}/upper")
        top = directory / "memory"
        top.mkdir(exist_ok=True)
        machine.run(["mount", "-t", "tmpfs", "-o", f"size={room}m", "tmpfs", str(top)])
        for part in ("upper", "work"):
            (top / part).mkdir()
    # Directories of a lower layer can be renamed like any other only with redirect_dir.
    options = [
        f"lowerdir={':'.join(lower)}",
        f"upperdir={top}/upper",
        f"workdir={top}/work",
        "redirect_dir=on,index=off,metacopy=off",
    ]
    root = str(directory / "root")
    machine.run(["mount", "-t", "overlay", "overlay", "-o", ",".join(options), root])


def limit_room(lab: Lab, wanted: Iterable[str], megabytes: int) -> None:
    """Have servers that are off boot with so much room once: what they write then is in memory."""
    wanted = list(wanted)
    if megabytes < 1:
        raise names.LabError(f"{megabytes} MB of room are none: give one at least")
    for name in wanted:
        if lab.member(name).is_virtual or lab.is_running(name):
            raise names.LabError(
                f"'{name}' is running, or a virtual machine: room is given to servers that are off"
            )
    for name in wanted:
        machine.write_atomically(lab.directory(name) / "room", str(megabytes))


def take_room(directory: Path) -> int:
    """The megabytes that this one boot is given, 0 without a limit."""
    try:
        room = int((directory / "room").read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0
    (directory / "room").unlink()
    return room


def mount_control_groups() -> None:
    """Where the version 2 hierarchy is not at the usual place, put it there."""
    usual = Path("/sys/fs/cgroup")
    if machine.control_groups() != usual:
        machine.run(["mount", "-t", "cgroup2", "cgroup2", str(usual)])
