# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Have network cards spread packets over all cores, and cores not slow down. Runs at each boot.

Prints one JSON object: what was set (with --check: would be), what waits for the next boot, and
what a driver or this system refused, which is no failure. What makes a card drop its link waits
while one of the protected services runs.

Cards are asked by ioctl(2), as ethtool does: ethtool's own output is for people.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import functools
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import network_card  # type: ignore[import-not-found]  # noqa: E402

# linux/sockios.h and linux/ethtool.h
SIOCETHTOOL = 0x8946
GET_RINGS, SET_RINGS = 0x10, 0x11
GET_CHANNELS, SET_CHANNELS = 0x3C, 0x3D
GET_HASH, SET_HASH = 0x29, 0x2A
RINGS = ("rx_max", "mini_max", "jumbo_max", "tx_max", "rx", "mini", "jumbo", "tx")
CHANNELS = ("rx_max", "tx_max", "other_max", "combined_max", "rx", "tx", "other", "combined")
FLOWS = {"udp4": 0x02, "udp6": 0x06}
HASH_BYTES = 512  # more than struct ethtool_rxnfc has

NETWORK = Path("/sys/class/net")
CORES = Path("/sys/devices/system/cpu")
REFUSED = Path("/run/ringmain/host-refused.json")


def request(card: str, content: bytes) -> bytes:
    """One request about a card and its answer; OSError when the driver does not know it."""
    buffer = ctypes.create_string_buffer(content, len(content))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        # struct ifreq: a name, and where the request lies.
        frame = struct.pack("16sP16x", card.encode(), ctypes.addressof(buffer))
        fcntl.ioctl(control, SIOCETHTOOL, frame)
    return buffer.raw


def get(card: str, command: int, names: tuple[str, ...]) -> dict[str, int]:
    """Numbers that a driver offers, by name."""
    layout = f"{len(names) + 1}I"
    answer = request(card, struct.pack(layout, command, *[0] * len(names)))
    return dict(zip(names, struct.unpack(layout, answer)[1:], strict=True))


def put(card: str, commands: tuple[int, int], names: tuple[str, ...], name: str, to: int) -> None:
    """Change one of these numbers."""
    values = {**get(card, commands[0], names), name: to}
    layout = f"{len(names) + 1}I"
    request(card, struct.pack(layout, commands[1], *(values[each] for each in names)))


def limits(card: str, command: int, names: tuple[str, ...]) -> dict[str, Any]:
    """What a card has and could have, by ethtool's names; nothing where it cannot be changed."""
    try:
        found = get(card, command, names)
    except OSError:
        return {}
    return {
        name: network_card.Limit(found[name], found[f"{name}_max"])
        for name in ("rx", "tx", "combined")
        if found.get(f"{name}_max")
    }


def hashes(card: str) -> dict[str, int]:
    """What goes into the hash that chooses a packet's queue, by flow."""
    found = {}
    for flow, number in FLOWS.items():
        try:
            answer = request(card, struct.pack("IIQ", GET_HASH, number, 0).ljust(HASH_BYTES, b"\0"))
        except OSError:
            continue
        found[flow] = struct.unpack_from("IIQ", answer)[2]
    return found


def interrupts(card: str) -> dict[int, tuple[str, str]]:
    """A card's interrupts: what they are called, and the cores they may go to."""
    device = (NETWORK / card / "device").resolve()
    numbers: set[int] = set()
    for folder in (device / "msi_irqs", device.parent / "msi_irqs"):  # virtio's are its parent's
        if folder.is_dir():
            numbers = {int(entry.name) for entry in folder.iterdir()}
            break
    found = {}
    for line in Path("/proc/interrupts").read_text(encoding="ascii").splitlines()[1:]:
        number, _colon, rest = line.partition(":")
        if number.strip().isdigit() and int(number) in numbers:
            cores = Path("/proc/irq", number.strip(), "smp_affinity_list")
            found[int(number)] = (rest.split()[-1], cores.read_text(encoding="ascii").strip())
    return found


def look(name: str) -> Any:
    """A card as it is now."""
    masks = sorted((NETWORK / name / "queues").glob("rx-*/rps_cpus"))
    return network_card.Card(
        name=name,
        rings=limits(name, GET_RINGS, RINGS),
        channels=limits(name, GET_CHANNELS, CHANNELS),
        hashes=hashes(name),
        packet_steering={
            mask.parent.name: network_card.mask_of(mask.read_text(encoding="ascii"))
            for mask in masks
        },
        interrupts=interrupts(name),
    )


