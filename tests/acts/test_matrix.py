# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every daemon killed and frozen, every server and every link lost, under some eighty calls.

One row of the table after the other; what the results' file has already is not run again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

import pytest
from support.cluster import Cluster
from support.rolling import Expected, Rolling, of_a_relay, relay_goes_home, send
from support.traffic import Fault, Traffic

STRUCK_SECONDS = 12.0
AFTER_SECONDS = 8.0

# Shorter than what makes a watchdog of systemd act: process 1 of a lab server does not stand still.
STILL_SECONDS = 5.0

# Three times a message is sent again within 0.5 + 1 + 2 s.
RESENT_SECONDS = 3.5
CUT = "ringmain_act_cut"
# Of the VRRP instances that the addresses of the edges have (keepalived_router_id, and the next).
EDGE_ROUTERS = (51, 52)
SIDES = {"outside": ("outside",), "inside": ("inside",), "both": ("outside", "inside")}


@dataclass(frozen=True)
class Daemon:
    """A daemon, where it is struck, and for how long the edges' address may be silent then."""

    unit: str
    holder: bool = False
    killed: float | None = None
    frozen: float | None = None
    relays: bool = False
    """Whether calls through its relay may be silent, for as long as a relay's loss may take."""


# A frozen Kamailio is asked each second and given up after the second answer that is missing; a
# frozen keepalived is found by the others, who take the addresses, within their 0.8 s.
DAEMONS = (
    Daemon("kamailio", holder=True, killed=1.0, frozen=4.0),
    Daemon("keepalived", holder=True, killed=1.0, frozen=1.0, relays=True),
    Daemon("rtpengine-daemon", relays=True),
    Daemon("valkey-server"),
    Daemon("ringmain-relay"),
    Daemon("ringmain-edge", holder=True),
    Daemon("mariadb"),
    Daemon("haproxy"),
    Daemon("ringmain-galera-health"),
)


ROWS = [
    (daemon, signal)
    for daemon in DAEMONS
    for signal in ("SIGKILL", "SIGSTOP")
    if (daemon.unit, signal) != ("rtpengine-daemon", "SIGKILL")
]
NAMES = [f"{signal}-{daemon.unit}" for daemon, signal in ROWS]


# What happens to Asterisk, and SIGKILL of a relay, are in test_rolling_faults.py.
@pytest.mark.parametrize(("daemon", "signal"), ROWS, ids=NAMES)
def test_daemon(
    cluster: Cluster, traffic: Traffic, rolling: Rolling, daemon: Daemon, signal: str
) -> None:
    """It is killed, or stands still for twelve seconds."""
    struck: list[str] = []
    relays: list[str] = []

    def signalled(signal: str) -> float:
        # Not by `systemctl kill`, which ends what systemd starts after the death, too.
        group = f"/sys/fs/cgroup$(systemctl show -P ControlGroup {daemon.unit})"
        processes = cluster.lab.shell(struck[-1], f"cat {group}/cgroup.procs")
        return send(cluster.lab, struck[-1], signal, processes)

    def strike(fault: Fault) -> None:
        struck.append(cluster.holder() if daemon.holder else cluster.bystander())
        relays[:] = [cluster.relay_outside(struck[-1])] if daemon.relays else []
        fault.happens(signalled(signal))

    def undo() -> None:
        if not struck:
            return
        if signal == "SIGSTOP":
            signalled("SIGCONT")
        server = struck.pop()
        if daemon.relays:
            relay_goes_home(cluster, server)

    bound = daemon.killed if signal == "SIGKILL" else daemon.frozen
    excused = of_a_relay(relays)
    expected = Expected(
        STRUCK_SECONDS, undo=undo, after=AFTER_SECONDS, bound=bound, excused=excused
    )
    if bound is not None:
        expected.figure, expected.measure = "addresses away", traffic.away
    rolling(f"{signal} of {daemon.unit}", strike, expected)


