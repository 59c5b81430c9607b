# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The firewall: who gets through, what calls notice of it, and what happens to mistakes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import firewall
from support import playbooks
from support.booth import Booth
from support.cluster import Cluster

SCAN = Path(__file__).parent / "support" / "port_scan.py"
# Long enough for a busy machine to answer; silence always takes all of it.
SCAN_SECONDS = 6

# Every number of ringmain_ports, SSH, and one port that nobody has anything to do with.
TCP = (22, 3306, 3307, 4444, 4567, 4568, 5038, 5060, 5062, 5080, 6379, 9100, 9200, 9900)
UDP = (2223, 5060, 5062, 5080, 9100, 10000, 19999, 30000, 39999)

LISTING = "nft --stateless list table inet ringmain"
CONFIRMED = "/var/lib/ringmain/firewall/confirmed.nft"
ROLLBACK_SECONDS = 10
GAP_MS = 200

# What RTPEngine's own rule is to the firewall: another table, with a counter that packets move.
FOREIGN = (
    "nft 'table inet foreign { chain input { type filter hook input priority filter; "
    'counter comment "somebody else"; }; }\''
)


@pytest.fixture(scope="module")
def playbook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The firewall's play of site.yml."""
    return playbooks.excerpt(["firewall"], tmp_path_factory.mktemp("firewall"))


def outside(cluster: Cluster, server: str) -> str:
    """A server's address in the outside network, as the lab lays it out."""
    return cluster.addresses.inside[server].replace("198.19.", "198.18.", 1)


def arguments(addresses: list[str]) -> list[str]:
    """Of the scan: every port of every address."""
    numbers = (",".join(map(str, ports)) for ports in (TCP, UDP))
    return [str(SCAN_SECONDS), ",".join(addresses), *numbers]


def listings(cluster: Cluster) -> dict[str, str]:
    """The running table of every server, without what packets added to it."""
    return {
        server: firewall.without_state(cluster.lab.shell(server, LISTING))
        for server in cluster.servers
    }


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
    relays = whole.addresses.relays.values()
    addresses += [address.replace("198.19.", "198.18.", 1) for address in relays]
    through = whole.lab.python(
        "probe1", SCAN.read_text(encoding="utf-8"), *arguments([*addresses, floating])
    )
    expected = {f"tcp {floating} 5060", f"udp {floating} 5060", f"tcp {floating} 22"}
    expected |= {f"tcp {address} 22" for address in addresses}
    expected |= {f"udp {address} {port}" for address in addresses for port in (30000, 39999)}
    assert set(json.loads(through)) == expected


def test_a_stranger_inside(whole: Cluster) -> None:
    """Gets through to SSH and to nothing of the cluster: this machine, which is no member of it."""
    addresses = [*whole.addresses.inside.values(), *whole.addresses.relays.values()]
    addresses.append(whole.addresses.inside_ip)
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
    tcp = (22, 3306, 4444, 4567, 4568, 5080, 6379, 9200)
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


# --- what calls notice --------------------------------------------------------


@pytest.fixture
def foreign_table(whole: Cluster) -> Iterator[None]:
    """A table of somebody else on every server."""
    for server in whole.servers:
        whole.lab.shell(server, FOREIGN)
    yield
    for server in whole.servers:
        whole.lab.shell(server, "nft destroy table inet foreign")


def tracked(cluster: Cluster, server: str) -> tuple[int, int]:
    """How many connections of SIP and of audio a server's kernel keeps track of.

    By the server's own port: what others call from is theirs to choose, and what it asks of a
    relay's port itself, as a scan does, is no audio.
    """
    own = {cluster.addresses.inside[server], outside(cluster, server)}
    own |= {cluster.addresses.inside_ip, cluster.addresses.outside_ip}
    signalling = audio = 0
    for line in cluster.lab.shell(server, "cat /proc/net/nf_conntrack").splitlines():
        ends = re.search(r" udp .*? src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)", line)
        if ends:
            pairs = ((ends[1], int(ends[3])), (ends[2], int(ends[4])))
            ports = {port for address, port in pairs if address in own}
            signalling += bool(ports & {5060, 5062, 5080})
            audio += any(30000 <= port <= 39999 for port in ports)
    return signalling, audio


@pytest.mark.usefixtures("foreign_table")
def test_a_conversation_goes_on(whole: Cluster, booth: Booth, playbook: Path) -> None:
    """Through a reload, new rules and the old ones again; tables of others stay as they are."""
    before = listings(whole)
    changes = {
        "ringmain_firewall_extra": ["tcp dport 9100 accept"],
        "firewall_sip_connections_per_second": 1,
    }
    with booth.conversation() as call:
        for server in whole.servers:
            whole.lab.shell(server, "systemctl reload ringmain-firewall")
        changed = playbooks.play(playbook, "-e", json.dumps(changes))
        found = {server: tracked(whole, server) for server in whole.servers}
        opened = json.loads(
            whole.lab.python(
                "probe1",
                SCAN.read_text(encoding="utf-8"),
                str(SCAN_SECONDS),
                ",".join(outside(whole, server) for server in whole.servers),
                "9100",
                "9100",
            )
        )
        # Ten at once are let in, then one per second.
        flood = json.loads(
            whole.lab.python(
                "probe1",
                SCAN.read_text(encoding="utf-8"),
                "0.5",
                ",".join([whole.addresses.outside_ip] * 100),
                "5060",
                "5060",
            )
        )
        dropped = counter(whole, whole.holder(), "dropped_sip_connections")
        restored = playbooks.play(playbook)
    print(f"conversation: {call}")
    assert changed.code == 0, changed.output
    assert restored.code == 0, restored.output
    assert listings(whole) == before
    for name, heard in call.items():
        assert heard["longest_gap_ms"] <= GAP_MS, f"{name} heard {heard}\n{booth.evidence()}"
    assert opened == sorted(f"tcp {outside(whole, server)} 9100" for server in whole.servers)
    assert f"tcp {whole.addresses.outside_ip} 5060" in flood
    assert dropped >= 80
    assert sum(signalling for signalling, _audio in found.values()) > 0, found
    assert [audio for _signalling, audio in found.values()] == [0, 0, 0], found
    for server in whole.servers:
        table = whole.lab.shell(server, "nft list table inet foreign")
        packets = re.search(r"counter packets (\d+)", table)
        # Set to zero it would be had somebody loaded it anew.
        assert packets, table
        assert int(packets[1]) > 100, f"{server}: {table}"


