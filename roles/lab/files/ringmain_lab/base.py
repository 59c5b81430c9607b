# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The tree that all servers begin with: a Debian as cloud images have it, built once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from .archives import (
    INDEX_FORMAT,
    SUITE,
    Archive,
    archives,
    first_mirror,
    mirror_list,
    parse_index_targets,
    source_lines,
)
from .machine import CACHE, KEYRING, RUNTIME, check_room, locked, read_json, run, say
from .names import LabError
from .package_cache import CacheServer, FetchError, PackageCache, fetch_with_apt

PACKAGES = (
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "python3",
    "python3-apt",
    "sudo",
    "ifupdown",
    "iproute2",
    "iputils-ping",
    "nftables",
    "procps",
    "kmod",
    "netbase",
    "tzdata",
    "logrotate",
    "ca-certificates",
    "less",
)
# Documentation is left out, and dpkg does not wait for the disk: conveniences of the lab alone.
DPKG_OPTIONS = (
    "force-unsafe-io",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)
# Settings of the machine's apt that the servers need too, or a frozen mirror would not do.
INHERITED = ("Acquire::Check-Valid-Until", "Acquire::Check-Date")
FILES = {
    "etc/default/locale": "LANG=C.UTF-8\n",
    "etc/locale.conf": "LANG=C.UTF-8\n",
    "etc/apt/apt.conf.d/20languages": 'Acquire::Languages "none";\n',
    "etc/network/interfaces": (
        "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n"
    ),
}
# A getty on a console that nobody sees; each one costs an inotify instance.
MASKED = ("console-getty.service",)
# What must be a server's own: it is made when the server is.
PERSONAL = ("etc/hostname", "etc/resolv.conf", "var/lib/dbus/machine-id")
# Whatever ends this process ends the whole build: nobody writes on behind the next one's back.
DIES_WITH_US = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
)
ROOM = 2 << 30


def machine_archives() -> list[Archive]:
    """The archives that the machine's apt knows."""
    listed = run(["apt-get", "indextargets", "--format", INDEX_FORMAT])
    targets = parse_index_targets(listed.stdout)
    return archives([(resolved(uri), label, name) for uri, label, name in targets])


def resolved(uri: str) -> str:
    """The address of an archive, looked up when apt has it from a list of mirrors."""
    address = mirror_list(uri)
    if address is None:
        return uri
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "mirrors"
        try:
            fetch_with_apt(address, copy)
            first = first_mirror(copy.read_text(encoding="utf-8"))
        except (FetchError, OSError) as error:
            raise LabError(f"the mirror list {address} cannot be read: {error}") from error
    if first is None:
        raise LabError(f"the mirror list {address}, which apt's sources name, is empty")
    return first


def inherited_settings() -> dict[str, str]:
    """The machine's values of INHERITED, those that it sets."""
    found: dict[str, str] = {}
    for name in INHERITED:
        value = run(["apt-config", "shell", "VALUE", name]).stdout.strip()
        if value:
            found[name] = value.partition("=")[2].strip("'")
    return found


def recipe(entries: Iterable[Archive], settings: dict[str, str]) -> str:
    """Everything that decides what the tree holds, as text."""
    parts = {
        "suite": SUITE,
        "packages": PACKAGES,
        "dpkg": DPKG_OPTIONS,
        "files": FILES,
        "personal": PERSONAL,
        "masked": MASKED,
        "sources": source_lines(entries, str(KEYRING)),
        "settings": settings,
        "architecture": os.uname().machine,
    }
    return json.dumps(parts, indent=1, sort_keys=True)


def package_cache(entries: Iterable[Archive], log: Path, enter: Iterable[str] = ()) -> PackageCache:
    """The cache of the machine; `enter` as for fetch_with_apt."""

    def note(text: str) -> None:
        with open(log, "a", encoding="utf-8") as file:
            file.write(text + "\n")

    (CACHE / "packages").mkdir(parents=True, exist_ok=True)
    prefix = list(enter)
    return PackageCache(
        CACHE / "packages", entries, lambda url, path: fetch_with_apt(url, path, prefix), note
    )


def ensured(entries: list[Archive]) -> AbstractContextManager[tuple[str, bool]]:
    """Give the key of the base tree for these archives, and whether it had to be built.

    Nobody deletes the tree inside the block: there, servers that stand on it come to be.
    """
    settings = inherited_settings()
    key = key_of(SUITE, recipe(entries, settings))
    return kept("base", key, ROOM, "the base tree", lambda: build(key, entries, settings))


