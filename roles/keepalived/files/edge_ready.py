# Copyright (c) Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Succeed when the edge at ADDRESS PORT says over SIP, within 0.8 s, that it is ready.

Kamailio answers 200 once its locations are synchronised; a frozen one gives no answer. With a LIST
of destinations, an edge that is drained in it (flag 4 at its own address and port) is not ready.
"""

import contextlib
import os
import socket
import sys

DISABLED = 4


def is_drained(address: str, port: int, path: str) -> bool:
    """Whether the list says so; one that is not there, or not understood, says nothing."""
    with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as stream:
        for line in stream:
            words = line.split()
            if words[1:2] == [f"sip:{address}:{port}"] and len(words) > 2:
                return bool(int(words[2]) & DISABLED)
    return False


def main() -> int:
    """One OPTIONS, one answer."""
    address, port = sys.argv[1], int(sys.argv[2])
    if len(sys.argv) > 3 and is_drained(address, port, sys.argv[3]):
        return 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.8)
        try:
            client.bind((address, 0))
            client.connect((address, port))
            token = os.urandom(8).hex()
            own = f"{address}:{client.getsockname()[1]}"
            request = (
                f"OPTIONS sip:ready@{address}:{port} SIP/2.0",
                f"Via: SIP/2.0/UDP {own};rport;branch=z9hG4bK{token}",
                f"From: <sip:check@{own}>;tag={token}",
                f"To: <sip:ready@{address}:{port}>",
                f"Call-ID: {token}",
                "CSeq: 1 OPTIONS",
                "Max-Forwards: 5",
                "Content-Length: 0",
                "",
                "",
            )
            client.send("\r\n".join(request).encode())
            status = client.recv(4096).split(b"\r\n", 1)[0]
        except OSError:
            return 1
    return 0 if status.startswith(b"SIP/2.0 200 ") else 1


if __name__ == "__main__":
    sys.exit(main())
