# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The relays of the scenario, as testinfra hosts and as peers of their control protocol."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra
from ansible.plugins.loader import init_plugin_loader
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "molecule" / "kernel" / "calls"))
init_plugin_loader([str(ROOT / ".cache" / "collections")])

from relay_calls import Relay  # noqa: E402

LAB = os.environ["RINGMAIN_LAB_ID"]
RUNTIME = Path("/var/lib/ringmain-lab") / LAB
VIRTUAL, CONTAINER = "vm1", "srv1"
KEY = str(RUNTIME / "id_ed25519")
KNOWN = f"UserKnownHostsFile={RUNTIME}/known_hosts"


def lab(*words: str) -> str:
    """What lab.py says."""
    program = ROOT / "roles" / "lab" / "files" / "lab.py"
    return subprocess.check_output([sys.executable, str(program), "--id", LAB, *words], text=True)


STATUS: dict[str, Any] = json.loads(lab("status"))


@pytest.fixture(scope="session")
def plan() -> dict[str, Any]:
    """The plan that the relays were built by."""
    found: dict[str, Any] = json.loads((RUNTIME / "plan.json").read_text())
    return found


@pytest.fixture(scope="session")
def machine() -> Host:
    """The virtual machine."""
    return testinfra.get_host(
        f"ssh://root@{STATUS['members'][VIRTUAL]['address']}",
        ssh_identity_file=KEY,
        ssh_extra_args=f"-o {KNOWN}",
        controlpersist=60,
    )


def relay(plan: dict[str, Any], name: str) -> Iterator[Relay]:
    """A relay, until its tests are over."""
    address = str(STATUS["members"][name]["address"])
    ssh = ["ssh", "-q", "-T", "-i", KEY, "-o", KNOWN, f"root@{address}"]
    found = Relay(ssh, address, int(plan["ports"]["relay_control"]))
    yield found
    found.close()


@pytest.fixture(scope="module")
def in_kernel(plan: dict[str, Any]) -> Iterator[Relay]:
    """The relay that forwards in the kernel."""
    yield from relay(plan, VIRTUAL)


@pytest.fixture(scope="module")
def in_user_space(plan: dict[str, Any]) -> Iterator[Relay]:
    """The relay in a container."""
    yield from relay(plan, CONTAINER)


@pytest.fixture(scope="module")
def after_a_power_cut(plan: dict[str, Any]) -> Iterator[Relay]:
    """The relay that forwards in the kernel, after its machine lost its power and got it back."""
    lab("kill", VIRTUAL)
    lab("start", VIRTUAL)
    # Not 'running' when a unit has failed.
    lab("exec", VIRTUAL, "--", "systemctl", "is-system-running", "--quiet", "--wait")
    yield from relay(plan, VIRTUAL)


@pytest.fixture(scope="session")
def outside() -> str:
    """This machine's own address outside, where the test phones are."""
    return f"198.18.{STATUS['slot']}.1"


@pytest.fixture(scope="session")
def pbx() -> str:
    """The address inside that stands for the PBX."""
    return f"198.19.{STATUS['slot']}.1"
