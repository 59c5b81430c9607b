# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""New certificates and new passwords while phones talk. For Galera, which takes two passwords."""

from __future__ import annotations

import threading
from typing import Any

import yaml
from support import playbooks
from support.booth import Booth, Call
from support.cluster import Cluster
from support.lab import ROOT
from support.playbooks import INVENTORY

PLAYBOOKS = ROOT / "playbooks"
SECRETS = INVENTORY / "group_vars" / "all" / "ringmain_secrets.yml"
GAP_MS = 100
CALM = ("kamailio", "asterisk", "rtpengine-daemon", "mariadb", "keepalived", "haproxy")

SERIALS = """
openssl x509 -noout -serial -in /etc/ringmain/tls/cert.pem
for way in ":4567" ":3306 -starttls mysql"; do
    openssl s_client -connect ADDRESS$way </dev/null 2>/dev/null | openssl x509 -noout -serial
done
"""
"""Of the certificate in the file, of the one Galera's members see, and of the clients' one."""

LOGIN = """
import sys, pymysql
try:
    pymysql.connect(host="127.0.0.1", port=3307, user="edge", password=sys.stdin.readline().strip(),
        database="ringmain", ssl_ca="/etc/ringmain/tls/ca.pem", ssl_verify_cert=True)
    print("welcome")
except pymysql.OperationalError as error:
    print(error.args[0])
"""


def processes(cluster: Cluster) -> dict[tuple[str, str], str]:
    """Who must not be restarted."""
    return {(name, unit): cluster.process(name, unit) for name in cluster.servers for unit in CALM}


def serials(cluster: Cluster) -> dict[str, list[str]]:
    """Of each server, in the file and as shown."""
    return {
        name: cluster.lab.shell(
            name, SERIALS.replace("ADDRESS", cluster.addresses.inside[name])
        ).split()
        for name in cluster.servers
    }


def secrets() -> dict[str, Any]:
    """As the inventory has them now."""
    loaded = yaml.safe_load(SECRETS.read_text(encoding="utf-8"))
    return dict(loaded["ringmain_secrets"])


def login(cluster: Cluster, password: str) -> str:
    """What the database says to the edge's account with this password."""
    words = ("exec", cluster.servers[0], "--", "python3", "-c", LOGIN)
    return cluster.lab.run(*words, given=f"{password}\n").strip()


def test_new_certificates(whole: Cluster, booth: Booth) -> None:
    """Every daemon shows its new one, none was restarted, and a conversation hears no gap."""
    before, running = serials(whole), processes(whole)
    with booth.conversation() as call:
        outcome = playbooks.play(PLAYBOOKS / "rotate_certificates.yml")
    after = serials(whole)
    assert outcome.code == 0, outcome.output
    for name in whole.servers:
        assert len(after[name]) == 3, after
        assert len(set(after[name])) == 1, after
        assert set(after[name]).isdisjoint(before[name])
    assert processes(whole) == running
    for name, heard in call.items():
        assert heard["longest_gap_ms"] <= GAP_MS, f"{name} heard {heard}\n{booth.evidence()}"


def test_new_passwords(whole: Cluster, booth: Booth) -> None:
    """Calls succeed all the while, no edge loses the database, and the old one is refused."""
    before, running = secrets(), processes(whole)
    old = before["database_edge_password"]
    calls: list[Call] = []
    over = threading.Event()

    def call() -> None:
        while not over.is_set():
            calls.append(booth.call())

    caller = threading.Thread(target=call)
    caller.start()
    try:
        outcome = playbooks.play(
            PLAYBOOKS / "rotate_secrets.yml",
            "-e",
            "rotate=database_edge_password,asterisk_ami_password",
        )
    finally:
        over.set()
        caller.join()
    after = secrets()
    print(f"{outcome.seconds:.0f} s, {len(calls)} calls meanwhile")
    assert outcome.code == 0, outcome.output
    assert [one for one in calls if not (one.answered and one.ended_everywhere)] == []
    for name in ("database_edge_password", "asterisk_ami_password"):
        assert after[name] != before[name]
        assert before[name] not in outcome.output
        assert after[name] not in outcome.output
    assert after.pop("previous") == {"database_edge_password": ""}
    assert login(whole, after["database_edge_password"]) == "welcome"
    assert login(whole, old) == "1045"
    assert processes(whole) == running
    for name in whole.servers:
        seconds = int(outcome.seconds) + 5
        log = whole.lab.shell(name, f"journalctl -u ringmain-edge --since -{seconds}s -o cat")
        assert "database reached, copy is current" in log, log
        assert "not reached" not in log, log
    refused = playbooks.play(PLAYBOOKS / "rotate_secrets.yml", "-e", "rotate=edge_secret")
    assert refused.code == 2, refused.output
    assert "edge_secret stays as it is: phones could not end their calls" in refused.output
