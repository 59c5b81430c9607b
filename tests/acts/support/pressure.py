# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which limits the cluster's servers ran into while something was done to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .cluster import Cluster
from .lab import everywhere

REPORT = Path(__file__).with_name("pressure_report.py").read_text(encoding="utf-8")


class Watch:
    """From its making until `risen`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._before = self._ask(dict.fromkeys(cluster.servers, 0.0))

    def risen(self) -> dict[str, dict[str, int]]:
        """By server, every counter that rose, and by how much."""
        since = {name: float(report["at"]) for name, report in self._before.items()}
        after = self._ask(since)
        return {
            name: difference(self._before[name]["counters"], after[name]["counters"])
            for name in after
        }

    def _ask(self, since: Mapping[str, float]) -> dict[str, Any]:
        def ask(name: str) -> Any:
            return json.loads(self._cluster.lab.python(name, REPORT, str(since[name])))

        found = everywhere(self._cluster.servers, ask)
        for name, report in found.items():
            assert isinstance(report, dict), f"{name}: {report}"
        return found


def difference(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """The counters that rose. One that is new, or whose daemon began anew, counts from zero."""
    found = {}
    for name, value in after.items():
        rise = value - before.get(name, 0)
        found[name] = rise if rise >= 0 else value
    return {name: rise for name, rise in found.items() if rise}


def together(risen: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """The same over all servers."""
    found: dict[str, int] = {}
    for counters in risen.values():
        for name, rise in counters.items():
            found[name] = found.get(name, 0) + rise
    return found
