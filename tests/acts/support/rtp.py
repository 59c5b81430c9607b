# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""RTP for many streams at little cost: whole groups of packets with one system call.

Runs on a lab's machine, needs nothing but Python. All streams of one side share a socket. Each
packet's audio begins with the stream's number, a packet number and the time it was sent, so a
receiver knows whose audio it hears, what is missing and how long the rest took, whatever the
relays between rewrite in the RTP header.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

PACKETS_PER_SECOND = 50
PAYLOAD = 160
HEADER = 12
PCMA = 8
_SILENCE = b"\xd5"

# A-law's 160 bytes: stream, packet, nanoseconds of the monotonic clock; then silence.
_MARK = struct.Struct("!IIQ")
_RTP = struct.Struct("!BBHII")
_SIZE = HEADER + PAYLOAD

# Every stream sends once in 20 ms; the groups take turns, so that packets do not come in bursts.
GROUPS = 10

# When the generator itself was late by so much, it cannot tell how late a packet was.
LATE_SECONDS = 0.02

# A listener who hears nothing for so long gets a line in the stream's list of gaps.
GAP_SECONDS = 0.1


class _SockaddrIn(ctypes.Structure):
    _fields_ = [
        ("family", ctypes.c_uint16),
        ("port", ctypes.c_uint16),
        ("address", ctypes.c_uint8 * 4),
        ("zero", ctypes.c_uint8 * 8),
    ]


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Msghdr(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _Mmsghdr(ctypes.Structure):
    _fields_ = [("header", _Msghdr), ("length", ctypes.c_uint32)]


_LIBC = ctypes.CDLL(None, use_errno=True)
_MSG_DONTWAIT = 0x40
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33


def _sockaddr(address: tuple[str, int]) -> _SockaddrIn:
    packed = (ctypes.c_uint8 * 4).from_buffer_copy(socket.inet_aton(address[0]))
    return _SockaddrIn(socket.AF_INET, socket.htons(address[1]), packed)


@dataclass
class Heard:
    """What arrived for one stream since `reset`."""

    packets: int = 0
    lost: int = 0
    longest_gap_ms: int = 0
    slowest_ms: float = 0.0
    speakers: set[int] = field(default_factory=set)
    last: int = -1
    missed: set[int] = field(default_factory=set)
    first_at: float = 0.0
    last_at: float = 0.0
    gaps: list[tuple[float, float, int]] = field(default_factory=list)
    """From when to when nothing came, and how many packets never did; those worth noting."""

    def take(self, speaker: int, number: int, took_ms: float, now: float) -> None:
        """One packet of a speaker; `took_ms` below zero is unknown."""
        if not self.packets:
            self.first_at = now
        self.packets += 1
        self.speakers.add(speaker)
        missing = number - 1 - self.last if 0 <= self.last < number else 0
        if missing:
            self.lost += missing
            self.missed.update(range(self.last + 1, number))
            self.longest_gap_ms = max(self.longest_gap_ms, missing * 1000 // PACKETS_PER_SECOND)
        elif number in self.missed:
            self.missed.remove(number)
            self.lost -= 1  # it came after all, only late
        if self.last_at and max(now - self.last_at, missing / PACKETS_PER_SECOND) >= GAP_SECONDS:
            self.gaps.append((self.last_at, now, missing))
        self.last = max(self.last, number)
        self.last_at = now
        self.slowest_ms = max(self.slowest_ms, took_ms)

    def reset(self) -> None:
        """Count anew; the next packet that is missed is still missed."""
        self.packets = self.lost = self.longest_gap_ms = 0
        self.slowest_ms = self.first_at = 0.0
        self.speakers = set()
        self.missed = set()
        self.gaps = []

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "packets": self.packets,
            "lost": self.lost,
            "longest_gap_ms": self.longest_gap_ms,
            "slowest_ms": round(self.slowest_ms, 1),
            "speakers": sorted(self.speakers),
        }


class Stream:
    """One direction out, and what is heard from where it goes."""

    def __init__(self, number: int, remote: tuple[str, int]) -> None:
        self.number = number
        self.sent = 0
        self.heard = Heard()
        self.remote = remote
        self.buffer = ctypes.create_string_buffer(_SILENCE * _SIZE, _SIZE)
        self.sockaddr = _sockaddr(remote)

    def fill(self, now_ns: int) -> None:
        """Make the next packet."""
        number = self.sent
        self.sent = number + 1
        _RTP.pack_into(
            self.buffer,
            0,
            0x80,
            PCMA,
            number & 0xFFFF,
            (number * PAYLOAD) & 0xFFFFFFFF,
            self.number,
        )
        _MARK.pack_into(self.buffer, HEADER, self.number, number, now_ns)


class Side:
    """All streams of one socket: sends a group of them at a time, takes in what has arrived."""

    BATCH = 256

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))
        # What is lost must not be lost here: root may have more than the machine allows others.
        for name in (socket.SO_RCVBUF, socket.SO_SNDBUF, _SO_RCVBUFFORCE, _SO_SNDBUFFORCE):
            with contextlib.suppress(PermissionError):
                self.socket.setsockopt(socket.SOL_SOCKET, name, 4 << 20)
        self.port = self.socket.getsockname()[1]
        self.strangers = 0
        self.refused = 0
        self._streams: dict[tuple[str, int], Stream] = {}
        self._groups: list[list[Stream]] = [[] for _group in range(GROUPS)]
        self._headers: list[Any] = [None] * GROUPS
        self._keep: list[Any] = [None] * GROUPS
        self._lock = threading.Lock()
        self._buffers = [ctypes.create_string_buffer(2048) for _number in range(self.BATCH)]
        self._names = (_SockaddrIn * self.BATCH)()
        self._incoming, self._incoming_iovs = self._prepare_incoming()

    def add(self, stream: Stream) -> None:
        """Begin to send a stream and to hear what comes from where it goes."""
        with self._lock:
            self._streams[stream.remote] = stream
            index = min(range(GROUPS), key=lambda number: len(self._groups[number]))
            self._groups[index].append(stream)
            self._headers[index] = None

    def remove(self, stream: Stream) -> None:
        """Send it no longer."""
        with self._lock:
            self._streams.pop(stream.remote, None)
            for index, group in enumerate(self._groups):
                if stream in group:
                    group.remove(stream)
                    self._headers[index] = None

    def move(self, stream: Stream, remote: tuple[str, int]) -> None:
        """Send a stream to another address from now on."""
        if remote == stream.remote:
            return
        self.remove(stream)
        stream.remote = remote
        stream.sockaddr = _sockaddr(remote)
        self.add(stream)

    def send(self, index: int) -> None:
        """Send one packet of each stream of a group."""
        with self._lock:
            group = self._groups[index]
            if not group:
                return
            if self._headers[index] is None:
                self._prepare(index)
            now = time.monotonic_ns()
            for stream in group:
                stream.fill(now)
            count, done = len(group), 0
            while done < count:
                pointer = ctypes.byref(self._headers[index], done * ctypes.sizeof(_Mmsghdr))
                sent = _LIBC.sendmmsg(self.socket.fileno(), pointer, count - done, 0)
                if sent < 0:
                    self.refused += 1
                    sent = 1
                done += sent

    def receive(self, timely: bool) -> None:
        """Take in all that has arrived; `timely` when the time it took can be believed."""
        while True:
            count = _LIBC.recvmmsg(
                self.socket.fileno(), self._incoming, self.BATCH, _MSG_DONTWAIT, None
            )
            if count <= 0:
                return
            now = time.monotonic_ns()
            for number in range(count):
                name = self._names[number]
                source = (socket.inet_ntoa(bytes(name.address)), socket.ntohs(name.port))
                stream = self._streams.get(source)
                if stream is None or self._incoming[number].length != _SIZE:
                    self.strangers += 1
                    continue
                speaker, packet, sent_at = _MARK.unpack_from(self._buffers[number], HEADER)
                took = (now - sent_at) / 1e6 if timely else -1.0
                stream.heard.take(speaker, packet, took, now / 1e9)
            if count < self.BATCH:
                return

    def _prepare(self, index: int) -> None:
        group = self._groups[index]
        headers = (_Mmsghdr * len(group))()
        iovs = (_Iovec * len(group))()
        for number, stream in enumerate(group):
            iovs[number] = _Iovec(ctypes.addressof(stream.buffer), _SIZE)
            headers[number].header = _Msghdr(
                ctypes.addressof(stream.sockaddr),
                ctypes.sizeof(_SockaddrIn),
                ctypes.addressof(iovs[number]),
                1,
                None,
                0,
                0,
            )
        self._headers[index] = headers
        self._keep[index] = (iovs, [(stream.buffer, stream.sockaddr) for stream in group])

    def _prepare_incoming(self) -> tuple[Any, Any]:
        headers = (_Mmsghdr * self.BATCH)()
        iovs = (_Iovec * self.BATCH)()
        for number in range(self.BATCH):
            iovs[number] = _Iovec(ctypes.addressof(self._buffers[number]), 2048)
            headers[number].header = _Msghdr(
                ctypes.addressof(self._names[number]),
                ctypes.sizeof(_SockaddrIn),
                ctypes.addressof(iovs[number]),
                1,
                None,
                0,
                0,
            )
        return headers, iovs


class Generator:
    """Keeps some sides talking and listening at an even pace, in a thread of its own."""

    def __init__(self, sides: Iterable[Side]) -> None:
        self._sides = tuple(sides)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.latest_ms = 0.0
        self.cpu_seconds = 0.0

    def include(self, side: Side) -> None:
        """Keep one more side talking and listening."""
        self._sides = (*self._sides, side)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; returns when the thread has."""
        self._stop.set()
        self._thread.join()

    def reset(self) -> None:
        """Count lateness anew."""
        self.latest_ms = 0.0

    def _run(self) -> None:
        step = 1 / (PACKETS_PER_SECOND * GROUPS)
        due = time.monotonic()
        index = 0
        while not self._stop.is_set():
            late = time.monotonic() - due
            if late < 0:
                time.sleep(-late)
                late = 0.0
            self.latest_ms = max(self.latest_ms, late * 1000)
            for side in self._sides:
                side.send(index)
            for side in self._sides:
                side.receive(late < LATE_SECONDS)
            index = (index + 1) % GROUPS
            due += step
            self.cpu_seconds = time.thread_time()
