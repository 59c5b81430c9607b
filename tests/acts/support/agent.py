# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program on one of the lab's machines that takes orders."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from .lab import Lab


class Agent:
    """Takes orders and answers them, one JSON object a line."""

    def __init__(self, lab: Lab, host: str, folder: str, program: str, *arguments: str) -> None:
        self._program = program
        # A phone is a machine of its own and does not wait for the servers that share this one.
        # baresip 1.1.0 also crashes at times when it is kept waiting, with audio before the answer.
        words = ("nice", "-n", "-15", "env", f"PYTHONPATH={folder}", "python3")
        self._process = lab.start(host, *words, f"{folder}/{program}", *arguments)

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Give an order and wait for the answer. Raises AssertionError when it is an error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            error = self._process.stderr.read()[-2000:]
            raise AssertionError(f"{self._program} is gone: {error}")
        answer = json.loads(line)
        assert isinstance(answer, dict)
        if "error" in answer:
            raise AssertionError(f"{what}: {answer['error']}\n{self.evidence()}")
        return answer

    def evidence(self) -> str:
        """What stands below an error."""
        return ""

    def close(self) -> None:
        """Let it end in order."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
