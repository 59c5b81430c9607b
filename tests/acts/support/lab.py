# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab as the acts use it: power, and programs on its servers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = ROOT / "roles" / "lab" / "files" / "lab.py"


class LabError(AssertionError):
    """A command on the lab failed; the message has its output."""


class Lab:
    """One lab that is up. Everything goes through lab.py, without SSH."""

    def __init__(self, lab_id: str) -> None:
        self.id = lab_id

    def command(self, *words: str) -> list[str]:
        """A command of lab.py, as words."""
        return [sys.executable, str(PROGRAM), "--id", self.id, *words]

    def run(self, *words: str, given: str = "", timeout: float = 120) -> str:
        """Run lab.py and return its output. Raises LabError when it fails."""
        done = subprocess.run(
            self.command(*words),
            input=given,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            shown = " ".join(words)
            raise LabError(f"lab.py {shown}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def power_off(self, *names: str) -> float:
        """Cut the power of servers; when that was, by the monotonic clock."""
        return float(self.run("kill", *names))

    def power_on(self, *names: str) -> None:
        """Switch servers on; returns when they take commands."""
        self.run("start", *names)

    def power_on_with_room(self, name: str, megabytes: int) -> None:
        """Switch a server on whose disk has so much room; what it writes is gone with its power."""
        self.run("start", "--room", str(megabytes), name)

    def unplug(self, name: str, *networks: str) -> float:
        """Pull a server's cables out of networks, which it sees; when that was."""
        return float(self.run("unplug", name, *networks))

    def plug(self, name: str, *networks: str) -> None:
        """Put them in again."""
        self.run("plug", name, *networks)

    def shut_down(self, *names: str) -> None:
        """Shut servers down in order, one after another."""
        for name in names:
            self.run("stop", name)

    def shell(self, name: str, script: str, timeout: float = 60) -> str:
        """Run a shell script on a server."""
        return self.run("exec", name, "--", "bash", "-c", script, timeout=timeout)

    def python(self, name: str, program: str, *arguments: str, timeout: float = 60) -> str:
        """Run a Python program, given as text, on a server."""
        words = ("exec", name, "--", "python3", "-", *arguments)
        return self.run(*words, given=program, timeout=timeout)

    def start(self, name: str, *command: str) -> subprocess.Popen[str]:
        """Start a program on a server with its input and output in pipes."""
        words = self.command("exec", name, "--", *command)
        pipe = subprocess.PIPE
        return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1)

    def put(self, name: str, path: str, content: str) -> None:
        """Write a file on a server, readable by root alone."""
        script = f"umask 077 && mkdir -p '{Path(path).parent}' && cat > '{path}'"
        self.run("exec", name, "--", "bash", "-c", script, given=content)

    def members(self) -> dict[str, Any]:
        """What lab.py says of every server and probe, by name."""
        found = json.loads(self.run("status"))["members"]
        assert isinstance(found, dict)
        return found

    def journal(self, name: str, units: Sequence[str], seconds: float) -> list[str]:
        """What some units wrote in the last seconds: warnings and worse, at most 40 lines."""
        chosen = " ".join(f"-u {unit}" for unit in units)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() - seconds))
        script = (
            f"journalctl --no-pager -q -p warning --utc --since '{since}' {chosen} -o short-precise"
            " | tail -n 40"
        )
        return self.shell(name, script).splitlines()


def everywhere(names: Sequence[str], act: Any) -> dict[str, Any]:
    """Call `act(name)` for all names at the same time; what it returned or raised, by name."""

    def guarded(name: str) -> Any:
        try:
            return act(name)
        except (LabError, subprocess.TimeoutExpired, ValueError) as error:
            return error

    with ThreadPoolExecutor(max_workers=len(names)) as pool:
        return dict(zip(names, pool.map(guarded, names), strict=True))
