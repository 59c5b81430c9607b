# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks as an operator runs them, and what they say they did."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .lab import ROOT

INVENTORY = Path(os.environ.get("RINGMAIN_INVENTORY", ROOT / "inventories" / "lab"))
SITE = ROOT / "playbooks" / "site.yml"

_RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.M)


@dataclass(frozen=True)
class Outcome:
    """A run of ansible-playbook."""

    code: int
    output: str
    seconds: float

    @property
    def changed(self) -> int:
        """Changed tasks, over all hosts."""
        return sum(int(host[2]) for host in _RECAP.findall(self.output))

    @property
    def tasks(self) -> int:
        """Tasks that were executed, over all hosts."""
        return sum(int(host[1]) for host in _RECAP.findall(self.output))

    def changes(self) -> list[str]:
        """The names of tasks that changed something, with the hosts."""
        found = []
        task = ""
        for line in self.output.splitlines():
            if line.startswith(("TASK [", "RUNNING HANDLER [")):
                task = line.rpartition("]")[0].partition("[")[2]
            elif line.startswith("changed: "):
                found.append(f"{task}: {line.removeprefix('changed: ')}")
        return found


def play(playbook: Path, *arguments: str) -> Outcome:
    """Run a playbook against the lab."""
    started = time.monotonic()
    process = begin(playbook, *arguments)
    try:
        output, _none = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)
        raise
    return Outcome(process.returncode, output, time.monotonic() - started)


def begin(playbook: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a playbook in a process group of its own.

    One of an installed collection runs with that one's roles and plugins.
    """
    environment = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
    if len(playbook.parents) > 4 and playbook.parents[3].name == "ansible_collections":
        environment["ANSIBLE_COLLECTIONS_PATH"] = str(playbook.parents[4])
    return subprocess.Popen(
        ["ansible-playbook", "-i", str(INVENTORY), str(playbook), *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def until_task(process: subprocess.Popen[str], number: int = 1, name: str = "") -> str:
    """Read what a playbook prints until it begins its so manieth task of a name (any, if empty).

    Returns all of it; the playbook may have ended.
    """
    assert process.stdout is not None
    text, begun = "", 0
    for line in process.stdout:
        text += line
        begun += line.startswith("TASK [") and name in line
        if begun == number:
            break
    return text


def excerpt(roles: Sequence[str], folder: Path) -> Path:
    """A playbook with the first play of site.yml, which makes the plan, and those of some roles."""
    wanted = {f"ringmain.voip.{role}" for role in roles}
    plan, *others = yaml.safe_load(SITE.read_text(encoding="utf-8"))
    plays = [plan]
    found = set()
    for play_ in others:
        chosen = [role for role in play_.get("roles", ()) if role["role"] in wanted]
        if chosen:
            plays.append({**play_, "roles": chosen})
            found |= {role["role"] for role in chosen}
    assert found == wanted, f"site.yml does not run {wanted - found}"
    path = folder / f"{'-'.join(roles)}.yml"
    path.write_text(yaml.safe_dump(plays, sort_keys=False), encoding="utf-8")
    return path


def plan(folder: Path, **inputs: Any) -> dict[str, Any]:
    """The plan that site.yml makes when some of the cluster's inputs are different."""
    first = yaml.safe_load(SITE.read_text(encoding="utf-8"))[0]
    found = folder / "plan.json"
    copy = {
        "ansible.builtin.copy": {
            "content": "{{ ringmain_plan | to_json }}",
            "dest": str(found),
            "mode": "0600",
        },
        "delegate_to": "localhost",
        "become": False,
        "run_once": True,
    }
    path = folder / "plan.yml"
    path.write_text(yaml.safe_dump([{**first, "tasks": [*first["tasks"], copy]}]), encoding="utf-8")
    outcome = play(path, "-e", json.dumps(inputs))
    assert outcome.code == 0, outcome.output
    made = json.loads(found.read_text(encoding="utf-8"))
    assert isinstance(made, dict)
    return made
