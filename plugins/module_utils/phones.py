# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test phones: baresip without a window, a sound card or a saved account.

One process is one phone. It plays a steady tone into every call and writes what it hears into a
WAV file at the pace of a real ear: audio that does not arrive in time is silence there. It is
controlled over baresip's ctrl_tcp (JSON in netstrings) on loopback. The account goes to it through
this connection, so a password is never in a file, an argument list or a log.

Every phone ends by itself after its `lifetime`, whatever becomes of the program that started it.
"""

from __future__ import annotations

import contextlib
import json
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from . import tones

# A netstring of ctrl_tcp is far below this; more means that something else is at the other end.
_LONGEST_MESSAGE = 1_000_000

# baresip cuts a command at 1024 bytes without a word.
_LONGEST_COMMAND = 1000

# Seconds for a phone to unregister when it is told to end.
PATIENCE = 3.0

# Seconds of tone. Every call loads all of it, and a source that ends takes its call with it.
LONGEST_CALL = 300

# What an account line takes without quoting.
_PLAIN = re.compile(r"[A-Za-z0-9_.~!*'()&=+$/-]+")
_HIDDEN = re.compile(r'((?:Proxy-)?Authorization:.*?response=")[^"]*', re.IGNORECASE)
_ESCAPES = re.compile(r"\x1b?\[[0-9;]*m")
_PACKETS = re.compile(r"^packets:\s+(\d+)\s+(\d+)\s*$", re.MULTILINE)
_WAY = re.compile(r"(UDP|TCP) \S+ -> \S+$")
_PART_OF_MESSAGE = re.compile(r"[A-Z][A-Za-z-]*:( |$)|[a-z]=")
_START = "baresip is ready."
_CODE = re.compile(r"(\d{3})\b")


class PhoneError(Exception):
    """A phone could not be started or does not do what it is told."""


@dataclass(frozen=True)
class Proxy:
    """Where phones send everything: the outside address of the cluster."""

    address: str
    port: int
    transport: str = "udp"


@dataclass(frozen=True)
class Account:
    """A subscriber of the cluster. Its password shows in no representation."""

    user: str
    domain: str
    password: str = field(repr=False)

    @property
    def aor(self) -> str:
        """Address of record, `user@domain`."""
        return f"{self.user}@{self.domain}"


@dataclass(frozen=True)
class Event:
    """What a phone reported. `at` is the monotonic time of its arrival in seconds."""

    at: float
    kind: str
    call_id: str
    param: str
    direction: str
    peer: str
    data: dict[str, Any] = field(repr=False, compare=False)

    @property
    def code(self) -> int | None:
        """The SIP status code at the start of the parameter, if there is one."""
        found = _CODE.match(self.param)
        return int(found.group(1)) if found else None


@dataclass(frozen=True)
class Packets:
    """RTP packets of one call as the phone counted them."""

    sent: int
    received: int


@dataclass(frozen=True)
class Attempt:
    """What became of one dialled number: answered, or refused with a code or a reason."""

    call_id: str
    answered: bool
    seconds: float
    code: int | None
    reason: str


def account_line(account: Account, proxy: Proxy, expires: int) -> str:
    """The account as `uanew` takes it: answers by itself, G.711 A-law, everything to the proxy.

    `expires` is the lifetime of the registration in seconds; 0 registers nothing.
    """
    for what, value in (
        ("user", account.user),
        ("domain", account.domain),
        ("password", account.password),
        ("proxy address", proxy.address),
    ):
        if not _PLAIN.fullmatch(value):
            raise PhoneError(
                f"the {what} of {account.aor} is empty or has a character a test phone cannot take"
            )
    if proxy.transport not in ("udp", "tcp"):
        raise PhoneError(f"transport {proxy.transport!r} is neither udp nor tcp")
    return (
        f"<sip:{account.user}@{account.domain};transport={proxy.transport}>"
        f";auth_user={account.user};auth_pass={account.password}"
        f';outbound="sip:{proxy.address}:{proxy.port};transport={proxy.transport}"'
        f";regint={expires};answermode=auto;audio_codecs=PCMA/8000/1;mwi=no;call_transfer=no"
    )


def configuration(directory: str, address: str, interface: str, sip: int, control: int) -> str:
    """A phone's configuration file; `sip` and `control` are port numbers."""
    settings = [
        ("sip_listen", f"{address}:{sip}"),
        ("net_interface", interface),
        ("ctrl_tcp_listen", f"127.0.0.1:{control}"),
        ("audio_source", f"aufile,{directory}/tone.wav"),
        ("audio_player", f"aufile,{directory}/heard.wav"),
        ("audio_alert", f"aufile,{directory}/alert.wav"),
        # Smooths the network as a real phone does; without it every late packet would be a gap.
        ("audio_buffer", "40-160"),
        ("jitter_buffer_type", "fixed"),
        ("jitter_buffer_delay", "2-20"),
        ("rtp_stats", "yes"),
        ("call_local_timeout", "30"),
        ("statmode_default", "off"),
        *((f"{sound}_aufile", "none") for sound in _SOUNDS),
        ("module_path", "/usr/lib/baresip/modules"),
        ("module", "g711.so"),
        ("module", "aufile.so"),
        ("module_app", "ctrl_tcp.so"),
        ("module_app", "menu.so"),
    ]
    return "".join(f"{name}\t{value}\n" for name, value in settings)


