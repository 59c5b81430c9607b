#!/usr/bin/env python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`make test`: one stage after another, each with its budget, and a table of what they took.

A stage over its budget is a matter for its owner; only the total fails a run on the clock.
The lab `test` is taken down at the end, whatever happened, unless KEEP_LAB is set.
The last lines are why tests failed, the closing lines of all pytest runs and their sum.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOTAL_MINUTES = 75
REASON = re.compile(r"^(?:E  |FAILED |ERROR |(?:\x1b\[[\d;]*m)?(?:fatal|failed): )")
REASONS = 40
"""So many lines of each stage say once more, at the end, why its tests failed."""
CLOSING_LINE = re.compile(r"^=+ (?P<counts>.*\b(?:passed|failed|errors?)\b.*) in [\d.]+s.*=+$")


@dataclasses.dataclass(frozen=True)
class Stage:
    """A command with its budget in minutes; without the stages it needs it is not begun."""

    name: str
    budget: float
    command: str
    needs: tuple[str, ...] = ()


IN_LAB = "tests/tools/in-lab"
NO_LAB = "ansible-playbook playbooks/lab.yml -e lab_state=absent"
STAGES = [
    Stage("check", 5, "make --no-print-directory check"),
    Stage("check-newest", 3, "make --no-print-directory check-newest"),
    Stage("asterisk", 8, "ansible-playbook playbooks/build_asterisk.yml"),
    Stage("lab", 3, "pytest tests/acts/test_lab.py"),
    Stage(
        "servers",
        2,
        f"{NO_LAB} && ansible-playbook playbooks/lab.yml"
        f" && {IN_LAB} ansible-playbook playbooks/secrets.yml",
    ),
    Stage(
        "empty",
        2,
        f"{IN_LAB} ansible-playbook playbooks/site.yml --check --diff > .cache/empty.log"
        " || { tail -n 100 .cache/empty.log; exit 1; }",
        needs=("servers",),
    ),
    Stage(
        "small",
        10,
        f"{IN_LAB} molecule test --no-command-borders -s small",
        needs=("asterisk", "servers"),
    ),
    # The measure first, on a cluster to which nothing has happened yet; package scripts last, for
    # they leave other owners of files behind, which only site.yml puts right.
    Stage(
        "acts",
        14,
        f"{IN_LAB} pytest"
        + "".join(
            f" tests/acts/test_{name}.py"
            for name in (
                *("load", "ban", "faults", "firewall", "recovery", "repair", "second_run"),
                *("refusals", "look_and_wait", "host", "two_phones"),
            )
        )
        + "".join(
            f" tests/acts/test_relay.py::test_{name}"
            for name in (
                "a_call_that_was_offered_twice",
                "a_phone_answers_while_its_relay_is_away",
            )
        ),
        ("small",),
    ),
    # Faults and planned work under some eighty calls, shorter ones than by `make soak`; the
    # upgrade last, for it leaves another Asterisk.
    Stage(
        "rolling",
        20,
        f"{IN_LAB} pytest -s --standing 40 tests/acts/test_rolling_faults.py"
        " tests/acts/test_rolling.py -k 'rolling_faults or upgrade'",
        ("small",),
    ),
    # The other engine, in a lab of its own that takes the place of this one.
    Stage(
        "postgresql",
        10,
        "tests/tools/postgresql tests/acts/test_database_faults.py::test_killed"
        " tests/acts/test_postgresql.py::test_switchover tests/acts/test_refusals.py",
        ("asterisk",),
    ),
]


def run(stage: Stage) -> tuple[bool, list[str], list[str]]:
    """Run a stage, passing on what it prints; return success, closing lines, reasons."""
    closing: list[str] = []
    reasons: list[str] = []
    with subprocess.Popen(
        ["bash", "-eu", "-c", stage.command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if CLOSING_LINE.match(line):
                closing.append(line.strip())
            if REASON.match(line) and len(reasons) < REASONS:
                reasons.append(line.rstrip()[:300])
    return process.returncode == 0, closing, reasons


def add_up(closing: list[str], seconds: float) -> str:
    """One closing line for all: `===== 3 failed, 120 passed in 300.0s =====`."""
    total: collections.Counter[str] = collections.Counter()
    for line in closing:
        match = CLOSING_LINE.match(line)
        assert match is not None
        for count, word in re.findall(r"(\d+) (\w+)", match["counts"]):
            total[{"error": "errors", "warning": "warnings"}.get(word, word)] += int(count)
    counts = ", ".join(f"{total[word]} {word}" for word in sorted(total))
    return f" {counts} in {seconds:.1f}s ".center(80, "=")


def main() -> int:
    """Run all stages and return the exit code for the shell."""
    os.environ["RINGMAIN_LAB_ID"] = "test"
    start = time.monotonic()
    table: list[tuple[str, str, str, str]] = []
    done: set[str] = set()
    closing: list[str] = []
    reasons: list[str] = []
    for stage in STAGES:
        if not done.issuperset(stage.needs):
            table.append((stage.name, f"{stage.budget:g} min", "-", "not begun"))
            continue
        print(f"\n##### {stage.name} (budget {stage.budget:g} min)", flush=True)
        begun = time.monotonic()
        passed, lines, why = run(stage)
        minutes = (time.monotonic() - begun) / 60
        closing += [f"{line}  {stage.name}" for line in lines]
        if passed:
            done.add(stage.name)
        elif why:
            reasons += [f"##### {stage.name}", *why]
        word = "ok" if passed else "FAILED"
        word += " (over its budget)" if minutes > stage.budget else ""
        print(f"##### {stage.name}: {word}, {minutes:.1f} min", flush=True)
        table.append((stage.name, f"{stage.budget:g} min", f"{minutes:.1f} min", word))

    if "KEEP_LAB" not in os.environ:
        subprocess.run(["bash", "-c", NO_LAB], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)

    seconds = time.monotonic() - start
    in_time = seconds <= TOTAL_MINUTES * 60
    word = "ok" if in_time else "FAILED: too long"
    table.append(("total", f"{TOTAL_MINUTES} min", f"{seconds / 60:.1f} min", word))
    print(f"\n{'stage':24}{'budget':>9}{'took':>11}")
    for name, budget, took, word in table:
        print(f"{name:24}{budget:>9}{took:>11}  {word}")
    print()
    for line in (*reasons, *closing):
        print(line)
    print(add_up([line.rpartition("  ")[0] for line in closing], seconds), flush=True)
    return 0 if in_time and len(done) == len(STAGES) else 1


if __name__ == "__main__":
    sys.exit(main())
