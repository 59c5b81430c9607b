# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The machine the lab runs on: commands, locks, control groups, daemons."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .names import LabError

CACHE = Path("/var/cache/ringmain")
RUNTIME = Path("/var/lib/ringmain-lab")
PROGRAM = Path(__file__).resolve().parent.parent / "lab.py"
CLONE_NEWNET = 0x40000000
INOTIFY = "anon_inode:inotify"
INOTIFY_OF_A_SERVER = 8  # six after boot, and its services
LOCK_FORMAT = "hhqqi0q"  # struct flock of 64-bit Linux
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "apt-get": "apt",
}
MACHINE_TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mkfs.ext4": "e2fsprogs",
}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_started = time.monotonic()


def say(text: str) -> None:
    """One line of progress on standard error, with the seconds since the start."""
    print(f"[{time.monotonic() - _started:5.1f}s] {text}", file=sys.stderr, flush=True)


def run(command: Sequence[str], check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command quietly; LabError with its output when it fails and `check` is set."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if check and done.returncode:
        output = (done.stderr + done.stdout).strip()
        raise LabError(f"'{' '.join(command)}' failed ({done.returncode}): {output}")
    return done


def check_root() -> None:
    """LabError unless this is root."""
    if os.geteuid() != 0:
        raise LabError("the lab makes network namespaces and mounts: run this as root (sudo)")


def check_tools(virtual: bool = False) -> None:
    """LabError that names the packages to install, unless all tools are there.

    Parameters:
        virtual: whether virtual machines are wanted as well.
    """
    tools = TOOLS | MACHINE_TOOLS if virtual else TOOLS
    missing = {package for tool, package in tools.items() if shutil.which(tool) is None}
    if not KEYRING.is_file():
        missing.add("debian-archive-keyring")
    if missing:
        packages = " ".join(sorted(missing))
        raise LabError(f"this machine lacks what a lab needs: run 'apt-get install {packages}'")


def check_overlay() -> None:
    """LabError unless an overlay can be mounted on the directory of the labs."""
    trial = RUNTIME / f".trial-{os.getpid()}"
    try:
        for part in ("lower", "upper", "work", "root"):
            (trial / part).mkdir(parents=True)
        options = f"lowerdir={trial}/lower,upperdir={trial}/upper,workdir={trial}/work"
        mount = ["mount", "-t", "overlay", "overlay", "-o", options, f"{trial}/root"]
        done = run(["unshare", "--mount", *mount], check=False)
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    if done.returncode:
        raise LabError(
            f"no overlay can be mounted on {RUNTIME} ({done.stderr.strip()}): the kernel needs "
            "overlayfs ('modprobe overlay'), and the directory must lie on ext4, xfs or btrfs, "
            "not on an overlay itself"
        )


def check_room(path: Path, needed: int) -> None:
    """LabError when the file system of `path` has less than `needed` bytes left."""
    free = shutil.disk_usage(path).free
    if free < needed:
        raise LabError(
            f"{path} has {free >> 20} MB of room left, {needed >> 20} MB are needed: free some "
            f"space; '{CACHE}' may be deleted while no lab is up"
        )


def check_inotify(servers: int) -> None:
    """LabError when the kernel would refuse the inotify instances of so many more servers.

    The limit counts all of root's on the machine, containers included. Without them systemd stops
    in the middle of its start.
    """
    limit = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text(encoding="ascii"))
    used = 0
    for descriptors in Path("/proc").glob("[0-9]*/fd"):
        # Processes end meanwhile, and some may be closed even to root.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if descriptors.stat().st_uid == 0:
                used += sum(os.readlink(path) == INOTIFY for path in descriptors.iterdir())
    needed = servers * INOTIFY_OF_A_SERVER
    if servers and used + needed > limit:
        raise LabError(
            f"{servers} more servers need {needed} inotify instances; root may have {limit} and "
            f"has {used}: take another lab down, or allow more with "
            f"'sysctl fs.inotify.max_user_instances={limit * 4}'"
        )


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file so that a reader, or a crash, sees the old or the new one and no mixture."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    new.rename(path)


