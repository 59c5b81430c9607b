# Copyright (c) Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets relays follow their addresses, and keeps what they need to go on elsewhere.

A relay is a pair of floating addresses and one RTPEngine process, which runs only where the pair
is: when it starts, it takes up the sessions that its predecessor left in the store. keepalived
moves the pairs; this service does the rest, on every media host:

- it starts the relay of a pair that came, and kills that of a pair that went;
- it kills a relay, or the local Valkey, that lives and gives no answer: systemd starts it again,
  with its sessions. A relay that cannot be brought to answer gives its addresses away;
- it tells keepalived which relays carry calls here, so that no other host takes them;
- Valkey takes writes where the first relay's address is, and is a copy of it everywhere else;
- it compares sessions and store each second, and has written again what is missing there.

No call depends on it: without this service relays relay, only nobody repairs or moves them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger("relay-agent")

TICK = 0.2
"""Seconds between two looks at relays and Valkey."""

UNANSWERED = 5
"""So many pings without an answer, 1 s, and whoever lives is taken for frozen."""

LATE = 0.5
"""A look that comes so many seconds late says that this service had to wait, not the others."""

UNABLE_SECONDS = 8.0
"""A relay that does not answer for so long gives its addresses away..."""

UNABLE_PAUSE = 60.0
"""... and does not want them back for so long."""

COPY_SECONDS = 5.0
"""After the start of this service no address is taken before Valkey has its copy, or so long."""

STANDSTILL = 5.0
"""A loop that takes no turn for so long hangs, and the watchdog ends this service."""

SYNC_SECONDS = 1.0
WHOLE_LOOK = 30
"""Every so many looks names are compared, not only numbers."""

CARRIES = 120
"""What calls add to a relay's priority: more than the host that is its home is ahead..."""

CARRIES_GUEST = 250
"""... and of a guest more than that at home, too: a home that stood still wakes up with what calls
added there, and does not know those that have begun since."""

PING = b"relay-agent d7:command4:pinge"


# --- what the outside world is like -----------------------------------------------------------


class StoreError(Exception):
    """Valkey answers with an error."""


class Store:
    """A connection to one Valkey. Every method raises OSError or StoreError."""

    def __init__(self, address: str, port: int, password: str, timeout: float = 0.4) -> None:
        self._peer = (address, port)
        self._password = password
        self._timeout = timeout
        self._stream: Any = None

    def ask(self, *words: str | bytes) -> Any:
        """One command; strings come back as bytes."""
        try:
            if self._stream is None:
                connection = socket.create_connection(self._peer, timeout=self._timeout)
                self._stream = connection.makefile("rwb")
                connection.close()  # the stream has it
                self._talk("AUTH", self._password)
            return self._talk(*words)
        except (OSError, ValueError) as error:
            self.close()
            raise OSError(f"Valkey at {self._peer[0]}: {error}") from error

    def close(self) -> None:
        """Forget the connection; the next command makes another one."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()

    def _talk(self, *words: str | bytes) -> Any:
        raw = [word.encode() if isinstance(word, str) else word for word in words]
        parts = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in raw)
        self._stream.write(b"*%d\r\n%s" % (len(raw), parts))
        self._stream.flush()
        return self._answer()

    def _answer(self) -> Any:
        line = self._stream.readline()
        if not line.endswith(b"\r\n"):
            raise ValueError("the connection ended")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            raise StoreError(rest.decode(errors="replace"))
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self._stream.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self._answer() for _item in range(int(rest))]
        raise ValueError(f"unreadable answer {line!r}")


def is_local(address: str) -> bool:
    """Whether this host has the address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def command_line(address: str, port: int, command: str) -> str:
    """What a relay's command line says. Raises OSError."""
    with socket.create_connection((address, port), timeout=1.0) as connection:
        connection.sendall(command.encode())
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as stream:
            return bytes(stream.read()).decode("latin-1")


