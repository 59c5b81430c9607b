# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab's servers as testinfra hosts, reached as the inventory reaches them: by SSH."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[3]
LAB = os.environ["RINGMAIN_LAB_ID"]
RUNTIME = Path("/var/lib/ringmain-lab") / LAB


def lab_members() -> dict[str, Any]:
    """What the lab says of its members, by name."""
    program = ROOT / "roles" / "lab" / "files" / "lab.py"
    command = [sys.executable, str(program), "--id", LAB, "status"]
    status = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    members: dict[str, Any] = json.loads(status)["members"]
    return members


SERVERS = {name: each for name, each in lab_members().items() if each["kind"] == "server"}


@pytest.fixture(scope="session", params=sorted(SERVERS))
def host(request: pytest.FixtureRequest) -> Host:
    """Each server of the cluster in turn."""
    server = SERVERS[request.param]
    return testinfra.get_host(
        f"ssh://root@{server['address']}",
        ssh_identity_file=str(RUNTIME / "id_ed25519"),
        ssh_extra_args=f"-o UserKnownHostsFile={RUNTIME}/known_hosts",
        controlpersist=60,
    )
