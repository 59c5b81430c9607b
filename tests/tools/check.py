#!/usr/bin/env python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Everything that can be said about the code without running it on a server.

Each step is one command. They run side by side, as many as there are cores; a step's output is
shown only when it fails. `make check STEPS="unit mypy"` runs some of them.

Steps that need a collection in its proper place (ansible-test refuses links, and a build should
hold nothing but what git would commit) work on a copy of all files that git tracks or would.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import fcntl
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
COPY = CACHE / "copy" / "ansible_collections" / "ringmain" / "voip"
LINK = CACHE / "collections" / "ansible_collections" / "ringmain" / "voip"
BUILD = CACHE / "build"
TIME_LIMIT = 1200  # for what hangs; a busy machine fails nobody
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTEST_CLOSING_LINE = re.compile(
    r"^=+ .*\b(passed|failed|errors?)\b.* in [\d.]+s.*=+$", re.MULTILINE
)


@dataclasses.dataclass(frozen=True)
class Step:
    """One shell command, the directory it runs in, and a pattern that means failure anyway."""

    name: str
    command: str
    cwd: Path = ROOT
    never: str = ""


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a step, how many seconds it took, and everything it printed."""

    step: Step
    failed: bool
    seconds: float
    output: str


# The long ones first, so that the short ones fill the gaps.
STEPS = [
    Step("sanity", f"ansible-test sanity --local --python {PYTHON} --color no", COPY,
         never="All targets skipped"),
    Step("ansible-lint", "ansible-lint --strict --nocolor"),
    Step("galaxy-importer", f"ansible-galaxy collection build --output-path {BUILD} && cd {BUILD}"
         " && export GALAXY_IMPORTER_RUN_ANSIBLE_LINT=false &&"  # it has just run
         " python -m galaxy_importer.main ringmain-voip-*.tar.gz", COPY,
         never="WARNING|ERROR|Traceback"),  # its exit code alone does not say everything
    Step("unit", "pytest --tb=short tests/unit"),
    Step("mypy", f"mypy {LINK}/plugins roles tests molecule benchmarks"),
    Step("syntax", "ansible-playbook --syntax-check -i inventories/small playbooks/*.yml"),
    Step("antsibull-docs", "antsibull-docs lint-collection-docs --plugin-docs .", COPY),
    Step("antsibull-changelog", "antsibull-changelog lint"),
    Step("yamllint", "yamllint --strict ."),
    Step("ruff", "ruff check --quiet ."),
    Step("format", "ruff format --check --quiet ."),
]  # fmt: skip


def run(step: Step) -> Result:
    """Run one step to its end, or to TIME_LIMIT: then it and what it started are killed."""
    start = time.monotonic()
    with subprocess.Popen(
        ["bash", "-eu", "-c", step.command],
        cwd=step.cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, _rest = process.communicate(timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _rest = process.communicate()
            output += f"\nKilled: it had not ended after {TIME_LIMIT} s\n"
    failed = process.returncode != 0 or bool(step.never and re.search(step.never, output))
    return Result(step, failed, time.monotonic() - start, output)


def copy_collection(target: Path) -> None:
    """Bring `target` to what a commit of the present work tree would hold."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    shutil.rmtree(target, ignore_errors=True)
    for name in filter(None, listed.split("\0")):
        source, copy = ROOT / name, target / name
        if source.exists() or source.is_symlink():  # else deleted, and that not yet committed
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)
    # ansible-test asks git for its files and would find this checkout, which ignores the copy.
    subprocess.run(["git", "init", "--quiet"], cwd=target, check=True)


def offer_pip_to_ansible_test() -> None:
    """Let ansible-test take pip from Python's own ensurepip instead of a download."""
    package = importlib.util.find_spec("ansible_test")
    assert package is not None
    assert package.submodule_search_locations is not None
    source = Path(package.submodule_search_locations[0], "_internal", "python_requirements.py")
    wanted = re.findall(r"pip='([\d.]+)'", source.read_text())
    cache = Path.home() / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for version in wanted:
        script = cache / f"get_pip_{version.replace('.', '_')}.py"
        if not script.exists():
            script.write_text("import ensurepip\nensurepip.bootstrap()\n")


def main(names: list[str]) -> int:
    """Run the named steps, or all, and return the exit code for the shell."""
    unknown = set(names) - {step.name for step in STEPS}
    if unknown:
        print(f"No such step: {', '.join(sorted(unknown))}")
        print(f"There are: {', '.join(step.name for step in STEPS)}")
        return 2
    start = time.monotonic()
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "check.lock").open("w") as lock:
        # A second check in the same checkout waits: both use the same copy.
        fcntl.flock(lock, fcntl.LOCK_EX)
        copy_collection(COPY)
        shutil.rmtree(BUILD, ignore_errors=True)
        BUILD.mkdir(parents=True)
        offer_pip_to_ansible_test()
        failed = []
        chosen = [step for step in STEPS if not names or step.name in names]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for future in concurrent.futures.as_completed(pool.submit(run, s) for s in chosen):
                result = future.result()
                word = "FAILED" if result.failed else "ok"
                print(f"{word:7} {result.step.name:22} {result.seconds:6.1f} s", flush=True)
                if result.failed:
                    failed.append(result)
                elif closing := PYTEST_CLOSING_LINE.search(result.output):
                    print(closing.group(), flush=True)
    for result in failed:
        print(f"\n--- {result.step.name}: {result.step.command}\n{result.output}")
    print(
        f"{len(chosen)} steps, {len(failed)} failed, {time.monotonic() - start:.0f} s", flush=True
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
