# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An operator's game day: what it breaks is really broken, and whole again when it says so."""

from __future__ import annotations

import pytest
from support.cluster import Cluster
from support.lab import ROOT
from support.playbooks import Outcome, begin, play, until_task

DRILL = ROOT / "playbooks" / "failover_drill.yml"
SECONDS = 8
LISTENS = "Let the calls go on until it is over, and as long again"


def drill(cluster: Cluster, node: str, fault: str, *more: str) -> tuple[str, str]:
    """Run it; what another server got of the node while it lasted, and what the run said."""
    other = next(name for name in cluster.servers if name != node)
    ping = f"ping -c 2 -i 0.2 -W 1 {cluster.addresses.inside[node]} | grep -c 'bytes from' || true"
    words = ("-e", f"node={node}", "-e", f"fault={fault}", "-e", f"seconds={SECONDS}", *more)
    process = begin(DRILL, *words, "-e", "ringmain_confirm=lab.example")
    said = until_task(process, name=LISTENS)
    found = cluster.lab.shell(other, ping).strip()
    said += process.communicate()[0]
    assert process.returncode == 0, said
    return found, said


def test_is_not_begun_by_mistake(cluster: Cluster) -> None:
    """Without the cluster's name it says what is missing, and has touched nothing."""
    outcome: Outcome = play(DRILL, "-e", "node=srv2", "-e", "fault=cut_off")
    assert outcome.code != 0, outcome.output
    assert outcome.changed == 0, outcome.output
    assert "ringmain_confirm=lab.example" in " ".join(outcome.output.split())


def test_cut_off(whole: Cluster) -> None:
    """Nobody but SSH reaches it while it lasts; it is reached again by itself."""
    node = whole.bystander()
    found, said = drill(whole, node, "cut_off")
    print(said[said.find("TASK [ringmain.voip.drill : Show") :])
    assert found == "0", f"{node} was reached while it was cut off\n{said}"


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_asterisk(whole: Cluster, fault: str) -> None:
    """Another process than before answers afterwards, or the same one again."""
    node = whole.bystander()
    before = whole.process(node, "asterisk")
    found, said = drill(whole, node, fault, "-e", "service=asterisk")
    assert found == "2", f"the rest of {node} was gone, too\n{said}"
    after = whole.process(node, "asterisk")
    assert (after == before) == (fault == "frozen"), f"{fault}: {before}, then {after}"