def answers_at(address: str, port: int) -> bool:
    """Whether a relay takes commands at an address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.3)
        try:
            client.connect((address, port))
            client.send(PING)
            return bool(client.recv(4096))
        except OSError:
            return False


def systemctl(*words: str) -> str:
    """Raises OSError when it fails."""
    try:
        done = subprocess.run(
            ("systemctl", *words), capture_output=True, text=True, timeout=10, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"systemctl {' '.join(words)} takes too long") from error
    if done.returncode:
        raise OSError(f"systemctl {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def tell_systemd(word: str) -> None:
    """What systemd wants to know of this service, if systemd has started it."""
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(word.encode(), path.replace("@", "\0", 1))


def main_process(unit: str) -> int:
    """Process of a service; 0 when there is none."""
    return int(systemctl("show", "--property=MainPID", "--value", unit) or 0)


def session_ids(listing: str) -> set[str]:
    """Call-IDs in what C(list sessions own) says."""
    lines = (line for line in listing.splitlines() if line.startswith("ID:"))
    return {line[3:].rpartition(" | del:")[0].strip() for line in lines}


def session_count(listing: str) -> int:
    """Number in what C(list numsessions) says. Raises ValueError."""
    words = listing.partition("own:")[2].split(None, 1)
    if not words:
        raise ValueError(f"a relay says {listing!r} where it has to say how many sessions it has")
    return int(words[0])


# --- watching ---------------------------------------------------------------------------------


class Watch:
    """Tells a process that is frozen from one that is starting, or from a wait of our own.

    C(answered) with the time whenever the process answered; C(verdict) after each question.
    """

    def __init__(self) -> None:
        self.since = 0.0
        self._unanswered = 0
        self._process = 0
        self._looked = 0.0

    def begin(self, now: float) -> None:
        """From now on answers are expected."""
        self.since = self._looked = now
        self._unanswered = self._process = 0

    def answered(self, now: float, process: Callable[[], int]) -> None:
        """It lives; C(process) tells which process that is."""
        if self._unanswered or not self._process:
            self._process = process()
        self.since = self._looked = now
        self._unanswered = 0

    def unanswered(self, now: float, process: Callable[[], int]) -> str:
        """C(wait), C(frozen) (the process that answered lives and is silent) or C(gone)."""
        late = now - self._looked > TICK + LATE
        self._looked = now
        self._unanswered = 0 if late else self._unanswered + 1
        if self._unanswered < UNANSWERED:
            return "wait"
        found = process()
        if not found:
            self._unanswered = 0
            return "gone"
        if found == self._process:
            self._process = self._unanswered = 0
            return "frozen"
        return "wait"


class Flag:
    """A file with a number that keepalived follows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self.value = int(path.read_text())
        except (OSError, ValueError):
            self.value = -1

    def set(self, value: int) -> None:
        """Write it if it is not so already."""
        if value != self.value:
            self._path.write_text(f"{value}\n")
            self.value = value


