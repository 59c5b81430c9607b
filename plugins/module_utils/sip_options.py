# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a SIP server over UDP, with OPTIONS, whether it is there; and read its final answer."""

from __future__ import annotations

import os
import re
import socket
import time
from dataclasses import dataclass

FIRST_WAIT = 0.5
"""Seconds until the request is sent again; doubled each time (RFC 3261, timer E)."""

_STATUS = re.compile(rb"SIP/2\.0 (\d{3})(?: ([^\r\n]*))?\r?\n")
_CALL_ID = re.compile(rb"^(?:Call-ID|i)[ \t]*:[ \t]*([^\r\n]*?)[ \t]*\r?$", re.I | re.M)


@dataclass(frozen=True)
class Answer:
    """A final answer and how many seconds it took."""

    status: int
    reason: str
    seconds: float


def request(uri: str, own: str, token: str) -> bytes:
    """An OPTIONS request from C(own) (C(address:port)); the token makes it one of its kind."""
    lines = (
        f"OPTIONS {uri} SIP/2.0",
        f"Via: SIP/2.0/UDP {own};rport;branch=z9hG4bK{token}",
        f"From: <sip:check@{own}>;tag={token}",
        f"To: <{uri}>",
        f"Call-ID: {token}",
        "CSeq: 1 OPTIONS",
        f"Contact: <sip:check@{own}>",
        "Max-Forwards: 5",
        "Content-Length: 0",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def final_answer(data: bytes, token: str) -> tuple[int, str] | None:
    """Status and reason of the final answer to the request with this token; None for all else."""
    status, call_id = _STATUS.match(data), _CALL_ID.search(data)
    if not status or not call_id or call_id[1].decode(errors="replace") != token:
        return None
    code = int(status[1])
    return (code, (status[2] or b"").decode(errors="replace")) if code >= 200 else None


def ask(address: str, port: int, timeout: float, source: str = "", uri: str = "") -> Answer | None:
    """Send OPTIONS and wait for C(timeout) seconds; None when no final answer comes.

    C(source) is the address it comes from. Raises OSError when it cannot be sent, and
    ConnectionRefusedError when the host says that nobody listens.
    """
    token = os.urandom(8).hex()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((source, 0))
        client.connect((address, port))
        own = "{}:{}".format(*client.getsockname())
        message = request(uri or f"sip:{address}:{port}", own, token)
        begun = time.monotonic()
        again, wait = begun, FIRST_WAIT
        while (now := time.monotonic()) < begun + timeout:
            if now >= again:
                client.send(message)
                again, wait = now + wait, wait * 2
            client.settimeout(max(0.001, min(again, begun + timeout) - now))
            try:
                found = final_answer(client.recv(65535), token)
            except TimeoutError:
                continue
            if found:
                return Answer(*found, round(time.monotonic() - begun, 3))
    return None
