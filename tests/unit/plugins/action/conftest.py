# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Real runs of ansible-playbook on this machine, with an inventory and roles of a test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

Play = Callable[..., "Run"]


@dataclass
class Run:
    """One run: exit code, all it wrote, and the result of each task by host."""

    code: int
    text: str
    results: dict[str, dict[str, Any]]

    def message(self, task: str, host: str = "localhost") -> str:
        """What a failed task says."""
        return str(self.results[task][host]["msg"])


@pytest.fixture
def play(tmp_path: Path, root: Path) -> Play:
    """Run a play (a dictionary, or the name of a playbook of the collection) in tmp_path."""

    def run(content: dict[str, Any] | str, *arguments: str, inventory: str = "localhost,") -> Run:
        if isinstance(content, str):
            path = root / "playbooks" / content
        else:
            path = tmp_path / "play.yml"
            path.write_text(yaml.safe_dump([{"gather_facts": False, **content}]))
        (tmp_path / "ansible.cfg").touch()
        program = Path(sys.executable).with_name("ansible-playbook")
        environment = {
            **{name: value for name, value in os.environ.items() if "ANSIBLE" not in name},
            "ANSIBLE_COLLECTIONS_PATH": str(root / ".cache" / "collections"),
            "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
            "ANSIBLE_HOME": str(tmp_path / "home"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "LC_ALL": "C.UTF-8",
        }
        command = [str(program), "-i", inventory, "-c", "local", str(path), *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        start = done.stdout.find("{\n")
        plays = json.loads(done.stdout[start:])["plays"] if start >= 0 else []
        # Tasks of a role carry its name in front.
        results = {
            task["task"]["name"].rpartition(" : ")[2]: task["hosts"]
            for one in plays
            for task in one.get("tasks", [])
        }
        return Run(done.returncode, done.stdout + done.stderr, results)

    return run
