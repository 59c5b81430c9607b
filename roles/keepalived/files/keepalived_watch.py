# Copyright (c) Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends a keepalived that stands still while this host has floating addresses.

Nothing is heard of it, so another host has taken them. As long as both have them, what processes of
this host send to one stays here, and the network hears two hosts say that it is theirs. systemd
starts it again at once, and it gives away what it finds as it starts.

Where addresses are, advertisements leave each 0.2 s. A process that has not slept and woken once
for a whole second sends none.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger("keepalived-watch")

TICK = 0.2
"""Seconds between two looks."""

STILL = 5
"""So many looks without a change, 1 s, and it is taken for frozen."""

LATE = 0.5
"""A look that comes so many seconds late says that this service had to wait, too."""

UNIT = "keepalived.service"
GROUP = Path("/sys/fs/cgroup/system.slice") / UNIT / "cgroup.procs"


class Watch:
    """Tells a process that is frozen from one that waits or starts."""

    def __init__(self) -> None:
        self._woken: Mapping[int, int] = {}
        self._looked = 0.0
        self._still = 0

    def frozen(self, now: float, woken: Mapping[int, int]) -> bool:
        """Whether it is, by how often each of its processes has woken so far.

        Right after the start of one, it is not known yet.
        """
        late = now - self._looked > TICK + LATE
        same = bool(woken) and woken == self._woken
        self._still = self._still + 1 if same and not late else 0
        self._woken, self._looked = dict(woken), now
        return self._still >= STILL


def wakings(group: Path = GROUP, proc: Path = Path("/proc")) -> dict[int, int]:
    """How often each process of keepalived has gone to sleep by itself so far; not its scripts."""
    found = {}
    for process in group.read_text().split():
        with contextlib.suppress(OSError, IndexError):
            status = (proc / process / "status").read_text()
            if status.startswith("Name:\tkeepalived\n"):
                count = status.partition("\nvoluntary_ctxt_switches:")[2].split(None, 1)[0]
                found[int(process)] = int(count)
    return found


def is_local(address: str) -> bool:
    """Whether this host has the address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def systemctl(*words: str) -> None:
    """Say so when it fails; the next look tries again."""
    done = subprocess.run(
        ("systemctl", *words), capture_output=True, text=True, timeout=10, check=False
    )
    if done.returncode:
        log.error("systemctl %s: %s", " ".join(words), done.stderr.strip())


def main() -> None:
    """Watch, with the floating addresses in the file that the first argument names."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    addresses = Path(sys.argv[1])
    watch = Watch()
    while True:
        began = time.monotonic()
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            found = wakings() if any(map(is_local, addresses.read_text().split())) else {}
            if watch.frozen(began, found):
                log.error("keepalived stands still and has addresses: kill it, and start it again")
                systemctl("kill", "--kill-whom=all", "--signal=SIGKILL", UNIT)
                systemctl("restart", "--no-block", UNIT)
                watch = Watch()
        time.sleep(max(0.0, began + TICK - time.monotonic()))


if __name__ == "__main__":
    main()
