# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a host of both networks: sessions on a relay, and real RTP through all of them.

One JSON object a line: an order on standard input, its answer on standard output. It ends with
its input, and deletes the sessions it made. Each session is what the edge would make of a call:
the one who calls is outside, the one who is called inside.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from ansible_collections.ringmain.voip.plugins.module_utils import ng
from support import rtp, sip

PRIORITY = -10


class Talkers:
    """Sessions on one relay, both ends here."""

    def __init__(self, relay: str, port: int, outside: str, inside: str) -> None:
        self._relay = ng.Client(ng.UdpExchange(relay, port))
        self._sides = rtp.Side(outside), rtp.Side(inside)
        self._addresses = outside, inside
        self._streams: list[rtp.Stream] = []
        self._calls: list[str] = []
        self._generator = rtp.Generator(self._sides)
        self._generator.start()
        self._since = (time.monotonic(), 0.0)

    def grow(self, sessions: int) -> dict[str, Any]:
        """Make sessions until there are so many; they begin to talk at once."""
        while len(self._calls) < sessions:
            number = len(self._calls)
            name = f"bench-{time.time_ns()}-{number}"
            common: dict[str, Any] = {
                "call-id": name,
                "from-tag": "caller",
                "replace": ["origin"],
                "flags": ["strict-source", "port-latching"],
                "ICE": "remove",
                "transport-protocol": "RTP/AVP",
            }
            offered = self._relay.request(
                "offer",
                sdp=sip.description(self._addresses[0], self._sides[0].port, 1),
                direction=["outside", "inside"],
                **common,
            )
            self._calls.append(name)
            answered = self._relay.request(
                "answer",
                sdp=sip.description(self._addresses[1], self._sides[1].port, 1),
                **common,
                **{"to-tag": "callee"},
            )
            ends = sip.endpoint(answered["sdp"]), sip.endpoint(offered["sdp"])
            for offset, (side, end) in enumerate(zip(self._sides, ends, strict=True)):
                # Not 0, which is no source to RTPEngine's kernel module: user space would have it.
                stream = rtp.Stream(2 * number + offset + 1, end)
                self._streams.append(stream)
                side.add(stream)
        return {"sessions": len(self._calls)}

    def mark(self) -> dict[str, Any]:
        """Begin to count."""
        for stream in self._streams:
            stream.heard.reset()
        for side in self._sides:
            side.strangers = side.refused = 0
        self._generator.reset()
        self._since = (time.monotonic(), self._generator.cpu_seconds)
        self._forwarded = self._relay.forwarded()
        self._sent = sum(stream.sent for stream in self._streams)
        return {}

    def count(self) -> dict[str, Any]:
        """What went through since `mark`."""
        began, cpu = self._since
        heard = [stream.heard for stream in self._streams]
        forwarded = self._relay.forwarded()
        grown = {way: forwarded[way] - self._forwarded[way] for way in forwarded}
        return {
            "seconds": time.monotonic() - began,
            "sent": sum(stream.sent for stream in self._streams) - self._sent,
            "received": sum(one.packets for one in heard),
            "lost": sum(one.lost for one in heard),
            "kernel_share": round(grown["kernel"] / max(sum(grown.values()), 1), 4),
            "silent_streams": sum(not one.packets for one in heard),
            "slowest_ms": round(max((one.slowest_ms for one in heard), default=0.0), 1),
            "strangers": sum(side.strangers for side in self._sides),
            "refused_by_kernel": sum(side.refused for side in self._sides),
            "generator_latest_ms": round(self._generator.latest_ms, 1),
            "generator_cpu_seconds": self._generator.cpu_seconds - cpu,
        }

    def close(self) -> None:
        """Be silent, and leave the relay as it was."""
        self._generator.stop()
        for name in self._calls:
            self._relay.request("delete", **{"call-id": name, "from-tag": "caller"})


def main() -> None:
    """Serve until the input ends. Arguments: relay, its control port, own outside, own inside."""
    relay, port, outside, inside = sys.argv[1:]
    # Who is to talk at an even pace waits for nobody.
    os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    talkers = Talkers(relay, int(port), outside, inside)
    try:
        for line in sys.stdin:
            order = json.loads(line)
            try:
                answer = getattr(talkers, order.pop("do"))(**order)
            except (ng.NgError, ValueError) as error:
                answer = {"error": str(error)}
            print(json.dumps(answer), flush=True)
    finally:
        talkers.close()


if __name__ == "__main__":
    main()