_SOUNDS = ("ring", "ringback", "callwaiting", "busy", "error", "notfound", "autoanswer")


def netstring(payload: bytes) -> bytes:
    """A message as ctrl_tcp takes it."""
    return b"%d:%s," % (len(payload), payload)


class NetstringReader:
    """Cuts a byte stream into netstrings."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take what has arrived and return the messages that are complete with it.

        Raises PhoneError when the stream is not made of netstrings.
        """
        self._buffer += data
        messages = []
        while self._buffer:
            digits, colon, rest = self._buffer.partition(b":")
            if not colon and len(digits) < 8 and (not digits or digits.isdigit()):
                break
            if not colon or not digits.isdigit() or int(digits) > _LONGEST_MESSAGE:
                raise PhoneError(f"the phone sent {self._buffer[:40]!r}: not its control protocol")
            length = int(digits)
            if len(rest) <= length:
                break
            if rest[length : length + 1] != b",":
                raise PhoneError(f"the phone sent {self._buffer[:40]!r}: not its control protocol")
            messages.append(rest[:length])
            self._buffer = rest[length + 1 :]
        return messages


class Transport(Protocol):
    """A byte stream to a phone."""

    def send(self, data: bytes) -> None:
        """Send all of it."""

    def receive(self, timeout: float) -> bytes | None:
        """What arrives next; None when nothing does in `timeout` seconds; b"" at the end."""

    def close(self) -> None:
        """Release it; may be called more than once."""


