# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OPTIONS against a server on loopback that answers as told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import sip_options


class Server:
    """Keeps what it gets; C(answers) makes the datagrams that go back for the n-th request."""

    def __init__(self, answers: Callable[[int, bytes], list[bytes]]) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.answers = answers
        self.got: list[bytes] = []
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            message, peer = self.socket.recvfrom(65535)
            if message == b"end":
                return
            self.got.append(message)
            for answer in self.answers(len(self.got), message):
                self.socket.sendto(answer, peer)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"end", ("127.0.0.1", self.port))
        self.thread.join()
        self.socket.close()


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[int, bytes], list[bytes]]], Server]]:
    servers: list[Server] = []

    def start(answers: Callable[[int, bytes], list[bytes]]) -> Server:
        servers.append(Server(answers))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def answer(message: bytes, first: str, call_id: bytes = b"") -> bytes:
    """An answer to this request, or to the one with another Call-ID."""
    kept = [line for line in message.split(b"\r\n") if line.startswith((b"Via", b"CSeq"))]
    own = next(line for line in message.split(b"\r\n") if line.startswith(b"Call-ID: "))
    return b"\r\n".join([first.encode(), *kept, call_id or own, b"", b""])


def test_status_and_reason_come_back(serve: Callable[..., Server]) -> None:
    server = serve(lambda number, message: [answer(message, "SIP/2.0 200 All Fine")])
    found = sip_options.ask("127.0.0.1", server.port, 5)
    assert found is not None
    assert (found.status, found.reason) == (200, "All Fine")
    assert 0 <= found.seconds < 5
    first = server.got[0].decode()
    assert first.startswith(f"OPTIONS sip:127.0.0.1:{server.port} SIP/2.0\r\nVia: SIP/2.0/UDP ")
    assert first.endswith("Content-Length: 0\r\n\r\n")


def test_source_and_uri_are_as_told(serve: Callable[..., Server]) -> None:
    server = serve(lambda number, message: [answer(message, "SIP/2.0 503 Not Yet")])
    found = sip_options.ask("127.0.0.1", server.port, 5, "127.0.0.5", "sip:ready@edge")
    assert found is not None
    assert found.status == 503
    assert b"OPTIONS sip:ready@edge SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.5:" in server.got[0]


def test_what_is_not_the_final_answer_is_passed_over(serve: Callable[..., Server]) -> None:
    server = serve(
        lambda number, message: [
            b"rubbish",
            answer(message, "SIP/2.0 200 Late", b"Call-ID: another"),
            answer(message, "SIP/2.0 100 Trying"),
            answer(message, "SIP/2.0 404 Nobody"),
        ]
    )
    found = sip_options.ask("127.0.0.1", server.port, 5)
    assert found is not None
    assert (found.status, found.reason) == (404, "Nobody")


def test_a_lost_request_is_sent_again(serve: Callable[..., Server]) -> None:
    server = serve(
        lambda number, message: [] if number == 1 else [answer(message, "SIP/2.0 200 OK")]
    )
    found = sip_options.ask("127.0.0.1", server.port, 5)
    assert found is not None
    assert found.seconds >= sip_options.FIRST_WAIT
    assert server.got[0] == server.got[1]


def test_silence_is_none(serve: Callable[..., Server]) -> None:
    server = serve(lambda number, message: [])
    assert sip_options.ask("127.0.0.1", server.port, 0.7) is None
    assert len(server.got) == 2


def test_short_header_names_count() -> None:
    assert sip_options.final_answer(b"SIP/2.0 200 OK\r\ni:  t \r\n\r\n", "t") == (200, "OK")
    assert sip_options.final_answer(b"SIP/2.0 200\r\nCall-ID: t\r\n\r\n", "t") == (200, "")
    assert sip_options.final_answer(b"SIP/2.0 200 OK\r\n\r\n", "t") is None