class Relay:
    """One relay, as this host sees it."""

    def __init__(
        self, found: Mapping[str, Any], control_port: int, folder: Path, own_address: str
    ) -> None:
        self.number = int(found["number"])
        self.addresses = (str(found["address"]), str(found["outside_address"]))
        self.unit = str(found["unit"])
        self.cli = (str(found["cli_address"]), int(found["cli_port"]))
        self.hold = Flag(folder / f"relay-{self.number}.hold")
        self.fault = Flag(folder / f"relay-{self.number}.fault")
        self.held = False
        self.answers = False
        self._carries = CARRIES if found["home"] else CARRIES_GUEST
        self._control = (self.addresses[0], control_port)
        # Where one that was started before addresses floated still carries calls.
        self._before = (own_address, control_port) if found["home"] else None
        self._asked = 0.0
        self._settled = False
        self._watch = Watch()
        self._unable_until = 0.0
        self._counted = 0.0
        self._socket: socket.socket | None = None

    def look(self, now: float) -> None:
        """Bring the relay to where its addresses are. OSError: try again at the next look."""
        if self._fixed(now):
            return
        held = all(map(is_local, self.addresses))
        if self.held and not held:
            log.info("relay %d: its addresses are gone, kill it", self.number)
        if held != self.held or not self._settled:
            self._settled = False
            self.answers = False
            self.held = held
            if held:
                log.info("relay %d: its addresses are here, start it", self.number)
                # It may carry calls from its first moment on; soon they are counted.
                self.hold.set(self._carries)
                systemctl("start", "--no-block", self.unit)
                self._watch.begin(now)
            else:
                # Killed, not asked: what it still holds is another one's by now.
                systemctl("stop", "--no-block", self.unit)
                self.hold.set(0)
            self._settled = True
        if held:
            self._care(now)
        elif now >= self._unable_until:
            self.fault.set(0)

    def _fixed(self, now: float) -> bool:
        """Whether a relay on the host's own addresses waits for its restart; it is left alone."""
        if self._before and now - self._asked >= UNABLE_SECONDS:
            if answers_at(*self._before):
                if not self._asked:
                    log.warning("relay %d waits for a restart to use its addresses", self.number)
                self._asked = now
                self.fault.set(1)
            else:
                self._before = None
        return self._before is not None

    def _care(self, now: float) -> None:
        if self._ping():
            if not self.answers:
                log.info("relay %d answers", self.number)
            self.answers = True
            self._watch.answered(now, lambda: main_process(self.unit))
            self._count(now)
            return
        verdict = self._watch.unanswered(now, lambda: main_process(self.unit))
        if verdict == "frozen":
            log.error("relay %d is frozen: kill it, its sessions come back", self.number)
            self.answers = False
            self._kill()
        elif verdict == "gone":
            log.error("relay %d is not there: start it", self.number)
            self.answers = False
            systemctl("start", "--no-block", self.unit)
        if now - self._watch.since > UNABLE_SECONDS and self.fault.value != 1:
            log.error("relay %d does not come to answer: give its addresses away", self.number)
            self._unable_until = now + UNABLE_PAUSE
            self.fault.set(1)

    def _ping(self) -> bool:
        """Ask once more, and see whether an earlier question has been answered."""
        found = False
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
                self._socket.connect(self._control)
            with contextlib.suppress(BlockingIOError):
                while self._socket.recv(4096):
                    found = True
            self._socket.send(PING)
        except OSError:
            if self._socket is not None:
                self._socket.close()
            self._socket = None
            return False
        return found

    def _kill(self) -> None:
        process = main_process(self.unit)
        if process:
            os.kill(process, signal.SIGKILL)

    def _count(self, now: float) -> None:
        if now - self._counted < SYNC_SECONDS:
            return
        self._counted = now
        try:
            count = session_count(command_line(*self.cli, "list numsessions"))
        except (OSError, ValueError):
            return
        self.hold.set(self._carries if count else 0)


# --- the store --------------------------------------------------------------------------------


class LocalStore:
    """This host's Valkey: the one that takes writes, or a copy of it."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._port = int(settings["port"])
        self._store = Store("127.0.0.1", self._port, settings["password"])
        self._watch = Watch()
        self.copied = False

    def look(self, now: float, first: bool) -> None:
        """Make it what it should be. C(first): the first relay is here."""
        try:
            role = self._store.ask("ROLE")
        except OSError as error:
            unit = self._settings["unit"]
            if self._watch.unanswered(now, lambda: main_process(unit)) == "frozen":
                log.error("%s: frozen, kill it", error)
                os.kill(main_process(unit), signal.SIGKILL)
            return
        self._watch.answered(now, lambda: main_process(self._settings["unit"]))
        if first:
            self._lead(role)
        else:
            self._follow(role)

    def _lead(self, role: Sequence[Any]) -> None:
        primary = str(self._settings["primary"])
        bound = self._store.ask("CONFIG", "GET", "bind")[1].decode().split()
        if primary not in bound:
            wanted = ["127.0.0.1", str(self._settings["address"]), primary]
            self._store.ask("CONFIG", "SET", "bind", " ".join(wanted))
        if role[0] != b"master":
            log.info("the first relay's address is here: Valkey takes writes")
            self._store.ask("REPLICAOF", "NO", "ONE")
        self.copied = True

    def _follow(self, role: Sequence[Any]) -> None:
        primary = str(self._settings["primary"])
        if role[0] != b"slave" or role[1].decode() != primary:
            log.info("Valkey is a copy of the one at %s", primary)
            self._store.ask("REPLICAOF", primary, str(self._port))
        elif role[3] == b"connected":
            self.copied = True


class Sync:
    """Compares a relay's sessions with what the store has of them."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._store = Store(
            settings["primary"], int(settings["port"]), settings["password"], timeout=1.0
        )
        self._life = b""
        self._looks = 0
        self._differed: dict[int, tuple[set[str], set[str]]] = {}

    def look(self, relays: Sequence[Relay]) -> None:
        """One comparison of all relays that run here. Raises OSError and StoreError."""
        life = self._store.ask("INFO", "server").partition(b"run_id:")[2].split(None, 1)[0]
        lost, self._life = life != self._life, life
        self._looks += 1
        for relay in relays:
            self._compare(relay, lost)

    def forget(self) -> None:
        """The store was away: who knows what it has missed."""
        self._life = b""

    def _compare(self, relay: Relay, lost: bool) -> None:
        self._store.ask("SELECT", str(relay.number))
        number = relay.number
        before = self._differed.pop(number, (set(), set()))
        if not lost and not any(before) and self._looks % WHOLE_LOOK:
            count = session_count(command_line(*relay.cli, "list numsessions"))
            if count == self._store.ask("DBSIZE"):
                return
        sessions = session_ids(command_line(*relay.cli, "list sessions own"))
        keys = {key.decode("latin-1") for key in self._store.ask("KEYS", "*")}
        missing, stale = sessions - keys, keys - sessions
        # What differs once may be a call that begins or ends at this moment.
        if missing if lost else missing & before[0]:
            log.warning("relay %d: the store lacks %d sessions, write all", number, len(missing))
            command_line(*relay.cli, "active")
        for key in sorted(stale & before[1]):
            self._store.ask("DEL", key.encode("latin-1"))
        self._differed[number] = (missing, stale)


