# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`site.yml` with other inputs while calls are up: nothing that carries them restarts."""

from __future__ import annotations

import json

from support import playbooks
from support.cluster import Cluster, snapshot
from support.traffic import Traffic

# A larger plan gives Kamailio more memory, Asterisk more calls, relays more sessions and the kernel
# larger buffers; the firewall gets a rule of its own.
CHANGED = {
    "ringmain_peak_calls": 110,
    "ringmain_registrations": 300,
    "ringmain_firewall_extra": ["tcp dport 9100 accept"],
}
WRITTEN = (
    "/etc/asterisk/asterisk.conf",
    "/etc/rtpengine/rtpengine.conf",
    "/etc/sysctl.d/zz-ringmain.conf",
    "/etc/systemd/system/kamailio.service.d/ringmain.conf",
)
FIREWALL = "nft list ruleset | grep -c 'tcp dport 9100 accept' || true"

# What carries calls, or what they need.
CARRIERS = ("asterisk", "haproxy", "kamailio", "keepalived", "mariadb", "rtpengine-daemon")
PENDING = "asterisk, kamailio, rtpengine run with the previous configuration"

Snapshot = dict[str, dict[str, str]]


def test_changed_inputs_under_load(whole: Cluster, traffic: Traffic) -> None:
    """All calls go on, what waits for a restart is listed; with the inputs back nothing waits."""
    before = snapshot(whole)
    with traffic.through("site.yml with changed inputs") as work:
        changed = playbooks.play(playbooks.SITE, "-e", json.dumps(CHANGED))
        traffic.go_on(2)
    print(f"{changed.seconds:.0f} s, {changed.changed} changes")
    after = snapshot(whole)
    rules = {name: whole.lab.shell(name, FIREWALL).strip() for name in whole.servers}
    with traffic.through("site.yml with the inputs put back") as undoing:
        back = playbooks.play(playbooks.SITE)
        traffic.go_on(2)
    print(f"{back.seconds:.0f} s, {back.changed} changes")

    assert changed.code == 0, changed.output
    assert back.code == 0, back.output
    for done in (work, undoing):
        assert done.verdict.clean, traffic.evidence(done.verdict)
        assert not done.verdict.strays, traffic.evidence(done.verdict)
    assert traffic.unknown() == {}
    for name in whole.servers:
        same = [path for path in WRITTEN if before[name][path] == after[name][path]]
        assert same == [], f"{name}: site.yml has not written {same}"
        assert f"{name}: {PENDING}" in " ".join(changed.output.split()), changed.output
    assert rules == dict.fromkeys(whole.servers, "1"), rules
    assert restarted(before, after) == []
    assert "run with the previous" not in back.output, back.output
    end = snapshot(whole)
    assert restarted(before, end) == []
    left = [path for name in whole.servers for path in different(before[name], end[name])]
    assert left == []


def restarted(before: Snapshot, after: Snapshot) -> list[str]:
    """What carries calls and is not the process it was."""
    return [
        f"{unit} on {name}"
        for name, report in before.items()
        for unit in CARRIERS
        if report[f"process of {unit}"] != after[name][f"process of {unit}"]
    ]


def different(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The files that are not as they were."""
    names = (name for name in {*before, *after} if name.startswith("/"))
    return sorted(name for name in names if before.get(name) != after.get(name))
