# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Forwarding in the kernel: what RTPEngine's module shows of itself, and what a host lacks for it.

Pure functions on text and plain data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MODULE = "xt_RTPENGINE"
MODULE_PACKAGE = "rtpengine-kernel-dkms"
DAEMON_PACKAGE = "rtpengine-daemon"

# 6.12.48+deb13-cloud-amd64, 6.12.9+bpo-rt-amd64, 6.1.0-18-amd64
_RELEASE = re.compile(
    r"[0-9]+\.[0-9]+(?:\.[0-9]+)?(?:[+~][a-z0-9.+~]+)?(?:-[0-9]+)?-(?P<flavour>[a-z0-9-]+)"
)
_COUNTS = re.compile(r"stats: +(\d+) bytes, +(\d+) packets, +(\d+) errors")


class UnreadableTableError(Exception):
    """The kernel's list of streams has another form than this version of RTPEngine gives it."""


@dataclass(frozen=True)
class Target:
    """One port that the kernel answers for, as a line block of C(/proc/rtpengine/N/list).

    `packets` and `errors` count what arrived there, whoever passed it on: kernel and user space
    share this memory. `outputs` are the far ends (`address:port`), empty where packets go to user
    space or nowhere. `complete` is false for the moment in which outputs are still being added.
    """

    local: str
    expected: str
    on_mismatch: str
    packets: int
    errors: int
    options: tuple[str, ...]
    outputs: tuple[str, ...]
    complete: bool = True

    @property
    def forwards(self) -> bool:
        """Whether the kernel passes the packets of this port on."""
        return self.complete and bool(self.outputs) and "non-forwarding" not in self.options


def parse_list(text: str) -> list[Target]:
    """The targets in the text of C(/proc/rtpengine/N/list), in its order.

    Raises UnreadableTableError.
    """
    blocks: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("local "):
            blocks.append([])
        if not blocks:
            raise UnreadableTableError(f"the list begins with '{line}', not with a local port")
        blocks[-1].append(line.strip())
    return [_target(block) for block in blocks]


def _target(lines: Sequence[str]) -> Target:
    local = _address(lines[0].removeprefix("local "))
    expected = mismatch = ""
    counts: tuple[int, int] | None = None
    options: tuple[str, ...] = ()
    outputs = []
    for line in lines[1:]:
        word, _blank, rest = line.partition(" ")
        if line.startswith("outputs not fully filled"):
            return Target(local, "", "", 0, 0, (), (), complete=False)
        if word == "expect":
            expected = _address(rest)
        elif line.startswith("src mismatch action:"):
            mismatch = line.rpartition(":")[2].strip()
        elif word == "options:":
            options = tuple(rest.split())
        elif word == "dst":
            outputs.append(_address(rest))
        elif word == "stats:" and counts is None:
            found = _COUNTS.match(line)
            if found:
                counts = (int(found[2]), int(found[3]))
    if counts is None:
        raise UnreadableTableError(f"no counters stand under 'local {local}'")
    return Target(local, expected, mismatch, *counts, options, tuple(outputs))


def _address(text: str) -> str:
    family, _blank, address = text.strip().partition(" ")
    if family not in ("inet4", "inet6") or not address:
        raise UnreadableTableError(f"'{text.strip()}' is no address")
    return address


def table_owner(status: str) -> int | None:
    """Process id of the daemon that a table belongs to, from C(/proc/rtpengine/N/status)."""
    found = re.search(r"^Control PID: +([0-9]+)$", status, re.MULTILINE)
    return int(found[1]) if found and int(found[1]) else None


def has_rule(chain: str) -> bool:
    """Whether a chain, as C(nft list chain) prints it, hands packets to RTPEngine's module."""
    return re.search(r'xt target "?RTPENGINE"?', chain) is not None


def flavour(release: str) -> str | None:
    """The flavour of one of Debian's kernels, which names its meta packages; None for others."""
    found = _RELEASE.fullmatch(release)
    return found["flavour"] if found else None


@dataclass(frozen=True)
class Kernel:
    """An installed kernel: whether its headers are there, and the version of the module for it.

    `module` is empty when none has been built.
    """

    release: str
    headers: bool
    module: str


