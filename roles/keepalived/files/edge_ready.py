# Copyright (c) Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Succeed when the edge at ADDRESS PORT says over SIP, within 0.8 s, that it is ready.

Kamailio answers 200 once its locations are synchronised; a frozen one gives no answer.
"""

import os
import socket
import sys


def main() -> int:
    """One OPTIONS, one answer."""
    address, port = sys.argv[1], int(sys.argv[2])
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
