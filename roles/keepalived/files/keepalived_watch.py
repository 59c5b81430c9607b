# Copyright (c) Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watches over the floating addresses of this host, beside keepalived.

Tells keepalived whether the edge here is ready, by what Kamailio answers, in a file that it tracks.
A check that keepalived had to start each second would wait for the processor with everybody else,
and a busy host would give its addresses away to one that is as busy.

Ends a keepalived that stands still while this host has floating addresses. Nothing is heard of it,
so another host has taken them. As long as both have them, what processes of this host send to one
stays here, and the network hears two hosts say that it is theirs. systemd starts it again at once,
and it gives away what it finds as it starts. Where addresses are, advertisements leave each 0.2 s.
A process that has not slept and woken once for a whole second sends none.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

log = logging.getLogger("keepalived-watch")

TICK = 0.2
"""Seconds between two looks."""

STILL = 5
"""So many looks without a change, 1 s, and it is taken for frozen."""

LATE = 0.5
"""A look that comes so many seconds late says that this service had to wait, too."""

ASK = 2
"""At each so manieth look the edge is asked."""

SILENT = 1.6
"""An edge that has not answered for so many seconds is not ready."""

RISE = 2
"""So many good answers, one after another, and it is ready."""

FRESH = 1.0
"""An answer to a question that is older says nothing."""

DISABLED = 4
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


class Readiness:
    """Whether the edge is ready, by its answers, and never while it is drained.

    ``ready``: what an earlier process of this service said last.
    """

    def __init__(self, now: float, ready: bool = False) -> None:
        self.ready = ready
        self._good = 0
        self._began = self._heard = self._looked = now

    def known(self, now: float) -> bool:
        """Whether the edge had the time to answer."""
        return self.ready or now - self._began > SILENT

    def look(self, now: float, answers: Iterable[bool], out: bool) -> bool:
        """What came since the last look: whether each answer was good; ``out``: dead or drained.

        The time for which this service itself had to wait is not held against the edge.
        """
        late = now - self._looked - TICK
        if late > LATE:
            self._heard += late
        self._looked = now
        for good in answers:
            self._heard = now
            self._good = self._good + 1 if good else 0
            self.ready = self.ready and good
        if out or now - self._heard > SILENT:
            self._good, self.ready = 0, False
        elif self._good >= RISE:
            self.ready = True
        return self.ready


class Question:
    """OPTIONS to the edge, here. Nobody waits for answers: they are read at a look."""

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._socket: socket.socket | None = None
        self._asked: dict[str, float] = {}

    def ask(self, now: float) -> None:
        """Send one more; what cannot be sent is not answered."""
        address, port = self._server
        with contextlib.suppress(OSError):
            if self._socket is None:
                client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                client.setblocking(False)
                client.bind((address, 0))
                client.connect(self._server)
                self._socket = client
            token = os.urandom(8).hex()
            own = f"{address}:{self._socket.getsockname()[1]}"
            request = (
                f"OPTIONS sip:ready@{address}:{port} SIP/2.0",
                f"Via: SIP/2.0/UDP {own};rport;branch=z9hG4bK{token}",
                f"From: <sip:check@{own}>;tag={token}",
                f"To: <sip:ready@{address}:{port}>",
                f"Call-ID: {token}",
                "CSeq: 1 OPTIONS",
                "Max-Forwards: 5",
                "Content-Length: 0",
                "",
                "",
            )
            self._asked[token] = now
            self._socket.send("\r\n".join(request).encode())

    def answers(self, now: float) -> list[bool]:
        """Of each answer to a question that is not old: whether it is 200."""
        self._asked = {token: at for token, at in self._asked.items() if now - at <= FRESH}
        found = []
        while self._socket is not None:
            try:
                status, _end, rest = (
                    self._socket.recv(4096).decode(errors="replace").partition("\r\n")
                )
            except BlockingIOError:
                break
            except OSError:
                continue  # Nobody is there: said once for each question.
            lines = [line.partition(":") for line in rest.split("\r\n")]
            call_id = next((value.strip() for name, _c, value in lines if name == "Call-ID"), "")
            if self._asked.pop(call_id, None) is not None:
                found.append(status.startswith("SIP/2.0 200 "))
        return found


def is_drained(edge: str, path: Path) -> bool:
    """Whether the list says so; one that is not there, or not understood, says nothing."""
    with contextlib.suppress(OSError, ValueError), path.open(encoding="utf-8") as stream:
        for line in stream:
            words = line.split()
            if words[1:2] == [edge] and len(words) > 2:
                return bool(int(words[2]) & DISABLED)
    return False


def says_no(path: Path) -> bool:
    """Whether a file says 0: that nothing is wrong."""
    try:
        return path.read_text().strip() == "0"
    except OSError:
        return False


def notify(word: str) -> None:
    """Tell systemd."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.sendto(word.encode(), path.replace("@", "\0", 1))


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
        ("systemctl", *words), capture_output=True, text=True, timeout=2, check=False
    )
    if done.returncode:
        log.error("systemctl %s: %s", " ".join(words), done.stderr.strip())


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("floating", type=Path, help="file with the floating addresses")
    edge = parser.add_argument_group("an edge on this host")
    edge.add_argument("--edge", metavar="URI", help="its name in the list of destinations")
    edge.add_argument("--check", type=int, metavar="PORT", help="where it says that it is ready")
    edge.add_argument("--drains", type=Path, metavar="FILE", help="that list")
    edge.add_argument("--dead", type=Path, metavar="FILE", help="systemd's word that it is dead")
    edge.add_argument("--unready", type=Path, metavar="FILE", help="to write: 0 while it is ready")
    return parser.parse_args()


def watch_edge(given: argparse.Namespace) -> Iterator[bool]:
    """At each look, whether the edge's state is known; it stands in the file by then."""
    now = time.monotonic()
    readiness = Readiness(now, ready=says_no(given.unready))
    question = Question(given.check)
    written = None
    for look in itertools.count():
        now = time.monotonic()
        out = not says_no(given.dead) or is_drained(given.edge, given.drains)
        ready = readiness.look(now, question.answers(now), out)
        if ready != written:
            log.info("the edge is %s", "ready" if ready else "not ready")
            given.unready.write_text("0\n" if ready else "1\n")
            written = ready
        if look % ASK == 0:
            question.ask(now)
        yield readiness.known(now)


def watch_keepalived(floating: Path) -> Iterator[None]:
    """At each look, end it if it stands still and has addresses."""
    watch = Watch()
    while True:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            found = wakings() if any(map(is_local, floating.read_text().split())) else {}
            if watch.frozen(time.monotonic(), found):
                log.error("keepalived stands still and has addresses: kill it, and start it again")
                systemctl("kill", "--kill-whom=all", "--signal=SIGKILL", UNIT)
                systemctl("restart", "--no-block", UNIT)
                watch = Watch()
        yield


def main() -> None:
    """Watch both."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    given = arguments()
    keepalived = watch_keepalived(given.floating)
    edge = watch_edge(given) if given.edge else itertools.repeat(True)
    told = False
    while True:
        began = time.monotonic()
        next(keepalived)
        known = next(edge)
        notify("WATCHDOG=1")
        if known and not told:
            notify("READY=1")
            told = True
        time.sleep(max(0.0, began + TICK - time.monotonic()))


if __name__ == "__main__":
    main()
