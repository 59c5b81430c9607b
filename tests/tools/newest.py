#!/usr/bin/env python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The check on the newest ansible-core, in a tree of Debian 13 with its own Python. Needs root.

The tree is the lab's base tree with an overlay on top that holds git, the Python environment and
what ansible-test keeps. The overlay is cached by the base tree and the pins of pyproject.toml;
it is mounted in a mount namespace of its own, so that nothing stays mounted, whatever happens.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import check

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "roles" / "lab" / "files"))

from ringmain_lab import base, machine  # noqa: E402
from ringmain_lab.names import LabError  # noqa: E402
from ringmain_lab.package_cache import CacheServer  # noqa: E402

STEPS = ["sanity", "unit", "syntax"]
PACKAGES = ["git", "openssh-client", "python3-venv"]
TREES = machine.CACHE / "newest"
VENV = "/var/lib/newest"
CODE = "/check/ansible_collections/ringmain/voip"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "CI")


def pip_settings() -> dict[str, str]:
    """The machine's own settings of pip as variables, so that they hold in the tree too."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    settings: dict[str, str] = {}
    # Environment variables stand first in the list and win.
    for line in listed.splitlines():
        name, _equals, value = line.partition("=")
        variable = "PIP_" + name.rpartition(".")[2].upper().replace("-", "_")
        settings.setdefault(variable, " ".join(shlex.split(value)))
    return settings


def local_paths(settings: dict[str, str]) -> set[Path]:
    """What pip reads on this machine: folders with packages (an index links beside itself), and
    files, such as constraints and certificates."""
    words = [urlsplit(word).path for value in settings.values() for word in value.split()]
    paths = {Path(word) for word in words if word.startswith("/")} | {CERTIFICATES}
    files = {path for path in paths if path.is_file()}
    folders = {path for path in paths if path.is_dir()}
    return files | {each if each.parent == Path("/") else each.parent for each in folders}


def layer_for(key: str) -> Path:
    """The overlay for this base tree and today's pins; what is stale or half made is deleted."""
    pins = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    digest = hashlib.sha256("\n".join([key, *PACKAGES, *pins]).encode()).hexdigest()[:12]
    for old in TREES.iterdir():
        if old.is_dir() and (old.name != digest or not (old / "complete").exists()):
            shutil.rmtree(old)
    return TREES / digest


def mount(layer: Path, key: str, paths: set[Path]) -> None:
    """Put the tree together at `layer`/root; the mounts end with this process's namespace."""
    root = layer / "root"
    for folder in (root, layer / "upper", layer / "work"):
        folder.mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={base.tree(key)},upperdir={layer}/upper,workdir={layer}/work"
    machine.run(["mount", "-t", "overlay", "overlay", "-o", options, str(root)])
    machine.run(["mount", "-t", "proc", "proc", f"{root}/proc"])
    machine.run(["mount", "--rbind", "/dev", f"{root}/dev"])
    for path in sorted(paths):
        there = root / path.relative_to("/")
        if path.is_dir():
            there.mkdir(parents=True, exist_ok=True)
        else:
            there.parent.mkdir(parents=True, exist_ok=True)
            there.touch()
        machine.run(["mount", "--bind", "-o", "ro", str(path), str(there)])
    (root / "etc/resolv.conf").write_text(Path("/etc/resolv.conf").read_text())


def inside(root: Path, command: list[str], environment: dict[str, str]) -> list[str]:
    """The words that run a command in the tree, where the code is, with this environment alone."""
    variables = [f"{name}={value}" for name, value in environment.items()]
    return ["chroot", str(root), "/usr/bin/env", "-i", f"--chdir={CODE}", *variables, *command]


def install(root: Path, environment: dict[str, str]) -> None:
    """Give the tree git and the Python environment; LabError when that fails."""
    machine.say("making the environment for the newest ansible-core (once)")
    log = machine.CACHE / "newest.log"
    server = CacheServer(("127.0.0.1", 0), base.package_cache(base.machine_archives(), log))
    proxy = f"Acquire::http::Proxy=http://127.0.0.1:{server.start()}"
    apt = ["apt-get", "-qq", "-o", proxy]
    quiet = environment | {"DEBIAN_FRONTEND": "noninteractive"}
    commands = [
        [*apt, "update"],
        [*apt, "install", "--yes", "--no-install-recommends", "-o=Dpkg::Use-Pty=0", *PACKAGES],
        ["python3", "-m", "venv", "--clear", VENV],
        [f"{VENV}/bin/python", "-m", "pip", "install", "-qq", "--upgrade", "pip==26.3"],
        [
            f"{VENV}/bin/python",
            "-m",
            "pip",
            "install",
            "-qq",
            "--group",
            "pyproject.toml:dev",
        ],
    ]
    for command in commands:
        machine.run(inside(root, command, quiet))
    server.shutdown()


def main() -> int:
    """Make or find the tree, run the steps in it, and return the exit code for the shell."""
    machine.check_root()
    try:
        machine.check_tools()
    except LabError:
        role = "name=ringmain.voip.lab tasks_from=install.yml"
        ansible = ["ansible", "localhost", "-c", "local", "-m", "ansible.builtin.include_role"]
        subprocess.run([*ansible, "-a", role], check=True, stdin=subprocess.DEVNULL)

    TREES.mkdir(parents=True, exist_ok=True)
    with (TREES / "lock").open("w") as lock:
        # The tree holds one checkout's code at a time.
        fcntl.flock(lock, fcntl.LOCK_EX)
        settings = pip_settings()
        with base.ensured(base.machine_archives()) as (key, _built):
            layer = layer_for(key)
            mount(layer, key, local_paths(settings))
        root = layer / "root"
        complete = layer / "complete"
        check.copy_collection(Path(f"{root}{CODE}"))
        environment = {
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "PATH": f"{VENV}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "ANSIBLE_COLLECTIONS_PATH": "/check",
            **settings,
            **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        }
        if not complete.exists():
            install(root, environment)
            complete.touch()
        command = inside(root, ["python", "tests/tools/check.py", *STEPS], environment)
        return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    if "--inside" not in sys.argv:
        again = [sys.executable, __file__, "--inside"]
        os.execvp("unshare", ["unshare", "--mount", "--pid", "--fork", "--kill-child", *again])
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(str(error))