# The holder without power is in test_rolling_faults.py.
@pytest.mark.parametrize(
    ("link", "holder"),
    [("power", False), *((side, holder) for side in SIDES for holder in (True, False))],
)
def test_server(
    cluster: Cluster, traffic: Traffic, rolling: Rolling, link: str, holder: bool
) -> None:
    """A server without power, or without its cable on one side or on both."""
    struck: list[str] = []
    relays: list[str] = []

    def strike(fault: Fault) -> None:
        struck.append(cluster.holder() if holder else cluster.bystander())
        relays[:] = [cluster.relay_outside(struck[-1])]
        if link == "power":
            fault.happens(cluster.lab.power_off(struck[-1]))
        else:
            fault.happens(cluster.lab.unplug(struck[-1], *SIDES[link]))

    def undo() -> None:
        if not struck:
            return
        name = struck.pop()
        if link == "power":
            cluster.lab.power_on(name)
        else:
            cluster.lab.plug(name, *SIDES[link])
        relay_goes_home(cluster, name)

    what = "power cut of" if link == "power" else f"{link} cable pulled from"
    expected = Expected(
        STRUCK_SECONDS,
        figure="addresses away",
        measure=traffic.away,
        bound=1.0,
        excused=of_a_relay(relays),
        undo=undo,
    )
    if link == "both":
        what = "both cables pulled from"
    rolling(f"{what} {'the holder' if holder else 'another server'}", strike, expected)


@pytest.mark.parametrize("holder", [True, False])
def test_server_that_stands_still(
    cluster: Cluster, traffic: Traffic, rolling: Rolling, holder: bool
) -> None:
    """All its processes stop, as in a virtual machine that is moved, and go on after a while.

    Its relay has gone elsewhere meanwhile, and stays there with the calls that have begun since.
    """
    struck: list[str] = []
    relays: list[str] = []

    def strike(fault: Fault) -> None:
        struck.append(cluster.holder() if holder else cluster.bystander())
        relays[:] = [cluster.relay_outside(struck[-1])]
        cluster.lab.shell(struck[-1], "kill -s STOP -- -1")
        fault.happens()
        time.sleep(STILL_SECONDS)
        cluster.lab.shell(struck[-1], "kill -s CONT -- -1")

    def undo() -> None:
        if not struck:
            return
        name = struck.pop()
        cluster.lab.shell(name, "kill -s CONT -- -1")
        relay_goes_home(cluster, name)

    expected = Expected(
        STRUCK_SECONDS,
        figure="addresses away",
        measure=traffic.away,
        bound=1.0,
        excused=of_a_relay(relays),
        undo=undo,
    )
    rolling(f"{'the holder' if holder else 'another server'} stands still", strike, expected)


def test_relay_that_no_edge_reaches(cluster: Cluster, rolling: Rolling) -> None:
    """A relay that still relays and takes no commands: its calls go on, new ones go elsewhere."""
    struck = cluster.bystander()

    def strike(fault: Fault) -> None:
        cluster.lab.shell(struck, dropping("iifname inside udp dport 2223"))
        fault.happens()

    expected = Expected(STRUCK_SECONDS, undo=partial(mend, cluster), after=AFTER_SECONDS, bound=2.0)
    rolling("a relay takes no commands", strike, expected)


def test_edges_that_do_not_see_each_other(
    cluster: Cluster, traffic: Traffic, rolling: Rolling
) -> None:
    """Two of the edges hear neither each other's VRRP nor each other's locations; all others hear
    both: for a while both have the addresses.

    What belongs to a call may come to the edge that does not have it, and is sent again: a call
    that begins may be silent until then.
    """
    holder, other = cluster.holder(), cluster.bystander()

    def strike(fault: Fault) -> None:
        for one, peer in ((holder, other), (other, holder)):
            inside = cluster.addresses.inside[peer]
            outside = f"{cluster.outside_network}.{inside.rpartition('.')[2]}"
            heard = f"ip saddr {{ {inside}, {outside} }}"
            edges = ", ".join(str(number) for number in EDGE_ROUTERS)
            cluster.lab.shell(
                one,
                dropping(
                    f"{heard} ip protocol vrrp @th,8,8 {{ {edges} }}", f"{heard} udp dport 5062"
                ),
            )
        fault.happens()

    expected = Expected(
        STRUCK_SECONDS,
        figure="addresses away",
        measure=traffic.away,
        bound=1.0,
        excused=lambda one: 0 < one.silence <= RESENT_SECONDS,
        undo=partial(mend, cluster),
        after=AFTER_SECONDS,
    )
    rolling("edges that do not see each other", strike, expected)


def dropping(*rules: str) -> str:
    """Drop some of what comes in."""
    lines = "; ".join(f"{rule} drop" for rule in rules)
    return (
        f"nft 'table inet {CUT} {{ chain input {{ type filter hook input priority -400; {lines};"
        " }; }'"
    )


def mend(cluster: Cluster) -> None:
    """Let everything through again, everywhere."""
    for name in cluster.servers:
        cluster.lab.shell(name, f"nft destroy table inet {CUT}")
