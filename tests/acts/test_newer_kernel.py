# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A relay that forwards in the kernel joins the cluster and is booted into a newer kernel.

It is a virtual machine, so that its kernel is its own; all others have their machine's. Where it is
emulated, what it does takes minutes, and conversations through the others go on meanwhile.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import kernel_forwarding
from support.callers import Callers, answered, troubles
from support.cluster import Cluster
from support.growth import newcomer
from support.lab import ROOT, Lab
from support.playbooks import SITE, Outcome, play

PROBE = "probe1"
NEW = "vm1"
STANDING = 6
PLAYBOOKS = ROOT / "playbooks"
KERNELS = "uname -r; for each in /boot/vmlinuz-*; do basename $each; done | sort --version-sort"
MODULES = "/var/lib/dkms/rtpengine/*/{release}/x86_64/module"


@pytest.fixture(scope="module")
def words(
    lab: Lab, cluster: Cluster, inventory: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, ...]:
    """A bare virtual machine, and what playbooks are told of it."""
    members = {"lab_servers": cluster.servers, "lab_probes": [PROBE], "lab_machines": [NEW]}
    return newcomer(
        tmp_path_factory.mktemp("grown"),
        members,
        NEW,
        81,
        ("media",),
        inventory,
        ringmain_memory_mb=1024,
        ringmain_media_forwarding="kernel",
        # A kernel of its own may refuse nothing.
        host_sysctl_unsettable_allowed=[],
        host_modules_unloadable_allowed=[],
        firewall_rollback_seconds=180,
    )


@pytest.fixture(scope="module")
def callers(lab: Lab, cluster: Cluster, inventory: Any) -> Iterator[Callers]:
    """Two phones with conversations that last from the first act to the last."""
    cluster.wait_until_whole(120.0)
    phones = Callers.of_acme(lab, PROBE, cluster.addresses.outside_ip, inventory)
    calls = phones.calls(STANDING, 2, 0)
    assert len(answered(calls)) == STANDING, calls
    yield phones
    phones.hang_up()
    phones.close()


def meanwhile(callers: Callers, playbook: str, *words: str) -> Outcome:
    """Run a playbook; the conversations that are up go on and hear all."""
    callers.mark()
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(play, PLAYBOOKS / playbook, *words)
        while not run.done():
            callers.live(2.0)
    done = run.result()
    legs = [leg for leg in callers.report()["legs"] if not leg["ended_by"]]
    assert len(legs) == 2 * STANDING, legs
    assert not troubles(legs)
    print(f"{playbook} took {done.seconds:.0f} s; {len(legs)} phones heard all")
    return done


def kernels(lab: Lab) -> tuple[str, list[str]]:
    """The kernel that the machine runs, and those that it has, the newest last."""
    running, *present = lab.shell(NEW, KERNELS).split()
    return running, [name.removeprefix("vmlinuz-") for name in present]


def modules(lab: Lab, release: str) -> list[str]:
    """The relay's modules that were built for a kernel."""
    return lab.shell(NEW, f"ls {MODULES.format(release=release)} || true").split()


def test_it_joins(callers: Callers, words: tuple[str, ...]) -> None:
    """Built out of traffic, proved by a call through it, and then given calls."""
    done = meanwhile(callers, "scale_out.yml", *words, "-e", f"nodes={NEW}")
    assert done.code == 0, done.output


def test_a_newer_kernel(
    lab: Lab, cluster: Cluster, callers: Callers, words: tuple[str, ...]
) -> None:
    """Its calls end, it gets the kernel and the module for it, boots, is proved, and has calls."""
    before, present = kernels(lab)
    assert present == [before], "the image has more kernels than one"
    begun = callers.calls(8, 2, 20.0)
    assert len(answered(begun)) == len(begun), begun
    some = ("-e", f"rollout_nodes={NEW}", "-e", json.dumps({"rollout_kernel": True}))
    done = meanwhile(callers, "upgrade.yml", *words, *some)
    assert done.code == 0, done.output
    after, present = kernels(lab)
    assert present == [before, after], "the archive has no newer kernel than the image"
    assert modules(lab, after)
    print(f"from {before} to {after}")
    assert kernel_forwarding.has_rule(lab.shell(NEW, "nft list chain ip filter rtpengine"))
    cluster.wait_until_whole(30.0)


def test_not_into_a_kernel_without_its_module(
    lab: Lab, callers: Callers, words: tuple[str, ...]
) -> None:
    """What it would boot could not forward: it says so, stays as it is, and is to be put back."""
    running, _present = kernels(lab)
    since = lab.shell(NEW, "uptime --since")
    folder = lab.shell(NEW, f"echo {MODULES.format(release=running)}").strip()
    lab.shell(NEW, f"mv {folder} {folder}.away")
    try:
        done = meanwhile(callers, "reboot.yml", *words, "-e", f"rollout_nodes={NEW}")
    finally:
        lab.shell(NEW, f"mv {folder}.away {folder}")
    assert done.code != 0
    assert f"{NEW} was not booted" in done.output, done.output
    assert f"dkms autoinstall -k {running}" in done.output, done.output
    assert lab.shell(NEW, "uptime --since") == since
    # Once it is mended, the run goes on as it said.
    run = re.search(r"rollout_run=\w+", done.output)
    assert run is not None, done.output
    some = ("-e", f"rollout_nodes={NEW}", "-e", run[0])
    again = meanwhile(callers, "reboot.yml", *words, *some)
    assert again.code == 0, again.output
    assert lab.shell(NEW, "uptime --since") != since


def test_it_is_forgotten(lab: Lab, cluster: Cluster, callers: Callers) -> None:
    """Off, and without it in the inventory, the others are as they were."""
    lab.power_off(NEW)
    services = ("-e", "rollout_services=kamailio,keepalived")
    for playbook, more in ((SITE.name, ()), ("restart.yml", services)):
        done = meanwhile(callers, playbook, *more)
        assert done.code == 0, done.output
    cluster.wait_until_whole(30.0)
