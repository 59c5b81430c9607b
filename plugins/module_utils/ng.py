# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""RTPEngine's control protocol "ng": a cookie, a space and a bencoded dictionary in one datagram.

Only what looks and never changes a call: ping, list, query, statistics.
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Value: TypeAlias = "str | int | list[Any] | dict[str, Any]"

# Sends a datagram and returns the one that comes back. Raises OSError when none does.
Exchange: TypeAlias = Callable[[bytes], bytes]


class NgError(Exception):
    """RTPEngine does not answer, or answers with an error."""


class NotRunningError(NgError):
    """Nobody listens on RTPEngine's port."""


class UnknownCallError(NgError):
    """RTPEngine has no session with this Call-ID."""


def encode(value: Value) -> bytes:
    """Bencode strings (as UTF-8), integers, lists and dictionaries with string keys."""
    if isinstance(value, str):
        raw = value.encode()
        return b"%d:%s" % (len(raw), raw)
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, Mapping):
        items = b"".join(encode(str(key)) + encode(item) for key, item in sorted(value.items()))
        return b"d" + items + b"e"
    if isinstance(value, Sequence):
        return b"l" + b"".join(encode(item) for item in value) + b"e"
    raise TypeError(f"cannot bencode {type(value).__name__}")


def decode(data: bytes) -> Value:
    """The value of a bencoded message. Raises NgError when it is not one."""
    try:
        value, end = _decode(data, 0)
    except (IndexError, ValueError, RecursionError) as error:
        raise NgError(f"unreadable answer: {data[:60]!r}") from error
    if end != len(data):
        raise NgError(f"unreadable answer: {data[:60]!r}")
    return value


def _decode(data: bytes, position: int) -> tuple[Value, int]:
    kind = data[position : position + 1]
    if kind == b"i":
        end = data.index(b"e", position)
        return int(data[position + 1 : end]), end + 1
    if kind == b"l":
        items = []
        position += 1
        while data[position] != ord("e"):
            item, position = _decode(data, position)
            items.append(item)
        return items, position + 1
    if kind == b"d":
        entries: dict[str, Any] = {}
        position += 1
        while data[position] != ord("e"):
            key, position = _decode(data, position)
            if not isinstance(key, str):
                raise ValueError("a key is not a string")
            entries[key], position = _decode(data, position)
        return entries, position + 1
    colon = data.index(b":", position)
    length = int(data[position:colon])
    end = colon + 1 + length
    if length < 0 or end > len(data):
        raise ValueError("a string is cut off")
    return data[colon + 1 : end].decode(errors="replace"), end


class UdpExchange:
    """Datagrams to one RTPEngine. A lost one is sent again: the cookie makes that harmless."""

    def __init__(self, address: str, port: int, timeout: float = 1.0, tries: int = 3) -> None:
        self._peer = (address, port)
        self._timeout = timeout
        self._tries = tries

    def __call__(self, message: bytes) -> bytes:
        """Send and wait for the answer to this very message."""
        cookie = message.partition(b" ")[0]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
            connection.settimeout(self._timeout)
            connection.connect(self._peer)
            for _attempt in range(self._tries):
                connection.send(message)
                try:
                    while True:
                        answer = connection.recv(65535)
                        if answer.partition(b" ")[0] == cookie:
                            return answer
                except TimeoutError:
                    continue
        raise TimeoutError(f"no answer in {self._timeout * self._tries:g} s")


