# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a server of the cluster: prints everything that rises when a limit is hit.

Argument: seconds since 1970 from which on the journal is searched. Counters of the kernel and of
the daemons go on from boot or start; the reader takes differences.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RPC_SOCKET = "/run/kamailio/rpc.sock"

# What the daemons write when a limit of theirs, or of the kernel's for them, is hit.
JOURNAL = {
    "too many open files": "too many open files",
    "relay ports run out": "ran out of ports",
    "relay sessions refused": "parallel session limit reached",
    "pbx calls refused": "maximum call limit of",
    "no relay for a call": "no relay takes this call",
    "no pbx for a call": "no pbx node is there",
    "a relay gives no answer": "can't send command",
    "out of memory": "out of memory|no more (?:shared|private|pkg|shm) mem",
}
TOTALS = {
    "rejected sessions": "relay rejected sessions",
    "relayed packet errors": "relay packet errors",
}


def snmp(text: str) -> dict[str, int]:
    """The errors of UDP from /proc/net/snmp."""
    names, values = (line.split()[1:] for line in text.splitlines() if line.startswith("Udp:"))
    found = dict(zip(names, map(int, values), strict=True))
    wanted = ("InErrors", "RcvbufErrors", "SndbufErrors", "MemErrors")
    return {f"udp {name}": found[name] for name in wanted}


def softnet(text: str) -> dict[str, int]:
    """Packets that no core had time for, from /proc/net/softnet_stat (hexadecimal)."""
    return {"softnet dropped": sum(int(line.split()[1], 16) for line in text.splitlines())}


def conntrack(text: str) -> dict[str, int]:
    """Flows that found no place, from /proc/net/stat/nf_conntrack (hexadecimal)."""
    head, *rows = (line.split() for line in text.splitlines())
    return {
        f"conntrack {name}": sum(int(row[head.index(name)], 16) for row in rows)
        for name in ("drop", "early_drop", "insert_failed")
    }


def totals(text: str) -> dict[str, int]:
    """The relay's own counters, from `rtpengine-ctl list totals`."""
    found = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        name = name.strip().removeprefix("Total ")
        if colon and name in TOTALS:
            found[TOTALS[name]] = int(value)
    return found


def journal(text: str) -> dict[str, int]:
    """How often each complaint stands in a journal."""
    low = text.lower()
    return {name: len(re.findall(pattern, low)) for name, pattern in JOURNAL.items()}


def output(*words: str) -> str:
    """What a command prints. Raises CalledProcessError when it fails."""
    return subprocess.run(words, capture_output=True, text=True, timeout=20, check=True).stdout


def refused() -> dict[str, int]:
    """How many calls the edge has refused, by the limit."""
    request = {"jsonrpc": "2.0", "method": "stats.fetch", "params": ["script:"], "id": 1}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.bind("")
        client.settimeout(3)
        client.connect(RPC_SOCKET)
        client.send(json.dumps(request).encode())
        found = json.loads(client.recv(65536))["result"]
    return {
        f"edge {name.partition('.')[2]}": int(value)
        for name, value in found.items()
        if name.startswith("script.refused_")
    }


def main() -> None:
    """Print all of it."""
    proc = Path("/proc/net")
    tracking = proc / "stat" / "nf_conntrack"  # absent where nothing is tracked
    found: dict[str, Any] = {
        **snmp((proc / "snmp").read_text(encoding="ascii")),
        **softnet((proc / "softnet_stat").read_text(encoding="ascii")),
        **(conntrack(tracking.read_text(encoding="ascii")) if tracking.exists() else {}),
        **totals(output("rtpengine-ctl", "-ip", "127.0.0.1", "-port", "9900", "list", "totals")),
        **refused(),
    }
    since = float(sys.argv[1])
    if since:
        found |= journal(output("journalctl", "-q", "--no-pager", "-o", "cat", f"--since=@{since}"))
    print(json.dumps({"at": time.time(), "counters": found}))


if __name__ == "__main__":
    main()
