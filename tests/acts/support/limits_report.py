# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a server: prints one JSON object with the limits that its kernel and services have.

Arguments: keys of sysctl. Needs nothing but Python.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

UNITS = ("kamailio", "rtpengine-daemon", "asterisk", "mariadb", "haproxy")


def sysctl(key: str) -> str | None:
    """What the kernel has for a key, with one space between fields."""
    try:
        text = Path("/proc/sys", *key.split(".")).read_text(encoding="ascii")
    except OSError:
        return None
    return " ".join(text.split())


def open_files(unit: str) -> int | None:
    """How many descriptors the main process of a service may have; None when it does not run."""
    command = ["systemctl", "show", "-P", "MainPID", f"{unit}.service"]
    process = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    if process in ("", "0"):
        return None
    limits = Path("/proc", process, "limits").read_text(encoding="ascii")
    found = re.search(r"^Max open files +(\d+)", limits, re.MULTILINE)
    return int(found[1]) if found else None


def main() -> None:
    """Print the report."""
    buckets = Path("/sys/module/nf_conntrack/parameters/hashsize")
    report = {
        "sysctl": {key: sysctl(key) for key in sys.argv[1:]},
        "hashsize": int(buckets.read_text(encoding="ascii")) if buckets.exists() else None,
        "open_files": {unit: open_files(unit) for unit in UNITS},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
