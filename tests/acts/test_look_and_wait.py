# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""status.yml, and the modules that look and wait on live nodes, with real calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import playbooks
from support.booth import Booth
from support.cluster import Cluster
from support.lab import ROOT

STATUS = ROOT / "playbooks" / "status.yml"
SECONDS = 10
"""For three servers, says the design. Printed only: others may be at work on this machine."""


Found = dict[str, dict[str, Any]]


@pytest.fixture
def ask(whole: Cluster, tmp_path: Path) -> Any:
    """Run modules on all servers, one after another; the results of each, by server."""

    def run(*modules: tuple[str, dict[str, Any]]) -> list[Found]:
        found = tmp_path / "found.json"
        names = [f"result_{number}" for number in range(len(modules))]
        tasks: list[dict[str, Any]] = [
            {f"ringmain.voip.{module}": arguments, "register": name}
            for name, (module, arguments) in zip(names, modules, strict=True)
        ]
        # One file with a line for each task: what its result is on each server.
        lines = [
            "{{ dict(ansible_play_hosts | zip(ansible_play_hosts | map('extract', hostvars)"
            f" | map(attribute='{name}'))) | to_json }}}}"
            for name in names
        ]
        content = "\n".join(lines)
        tasks.append(
            {
                "ansible.builtin.copy": {"content": content, "dest": str(found), "mode": "0600"},
                "delegate_to": "localhost",
                "run_once": True,
            }
        )
        path = tmp_path / "ask.yml"
        play = {
            "hosts": ",".join(whole.servers),
            "gather_facts": False,
            "vars": {"relays": dict(whole.addresses.relays)},
            "tasks": tasks,
        }
        path.write_text(yaml.safe_dump([play]), encoding="utf-8")
        outcome = playbooks.play(path)
        assert outcome.code == 0, outcome.output
        return [json.loads(line) for line in found.read_text(encoding="utf-8").splitlines()]

    return run


def status(folder: Path, *arguments: str) -> tuple[playbooks.Outcome, dict[str, Any]]:
    """What status.yml says."""
    found = folder / "status.json"
    outcome = playbooks.play(STATUS, "-e", f"output=json output_file={found}", *arguments)
    print(f"status: {outcome.seconds:.1f} s (design: {SECONDS} s)")
    loaded: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    return outcome, loaded


def test_a_call_is_seen_and_hung_up(booth: Booth, ask: Any, tmp_path: Path) -> None:
    """A conversation is at one PBX and at relays; hung up there, all of them know."""
    pbx = {"password": "{{ ringmain_secrets.asterisk_ami_password }}", "wait_seconds": 0}
    relay = {"address": "{{ relays[inventory_hostname] }}"}
    # Nobody of the phones hangs up: both must have been told, or the block's end fails.
    with booth.conversation(hang_up=()) as call:
        calls, sessions = ask(
            ("asterisk_drain", pbx), ("rtpengine_drain", {**relay, "wait_seconds": 0})
        )
        _outcome, seen = status(tmp_path)
        ended, left = ask(
            ("asterisk_drain", {**pbx, "hang_up": True, "quiet_seconds": 1}),
            ("rtpengine_drain", {**relay, "wait_seconds": 5, "quiet_seconds": 1}),
        )
    assert sorted(found["calls"] for found in calls.values()) == [0, 0, 1], calls
    (busy,) = (name for name, found in calls.items() if found["calls"])
    assert [channel["state"] for channel in calls[busy]["channels"]] == ["Up", "Up"]
    assert sum(found["sessions"] for found in sessions.values()) == 2, sessions
    assert seen["problems"] == []
    shown = {node["name"]: node for node in seen["nodes"]}
    assert {name: node["pbx"]["calls"] for name, node in shown.items()} == {
        name: found["calls"] for name, found in calls.items()
    }
    assert sum(node["media"]["sessions"] for node in shown.values()) == 2
    assert {name: found["hung_up"] for name, found in ended.items()} == {
        name: 1 if name == busy else 0 for name in ended
    }
    assert all(found["empty"] for found in ended.values()), ended
    assert all(found["empty"] for found in left.values()), left
    assert all(heard["heard_ms"] > 0 for heard in call.values()), call


@pytest.mark.usefixtures("booth")
def test_a_whole_cluster_is_called_whole(whole: Cluster, tmp_path: Path) -> None:
    """Also with status_fail, and with the phones, the addresses and the versions that there are."""
    outcome, seen = status(tmp_path, "-e", "status_fail=true")
    assert outcome.code == 0, outcome.output
    assert seen["problems"] == []
    holder = whole.holder()
    assert [one["holders"] for one in seen["addresses"].values()] == [[holder], [holder]]
    for node in seen["nodes"]:
        assert node["edge"]["registrations"] >= 2, node
        assert all(service["state"] == "active" for service in node["services"]), node
        assert all(item["drain"] is None for item in node["edge"]["destinations"]), node


def test_what_is_wrong_is_named(whole: Cluster, tmp_path: Path) -> None:
    """A service that does not run, and a monitoring system that wants to hear of it."""
    whole.lab.shell("srv2", "systemctl stop ringmain-edge")
    try:
        outcome, seen = status(tmp_path)
        wanted, _seen = status(tmp_path, "-e", "status_fail=true")
    finally:
        whole.lab.shell("srv2", "systemctl start ringmain-edge")
    assert seen["problems"] == ["srv2: ringmain-edge is inactive"]
    assert outcome.code == 0, outcome.output
    assert wanted.code == 2, wanted.output
    said = " ".join(wanted.output.split())
    assert "lab.example: one thing is wrong: srv2: ringmain-edge is inactive" in said
