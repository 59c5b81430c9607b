# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server's kernel is to be: its modules and sysctls, and the hardware that was declared.

Compares, decides and words; reading and writing is left to the module.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

ABSENT = "absent"
READ_ONLY = "read-only"

BUCKETS = "net.netfilter.nf_conntrack_buckets"
BUCKETS_IN_A_PAGE = 4096 // 8
"""The kernel rounds the number of buckets up to whole pages of pointers."""

MEMORY_SHARE = 7 / 8
"""Of the memory that a server has, the kernel shows at least so much: the rest is its own."""


@dataclass(frozen=True)
class Reading:
    """What the kernel says of a key; C(value) is None when it has none of this name."""

    value: str | None
    writable: bool = True


@dataclass(frozen=True)
class Difference:
    """A key that is not as wanted; C(obstacle) says why it cannot be set, or is empty."""

    key: str
    wanted: str
    found: str | None
    obstacle: str = ""

    def describe(self) -> str:
        """The key, what it is, what it should be, and the obstacle."""
        if self.found is None:
            return f"{self.key} (wanted {self.wanted}; {self.obstacle or ABSENT})"
        obstacle = f"; {self.obstacle}" if self.obstacle else ""
        return f"{self.key} (is {self.found}, wanted {self.wanted}{obstacle})"


def path_of(key: str) -> str:
    """The file below C(/proc/sys) of a key, by the rule of sysctl.d(5).

    Dots separate, and a slash stands for a dot in a name, unless a slash comes first.
    """
    first = next((letter for letter in key if letter in "./"), ".")
    if first == "/":
        return key
    return key.translate(str.maketrans("./", "/."))


def text_of(value: object) -> str:
    """A value as the kernel writes it: one space between fields, 0 and 1 for no and yes."""
    if isinstance(value, bool):
        value = int(value)
    return " ".join(str(value).split())


def ranges(text: str) -> list[tuple[int, int]]:
    """Ports of C(5060,10000-19999), in order, neighbours joined. Raises ValueError."""
    found: list[tuple[int, int]] = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        first, _dash, last = part.partition("-")
        found.append((int(first), int(last or first)))
    joined: list[tuple[int, int]] = []
    for first_port, last_port in sorted(found):
        if joined and first_port <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last_port))
        else:
            joined.append((first_port, last_port))
    return joined


def same(key: str, wanted: str, found: str) -> bool:
    """Whether the kernel has what is wanted, in its own way of putting it."""
    if wanted == found:
        return True
    try:
        if key.endswith("_reserved_ports"):
            return ranges(wanted) == ranges(found)
        if key == BUCKETS:
            return 0 <= int(found) - int(wanted) < BUCKETS_IN_A_PAGE
    except ValueError:
        return False
    return False


def compare(
    wanted: Mapping[str, str], readings: Mapping[str, Reading], modules_to_come: bool = False
) -> list[Difference]:
    """All keys that are not as wanted, in order of their names.

    In check mode C(modules_to_come) says that modules would be loaded: an absent key is then one
    that would be set.
    """
    found = []
    for key, value in sorted(wanted.items()):
        reading = readings[key]
        if reading.value is None:
            found.append(Difference(key, value, None, "" if modules_to_come else ABSENT))
        elif not same(key, value, text_of(reading.value)):
            obstacle = "" if reading.writable else READ_ONLY
            found.append(Difference(key, value, text_of(reading.value), obstacle))
    return found


def is_allowed(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the operator's patterns covers a key or a module."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def hardware_problems(
    host: str, declared_cores: int, cores: int, declared_mb: int, memory_mb: int
) -> list[str]:
    """Where the server is smaller than declared; a declared 0 is not compared."""
    found = []
    if declared_cores > cores:
        found.append(
            f"{host} has {cores} cores, {declared_cores} are declared: correct ringmain_cores in "
            "the inventory, so that the plan counts on what is there, or give the server more"
        )
    if memory_mb < declared_mb * MEMORY_SHARE:
        found.append(
            f"{host} has {memory_mb} MB of memory, {declared_mb} MB are declared: correct "
            "ringmain_memory_mb in the inventory, so that the plan counts on what is there, or "
            "give the server more"
        )
    return found


def module_problem(host: str, failures: Mapping[str, str]) -> str:
    """One sentence for all modules that cannot be loaded; name to what modprobe said."""
    each = ", ".join(f"{name} ({why})" for name, why in sorted(failures.items()))
    return (
        f"{host} cannot load kernel modules: {each}. Install the modules of the running kernel, "
        "or reboot into the kernel that is installed. In a container, load them on the machine "
        "it runs on, and allow their absence here with host_modules_unloadable_allowed"
    )


def sysctl_problem(host: str, differences: Sequence[Difference]) -> str:
    """One sentence for all keys that cannot be set."""
    each = ", ".join(difference.describe() for difference in differences)
    return (
        f"{host} has a kernel that does not let these be set: {each}. An absent key needs its "
        "module (host_modules) or another kernel. In a container, set what is read-only on the "
        "machine it runs on, and allow it here with host_sysctl_unsettable_allowed"
    )


def sysctl_file(wanted: Mapping[str, str], allowed: Iterable[str]) -> str:
    """The drop-in for C(/etc/sysctl.d); at boot a key that may be refused is no failure."""
    patterns = list(allowed)
    lines = [
        f"{'-' if is_allowed(key, patterns) else ''}{key} = {value}\n"
        for key, value in sorted(wanted.items())
    ]
    return "# Ansible managed\n" + "".join(lines)


def modules_file(modules: Sequence[str]) -> str:
    """The drop-in for C(/etc/modules-load.d), which is read before the sysctls are set."""
    return "# Ansible managed\n" + "".join(f"{name}\n" for name in modules)


def options_file(options: Mapping[str, str]) -> str:
    """The drop-in for C(/etc/modprobe.d), whoever loads the module."""
    lines = [f"options {name} {text}\n" for name, text in sorted(options.items())]
    return "# Ansible managed\n" + "".join(lines)