# --- the service ------------------------------------------------------------------------------


class Service:
    """Three loops; one that hangs does not hold up the others, and the watchdog ends them all."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        folder = Path(settings["folder"])
        port = int(settings["control_port"])
        own = str(settings["store"]["address"])
        self.relays = [Relay(found, port, folder, own) for found in settings["relays"]]
        self.store = LocalStore(settings["store"])
        self.sync = Sync(settings["store"])
        self.turns: dict[str, float] = {}

    def run(self) -> None:
        """Until the process ends."""
        tell_systemd("READY=1")
        for name, seconds, turn in (
            ("store", TICK, self.turn_of_store),
            ("sync", SYNC_SECONDS, self.turn_of_sync),
        ):
            threading.Thread(target=self.loop, args=(name, seconds, turn), daemon=True).start()
        self.wait_for_copy()
        self.loop("relays", TICK, self.turn_of_relays)

    def wait_for_copy(self) -> None:
        """A host that comes back does not take addresses before it has the sessions, either."""
        if any(all(map(is_local, relay.addresses)) for relay in self.relays):
            return
        end = time.monotonic() + COPY_SECONDS
        while not self.store.copied and time.monotonic() < end:
            self.turns["relays"] = time.monotonic()
            time.sleep(TICK)

    def loop(self, name: str, seconds: float, turn: Callable[[float], None]) -> None:
        """Take turns for ever; the first of several failures is said, and each turn tries again."""
        failing = False
        while True:
            started = time.monotonic()
            try:
                turn(started)
                if failing:
                    log.info("%s: works again", name)
                failing = False
            except (OSError, StoreError, ValueError, IndexError) as error:
                if not failing:
                    log.warning("%s: %s", name, error)
                failing = True
            self.turns[name] = time.monotonic()
            if name == "relays":
                self.tell_watchdog()
            time.sleep(max(0.0, started + seconds - time.monotonic()))

    def turn_of_relays(self, now: float) -> None:
        """All relays, each although another one fails."""
        failed: Exception | None = None
        for relay in self.relays:
            try:
                relay.look(now)
            except OSError as error:
                failed = error
        if failed:
            raise failed

    def turn_of_store(self, now: float) -> None:
        """Valkey takes writes where the first relay is."""
        self.store.look(now, all(map(is_local, self.relays[0].addresses)))

    def turn_of_sync(self, _now: float) -> None:
        """Only relays that answer: one that starts has not taken up its sessions yet."""
        try:
            self.sync.look([relay for relay in self.relays if relay.held and relay.answers])
        except OSError:
            self.sync.forget()
            raise

    def tell_watchdog(self) -> None:
        """It may wait again when all loops have taken a turn of late."""
        if time.monotonic() - min(self.turns.values()) < STANDSTILL:
            tell_systemd("WATCHDOG=1")


def main() -> None:
    """Run with the settings in the file that the first argument names."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    Service(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))).run()


if __name__ == "__main__":
    main()