def read_json(path: Path) -> Any:
    """Content of a JSON file; None when it does not exist or an interrupted write spoilt it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def holder(path: Path) -> int | None:
    """Process id of whoever holds this lock file, None when nobody does.

    Asks without taking the lock, so it is in nobody's way. Not for a lock of the caller's own.
    """
    try:
        with open(path, "rb") as file:
            question = struct.pack(LOCK_FORMAT, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
            answer = fcntl.fcntl(file, fcntl.F_GETLK, question)
    except FileNotFoundError:
        return None
    lock = struct.unpack(LOCK_FORMAT, answer)
    return None if lock[0] == fcntl.F_UNLCK else int(lock[4])


@contextlib.contextmanager
def locked(path: Path, busy: Callable[[int], None]) -> Iterator[None]:
    """Hold a lock file; the kernel lets it go with this process, whatever ends it.

    Parameters:
        busy: called with the holder's process id when it is taken; when it returns, the lock is
            waited for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with open(path, "ab") as file:
            pid = holder(path)
            if pid:
                busy(pid)
            try:
                fcntl.lockf(file, fcntl.LOCK_EX if pid else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # somebody was quicker: ask who
            # The last holder may have removed the file: then this lock is worth nothing.
            if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                continue
            yield
            return


def runs_systemd() -> bool:
    """Whether systemd is this machine's init: daemons then become its units."""
    return Path("/run/systemd/system").is_dir()


def control_groups() -> Path:
    """Where the version 2 hierarchy is mounted: at the usual place, or below it (hybrid)."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, after = line.split(" - ", maxsplit=1)
        if after.startswith("cgroup2 "):
            return Path(before.split()[4])
    raise LabError(
        "no cgroup2 hierarchy is mounted here, and servers with systemd need one: mount it with "
        "'mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified'"
    )


def unit_name(lab_id: str, name: str) -> str:
    """The systemd unit of a daemon. An id has no dot, so no lab's name begins another's."""
    return f"ringmain-lab.{lab_id}.{name}.service"


def group_of(lab_id: str, name: str) -> Path:
    """The control group of a daemon and of everything it starts."""
    if runs_systemd():
        return control_groups() / "system.slice" / unit_name(lab_id, name)
    return control_groups() / "ringmain-lab" / lab_id / name


def groups_of_lab(lab_id: str) -> dict[str, Path]:
    """All control groups of a lab that exist, by the daemon's name."""
    if runs_systemd():
        pattern = unit_name(lab_id, "*")
        found = (control_groups() / "system.slice").glob(pattern)
        return {path.name.split(".")[2]: path for path in found}
    return {path.name: path for path in (group_of(lab_id, "x").parent).glob("*") if path.is_dir()}


def processes(group: Path) -> list[int]:
    """Process ids of a control group and of all below it."""
    found: list[int] = []
    for entry in os.walk(group):
        with contextlib.suppress(OSError):  # it has been removed meanwhile
            listed = Path(entry[0], "cgroup.procs").read_text(encoding="ascii")
            found.extend(int(pid) for pid in listed.split())
    return found


def kill_group(group: Path, patience: float = 20.0) -> None:
    """SIGKILL every process of a control group at once, and remove it when they are gone."""
    if not group.is_dir():
        return
    try:
        (group / "cgroup.kill").write_text("1", encoding="ascii")
    except OSError:  # before Linux 5.14; or its last process is removing it just now
        for pid in processes(group):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + patience
    while processes(group):
        if time.monotonic() > deadline:
            raise LabError(
                f"processes {processes(group)} in {group} do not die: they hang in the kernel, "
                "look for stuck file systems with 'cat /proc/PID/stack'"
            )
        time.sleep(0.02)
    remove_group(group)


def remove_group(group: Path) -> None:
    """Remove a control group that has no processes left, with all below it."""
    for entry in os.walk(group, topdown=False):
        deadline = time.monotonic() + 10
        while os.path.isdir(entry[0]) and time.monotonic() < deadline:
            try:
                os.rmdir(entry[0])
            except OSError:
                # The last process is a zombie for a moment after it left cgroup.procs.
                time.sleep(0.02)


def enter_group(group: Path) -> None:
    """Move this process into a control group, made when it does not exist."""
    group.mkdir(parents=True, exist_ok=True)
    (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")


def launch(lab_id: str, name: str, command: Sequence[str], log: Path) -> None:
    """Start a daemon that outlives this process.

    It becomes a unit of its own where systemd is the init, else a session of its own that moves
    into its control group by itself.
    """
    if runs_systemd():
        unit = unit_name(lab_id, name)
        # Its predecessor is dead by now, but systemd may not be done with it.
        for verb in ("stop", "reset-failed"):
            run(["systemctl", verb, unit], check=False)
        properties = ["Delegate=yes", "KillMode=mixed", "TasksMax=infinity"]
        properties += [f"StandardOutput=append:{log}", f"StandardError=append:{log}"]
        options = [f"--property={item}" for item in properties]
        run(["systemd-run", "--quiet", "--collect", f"--unit={unit}", *options, "--", *command])
        return
    with open(log, "a", encoding="utf-8") as output:
        subprocess.Popen(  # pylint: disable=consider-using-with
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
        )


def own_command(lab_id: str, *words: str) -> list[str]:
    """The command line that runs this program again."""
    return [sys.executable, str(PROGRAM), "--id", lab_id, *words]


def wait_for(what: str, ready: Callable[[], bool], patience: float, log: Path) -> None:
    """Wait until `ready` says so; LabError with the end of the log after `patience` seconds."""
    deadline = time.monotonic() + patience
    while not ready():
        if time.monotonic() > deadline:
            raise LabError(f"{what} after {patience:.0f} seconds; {log} ends with:\n{tail(log)}")
        time.sleep(0.05)


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "(nothing)"
    return "\n".join(text.splitlines()[-lines:])


def libc_call(name: str, *arguments: int) -> None:
    """Call setns or unshare, which Python has only since 3.12."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def forbid_forwarding() -> None:
    """Have the present network namespace, which must be a fresh one, pass nothing on.

    A new namespace begins with the machine's own setting.
    """
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0", encoding="ascii")