@dataclass(frozen=True)
class Host:
    """What kernel forwarding stands on.

    `kernels`: the running one and those installed that a reboot could choose, oldest first.
    `packages`: versions of the installed packages by name. `available`: which packages apt can
    install.
    """

    release: str
    kernels: tuple[Kernel, ...]
    packages: Mapping[str, str]
    available: frozenset[str]


def bootable(running: str, installed: Sequence[str]) -> list[str]:
    """The running kernel and those that a reboot could choose instead, oldest first."""

    def age(release: str) -> list[int]:
        return [int(number) for number in re.findall(r"[0-9]+", release.partition("-")[0])]

    later = {each for each in installed if age(each) > age(running)}
    return sorted(later | {running}, key=age)


def wanted_packages(release: str, kernels: Sequence[str]) -> list[str]:
    """All packages that a host with these kernels needs; the meta package brings later headers.

    Empty when the running kernel is none of Debian's.
    """
    kind = flavour(release)
    if kind is None:
        return []
    own = [f"linux-headers-{each}" for each in kernels if flavour(each)]
    return sorted({MODULE_PACKAGE, f"linux-headers-{kind}", *own})


def _is_supported(host: Host) -> bool:
    """Whether headers for kernels of this kind can be had at all."""
    kind = flavour(host.release)
    meta = f"linux-headers-{kind}"
    return kind is not None and (meta in host.packages or meta in host.available)


def missing_packages(host: Host) -> list[str]:
    """The packages to install: those that are wanted, not there, and can be had."""
    if not _is_supported(host):
        return []
    wanted = wanted_packages(host.release, [kernel.release for kernel in host.kernels])
    return [name for name in wanted if name not in host.packages and name in host.available]


def problems(host: Host, after_install: bool) -> list[str]:
    """Why this host cannot forward in the kernel, or could not after a reboot; empty if it can.

    Parameters:
        after_install: the packages that could be had are there: what they bring must be, too.
    """
    kind = flavour(host.release)
    meta = f"linux-headers-{kind}"
    if not _is_supported(host):
        return [
            f"it runs the kernel {host.release}, which is none of Debian's, so nothing can build "
            f"the module {MODULE} for it: boot one of Debian's kernels (apt-get install "
            "linux-image-amd64, then reboot), or forward in user space"
        ]
    found = []
    for kernel in host.kernels:
        headers = f"linux-headers-{kernel.release}"
        running = kernel.release == host.release
        which = "the running kernel" if running else "the installed kernel"
        if headers not in host.packages and headers not in host.available and not kernel.headers:
            found.append(
                f"the headers of {which} {kernel.release} cannot be had any more: "
                + (
                    f"apt-get install linux-image-{kind} linux-headers-{kind}, reboot, and run "
                    "this again"
                    if running
                    else f"remove it (apt-get purge linux-image-{kernel.release})"
                )
            )
        elif after_install and kernel.module != _upstream(host.packages.get(MODULE_PACKAGE, "")):
            has = f"only in version {kernel.module}" if kernel.module else "not"
            found.append(
                f"the module {MODULE} is {has} built for {which} {kernel.release}: "
                f"dkms autoinstall -k {kernel.release}, and if that fails read "
                "/var/lib/dkms/rtpengine/*/build/make.log"
            )
    if not after_install:
        return found
    for name in (DAEMON_PACKAGE, MODULE_PACKAGE, meta):
        if name not in host.packages:
            found.append(f"the package {name} is not installed: apt-get install {name}")
    daemon, module = (host.packages.get(name) for name in (DAEMON_PACKAGE, MODULE_PACKAGE))
    if daemon and module and _upstream(daemon) != _upstream(module):
        found.append(
            f"{DAEMON_PACKAGE} is {daemon} and {MODULE_PACKAGE} is {module}; they understand each "
            f"other only in one version: apt-get install {DAEMON_PACKAGE} {MODULE_PACKAGE}"
        )
    return found


def _upstream(version: str) -> str:
    """12.5.1.31 of 1:12.5.1.31-1+b2: binary rebuilds do not change what two sides speak."""
    return version.rpartition(":")[2].rpartition("-")[0]
