#!/usr/bin/env python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a relay's processor time is spent on, measured, and what the plan assumes.

One lab server is the relay, as the role installs it; another one talks through it, from the
outside network to the inside one and back. Processor time is what the kernel has accounted to the
relay's service, never how fast something went. From two sizes follows the model

    processor seconds in a second = fixed + cost of a packet × packets in a second

which must foretell a third size within 25%. Prints one JSON object; exit code 1 when it does not,
or when packets were lost, because then nobody knows what was measured.

In a virtual machine (`--whole-host`) it is what the whole guest was busy beyond what it is without
a session, for what a kernel forwards is no service's time. That is seen from outside, as the time
of QEMU's processors, so that a guest that has to wait for this machine does not count as busy.
Seconds of an emulated processor are its own: they compare two ways of forwarding on it, and say
nothing about a server.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "acts"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".cache" / "collections"))

from ansible_collections.ringmain.voip.plugins.module_utils import capacity
from support.agent import Agent
from support.callers import FOLDER, HERE
from support.lab import ROOT, Lab
from support.playbooks import excerpt, play
from support.rtp import PACKETS_PER_SECOND

UTILS = "ansible_collections/ringmain/voip/plugins/module_utils"
WITHIN = 0.25
LOST = 0.001
RATE_WITHIN = 0.03
HURRY = "renice -n -10 -p $(ls /proc/$(systemctl show -P MainPID rtpengine-daemon)/task)"
# How much of what is forwarded may go the other way.
STRAYED = 0.01
# After the last offer: for three whole seconds the relay learns in user space where the ends are.
SETTLE_SECONDS = 5.0
ROOM = {
    "rtpengine_max_sessions": 2400,
    "rtpengine_port_last": 39999,
    "rtpengine_open_files": 65536,
}

# Runs on the relay's host. The cgroup counts microseconds, whatever the kernel's tick is.
METER = """
import json, time
unit = "/sys/fs/cgroup/system.slice/rtpengine-daemon.service/cpu.stat"
used = dict(line.split() for line in open(unit))
print(json.dumps({"at": time.monotonic(), "used": int(used["usage_usec"]) / 1e6}))
"""

# The time and the processor seconds used until then.
Meter = Callable[[], dict[str, float]]


def service_meter(lab: Lab, server: str) -> Meter:
    """Processor time that the kernel has accounted to the relay's service."""

    def read() -> dict[str, float]:
        found = json.loads(lab.python(server, METER))
        assert isinstance(found, dict)
        return found

    return read


def guest_meter(lab: Lab, name: str) -> Meter:
    """Processor time of a virtual machine's processors, which are threads of QEMU here."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"/var/lib/ringmain-lab/{lab.id}/servers/{name}/qmp")
        with connection.makefile("rw", encoding="utf-8") as stream:
            stream.readline()
            for word in ("qmp_capabilities", "query-cpus-fast"):
                stream.write(json.dumps({"execute": word}) + "\n")
                stream.flush()
                answer = json.loads(stream.readline())
    threads = [Path(f"/proc/{one['thread-id']}/schedstat") for one in answer["return"]]

    def read() -> dict[str, float]:
        used = sum(int(thread.read_text(encoding="ascii").split()[0]) for thread in threads)
        return {"at": time.monotonic(), "used": used / 1e9}

    return read


def model(small: Mapping[str, float], large: Mapping[str, float]) -> dict[str, float]:
    """Fixed part and cost of a packet from two measurements of `busy` at `packets_per_second`.

    Raises ValueError when the two are the same size.
    """
    span = large["packets_per_second"] - small["packets_per_second"]
    if not span:
        raise ValueError("two measurements of one size make no model")
    cost = (large["busy"] - small["busy"]) / span
    return {"fixed": large["busy"] - cost * large["packets_per_second"], "per_packet": cost}


def foretell(found: Mapping[str, float], packets_per_second: float) -> float:
    """Processor seconds in a second at a rate of packets."""
    return found["fixed"] + found["per_packet"] * packets_per_second


def machine() -> dict[str, Any]:
    """What this was measured on."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = [line.partition(": ")[2] for line in text.splitlines() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
    }


class Bench:
    """A relay on one lab server, the talkers on another."""

    def __init__(self, lab: Lab, relay: str, talker: str, meter: Meter) -> None:
        self._meter = meter
        members = lab.members()
        for path, source in (
            ("support/rtp.py", HERE / "rtp.py"),
            ("support/sip.py", HERE / "sip.py"),
            (f"{UTILS}/ng.py", ROOT / "plugins" / "module_utils" / "ng.py"),
            ("talkers.py", Path(__file__).with_name("talkers.py")),
        ):
            lab.put(talker, f"{FOLDER}/{path}", source.read_text(encoding="utf-8"))
        # Packets that wait for a busy machine are forwarded many at once, which costs less of each.
        lab.shell(relay, HURRY)
        inside = members[talker]["address"]
        # The lab's two networks differ in the second number alone.
        outside = inside.replace("198.19.", "198.18.", 1)
        addresses = (members[relay]["address"], "2223", outside, inside)
        self._talkers = Agent(lab, talker, FOLDER, "talkers.py", *addresses)

    def measure(self, sessions: int, seconds: float) -> dict[str, Any]:
        """Have so many sessions talk, and look on for so many seconds."""
        if sessions:
            self._talkers.ask("grow", sessions=sessions)
        time.sleep(SETTLE_SECONDS)
        self._talkers.ask("mark")
        before = self._meter()
        time.sleep(seconds)
        after = self._meter()
        counted = self._talkers.ask("count")
        span = after["at"] - before["at"]
        return {
            "sessions": sessions,
            "packets_per_second": round(counted["received"] / counted["seconds"], 1),
            "busy": round((after["used"] - before["used"]) / span, 5),
            "kernel_share": counted["kernel_share"],
            "lost_share": round(counted["lost"] / max(counted["sent"], 1), 6),
            "silent_streams": counted["silent_streams"],
            "slowest_ms": counted["slowest_ms"],
            "generator_busy": round(counted["generator_cpu_seconds"] / counted["seconds"], 4),
            "generator_latest_ms": counted["generator_latest_ms"],
            "generator_refused": counted["refused_by_kernel"],
        }

    def close(self) -> None:
        """End the sessions."""
        self._talkers.close()


