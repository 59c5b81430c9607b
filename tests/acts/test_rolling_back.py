# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The packages before the last upgrade come back under load. Runs after `test_rolling.py`."""

from __future__ import annotations

from typing import Any

import pytest
from support import other_build
from support.cluster import Cluster
from support.lab import ROOT
from support.playbooks import play
from support.rolling import Expected, Rolling

ROLLBACK = ROOT / "playbooks" / "rollback.yml"
VERSION = "dpkg-query -W -f '${Version}' asterisk"


def versions(cluster: Cluster) -> set[str]:
    """Asterisk's package, on all servers."""
    return {cluster.lab.shell(name, VERSION) for name in cluster.servers}


def test_rollback(cluster: Cluster, rolling: Rolling) -> None:
    """One server after the other, proved like an upgrade."""
    before = versions(cluster)
    if not all(one.endswith(other_build.SUFFIX) for one in before):
        pytest.fail(f"there was no upgrade before: {before}")

    def strike(_fault: Any) -> None:
        outcome = play(ROLLBACK)
        print(f"rollback.yml took {outcome.seconds:.0f} s")
        assert outcome.code == 0, outcome.output

    rolling("rollback.yml", strike, Expected(2))
    assert versions(cluster) == {one.removesuffix(other_build.SUFFIX) for one in before}