def key_of(name: str, text: str) -> str:
    """The key of what is built by this recipe."""
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@contextlib.contextmanager
def kept(
    folder: str, key: str, room: int, what: str, make: Callable[[], None]
) -> Iterator[tuple[str, bool]]:
    """Build what the cache lacks; nobody deletes it inside the block.

    Parameters:
        folder: of the cache.
        room: bytes that the disk must have free for it.
        what: its name for people.
        make: puts the directory `key` into the folder.
    """

    def wait(pid: int) -> None:
        say(f"waiting for process {pid}, which is at work on {what}")

    with locked(CACHE / f"{folder}.lock", wait):
        built = not (CACHE / folder / key).is_dir()
        if built:
            remove_unused(CACHE / folder)
            check_room(CACHE, room)
            say(f"building {what} {key} (once)")
            make()
            say(f"{what} is ready")
        yield key, built


def tree(key: str) -> Path:
    """Where the base tree of a key lies."""
    return CACHE / "base" / key


def build(key: str, entries: list[Archive], settings: dict[str, str]) -> None:
    """Build the tree beside its place and put it there when it is whole."""
    new = CACHE / "base" / f".{key}.{os.getpid()}.new"
    new.parent.mkdir(parents=True, exist_ok=True)
    make_tree(new, CACHE / "base.log", entries, settings)
    new.rename(tree(key))


def make_tree(
    new: Path,
    log: Path,
    entries: list[Archive],
    settings: dict[str, str],
    more_packages: Iterable[str] = (),
    options: Iterable[str] = (),
) -> None:
    """Make a Debian in a new directory, ready to be delivered; nothing of it stays on an error.

    Parameters:
        more_packages: what it holds beside PACKAGES.
        options: further options for mmdebstrap.
    """
    log.unlink(missing_ok=True)
    server = CacheServer(("127.0.0.1", 0), package_cache(entries, log))
    command = [
        *DIES_WITH_US,
        "mmdebstrap",
        "--mode=root",
        "--format=directory",
        "--variant=minbase",
    ]
    packages = [*PACKAGES, *more_packages]
    command += [f"--include={','.join(packages)}", f"--keyring={KEYRING}", *options]
    command += [f"--dpkgopt={option}" for option in DPKG_OPTIONS]
    command += [f'--aptopt={name} "{value}"' for name, value in settings.items()]
    command += [f'--aptopt=Acquire::http::Proxy "http://127.0.0.1:{server.start()}"']
    # The lists stay, so that the first 'apt-get update' of a server has little to fetch.
    command += ["--skip=cleanup/apt/lists", SUITE, str(new)]
    command += source_lines(entries, str(KEYRING))
    with open(log, "a", encoding="utf-8") as output:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
        )
    server.shutdown()
    if done.returncode:
        ending = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        shutil.rmtree(new, ignore_errors=True)
        raise LabError(
            f"mmdebstrap could not build {new.name}; {log} ends with:\n" + "\n".join(ending)
        )
    finish(new, settings)


def finish(root: Path, settings: dict[str, str]) -> None:
    """Bring a fresh tree into the state in which a server is delivered."""
    lines = [f'{name} "{value}";\n' for name, value in sorted(settings.items())]
    files = {**FILES, "etc/apt/apt.conf.d/20machine": "".join(lines)}
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    # It names the proxy of the build.
    (root / "etc/apt/apt.conf.d/99mmdebstrap").unlink(missing_ok=True)
    for unit in MASKED:
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    for name in PERSONAL:
        (root / name).unlink(missing_ok=True)
    (root / "etc/machine-id").write_text("", encoding="ascii")
    for path in (root / "etc/ssh").glob("ssh_host_*"):
        path.unlink()
    # journald keeps its files where this directory exists.
    (root / "var/log/journal").mkdir(mode=0o2755, exist_ok=True)


def remove_unused(directory: Path) -> None:
    """Delete trees or images that nothing of any lab stands on, and what a broken build left."""
    used = set()
    for spec in RUNTIME.glob("*/servers/*/spec.json"):
        used.add((read_json(spec) or {}).get("base"))
    for tags in RUNTIME.glob("*/tags/*.json"):
        for member in (read_json(tags) or {}).get("members", {}).values():
            used.add(member.get("base"))
    for path in directory.glob("*"):
        if path.name not in used:
            shutil.rmtree(path)
    for path in directory.glob(".*.new"):
        shutil.rmtree(path)
