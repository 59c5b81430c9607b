# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers themselves: their limits stay as planned, and nobody restarts what carries calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import limits, playbooks
from support.cluster import Cluster

SERVER = "srv3"
DROP_IN = "/etc/sysctl.d/zz-ringmain.conf"
TASK = "ringmain.voip.host : Load kernel modules and set sysctls"
# One key of each kind that a lab's server may set itself.
OWN_KEYS = ("net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports")
PACKAGES = ("haproxy", "kamailio", "keepalived", "mariadb-server", "rtpengine-daemon")
PROTECTED = ("asterisk", "haproxy", "kamailio", "keepalived", "mariadb", "rtpengine-daemon")


@pytest.fixture
def host_play(tmp_path: Path) -> Path:
    """A playbook with the plan and the role host."""
    return playbooks.excerpt(["host"], tmp_path)


def running(cluster: Cluster) -> dict[str, Any]:
    """What a server's kernel has for these keys."""
    report = json.loads(cluster.lab.python(SERVER, limits.PROGRAM, *OWN_KEYS))
    found: dict[str, Any] = report["sysctl"]
    return found


def processes(cluster: Cluster) -> dict[str, str]:
    """The main process of every protected service."""
    return {unit: cluster.process(SERVER, unit) for unit in PROTECTED}


def test_sysctl_set_by_hand_is_set_back(cluster: Cluster, host_play: Path) -> None:
    """In the running kernel and in the file for the next boot."""
    before = running(cluster)
    assert None not in before.values()
    file = cluster.lab.shell(SERVER, f"cat {DROP_IN}")
    cluster.lab.shell(
        SERVER,
        "sysctl -q -w net.ipv4.ip_local_port_range='33000 60999' net.ipv4.ip_local_reserved_ports="
        f" && echo net.ipv4.ip_local_port_range = 33000 60999 >> {DROP_IN}",
    )
    assert running(cluster) != before
    run = playbooks.play(host_play, "--limit", SERVER)
    assert run.code == 0, run.output
    assert run.changes() == [f"{TASK}: [{SERVER}]"]
    assert running(cluster) == before
    assert cluster.lab.shell(SERVER, f"cat {DROP_IN}") == file


def test_key_that_cannot_be_set_is_an_error(cluster: Cluster, host_play: Path) -> None:
    """It names the host, every such key and the next step, and nothing was changed."""
    before = running(cluster)
    given = {
        "host_sysctl_unsettable_allowed": [],
        "host_sysctl": {
            "kernel.pid_max": 131072,
            "net.core.rmem_max": 123456,
            "net.ipv4.ip_local_port_range": "50000 60000",
        },
    }
    run = playbooks.play(host_play, "--limit", SERVER, "-e", json.dumps(given))
    assert run.code != 0
    words = " ".join(run.output.split())
    assert f"{SERVER} has a kernel that does not let these be set: kernel.pid_max (is " in words
    assert ", net.core.rmem_max (is " in words
    assert ", wanted 123456; read-only)" in words
    assert "allow it here with host_sysctl_unsettable_allowed" in words
    assert running(cluster) == before


def test_server_smaller_than_declared_is_an_error(host_play: Path) -> None:
    """The plan would count on what is not there."""
    run = playbooks.play(host_play, "--limit", SERVER, "-e", '{"host_cores": 100000}')
    assert run.code != 0
    words = " ".join(run.output.split())
    assert "cores, 100000 are declared: correct ringmain_cores in the inventory" in words


def test_packages_do_not_restart_what_carries_calls(whole: Cluster) -> None:
    """Installed anew by hand, they leave their services running, and others restart as ever."""
    before = processes(whole)
    assert "0" not in before.values()
    other = "systemctl show -P ActiveEnterTimestampMonotonic logrotate.timer"
    restarted = whole.lab.shell(SERVER, other)
    output = whole.lab.shell(
        SERVER,
        "export DEBIAN_FRONTEND=noninteractive; exec 2>&1;"
        f" apt-get install --yes --quiet --reinstall {' '.join(PACKAGES)}"
        " && dpkg-reconfigure asterisk logrotate",
        timeout=300,
    )
    assert processes(whole) == before, output
    for unit in ("kamailio", "asterisk", "mariadb"):
        assert f"{unit}.service carries calls: left as it is" in output, output
    assert whole.lab.shell(SERVER, other) != restarted, output
