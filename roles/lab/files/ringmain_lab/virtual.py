# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One virtual machine: its disk, its accelerator, QEMU, and how it is asked to shut down.

What it is for is what a container cannot show: a kernel of its own, and what is lost without
power. So the disk keeps the promises of a real one and no others. The guest's flushes reach this
machine's disk (`cache=writeback`), and only these are sure: SIGKILL of QEMU takes the guest's
memory with it, and with QEMU's own memory the tables of every piece of the disk that was first
written to since the last flush. More lenient than a real disk it is in one thing: a piece that
was flushed once and is written to again keeps the new content, because this machine does not lose
its page cache with QEMU.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

from . import image, machine, names
from .lab import Lab
from .names import LabError, Member

PROGRAM = "qemu-system-x86_64"
MEMORY_MB = 1024
KERNEL_WORDS = (
    "root=/dev/vda",
    "rootfstype=ext4",
    "rw",
    "init=/usr/local/sbin/lab-init",
    "console=ttyS0",
    # Emulation now and then makes a mistake that no kernel survives: then it boots again.
    "panic=1",
    # A guest of these tests runs no stranger's code, and emulation pays dearly for the guards:
    # against flaws of processors, and by programs that the kernel has to verify first.
    "mitigations=off",
    "lsm=yama",
    # Drivers for what QEMU's machine has and nobody uses.
    "module_blacklist=ata_generic,ata_piix,serio_raw,vmw_vmci,vmw_vsock_vmci_transport",
)
# Each way to run the guest, best first: what QEMU calls it, and the processor to show.
ACCELERATORS = {
    "kvm": ("-accel", "kvm", "-cpu", "host"),
    # 'max' shows the guest instructions that emulation does not always get right.
    "tcg": ("-accel", "tcg,thread=multi", "-cpu", "Nehalem"),
}
TRIAL_SECONDS = 15.0


def accelerator(key: str) -> str:
    """The best way this machine can run the image's kernel, found by trying, once per boot.

    A /dev/kvm proves little: its kind of virtualization, or this kernel, may not do.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    question = {"boot": boot, "image": key, "kvm": os.access("/dev/kvm", os.R_OK | os.W_OK)}
    record = machine.RUNTIME / ".accelerator.json"
    known = machine.read_json(record) or {}
    if known.get("question") == question:
        return str(known["answer"])
    answer = "kvm" if question["kvm"] and runs_kernel(key, "kvm") else "tcg"
    machine.write_atomically(record, json.dumps({"question": question, "answer": answer}))
    return answer


def runs_kernel(key: str, name: str) -> bool:
    """Whether the image's kernel gets as far as missing its root file system.

    Then it panics and, as its words say, reboots at once, which here ends QEMU.
    """
    files = image.directory(key)
    command = [PROGRAM, "-nodefaults", "-display", "none", "-no-reboot", "-m", "256"]
    command += [*ACCELERATORS[name], "-serial", "stdio", "-kernel", str(files / "kernel")]
    command += ["-append", "console=ttyS0 panic=-1"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TRIAL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and b"Unable to mount root fs" in done.stdout


def make_disk(lab: Lab, name: str) -> Path:
    """The machine's own layer of its disk, made when it is missing."""
    directory = lab.directory(name)
    disk = directory / "upper" / "disk.qcow2"
    if not disk.exists():
        spec = lab.spec(name)
        below, kind = image.directory(spec["base"]) / "disk", "raw"
        if spec["layers"]:
            below, kind = lab.path / "layers" / spec["layers"][0] / "disk.qcow2", "qcow2"
        new = disk.with_name("new.qcow2")
        new.unlink(missing_ok=True)
        backing = ["-b", str(below), "-F", kind]
        machine.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(new)])
        new.rename(disk)
    return disk


def port_names(member: Member) -> dict[str, str]:
    """The machine's ports at the bridges by side."""
    return {net: names.port_name(net, member) for net in member.networks}


def boot(lab: Lab, name: str) -> None:
    """Become QEMU, in the network namespace of the lab, where the caller is already."""
    machine.enter_group(machine.group_of(lab.id, name) / "machine")
    member = lab.member(name)
    spec = lab.spec(name)
    files = image.directory(spec["base"])
    command = [
        PROGRAM,
        *("-name", name, "-nodefaults", "-display", "none", "-m", str(MEMORY_MB), "-smp", "2"),
        *ACCELERATORS[accelerator(spec["base"])],
        *("-kernel", str(files / "kernel"), "-initrd", str(files / "initrd")),
        *("-append", " ".join(KERNEL_WORDS), "-serial", "stdio", "-rtc", "base=utc"),
        *("-qmp", f"unix:{control(lab, name)},server=on,wait=off"),
        *("-device", "virtio-rng-pci"),
    ]
    seed = lab.directory(name) / "seed.tar"
    for part in (
        f"file={make_disk(lab, name)},format=qcow2,if=virtio,cache=writeback,discard=unmap",
        f"file={seed},format=raw,if=virtio,readonly=on",
    ):
        command += ["-drive", part]
    for net, port in port_names(member).items():
        # The last one stays until somebody removes it.
        machine.run(["ip", "link", "delete", port], check=False)
        machine.run(["ip", "tuntap", "add", "dev", port, "mode", "tap"])
        machine.run(["ip", "link", "set", port, "master", net, "up"])
        address = names.hardware_address(lab.slot, net, member)
        command += ["-netdev", f"tap,id={net},ifname={port},script=no,downscript=no"]
        command += ["-device", f"virtio-net-pci,netdev={net},mac={address}"]
    os.execvp(command[0], command)


def control(lab: Lab, name: str) -> Path:
    """Where QEMU takes commands."""
    return lab.directory(name) / "qmp"


def press_power_button(lab: Lab, name: str) -> None:
    """Ask the guest to shut down. LabError when QEMU does not listen."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(control(lab, name)))
            with connection.makefile("rw", encoding="utf-8") as stream:
                json.loads(stream.readline())
                for word in ("qmp_capabilities", "system_powerdown"):
                    answer = ask(stream, word)
                    if "error" in answer:
                        raise LabError(f"QEMU of {name} refuses {word}: {answer['error']}")
    except (OSError, ValueError) as error:
        raise LabError(
            f"{name} cannot be shut down, its QEMU does not answer ({error}): cut its power with "
            f"'kill {name}'"
        ) from error


def ask(stream: Any, word: str) -> dict[str, Any]:
    """Execute a command without arguments; the answer, whatever events come before it."""
    stream.write(json.dumps({"execute": word}) + "\n")
    stream.flush()
    while True:
        answer: dict[str, Any] = json.loads(stream.readline())
        if "event" not in answer:
            return answer


def remove_ports(lab: Lab, member: Member) -> None:
    """Remove the ports of a machine that is gone for good."""
    pid = lab.network_process()
    for port in port_names(member).values() if pid else ():
        at_bridge = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "link"]
        with contextlib.suppress(LabError):
            machine.run([*at_bridge, "delete", port])