def apply(setting: Any) -> None:
    """Set one thing; OSError when the driver or the system refuses."""
    card, item, wanted = setting.card, setting.item, setting.wanted
    if setting.kind == "ring":
        put(card, (GET_RINGS, SET_RINGS), RINGS, item, int(wanted))
    elif setting.kind == "channels":
        put(card, (GET_CHANNELS, SET_CHANNELS), CHANNELS, item, int(wanted))
    elif setting.kind == "hash":
        content = struct.pack("IIQ", SET_HASH, FLOWS[item], int(wanted, 16))
        request(card, content.ljust(HASH_BYTES, b"\0"))
    elif setting.kind == "steering":
        path = NETWORK / card / "queues" / item / "rps_cpus"
        path.write_text(network_card.text_of_mask(int(wanted, 16)), encoding="ascii")
    else:
        Path("/proc/irq", item, "smp_affinity_list").write_text(wanted, encoding="ascii")


class Report:
    """What was done, and what was not, with the reason."""

    def __init__(self, check: bool, busy: bool) -> None:
        self.check = check
        self.busy = busy
        self.set: list[str] = []
        self.waits: list[str] = []
        self.refused: dict[str, str] = {}
        # Only the attempt shows what is refused: --check remembers the last one.
        self.before = json.loads(REFUSED.read_text(encoding="utf-8")) if REFUSED.exists() else {}

    def attempt(self, what: str, act: Callable[[], object]) -> None:
        """Set one thing."""
        try:
            if not self.check:
                act()
            elif what in self.before:
                self.refused[what] = self.before[what]
                return
        except OSError as error:
            self.refused[what] = error.strerror or str(error)
        else:
            self.set.append(what)

    def take(self, settings: list[Any]) -> None:
        """Set what can be set now."""
        for setting in settings:
            if setting.resets and self.busy:
                self.waits.append(str(setting))
            else:
                self.attempt(str(setting), functools.partial(apply, setting))

    def close(self) -> dict[str, list[str]]:
        """Everything, in words."""
        if not self.check:
            REFUSED.parent.mkdir(exist_ok=True)
            REFUSED.write_text(json.dumps(self.refused), encoding="utf-8")
        refused = [f"{what}: {why}" for what, why in self.refused.items()]
        return {"set": self.set, "waits": self.waits, "refused": refused}


def tune_cards(report: Report) -> None:
    """All network cards. What is virtual (bridges, VLANs, a container's) has no device."""
    cores = os.cpu_count() or 1
    for path in sorted(NETWORK.iterdir()):
        if (path / "device").exists() and (path / "type").read_text(encoding="ascii") == "1\n":
            report.take(network_card.queues_and_rings(look(path.name), cores))
            report.take(network_card.spreading(look(path.name), cores))
    if not report.check and any(": interrupt " in what for what in report.set):
        # It may have been started before it was told to leave them alone.
        subprocess.run(["systemctl", "--quiet", "try-restart", "irqbalance.service"], check=False)


def tune_cores(report: Report, governor: str) -> None:
    """All cores whose clock the system governs; a hypervisor's guest has none."""
    for path in sorted(CORES.glob("cpu[0-9]*/cpufreq/scaling_governor")):
        core = path.parents[1].name
        now = path.read_text(encoding="ascii").strip()
        if now != governor:
            what = f"{core}: governor {now} -> {governor}"
            report.attempt(what, functools.partial(path.write_text, governor, encoding="ascii"))


def running(units: list[str]) -> bool:
    """Whether one of these services runs."""
    command = ["systemctl", "--quiet", "is-active", *units]
    return bool(units) and subprocess.run(command, check=False).returncode == 0


def main() -> None:
    """Do it all."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--check", action="store_true", help="set nothing")
    arguments = options.parse_args()
    wanted = json.loads((HERE / "tune.json").read_text(encoding="utf-8"))
    report = Report(arguments.check, running(wanted["units"]))
    if wanted["network_cards"]:
        tune_cards(report)
    if wanted["governor"]:
        tune_cores(report, wanted["governor"])
    print(json.dumps(report.close()))


if __name__ == "__main__":
    main()
