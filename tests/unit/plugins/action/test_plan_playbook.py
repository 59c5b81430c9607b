# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbook plan, on inventories of servers that do not exist and without secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Play

CHECK = "Show | Check the inputs and make the plan"
PRINT = "Show | Print it"


def write(path: Path, hosts: dict[str, Any], inputs: dict[str, Any]) -> str:
    """An inventory in a directory of its own; gives its path for -i."""
    folder = path / "my-cluster" / "group_vars" / "all"
    folder.mkdir(parents=True)
    (path / "my-cluster" / "hosts.yml").write_text(yaml.safe_dump(hosts))
    (folder / "cluster.yml").write_text(yaml.safe_dump(inputs))
    return str(path / "my-cluster")


def shipped(root: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Hosts and inputs of an inventory that comes with the collection."""
    folder = root / "inventories" / name
    hosts = yaml.safe_load((folder / "hosts.yml").read_text())
    return hosts, yaml.safe_load((folder / "group_vars/all/cluster.yml").read_text())


def test_a_table_to_read(play: Play, root: Path, tmp_path: Path) -> None:
    """What each tier carries and what is reached first, and the operator's own limit marked."""
    hosts, inputs = shipped(root, "small")
    inputs["ringmain_limits"] = {"galera_buffer_pool_mb": 512}
    done = play("plan.yml", inventory=write(tmp_path, hosts, inputs))
    assert done.code == 0, done.text
    lines = done.results[PRINT]["voice1"]["msg"].splitlines()
    words = [line.split() for line in lines]
    assert ["media", "3", "2", "0.9", "200", "calls", "rtpengine_max_sessions"] in [
        row[:7] for row in words
    ]
    assert "Hosts voice1, voice2, voice3: edge, media, pbx, database, storage" in lines
    assert ["rtpengine_max_sessions", "243", "sessions", "2", "×"] in [row[:5] for row in words]
    assert ["galera_buffer_pool_mb", "(ringmain_limits)", "512", "MB"] in [row[:4] for row in words]


@pytest.mark.parametrize("name", ["small", "standard"])
def test_json_for_machines(play: Play, root: Path, tmp_path: Path, name: str) -> None:
    path = write(tmp_path, *shipped(root, name))
    answer = tmp_path / "plan.json"
    done = play("plan.yml", "-e", "output=json", "-e", f"output_file={answer}", inventory=path)
    assert done.code == 0, done.text
    plan = json.loads(answer.read_text())
    calls = {"small": 200, "standard": 800}[name]
    assert plan["peak_calls"] == calls
    assert min(tier["carries"] for tier in plan["tiers"].values()) == calls
    named = {key for host in plan["hosts"].values() for key in host["limits"]} - {"sysctl"}
    assert named < set(plan["figures"])


def test_refusals_by_name_and_number(play: Play, root: Path, tmp_path: Path) -> None:
    """20,000 calls on one address a relay, and one edge where one may be missing."""
    hosts, inputs = shipped(root, "standard")
    del hosts["all"]["children"]["edge"]["hosts"]["edge2"]
    inputs |= {"ringmain_peak_calls": 20_000, "ringmain_peak_cps": 120}
    done = play("plan.yml", inventory=write(tmp_path, hosts, inputs))
    assert done.code == 2
    (answer,) = done.results[CHECK].values()
    errors = answer["msg"].splitlines()
    assert errors[0].endswith("inputs need correction; no server was touched.")
    assert (
        "- group edge has 1 host (edge1), and ringmain_spare_nodes 1 may be missing: 1 carries all "
        "calls, so it takes 2; add 1"
    ) in errors
    (ports,) = (error for error in errors if error.startswith("- group media: "))
    assert "20000 calls with 1 of 2 hosts missing are 40000 relay sessions on one relay" in ports
    assert "It takes 10 relays with addresses of their own" in ports
    assert any(error.startswith("- hosts media1, media2 each have 8 cores") for error in errors)


def test_800_calls_on_hosts_with_too_little_memory(play: Play, root: Path, tmp_path: Path) -> None:
    hosts, inputs = shipped(root, "small")
    for name in ("voice1", "voice2", "voice3"):
        hosts["all"]["hosts"][name]["ringmain_memory_mb"] = 2048
    inputs["ringmain_peak_calls"] = 800
    done = play("plan.yml", inventory=write(tmp_path, hosts, inputs))
    assert done.code == 2
    (memory,) = done.message(CHECK, "voice1").splitlines()[1:]
    assert memory.startswith("- hosts voice1, voice2, voice3 each have 2048 MB of memory, and the")