class Client:
    """Asks one RTPEngine."""

    def __init__(
        self, exchange: Exchange, cookie: Callable[[], str] = lambda: uuid.uuid4().hex
    ) -> None:
        self._exchange = exchange
        self._cookie = cookie

    def request(self, command: str, **arguments: Value) -> dict[str, Any]:
        """Send a command and return the answer's dictionary. Raises NgError."""
        cookie = self._cookie()
        message = f"{cookie} ".encode() + encode({"command": command, **arguments})
        try:
            received = self._exchange(message)
        except OSError as error:
            kind = NotRunningError if isinstance(error, ConnectionRefusedError) else NgError
            raise kind(f"RTPEngine does not answer: {error}") from error
        echoed, _space, body = received.partition(b" ")
        answer = decode(body)
        if echoed.decode(errors="replace") != cookie or not isinstance(answer, dict):
            raise NgError(f"unreadable answer: {received[:60]!r}")
        if answer.get("result") not in ("ok", "pong"):
            reason = str(answer.get("error-reason") or answer.get("result"))
            kind = UnknownCallError if reason.lower() == "unknown call-id" else NgError
            raise kind(f"RTPEngine refuses {command}: {reason}")
        return answer

    def ping(self) -> None:
        """Raise NgError unless RTPEngine answers."""
        self.request("ping")

    def calls(self, limit: int = 100_000) -> list[str]:
        """The Call-IDs of all sessions."""
        return [str(call) for call in self.request("list", limit=limit).get("calls", [])]

    def statistics(self) -> dict[str, Any]:
        """RTPEngine's own statistics, as it sends them."""
        answer = self.request("statistics")
        found = answer.get("statistics", answer)
        return found if isinstance(found, dict) else {}

    def forwarded(self) -> dict[str, int]:
        """Packets of all sessions since the daemon's start, by `kernel` and `user` (space)."""
        total = self.statistics().get("totalstatistics", {})
        try:
            return {way: int(total[f"relayedpackets_{way}"]) for way in ("kernel", "user")}
        except (KeyError, TypeError, ValueError) as error:
            raise NgError(f"unreadable statistics: {error!r}") from error

    def sessions(self) -> int:
        """The sessions that this relay carries itself, without those it only stands by for."""
        current = self.statistics().get("currentstatistics", {})
        try:
            return int(current["sessionsown"])
        except (KeyError, TypeError, ValueError) as error:
            raise NgError(f"unreadable statistics: {error!r}") from error

    def query(self, call_id: str) -> Session | None:
        """One session; None when RTPEngine does not know this Call-ID."""
        try:
            return session(call_id, self.request("query", **{"call-id": call_id}))
        except UnknownCallError:
            return None


@dataclass(frozen=True)
class Stream:
    """One RTP stream of a session: what arrives at the relay's own port from the endpoint.

    `kernelized` says that RTPEngine has handed it to its kernel module; `last_kernel_packet` is the
    second since the epoch in which that module last forwarded a packet of it, 0 before the first.
    """

    tag: str
    local: str
    endpoint: str
    packets: int
    errors: int
    kernelized: bool
    last_kernel_packet: int

    def as_dict(self) -> dict[str, object]:
        """Plain data."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class Session:
    """A relayed call: its RTP streams, one for each side, without RTCP.

    `local` and `endpoint` are written `address:port`; an endpoint not known yet is empty.
    """

    call_id: str
    streams: tuple[Stream, ...]

    def as_dict(self) -> dict[str, object]:
        """Plain data."""
        return {
            "call_id": self.call_id,
            "streams": [stream.as_dict() for stream in self.streams],
        }


def session(call_id: str, answer: Mapping[str, Any]) -> Session:
    """The session in the answer to a query. Raises NgError when its form is unknown."""
    streams = []
    try:
        for tag, party in sorted(answer["tags"].items()):
            for media in party["medias"]:
                for stream in media["streams"]:
                    if "RTCP" in stream["flags"] and "RTP" not in stream["flags"]:
                        continue
                    streams.append(
                        Stream(
                            tag=tag,
                            local=f"{stream['local address']}:{stream['local port']}",
                            endpoint=_endpoint(stream.get("endpoint", {})),
                            packets=stream["stats"]["packets"],
                            errors=stream["stats"]["errors"],
                            kernelized="kernelized" in stream["flags"]
                            and "no kernel support" not in stream["flags"],
                            last_kernel_packet=stream.get("last kernel packet", 0),
                        )
                    )
    except (KeyError, TypeError, AttributeError) as error:
        raise NgError(f"unreadable session {call_id}: {error!r}") from error
    return Session(call_id, tuple(streams))


def _endpoint(found: Mapping[str, Any]) -> str:
    return f"{found['address']}:{found['port']}" if found.get("port") else ""