class SocketTransport:
    """A TCP connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._selector = selectors.DefaultSelector()
        self._selector.register(connection, selectors.EVENT_READ)

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._connection.sendall(data)

    def receive(self, timeout: float) -> bytes | None:
        """What arrives next; None when nothing does in `timeout` seconds; b"" at the end."""
        if not self._selector.select(max(timeout, 0)):
            return None
        try:
            return self._connection.recv(65536)
        except ConnectionError:
            return b""

    def close(self) -> None:
        """Close the connection."""
        self._selector.close()
        self._connection.close()


class Control:
    """A phone's control connection: commands, and every event since it was opened."""

    def __init__(
        self,
        transport: Transport,
        name: str = "phone",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.events: list[Event] = []
        self._transport = transport
        self._clock = clock
        self._reader = NetstringReader()
        self._answers: dict[str, dict[str, Any]] = {}
        self._token = 0

    def command(self, name: str, params: str = "", timeout: float = 5.0) -> str:
        """Run a command and return its answer.

        Raises PhoneError when the phone refuses it, does not answer in `timeout` seconds or is
        gone. The error never shows the parameters: they can hold a password.
        """
        self._token += 1
        token = str(self._token)
        if len(name) + len(params) > _LONGEST_COMMAND:
            raise PhoneError(f"{self.name}: the command {name} is too long for a phone")
        message = {"command": name, "params": params, "token": token}
        self._transport.send(netstring(json.dumps(message).encode()))
        deadline = self._clock() + timeout
        while token not in self._answers:
            if not self.pump(deadline - self._clock()) and self._clock() >= deadline:
                raise PhoneError(f"{self.name}: no answer to the command {name} in {timeout:g} s")
        answer = self._answers.pop(token)
        if not answer.get("ok"):
            raise PhoneError(f"{self.name}: the command {name} was refused")
        return str(answer.get("data", ""))

    def wait(self, match: Callable[[Event], bool], timeout: float, since: int = 0) -> Event | None:
        """The first event from number `since` on that matches; None after `timeout` seconds."""
        deadline = self._clock() + timeout
        position = since
        while True:
            while position < len(self.events):
                if match(self.events[position]):
                    return self.events[position]
                position += 1
            left = deadline - self._clock()
            if left <= 0:
                return None
            self.pump(left)

    def pump(self, timeout: float) -> bool:
        """Take in what arrives within `timeout` seconds; tell whether anything did."""
        data = self._transport.receive(timeout)
        if data is None:
            return False
        if not data:
            raise PhoneError(f"{self.name}: the phone has closed its control connection")
        for payload in self._reader.feed(data):
            self._take(payload)
        return True

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _take(self, payload: bytes) -> None:
        try:
            message = json.loads(payload)
        except ValueError as error:
            raise PhoneError(f"{self.name}: unreadable message from the phone: {error}") from error
        if message.get("response"):
            self._answers[str(message.get("token", ""))] = message
        elif message.get("event"):
            self.events.append(
                Event(
                    at=self._clock(),
                    kind=str(message.get("type", "")),
                    call_id=str(message.get("id", "")),
                    param=str(message.get("param", "")),
                    direction=str(message.get("direction", "")),
                    peer=str(message.get("peeruri", "")),
                    data=message,
                )
            )


def packet_counts(log: str) -> Packets | None:
    """The counts baresip writes when a call ends; the last ones in the log."""
    found = _PACKETS.findall(log)
    return Packets(int(found[-1][0]), int(found[-1][1])) if found else None


def readable_log(log: str, lines: int) -> list[str]:
    """The last lines of a phone's log, SIP trace included, without colours and secrets.

    A digest response is hidden: whoever has it can try passwords against it.
    """
    plain = _ESCAPES.sub("", log).replace("\r", "")
    kept = [_HIDDEN.sub(r"\1(hidden)", line) for line in plain.split("\n") if line.strip()]
    return kept[-lines:]


def ladder(log: str) -> list[str]:
    """The SIP messages in a phone's log, one line each, and what the phone said in between.

    Of a message its way, its first line, and its CSeq and Call-ID are kept. What the phone says of
    itself before it is ready is left out.
    """
    lines = []
    block: list[str] = []
    said = readable_log(log, sys.maxsize)
    said = said[said.index(_START) + 1 :] if _START in said else said
    for line in [*said, "#"]:
        if line != "#":
            block.append(line)
            continue
        lines += _ladder_step(block)
        block = []
    return lines


def _ladder_step(block: Sequence[str]) -> list[str]:
    if not block or not _WAY.match(block[0]):
        return list(block)
    headers = dict(line.partition(": ")[::2] for line in block[2:])
    # The trace does not mark the end of a message: what follows its headers and its body.
    rest = [line for line in block[2:] if not _PART_OF_MESSAGE.match(line)]
    name = f"CSeq {headers.get('CSeq', '?')}, Call-ID {headers.get('Call-ID', '?')}"
    return [f"{block[0]}  {' '.join(block[1:2])}  ({name})", *rest]


class Phone:
    """A running phone. Use it as a context manager: leaving it ends the process."""

    def __init__(self, control: Control, process: subprocess.Popen[bytes], directory: Path) -> None:
        self.control = control
        self.name = control.name
        self._process = process
        self._directory = directory
        self._calls = 0

    def __enter__(self) -> Phone:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def add_account(self, account: Account, proxy: Proxy, expires: int) -> None:
        """Give the phone its account; it starts to register unless `expires` is 0."""
        self.control.command("uanew", account_line(account, proxy, expires))

    def registered(self, timeout: float, since: int = 0) -> Event | None:
        """The outcome of a registration: the event with its SIP code, None when none came."""
        return self.control.wait(
            lambda event: event.kind in ("REGISTER_OK", "REGISTER_FAIL"), timeout, since
        )

    def dial(self, target: str, timeout: float) -> Attempt:
        """Call `target` (a SIP URI) and wait until it is answered or refused."""
        since = len(self.control.events)
        started = time.monotonic()
        answer = self.control.command("dial", target)
        found = re.search(r"call id: (\S+)", answer)
        if not found:
            raise PhoneError(f"{self.name}: the phone did not dial {target}: {answer.strip()}")
        call_id = found.group(1)
        event = self.control.wait(
            lambda event: (
                event.call_id == call_id and event.kind in ("CALL_ESTABLISHED", "CALL_CLOSED")
            ),
            timeout,
            since,
        )
        seconds = (event.at if event else time.monotonic()) - started
        if event is None:
            return Attempt(call_id, False, seconds, None, f"no answer in {timeout:g} s")
        answered = event.kind == "CALL_ESTABLISHED"
        return Attempt(call_id, answered, seconds, 200 if answered else event.code, event.param)

    def incoming(self, timeout: float, since: int = 0) -> Event | None:
        """The first incoming call answered since event number `since`."""
        return self.control.wait(
            lambda event: event.kind == "CALL_ESTABLISHED" and event.direction == "incoming",
            timeout,
            since,
        )

    def closed(self, call_id: str, timeout: float) -> Event | None:
        """The end of a call; its parameter says who asked for it."""
        return self.control.wait(
            lambda event: event.kind == "CALL_CLOSED" and event.call_id == call_id, timeout
        )

    def hang_up(self, call_id: str) -> None:
        """End a call. Raises PhoneError when it has ended already."""
        self.control.command("hangup", call_id)

    def crashed(self, patience: float = 0.0) -> bool:
        """Whether a signal that nobody here sent has ended the process, or does so in a moment."""
        try:
            return self._process.wait(patience) < 0
        except subprocess.TimeoutExpired:
            return False

    def recording(self) -> bytes:
        """What was heard in the call that has just ended (or is still going on)."""
        # The phone closes the file after it has told of the end; an answer comes after that.
        self.control.command("listcalls")
        self._calls += 1
        heard = self._directory / "heard.wav"
        try:
            content = heard.read_bytes()
        except FileNotFoundError:
            return b""
        heard.rename(self._directory / f"heard-{self._calls}.wav")
        return content

    def position(self) -> int:
        """How long the log is by now, in bytes."""
        return (self._directory / "log").stat().st_size

    def log(self, since: int = 0) -> str:
        """The log, SIP trace included, from byte `since` on."""
        with (self._directory / "log").open("rb") as stream:
            stream.seek(since)
            return stream.read().decode(errors="replace")

    def stop(self) -> None:
        """End the phone: it unregisters, its directory goes."""
        self.control.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._directory)


