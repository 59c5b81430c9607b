# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stop the PostgreSQL member on this host when its disk has no room left, and start it again.

patroni_state.py decides; this file looks, asks and acts. A member is stopped in order: Patroni
gives its lock back, also when PostgreSQL did not find the room for an orderly end. It starts when
twice as much is free as it has to keep, or it would soon go again.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LEFT = Path("/run/ringmain-postgresql-room/left")
UNIT = "patroni.service"
LOOK_SECONDS = 0.5
ASK_SECONDS = 2.0

sys.path.insert(0, str(HERE))
import patroni_state  # type: ignore[import-not-found]  # noqa: E402


def room_mb(data: Path) -> float:
    """Megabytes free where the data are, or will be."""
    while not data.exists():
        data = data.parent
    disk = os.statvfs(data)
    return disk.f_bavail * disk.f_frsize / 1024 / 1024


def ask(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All members of the cluster, from the Patroni here; none when it does not answer."""
    context = ssl.create_default_context(cafile=settings["ca"])
    try:
        with urllib.request.urlopen(
            settings["cluster"], timeout=ASK_SECONDS, context=context
        ) as answer:
            return list(json.load(answer)["members"])
    except (OSError, ValueError, KeyError):
        return []


def order(verb: str) -> None:
    """Have systemd do it, and wait."""
    subprocess.run(["/usr/bin/systemctl", verb, UNIT], check=False)


def look(settings: Mapping[str, Any]) -> None:
    """Look once, and act."""
    room, reserve = room_mb(Path(settings["data"])), settings["reserve_mb"]
    if room < reserve:
        if patroni_state.makes_way(settings["name"], ask(settings), settings["members"]):
            print(f"only {room:.0f} MB are free, not {reserve}: this member leaves", flush=True)
            LEFT.touch()
            order("stop")
    elif room >= 2 * reserve and LEFT.exists():
        print(f"{room:.0f} MB are free: this member comes back", flush=True)
        LEFT.unlink()
        order("start")


def main() -> None:
    settings = json.loads((HERE / "room.json").read_text(encoding="utf-8"))
    while True:
        look(settings)
        time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main()
