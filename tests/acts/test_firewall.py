# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The firewall: who gets through."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

from support.cluster import Cluster

SCAN = Path(__file__).parent / "support" / "port_scan.py"
# Long enough for a busy machine to answer; silence always takes all of it.
SCAN_SECONDS = 6

# Every number of ringmain_ports, SSH, and one port that nobody has anything to do with.
TCP = (22, 3306, 3307, 4444, 4567, 4568, 5038, 5060, 5062, 5080, 9100, 9200, 9900)
UDP = (2223, 5060, 5062, 5080, 9100, 10000, 19999, 30000, 39999)


def outside(cluster: Cluster, server: str) -> str:
    """A server's address in the outside network, as the lab lays it out."""
    return cluster.addresses.inside[server].replace("198.19.", "198.18.", 1)


def arguments(addresses: list[str]) -> list[str]:
    """Of the scan: every port of every address."""
    numbers = (",".join(map(str, ports)) for ports in (TCP, UDP))
    return [str(SCAN_SECONDS), ",".join(addresses), *numbers]


def counter(cluster: Cluster, server: str, name: str) -> int:
    """How many packets a named counter has seen."""
    text = cluster.lab.shell(server, f"nft list counter inet ringmain {name}")
    found = re.search(r"packets (\d+)", text)
    assert found, text
    return int(found[1])


# --- who gets through ---------------------------------------------------------


def test_a_stranger_outside(whole: Cluster) -> None:
    """Gets through to SIP at the floating address, to the relays' audio and to SSH."""
    floating = whole.addresses.outside_ip
    addresses = [outside(whole, server) for server in whole.servers]
    through = whole.lab.python(
        "probe1", SCAN.read_text(encoding="utf-8"), *arguments([*addresses, floating])
    )
    expected = {f"tcp {floating} 5060", f"udp {floating} 5060", f"tcp {floating} 22"}
    expected |= {f"tcp {address} 22" for address in addresses}
    expected |= {f"udp {address} {port}" for address in addresses for port in (30000, 39999)}
    assert set(json.loads(through)) == expected


def test_a_stranger_inside(whole: Cluster) -> None:
    """Gets through to SSH and to nothing of the cluster: this machine, which is no member of it."""
    addresses = [*whole.addresses.inside.values(), whole.addresses.inside_ip]
    through = subprocess.run(
        [sys.executable, str(SCAN), *arguments(addresses)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert set(json.loads(through)) == {f"tcp {address} 22" for address in addresses}


def test_a_member(whole: Cluster) -> None:
    """Gets through to all that members say to each other, but not to what is for the host alone."""
    address = whole.addresses.inside["srv1"]
    through = whole.lab.python("srv2", SCAN.read_text(encoding="utf-8"), *arguments([address]))
    tcp = (22, 3306, 4444, 4567, 4568, 5080, 9200)
    udp = (2223, 5062, 5080, 10000, 19999, 30000, 39999)
    expected = {f"tcp {address} {port}" for port in tcp}
    expected |= {f"udp {address} {port}" for port in udp}
    assert set(json.loads(through)) == expected


def test_a_member_s_address_from_outside(whole: Cluster) -> None:
    """A packet that comes in outside with an inside address is dropped, and counted."""
    target, claimed = (whole.addresses.inside[server] for server in ("srv1", "srv2"))
    before = counter(whole, "srv1", "dropped_spoofed")
    send = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        f"s.bind(('{claimed}', 0)); s.sendto(b'x d7:command4:pinge', ('{target}', 2223))"
    )
    try:
        whole.lab.shell(
            "probe1",
            f"ip address add {claimed}/32 dev lo && ip route add {target}/32 dev outside && "
            f'python3 -c "{send}"',
        )
        time.sleep(0.5)
        assert counter(whole, "srv1", "dropped_spoofed") == before + 1
    finally:
        whole.lab.shell(
            "probe1", f"ip route del {target}/32 dev outside; ip address del {claimed}/32 dev lo"
        )


def test_errors_about_audio_come_back(whole: Cluster) -> None:
    """A relay that sends where nobody listens is told so, though the packet was not tracked."""
    own = outside(whole, "srv1")
    probe = f"{own.rpartition('.')[0]}.101"
    program = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        f"s.settimeout(10); s.bind(('{own}', 39998)); s.connect(('{probe}', 9)); s.send(b'x')\n"
        "try: s.recv(1)\n"
        "except ConnectionRefusedError: print('refused')"
    )
    assert whole.lab.python("srv1", program).strip() == "refused"
