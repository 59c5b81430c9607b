# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asterisk's manager interface (AMI): log in, run an action, read what it lists.

The byte stream is an argument, so that tests can script the other end.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

_LONGEST_MESSAGE = 1_000_000


class AmiError(Exception):
    """Asterisk does not answer, or answers with an error."""


class NotRunningError(AmiError):
    """Nobody listens where Asterisk's manager should."""


class Transport(Protocol):
    """A byte stream to Asterisk."""

    def send(self, data: bytes) -> None:
        """Send all of it."""

    def receive(self) -> bytes:
        """What arrives next; b"" at the end. Raises OSError when nothing does in time."""


class SocketTransport:
    """A TCP connection; `timeout` in seconds holds for each step."""

    def __init__(self, address: str, port: int, timeout: float = 5.0) -> None:
        try:
            self._connection = socket.create_connection((address, port), timeout)
        except OSError as error:
            kind = NotRunningError if isinstance(error, ConnectionRefusedError) else AmiError
            raise kind(f"no connection to Asterisk's manager: {error}") from error

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._connection.sendall(data)

    def receive(self) -> bytes:
        """What arrives next; b"" at the end. Raises OSError when nothing does in time."""
        return self._connection.recv(65536)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Client:
    """A session with one Asterisk."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._buffer = b""
        self._number = 0

    def login(self, user: str, secret: str) -> None:
        """Log in without events. Raises AmiError, which never shows the secret."""
        banner = self._until(b"\r\n")
        if not banner.startswith(b"Asterisk Call Manager/"):
            raise AmiError(f"this is not Asterisk's manager: {banner[:60]!r}")
        self.action("Login", Username=user, Secret=secret, Events="off")

    def action(self, name: str, **headers: str) -> dict[str, str]:
        """Run an action and return its answer. Raises AmiError when Asterisk refuses it."""
        number = self._send(name, headers)
        answer = self._next(number)
        if answer.get("Response") not in ("Success", "Goodbye"):
            raise AmiError(f"Asterisk refuses {name}: {answer.get('Message', 'no reason given')}")
        return answer

    def listing(self, name: str, **headers: str) -> list[dict[str, str]]:
        """Run an action that answers with a list; its items, without the end mark."""
        number = self._send(name, headers)
        answer = self._next(number)
        if answer.get("Response") != "Success":
            raise AmiError(f"Asterisk refuses {name}: {answer.get('Message', 'no reason given')}")
        items: list[dict[str, str]] = []
        while True:
            item = self._next(number)
            if item.get("EventList") == "Complete":
                return items
            items.append(item)

    def variable(self, channel: str, name: str) -> str:
        """A channel's variable or function; empty when it has none."""
        return self.action("Getvar", Channel=channel, Variable=name).get("Value", "")

    def _send(self, name: str, headers: dict[str, str]) -> str:
        self._number += 1
        number = str(self._number)
        lines = {"Action": name, "ActionID": number, **headers}
        for key, value in lines.items():
            if re.search(r"[\r\n]", value):
                raise AmiError(f"a line break in {key} of {name}")
        text = "".join(f"{key}: {value}\r\n" for key, value in lines.items())
        try:
            self._transport.send(text.encode() + b"\r\n")
        except OSError as error:
            raise AmiError(f"Asterisk's manager is gone: {error}") from error
        return number

    def _next(self, number: str) -> dict[str, str]:
        while True:
            text = self._until(b"\r\n\r\n").decode(errors="replace")
            message = {}
            for line in text.split("\r\n"):
                key, separator, value = line.partition(":")
                if separator:
                    message[key] = value.strip()
            if message.get("ActionID") == number:
                return message

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            if len(self._buffer) > _LONGEST_MESSAGE:
                raise AmiError("Asterisk's manager sends a message without an end")
            try:
                data = self._transport.receive()
            except OSError as error:
                raise AmiError(f"Asterisk's manager does not answer: {error}") from error
            if not data:
                raise AmiError("Asterisk's manager has closed the connection")
            self._buffer += data
        message, _mark, self._buffer = self._buffer.partition(mark)
        return message


@dataclass(frozen=True)
class ChannelMedia:
    """RTP packets that Asterisk itself has received and sent on one channel."""

    channel: str
    call_id: str
    received: int
    sent: int


def channel_media(client: Client, endpoints: Sequence[str]) -> list[ChannelMedia]:
    """The channels of these PJSIP endpoints with Call-ID and packet counts.

    A channel that ends while it is looked at is left out.
    """
    found = []
    for item in client.listing("CoreShowChannels"):
        name = item.get("Channel", "")
        if re.sub(r"-[0-9a-f]{8}$", "", name) not in {f"PJSIP/{name}" for name in endpoints}:
            continue
        try:
            values = [
                client.variable(name, f"CHANNEL({what})")
                for what in ("pjsip,call-id", "rtcp,rxcount", "rtcp,txcount")
            ]
        except AmiError as error:
            if "No such channel" in str(error):
                continue
            raise
        counts = [int(value) if value.isdigit() else 0 for value in values[1:]]
        found.append(ChannelMedia(name, values[0], *counts))
    return found


@dataclass(frozen=True)
class Channel:
    """One channel: `call` is the same for all channels of one call, `seconds` its age."""

    name: str
    call: str
    state: str
    seconds: int

    @property
    def answered(self) -> bool:
        """Whether both sides talk on it already."""
        return self.state == "Up"


def channels(client: Client) -> list[Channel]:
    """All channels of this Asterisk."""
    return [
        Channel(
            name=item.get("Channel", ""),
            call=item.get("Linkedid") or item.get("Uniqueid", ""),
            state=item.get("ChannelStateDesc", ""),
            seconds=_seconds(item.get("Duration", "")),
        )
        for item in client.listing("CoreShowChannels")
    ]


def calls(found: Sequence[Channel]) -> int:
    """How many calls these channels are."""
    return len({channel.call for channel in found})


def hang_up(client: Client, found: Sequence[Channel]) -> int:
    """End these channels as if a phone had hung up; returns how many calls that ended.

    Both phones get a BYE and the call record is closed. A call that is still being set up ends
    with a cause that lets the edge try another node.
    """
    ended = set()
    for channel in found:
        cause = _NORMAL if channel.answered else _CONGESTION
        try:
            client.action("Hangup", Channel=channel.name, Cause=cause)
        except AmiError as error:
            # The end of one channel may have taken the other one along.
            if "No such channel" not in str(error):
                raise
        else:
            ended.add(channel.call)
    return len(ended)


_NORMAL = "16"
_CONGESTION = "34"  # SIP 503


def _seconds(duration: str) -> int:
    """Seconds of `1:02:03`; 0 for anything else."""
    parts = duration.split(":")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        return 0
    return (int(parts[0]) * 60 + int(parts[1])) * 60 + int(parts[2])