def free_port(address: str, kind: socket.SocketKind) -> int:
    """A port of `address` that nobody uses now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def path_to(address: str, run: Callable[[Sequence[str]], str]) -> tuple[str, str]:
    """The local address and the interface this host reaches `address` with.

    `run` executes a command and returns its output. Raises PhoneError without a route.
    """
    try:
        route = json.loads(run(["ip", "-json", "route", "get", address]))[0]
        return str(route["prefsrc"]), str(route["dev"])
    except (OSError, ValueError, LookupError, subprocess.CalledProcessError) as error:
        raise PhoneError(f"this host has no route to {address}") from error


def launch(
    name: str,
    directory: Path,
    path: tuple[str, str],
    frequency: int,
    lifetime: int,
    program: str = "baresip",
) -> Phone:
    """Start a phone in `directory`, which must not exist yet and is removed at the end.

    `path` is local address and interface, `frequency` the tone it plays in Hz, `lifetime` the
    seconds after which it ends by itself. Raises PhoneError with its last words when it does not
    come up.
    """
    address, interface = path
    directory.mkdir(mode=0o700)
    sip = free_port(address, socket.SOCK_DGRAM)
    port = free_port("127.0.0.1", socket.SOCK_STREAM)
    text = configuration(str(directory), address, interface, sip, port)
    (directory / "config").write_text(text, encoding="utf-8")
    tone = tones.sine(frequency, 1000) * min(lifetime + 1, LONGEST_CALL)
    (directory / "tone.wav").write_bytes(tones.wave_file(tone))
    with (directory / "log").open("wb") as log:
        try:
            # AnsibleModule.run_command waits for the end; a phone stays.
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                [program, "-4", "-s", "-f", str(directory), "-t", str(lifetime)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=directory,
                start_new_session=True,
            )
        except OSError as error:
            shutil.rmtree(directory)
            raise PhoneError(f"cannot start {program}: {error.strerror}") from error
    transport = _connect(port, process, deadline=time.monotonic() + 5)
    if transport is None:
        log_text = (directory / "log").read_text(encoding="utf-8", errors="replace")
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        shutil.rmtree(directory)
        last = " | ".join(readable_log(log_text, 3))
        raise PhoneError(f"{name}: the phone did not come up in 5 s; it said: {last}")
    return Phone(Control(transport, name), process, directory)


def _connect(
    port: int, process: subprocess.Popen[bytes], deadline: float
) -> SocketTransport | None:
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(ConnectionRefusedError):
            return SocketTransport(socket.create_connection(("127.0.0.1", port), timeout=1))
        time.sleep(0.02)
    return None