# --- what happens to mistakes -------------------------------------------------


def test_drift_is_shown_and_repaired(whole: Cluster, playbook: Path) -> None:
    """A rule that somebody deleted, a set that was emptied, a table that is gone."""
    before = listings(whole)
    whole.lab.shell(
        "srv1",
        "nft delete rule inet ringmain input handle $(nft --handle list chain inet ringmain input "
        "| sed -n 's/.*\"pbx_sip\" # handle //p' | head -n 1)",
    )
    whole.lab.shell("srv2", "nft flush set inet ringmain galera_sst_from")
    whole.lab.shell("srv3", "nft delete table inet ringmain")
    task = "ringmain.voip.firewall : Load them, on trial, where the running ones differ: "
    check = playbooks.play(playbook, "--check", "--diff")
    assert check.code == 0, check.output
    shown = [f"{task}[{server}]" for server in whole.servers]
    assert sorted(check.changes()) == shown, check.output
    assert "+\t\tip daddr 198.19." in check.output
    assert re.search(r'^\+.*udp dport 5080 counter accept comment "pbx_sip"', check.output, re.M)
    repaired = playbooks.play(playbook)
    assert repaired.code == 0, repaired.output
    assert sorted(each for each in repaired.changes() if each.startswith(task)) == shown
    assert listings(whole) == before


def shut_out() -> list[str]:
    """A mistake: SSH is let in from a network in which the controller is not."""
    mistake = {
        "ringmain_ssh_from": ["192.0.2.0/24"],
        "firewall_rollback_seconds": ROLLBACK_SECONDS,
    }
    return ["--limit", "srv3", "-e", json.dumps(mistake)]


def state(cluster: Cluster) -> dict[str, Any]:
    """What must be as before on srv3, now and after the next boot."""
    return {
        "running": firewall.without_state(cluster.lab.shell("srv3", LISTING)),
        "confirmed": cluster.lab.shell("srv3", f"cat {CONFIRMED}"),
    }


def test_shut_out_by_mistake(whole: Cluster, playbook: Path) -> None:
    """The run fails and says why; by then the previous rules are back, and the next run works."""
    before = state(whole)
    run = playbooks.play(playbook, *shut_out())
    assert run.code != 0, run.output
    words = " ".join(run.output.split())
    assert (
        "srv3: with the new rules no new SSH connection came within 10 s, so the previous rules "
        "are active again. Let the controller in: its address as this host sees it must be in "
        "ringmain_ssh_from, and the port of SSH in ansible_port. This connection comes from "
    ) in words, run.output
    assert state(whole) == before
    whole.lab.shell("srv3", "systemctl reload ringmain-firewall")
    assert state(whole) == before
    good = playbooks.play(playbook, "--limit", "srv3")
    assert good.code == 0, good.output
    assert state(whole) == before


def test_shut_out_and_the_controller_is_gone(whole: Cluster, playbook: Path) -> None:
    """The host goes back to the previous rules by itself; the next run works."""
    before = state(whole)
    with subprocess.Popen(
        ["ansible-playbook", "-i", str(playbooks.INVENTORY), str(playbook), *shut_out()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as controller:
        while "192.0.2.0/24" not in whole.lab.shell("srv3", f"{LISTING} || true"):
            assert controller.poll() is None, "the run ended before its rules were loaded"
            time.sleep(0.2)
        loaded = time.monotonic()
        os.killpg(controller.pid, signal.SIGKILL)
    while state(whole) != before:
        assert time.monotonic() - loaded < ROLLBACK_SECONDS + 20, whole.lab.shell("srv3", LISTING)
        time.sleep(0.2)
    print(f"the previous rules were back {time.monotonic() - loaded:.1f} s after the new ones")
    good = playbooks.play(playbook, "--limit", "srv3")
    assert good.code == 0, good.output
    assert state(whole) == before


def test_beside_debian_s_own_service(whole: Cluster) -> None:
    """Debian's unit empties the ruleset whenever it does something: this table comes back."""
    before = state(whole)
    for verb in ("start", "reload", "restart", "stop"):
        whole.lab.shell("srv3", f"systemctl {verb} nftables")
        assert state(whole) == before, f"after {verb} of nftables.service"


def test_it_is_there_before_the_network(whole: Cluster) -> None:
    """After a reboot the rules are loaded before any interface is configured."""
    before = state(whole)
    whole.lab.shut_down("srv3")
    whole.lab.power_on("srv3")
    times = whole.lab.shell(
        "srv3",
        "systemctl show -P ActiveEnterTimestampMonotonic ringmain-firewall.service; "
        "systemctl show -P InactiveExitTimestampMonotonic networking.service kamailio.service",
    )
    loaded, *others = (int(line) for line in times.split())
    assert 0 < loaded < min(others), times
    assert state(whole) == before
