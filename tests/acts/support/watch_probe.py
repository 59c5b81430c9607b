# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a probe and watches, until its input ends; each span of time is a line when it is over.

    stall SINCE TO   it only slept and was kept waiting: the machine stood still for it, as it may
                     have for a daemon, for it has an ordinary priority, too
    away SINCE TO    nobody answered OPTIONS at the address in its arguments, from answer to answer

SINCE and TO are seconds of the monotonic clock.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
import sys
import time

PAUSE_SECONDS = 0.01
STALL_SECONDS = 0.02
AWAY_SECONDS = 0.1


def options(own: tuple[str, int], number: int) -> bytes:
    """A question that an edge answers by itself."""
    lines = (
        "OPTIONS sip:edge SIP/2.0",
        f"Via: SIP/2.0/UDP {own[0]}:{own[1]};rport;branch=z9hG4bK{secrets.token_hex(8)}",
        "Max-Forwards: 70",
        f"From: <sip:watch@{own[0]}>;tag={number}",
        "To: <sip:edge>",
        f"Call-ID: {secrets.token_hex(8)}@watch",
        f"CSeq: {number} OPTIONS",
        "Content-Length: 0",
        "",
        "",
    )
    return "\r\n".join(lines).encode()


def main() -> None:
    """Watch. Arguments: the address and the port that ought to answer."""
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.setblocking(False)
    client.connect((sys.argv[1], int(sys.argv[2])))
    own = client.getsockname()
    poll = select.poll()
    poll.register(sys.stdin, select.POLLIN | select.POLLHUP)
    answered = began = time.monotonic()
    number = 0
    while True:
        if poll.poll(PAUSE_SECONDS * 1000) and not os.read(0, 100):
            return
        now = time.monotonic()
        if now - began - PAUSE_SECONDS > STALL_SECONDS:
            print(f"stall {began + PAUSE_SECONDS:.3f} {now:.3f}", flush=True)
        began = now
        number += 1
        try:
            client.send(options(own, number))
            while client.recv(2048):
                if now - answered > AWAY_SECONDS:
                    print(f"away {answered:.3f} {now:.3f}", flush=True)
                answered = now
        except OSError:
            continue  # nobody there, or no answer yet


if __name__ == "__main__":
    main()
