# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planned work under the load of scenario `rolling`: servers are taken one after the other.

Nobody's call ends, no attempt fails, nobody has to register again.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
from typing import Any

import pytest
from support import next_release, other_build
from support.cluster import Cluster
from support.database import Database
from support.lab import ROOT
from support.playbooks import SITE, begin, play, until_task
from support.rolling import DRAIN, UNDRAIN, Expected, Rolling, begun, drains, run_id
from support.traffic import Traffic

NEXT = ROOT / ".cache" / "asterisk-next"
NEXT_PLAYBOOKS = next_release.FOLDER / "playbooks"
UPGRADE = NEXT_PLAYBOOKS / "upgrade.yml"
RESTART = NEXT_PLAYBOOKS / "restart.yml"


def other_inputs() -> dict[str, int]:
    """Another configuration of every daemon that carries calls; all wait for a restart."""
    more = random.SystemRandom().randrange(1, 1000)
    return {
        "kamailio_ban_seconds": 300 + more,
        "asterisk_open_files": 4096 + more,
        "rtpengine_open_files": 3072 + more,
    }


# A node that is put back has its share of new calls within half of this time.
SHARE_SECONDS = 20.0
BOOT_SECONDS = 60.0


def kill_at_task(process: subprocess.Popen[str], number: int) -> str:
    """SIGKILL of the controller when it begins so many tasks; the last line that it printed."""
    text = until_task(process, number)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return text.strip().rpartition("\n")[2]


def versions(cluster: Cluster) -> dict[str, str]:
    """Asterisk's package, and whether the process runs it, by server."""
    script = (
        "dpkg-query -W -f '${Version}' asterisk;"
        " grep -c deleted /proc/$(systemctl show -P MainPID asterisk)/maps || true"
    )
    return {name: cluster.lab.shell(name, script).strip() for name in cluster.servers}


@pytest.fixture(scope="module")
def changed(cluster: Cluster, database: Database, traffic: Traffic) -> Any:
    """site.yml of the next release has run with other inputs, while calls were up: the database
    has its schema, and every daemon that carries calls waits for a restart."""
    cluster.wait_until_whole(60)
    before = {name: cluster.process(name, "asterisk") for name in cluster.servers}
    other_build.make(NEXT)
    next_release.make()
    words = ("-e", json.dumps({**other_inputs(), "asterisk_packages_dir": str(NEXT)}))
    with traffic.through("site.yml of the next release") as work:
        outcome = play(NEXT_PLAYBOOKS / "site.yml", *words)
    assert outcome.code == 0, outcome.output
    assert work.verdict.clean, traffic.evidence(work.verdict)
    column = "SELECT count(*) FROM cdr WHERE next_release = ''"
    assert int(database.execute(column)) >= 0
    said = " ".join(outcome.output.split())
    for name, version in versions(cluster).items():
        waits = f"{name}: asterisk, kamailio, rtpengine run with the previous configuration"
        assert waits in said, outcome.output
        assert other_build.SUFFIX in version or f"{name}: asterisk-config_" in said
    assert {name: cluster.process(name, "asterisk") for name in cluster.servers} == before
    return words


def test_deadline_shorter_than_a_call(
    cluster: Cluster, rolling: Rolling, changed: tuple[str, ...]
) -> None:
    """The server is put back as it is, the run says so, and nobody notices anything."""
    victim = cluster.bystander()
    before = cluster.process(victim, "asterisk")
    short = ("-e", "rollout_deadline_seconds=5", "-e", "rollout_slice_seconds=5")

    def strike(_fault: Any) -> None:
        outcome = play(RESTART, *changed, *short, "-e", f"rollout_nodes={victim}")
        assert outcome.code != 0, outcome.output
        assert f"{victim} still had calls when the deadline came" in outcome.output, outcome.output

    rolling("restart.yml with a deadline of 5 s", strike, Expected(2))
    assert not any(drains(cluster).values())
    assert cluster.process(victim, "asterisk") == before


def test_upgrade_goes_on_where_it_was_killed(
    cluster: Cluster, rolling: Rolling, changed: tuple[str, ...]
) -> None:
    """Another Asterisk and another configuration everywhere; the controller dies on the way."""
    holder = cluster.holder()
    run = run_id()
    seed = random.SystemRandom().randrange(1 << 30)
    number = random.Random(seed).randrange(14, 55)
    # The lab's servers have no kernel of their own: it looks for a newer one, and none boots.
    words = (*changed, "-e", f"rollout_run={run}", "-e", "rollout_slice_seconds=10")
    words = (*words, "-e", "rollout_kernel=true")
    told: list[str] = []

    def strike(_fault: Any) -> None:
        last = kill_at_task(begin(UPGRADE, *words), number)
        told.append(f"run {run}, killed at task {number} (seed {seed}): {last}")
        print(told[0])
        outcome = play(UPGRADE, *words)
        said = " ".join(outcome.output.split())
        took = re.findall(r"srv\d: \d+ s until [^']*? in traffic again", said)
        print(f"the second start took {outcome.seconds:.0f} s", *took, sep="\n")
        assert outcome.code == 0, f"{told[0]}\n{outcome.output}"

    rolling("upgrade.yml, killed once", strike, Expected(2))
    assert not any(drains(cluster).values())
    found = versions(cluster)
    wanted = json.loads((NEXT / "manifest.json").read_text(encoding="utf-8"))["packages"][0]
    assert found == dict.fromkeys(cluster.servers, f"{wanted['version']}0"), found
    assert cluster.holder() != holder, "the holder of the addresses was not taken"


def test_drain_stays(cluster: Cluster, rolling: Rolling) -> None:
    """A drained node gets no new call until somebody puts it back, whatever is restarted or boots.

    Put back, it has its full share of new calls within ten seconds.
    """
    victim = cluster.bystander()
    other = next(n for n in cluster.servers if n not in (victim, cluster.holder()))
    words = ("-e", f"node={victim}", "-e", "by=act")

    def strike(_fault: Any) -> None:
        outcome = play(DRAIN, *words, "-e", "reason=disk")
        assert outcome.code == 0, outcome.output
        marks = drains(cluster)
        assert all(len(lines) == 3 for lines in marks.values()), marks
        cluster.lab.shut_down(victim)
        cluster.lab.power_on(victim)
        cluster.wait_until_whole(BOOT_SECONDS, but="drained|PBX nodes|edge: not ready")
        before = begun(cluster)
        cluster.lab.shell(other, "systemctl restart kamailio")
        outcome = play(SITE)
        assert outcome.code == 0, outcome.output
        assert drains(cluster) == marks
        during = {name: count - before[name] for name, count in begun(cluster).items()}
        print(f"calls begun while {victim} was drained: {during}")
        assert during[victim] == 0
        assert min(count for name, count in during.items() if name != victim) > 20
        outcome = play(UNDRAIN, *words)
        assert outcome.code == 0, outcome.output
        before = begun(cluster)
        time.sleep(SHARE_SECONDS)
        after = {name: count - before[name] for name, count in begun(cluster).items()}
        print(f"calls begun in the {SHARE_SECONDS:.0f} s after it was put back: {after}")
        assert after[victim] * 3 >= 0.6 * sum(after.values()), after

    rolling("drain, site.yml and undrain", strike, Expected(2))
    assert not any(drains(cluster).values())
