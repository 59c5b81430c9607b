# Copyright (c) Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client for Kamailio's JSON-RPC; what carries the bytes is an argument."""

from __future__ import annotations

import json
import socket
import typing as t

Transport = t.Callable[[bytes], bytes]
"""Takes one request, returns one answer. Raises NotRunningError or OSError."""

ANSWER_LIMIT = 65536
"""Kamailio's datagrams are no longer than this many bytes."""


class RpcError(Exception):
    """Kamailio refused a call, or its answer makes no sense."""

    def __init__(self, method: str, message: str, code: int = 0) -> None:
        super().__init__(f"{method}: {message}")
        self.method = method
        self.message = message
        self.code = code


class NotRunningError(Exception):
    """There is no process behind the socket."""


def datagram_transport(path: str, timeout: float = 5.0) -> Transport:
    """Carry calls over the Unix datagram socket at C(path), C(timeout) seconds for each answer."""

    def carry(request: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.bind("")  # an address of the kernel's choice, for the answer
            client.settimeout(timeout)
            try:
                client.connect(path)
                client.send(request)
            except (FileNotFoundError, ConnectionRefusedError) as error:
                raise NotRunningError(f"no Kamailio behind {path}") from error
            return client.recv(ANSWER_LIMIT)

    return carry


class KamailioRpc:
    """Calls by name: C(KamailioRpc(datagram_transport(path)).call("core.uptime"))."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._number = 0

    def call(self, method: str, *params: t.Any) -> t.Any:
        """The result of one call. Raises RpcError, NotRunningError or OSError."""
        self._number += 1
        request = {"jsonrpc": "2.0", "method": method, "params": params, "id": self._number}
        raw = self._transport(json.dumps(request).encode())
        try:
            answer = json.loads(raw)
        except ValueError as error:
            raise RpcError(method, f"the answer is not JSON: {raw[:80]!r}") from error
        if not isinstance(answer, dict) or answer.get("id") != self._number:
            raise RpcError(method, "the answer belongs to another call")
        if answer.get("error") is not None:
            fault = answer["error"]
            if not isinstance(fault, dict):
                raise RpcError(method, str(fault))
            raise RpcError(method, str(fault.get("message")), int(fault.get("code") or 0))
        return answer.get("result")
