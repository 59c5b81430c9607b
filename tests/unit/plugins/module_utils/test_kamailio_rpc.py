# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The JSON-RPC client: against scripted answers, and over a real socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils.kamailio_rpc import (
    KamailioRpc,
    NotRunningError,
    RpcError,
    datagram_transport,
)


def scripted(answer: Any, seen: list[Any] | None = None) -> Callable[[bytes], bytes]:
    def carry(request: bytes) -> bytes:
        if seen is not None:
            seen.append(json.loads(request))
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    return carry


def test_call_sends_method_and_params_and_returns_the_result() -> None:
    seen: list[Any] = []
    rpc = KamailioRpc(scripted({"jsonrpc": "2.0", "result": {"a": 1}, "id": 1}, seen))
    assert rpc.call("dispatcher.set_state", "d", 1, "sip:a") == {"a": 1}
    assert seen == [
        {
            "jsonrpc": "2.0",
            "method": "dispatcher.set_state",
            "params": ["d", 1, "sip:a"],
            "id": 1,
        }
    ]


def test_calls_are_numbered_and_an_answer_to_another_call_is_refused() -> None:
    rpc = KamailioRpc(scripted({"result": None, "id": 1}))
    assert rpc.call("a") is None
    with pytest.raises(RpcError, match="a: the answer belongs to another call"):
        rpc.call("a")


@pytest.mark.parametrize(
    ("answer", "message", "code"),
    [
        (
            {"error": {"code": 500, "message": "Ongoing reload"}, "id": 1},
            "m: Ongoing reload",
            500,
        ),
        ({"error": {"message": "x"}, "id": 1}, "m: x", 0),
        ({"error": "odd", "id": 1}, "m: odd", 0),
        ([], "m: the answer belongs to another call", 0),
        (b"oops", "m: the answer is not JSON: b'oops'", 0),
    ],
)
def test_refusals(answer: Any, message: str, code: int) -> None:
    with pytest.raises(RpcError) as error:
        KamailioRpc(scripted(answer)).call("m")
    assert str(error.value) == message
    assert error.value.code == code
    assert error.value.method == "m"


def test_datagram_transport_carries_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))

        def serve() -> None:
            request, sender = server.recvfrom(65536)
            number = json.loads(request)["id"]
            server.sendto(json.dumps({"result": "x" * 60000, "id": number}).encode(), sender)

        thread = threading.Thread(target=serve)
        thread.start()
        result = KamailioRpc(datagram_transport(str(path))).call("core.uptime")
        thread.join()
    assert result == "x" * 60000


def test_datagram_transport_tells_a_dead_process_from_a_silent_one(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    with pytest.raises(NotRunningError, match="no Kamailio behind"):
        KamailioRpc(datagram_transport(str(path))).call("a")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        with pytest.raises(TimeoutError):
            KamailioRpc(datagram_transport(str(path), timeout=0.05)).call("a")
    with pytest.raises(NotRunningError):
        KamailioRpc(datagram_transport(str(path))).call("a")
