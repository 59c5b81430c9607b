# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody changed by hand is repaired; what is broken is not let in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import playbooks
from support.cluster import Cluster, snapshot

SERVER = "srv3"


@dataclass(frozen=True)
class Service:
    """One service, a file of it that somebody edits, and a value it cannot start with."""

    role: str
    unit: str
    file: str
    broken: dict[str, Any]
    complaint: str


SERVICES = [
    Service(
        "galera",
        "mariadb",
        "/etc/mysql/mariadb.conf.d/90-ringmain.cnf",
        {"galera_tls_ca": "/etc/ringmain/tls/ca.pem\nno_such_variable = 1"},
        "no_such_variable",
    ),
    Service(
        "haproxy",
        "haproxy",
        "/etc/haproxy/haproxy.cfg",
        {"haproxy_stats_socket": "/run/haproxy/admin.sock nonsense"},
        "nonsense",
    ),
    Service(
        "asterisk",
        "asterisk",
        "/etc/asterisk/extensions.conf",
        {"asterisk_database_ca": "/nowhere/ca.pem"},
        "/nowhere/ca.pem",
    ),
    Service(
        "rtpengine",
        "rtpengine-daemon",
        "/etc/rtpengine/rtpengine.conf",
        {"rtpengine_outside_advertised_address": "nonsense"},
        "nonsense",
    ),
    Service(
        "kamailio",
        "kamailio",
        "/etc/kamailio/routing.cfg",
        {"kamailio_outside_ip": "not.an.address.invalid"},
        "parse error in config file /etc/kamailio/transport.cfg",
    ),
    Service(
        "keepalived",
        "keepalived",
        "/etc/keepalived/keepalived.conf",
        {"keepalived_router_id": 300},
        "300",
    ),
]


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The names of files and services that are not the same in two snapshots of a server."""
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.role)
def test_broken_value_is_not_let_in(cluster: Cluster, service: Service, tmp_path: Path) -> None:
    """The run fails with the service's own words; its files and its process stay."""
    playbook = playbooks.excerpt([service.role], tmp_path)
    before = snapshot(cluster)[SERVER]
    run = playbooks.play(playbook, "--limit", SERVER, "-e", json.dumps(service.broken))
    assert run.code != 0, run.output
    assert service.complaint in run.output, run.output
    assert "Render, check and swap the configuration" in failed_task(run.output), run.output
    assert differences(before, snapshot(cluster)[SERVER]) == []


def failed_task(output: str) -> str:
    """The name of the task that was the last when a host failed."""
    before, _fatal, _rest = output.partition("\nfatal: ")
    return before.rpartition("\nTASK [")[2].partition("]")[0]


def test_edited_files_are_repaired(whole: Cluster, tmp_path: Path) -> None:
    """A file of every service edited by hand is as before after a run, and no call is in danger."""
    playbook = playbooks.excerpt([service.role for service in SERVICES], tmp_path)
    before = snapshot(whole)[SERVER]
    for service in SERVICES:
        whole.lab.shell(SERVER, f"echo '# edited by hand' >> {service.file}")
    edited = snapshot(whole)[SERVER]
    assert differences(before, edited) == sorted(service.file for service in SERVICES)
    run = playbooks.play(playbook, "--limit", SERVER)
    assert run.code == 0, run.output
    changed = set(differences(before, snapshot(whole)[SERVER]))
    print(f"repaired in {run.seconds:.0f} s")
    # Only what carries no call may have been restarted for it.
    helpers = ("haproxy", "ringmain-edge", "ringmain-galera-health")
    assert changed <= {f"process of {unit}" for unit in helpers}, changed
