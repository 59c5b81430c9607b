# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ng client against bytes as RTPEngine 12.5 sends them."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import ng


def stream(local: str, port: int, endpoint: dict[str, Any], flags: list[str]) -> dict[str, Any]:
    return {
        "local address": local,
        "local port": port,
        "endpoint": endpoint,
        "flags": flags,
        "last kernel packet": 1795244630,
        "stats": {"packets": 7, "bytes": 1204, "errors": 1},
    }


def party(tag: str, *streams: dict[str, Any]) -> dict[str, Any]:
    return {"tag": tag, "medias": [{"index": 1, "type": "audio", "streams": list(streams)}]}


PHONE = {"family": "IPv4", "address": "198.18.0.101", "port": 7000}
QUERY: dict[str, Any] = {
    "result": "ok",
    "created": 1795244627,
    "tags": {
        "b": party(
            "b", stream("198.19.0.11", 30096, {}, ["RTP", "kernelized", "no kernel support"])
        ),
        "a": party(
            "a",
            stream("198.18.0.11", 30062, PHONE, ["RTP", "filled", "kernelized"]),
            stream("198.18.0.11", 30063, PHONE | {"port": 7001}, ["RTCP", "filled"]),
        ),
    },
}


class Scripted:
    """Answers every message with the next body, behind the cookie it was sent with."""

    def __init__(self, *bodies: bytes) -> None:
        self.bodies = list(bodies)
        self.sent: list[bytes] = []

    def __call__(self, message: bytes) -> bytes:
        self.sent.append(message)
        return message.partition(b" ")[0] + b" " + self.bodies.pop(0)


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ("", b"0:"),
        ("später", b"7:sp\xc3\xa4ter"),
        (-12, b"i-12e"),
        ([], b"le"),
        (["a", 1, ["b"]], b"l1:ai1el1:bee"),
        ({"b": 1, "a": {"c": []}}, b"d1:ad1:clee1:bi1ee"),
    ],
)
def test_values_survive_the_wire(value: ng.Value, data: bytes) -> None:
    assert ng.encode(value) == data
    assert ng.decode(data) == value


def test_keys_arrive_in_any_order() -> None:
    assert ng.decode(b"d1:b1:x1:a1:ye") == {"b": "x", "a": "y"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"5:abc",
        b"i12",
        b"i1x2e",
        b"l1:a",
        b"d1:ae",
        b"di1e1:ae",
        b"1:ab",
        b"-1:",
        b"l" * 9999,
    ],
)
def test_broken_messages_are_refused(data: bytes) -> None:
    with pytest.raises(ng.NgError, match="unreadable answer"):
        ng.decode(data)


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="cannot bencode float"):
        ng.encode(1.5)  # type: ignore[arg-type]


def test_ping_sends_cookie_and_dictionary() -> None:
    exchange = Scripted(b"d6:result4:ponge")
    ng.Client(exchange, cookie=lambda: "c1").ping()
    assert exchange.sent == [b"c1 d7:command4:pinge"]


def test_calls_are_listed() -> None:
    exchange = Scripted(b"d5:callsl3:abc3:defe6:result2:oke")
    assert ng.Client(exchange, cookie=lambda: "c1").calls(limit=5) == ["abc", "def"]
    assert exchange.sent == [b"c1 d7:command4:list5:limiti5ee"]


def test_statistics_with_and_without_their_own_level() -> None:
    exchange = Scripted(
        b"d6:result2:ok10:statisticsd1:ai1eee",
        b"d6:result2:ok1:ai1ee",
        b"d6:result2:ok10:statisticsi1ee",
    )
    client = ng.Client(exchange)
    assert client.statistics() == {"a": 1}
    assert client.statistics() == {"a": 1, "result": "ok"}
    assert client.statistics() == {}


def test_packets_by_who_forwarded_them() -> None:
    total = {"relayedpackets_kernel": 40, "relayedpackets_user": 2, "managedsessions": 1}
    body = ng.encode({"result": "ok", "statistics": {"totalstatistics": total}})
    assert ng.Client(Scripted(body)).forwarded() == {"kernel": 40, "user": 2}
    with pytest.raises(ng.NgError, match="unreadable statistics: KeyError"):
        ng.Client(Scripted(b"d6:result2:oke")).forwarded()


def test_session_has_its_rtp_streams() -> None:
    session = ng.Client(Scripted(ng.encode(QUERY))).query("abc")
    assert session is not None
    assert session.as_dict() == {
        "call_id": "abc",
        "streams": [
            {
                "tag": "a",
                "local": "198.18.0.11:30062",
                "endpoint": "198.18.0.101:7000",
                "packets": 7,
                "errors": 1,
                "kernelized": True,
                "last_kernel_packet": 1795244630,
            },
            {
                "tag": "b",
                "local": "198.19.0.11:30096",
                "endpoint": "",
                "packets": 7,
                "errors": 1,
                "kernelized": False,
                "last_kernel_packet": 1795244630,
            },
        ],
    }


def test_unknown_call_is_no_session() -> None:
    body = b"d12:error-reason15:Unknown call-id6:result5:errore"
    assert ng.Client(Scripted(body)).query("abc") is None


def test_refusal_says_what_and_why() -> None:
    client = ng.Client(Scripted(b"d12:error-reason11:No call-id.6:result5:errore"))
    with pytest.raises(ng.NgError, match=r"RTPEngine refuses query: No call-id\."):
        client.query("")


def test_session_of_another_form_is_refused() -> None:
    broken = {"result": "ok", "tags": {"a": {"medias": [{"streams": [{"flags": ["RTP"]}]}]}}}
    with pytest.raises(ng.NgError, match="unreadable session abc: KeyError"):
        ng.Client(Scripted(ng.encode(broken))).query("abc")


def test_answer_to_another_question_is_refused() -> None:
    client = ng.Client(lambda _message: b"other d6:result4:ponge", cookie=lambda: "c1")
    with pytest.raises(ng.NgError, match="unreadable answer"):
        client.ping()


class Relay:
    """A UDP peer that answers the n-th datagram with the n-th list of datagrams."""

    def __init__(self, *answers: list[bytes]) -> None:
        self.received: list[bytes] = []
        self._answers = answers
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for answers in self._answers:
            message, peer = self._socket.recvfrom(65535)
            self.received.append(message)
            for answer in answers:
                self._socket.sendto(answer, peer)

    def close(self) -> None:
        self._thread.join(5)
        self._socket.close()
        assert not self._thread.is_alive()


def test_lost_datagram_is_sent_again_and_foreign_ones_are_dropped() -> None:
    relay = Relay([], [b"old d6:result2:oke", b"c1 d6:result4:ponge"])
    exchange = ng.UdpExchange("127.0.0.1", relay.port, timeout=0.2, tries=2)
    ng.Client(exchange, cookie=lambda: "c1").ping()
    relay.close()
    assert relay.received == [b"c1 d7:command4:pinge"] * 2


def test_silence_is_an_error() -> None:
    relay = Relay([], [])
    exchange = ng.UdpExchange("127.0.0.1", relay.port, timeout=0.05, tries=2)
    with pytest.raises(ng.NgError, match=r"RTPEngine does not answer: no answer in 0\.1 s"):
        ng.Client(exchange).ping()
    relay.close()


def test_closed_port_is_an_error() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(ng.NgError, match=r"RTPEngine does not answer: .*refused"):
        ng.Client(ng.UdpExchange("127.0.0.1", port, timeout=1)).ping()
