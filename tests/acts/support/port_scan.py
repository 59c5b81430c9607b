# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Knocks on ports and prints, as one JSON list, which packets got through: `udp ADDRESS PORT`.

Arguments: seconds to wait, addresses separated by commas, TCP ports, UDP ports. Whoever answers,
and be it that nobody listens there, has got the packet. A dropped one gets silence.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import sys
import time

OPTIONS = (
    "OPTIONS sip:scan@{to} SIP/2.0\r\n"
    "Via: SIP/2.0/UDP {own};rport;branch=z9hG4bK{token}\r\n"
    "From: <sip:scan@{own}>;tag={token}\r\n"
    "To: <sip:scan@{to}>\r\n"
    "Call-ID: {token}\r\n"
    "CSeq: 1 OPTIONS\r\n"
    "Max-Forwards: 5\r\n"
    "Content-Length: 0\r\n\r\n"
)


RELAY_CONTROL = 2223
# A kernel says "nobody listens" a few times at once to one peer, then once in a second.
AGAIN_SECONDS = 1.5
PING = b"scan d7:command4:pinge"


def knock(protocol: str, address: str, port: int) -> socket.socket:
    """A socket that waits for what comes back."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    client = socket.socket(socket.AF_INET, kind)
    client.setblocking(False)
    client.connect_ex((address, port))
    if protocol == "udp":
        ask(client)
    return client


def ask(client: socket.socket) -> None:
    """Send a UDP packet that is answered where somebody listens."""
    address, port = client.getpeername()
    own = "{}:{}".format(*client.getsockname())
    to, token = f"{address}:{port}", os.urandom(8).hex()
    options = OPTIONS.format(to=to, own=own, token=token).encode()
    with contextlib.suppress(OSError):  # what the last one met is read below
        client.send(PING if port == RELAY_CONTROL else options)


def main() -> None:
    """Knock everywhere at once, then listen."""
    seconds, addresses, tcp, udp = sys.argv[1:]
    wanted = selectors.DefaultSelector()
    for protocol, ports in (("tcp", tcp), ("udp", udp)):
        for address in addresses.split(","):
            for port in ports.split(","):
                client = knock(protocol, address, int(port))
                event = selectors.EVENT_WRITE if protocol == "tcp" else selectors.EVENT_READ
                wanted.register(client, event, f"{protocol} {address} {port}")
    through = set()
    end = time.monotonic() + float(seconds)
    again = time.monotonic() + AGAIN_SECONDS
    while wanted.get_map() and (left := end - time.monotonic()) > 0:
        if time.monotonic() >= again:
            again += AGAIN_SECONDS
            for key in list(wanted.get_map().values()):
                if key.data.startswith("udp"):
                    ask(key.fileobj)  # type: ignore[arg-type]
        for key, _event in wanted.select(min(left, AGAIN_SECONDS)):
            wanted.unregister(key.fileobj)
            error = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # type: ignore[union-attr]
            if error in (
                0,
                111,
            ):  # an answer, or connection refused; nothing else says it got there
                through.add(key.data)
    print(json.dumps(sorted(through)))


if __name__ == "__main__":
    main()