def install(lab: Lab, relay: str, forwarding: str) -> None:
    """Make a lab server a relay, as site.yml does, and nothing else; with room for any size."""
    room = {"ringmain_limits": ROOM, "ringmain_media_forwarding": forwarding}
    with tempfile.TemporaryDirectory() as folder:
        playbook = excerpt(["rtpengine"], Path(folder))
        done = play(playbook, "--limit", relay, "-e", json.dumps(room))
    if done.code:
        raise SystemExit(f"{relay} has become no relay:\n{done.output}")
    lab.shell(relay, "systemctl restart rtpengine-daemon")


def complaints(forwarding: str, measured: Sequence[Mapping[str, Any]], error: float) -> list[str]:
    """Why these measurements say nothing, or against the model; empty when all is well."""
    found = []
    for one in measured:
        if abs(one["kernel_share"] - (forwarding == "kernel")) > STRAYED:
            found.append(
                f"{one['sessions']} sessions: {one['kernel_share']:.1%} of the packets were "
                f"forwarded in the kernel, which is not {forwarding}"
            )
        if one["lost_share"] > LOST or one["silent_streams"]:
            found.append(
                f"{one['sessions']} sessions: {one['lost_share']:.2%} of the packets lost, "
                f"{one['silent_streams']} streams silent: measure fewer sessions, or alone"
            )
        wanted = one["sessions"] * 2 * PACKETS_PER_SECOND
        if abs(one["packets_per_second"] / wanted - 1) > RATE_WITHIN:
            found.append(
                f"{one['sessions']} sessions: {one['packets_per_second']:.0f} packets a second "
                f"instead of {wanted}: the machine has no time for the talkers, measure alone"
            )
    if abs(error) > WITHIN:
        found.append(f"the model is {error:+.0%} off at the third size, more than {WITHIN:.0%}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description="Processor time that a relay's work takes.")
    parser.add_argument("--lab", default=os.environ.get("RINGMAIN_LAB_ID", "bench"))
    parser.add_argument("--relay", default="srv1", help="lab server with a relay (srv1)")
    parser.add_argument("--talker", default="srv2", help="lab server to talk from (srv2)")
    parser.add_argument(
        "--sizes", default="60,180,300", help="sessions: two for the model, a third"
    )
    parser.add_argument("--seconds", type=float, default=15.0, help="for each size (15)")
    parser.add_argument("--forwarding", default="userspace", choices=("userspace", "kernel"))
    parser.add_argument("--whole-host", action="store_true", help="the relay is a virtual machine")
    parser.add_argument("--install", action="store_true", help="install the relay first")
    options = parser.parse_args(arguments)
    sizes = [int(size) for size in options.sizes.split(",")]
    if len(sizes) != 3 or sizes != sorted(set(sizes)):
        parser.error("--sizes takes three numbers, each larger than the one before")

    lab = Lab(options.lab)
    if options.install:
        install(lab, options.relay, options.forwarding)
    meter = guest_meter if options.whole_host else service_meter
    bench = Bench(lab, options.relay, options.talker, meter(lab, options.relay))
    try:
        idle = bench.measure(0, options.seconds)
        measured = [bench.measure(size, options.seconds) for size in sizes]
    finally:
        bench.close()
    if options.whole_host:
        for one in measured:
            one["busy"] = round(one["busy"] - idle["busy"], 5)
    found = model(measured[0], measured[1])
    foretold = foretell(found, measured[2]["packets_per_second"])
    error = foretold / measured[2]["busy"] - 1
    wrong = complaints(options.forwarding, measured, error)
    # A session is two streams that the relay receives.
    sessions_per_core = 1 / (found["per_packet"] * 2 * PACKETS_PER_SECOND)
    planned = capacity.RELAY_SESSIONS_PER_CORE[options.forwarding]
    print(
        json.dumps(
            {
                "benchmark": "media",
                "forwarding": options.forwarding,
                "measure": "guest busy beyond idle, emulated" if options.whole_host else "service",
                "machine": machine(),
                "idle": idle,
                "measured": measured,
                "model": {
                    "fixed_cores": round(found["fixed"], 5),
                    "microseconds_per_packet": round(found["per_packet"] * 1e6, 3),
                    "packets_per_second_per_core": round(1 / found["per_packet"]),
                },
                "plan": {
                    "sessions_per_core": planned,
                    "measured_sessions_per_core": round(sessions_per_core),
                    "ratio": round(sessions_per_core / planned, 2),
                },
                "third_size": {
                    "foretold_busy": round(foretold, 5),
                    "measured_busy": measured[2]["busy"],
                    "error": round(error, 4),
                },
                "complaints": wrong,
            },
            indent=2,
        )
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
