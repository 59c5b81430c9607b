# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every daemon killed and frozen, every server and every link lost, under some eighty calls.

One row of the table after the other; what the results' file has already is not run again.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from support.cluster import Cluster
from support.rolling import WHOLE_SECONDS, Expected, Rolling, relay_goes_home
from support.traffic import Fault, Traffic
from support.verdict import Trouble

STRUCK_SECONDS = 12.0
AFTER_SECONDS = 8.0
CUT = "ringmain_act_cut"
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
    Daemon("asterisk"),
    Daemon("kamailio", holder=True, killed=1.0, frozen=4.0),
    Daemon("keepalived", holder=True, killed=1.0, frozen=1.0),
    Daemon("rtpengine-daemon", relays=True),
    Daemon("valkey-server"),
    Daemon("ringmain-relay"),
    Daemon("ringmain-edge", holder=True),
    Daemon("mariadb"),
    Daemon("haproxy"),
    Daemon("ringmain-galera-health"),
)
RELAY_BOUND_SECONDS = 3.0


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGSTOP"])
@pytest.mark.parametrize("daemon", DAEMONS, ids=lambda daemon: daemon.unit)
def test_daemon(
    cluster: Cluster, traffic: Traffic, rolling: Rolling, daemon: Daemon, signal: str
) -> None:
    """It is killed, or stands still for twelve seconds."""
    struck: list[str] = []

    def send(signal: str) -> None:
        words = f"systemctl kill --kill-whom=all --signal={signal} {daemon.unit}.service"
        cluster.lab.shell(struck[-1], words)

    def strike(fault: Fault) -> None:
        struck.append(server(cluster, daemon.holder))
        fault.happens()
        send(signal)

    def undo() -> None:
        if struck and signal == "SIGSTOP":
            send("SIGCONT")

    def relayed(one: Trouble) -> bool:
        through = cluster.relay_outside(struck[-1]) in one.relays
        return daemon.relays and through and 0 < one.silence <= RELAY_BOUND_SECONDS

    bound = daemon.killed if signal == "SIGKILL" else daemon.frozen
    expected = Expected(
        STRUCK_SECONDS, undo=undo, after=AFTER_SECONDS, bound=bound, excused=relayed
    )
    if bound is not None:
        expected.figure, expected.measure = "addresses away", traffic.away
    rolling(f"{signal} of {daemon.unit}", strike, expected)


@pytest.mark.parametrize("holder", [True, False], ids=["holder", "other"])
@pytest.mark.parametrize("link", ["power", "outside", "inside", "both"])
def test_server(
    cluster: Cluster, traffic: Traffic, rolling: Rolling, link: str, holder: bool
) -> None:
    """A server without power, or cut off on one side or on both."""
    struck: list[str] = []
    relay = ""

    def strike(fault: Fault) -> None:
        nonlocal relay
        struck.append(server(cluster, holder))
        relay = cluster.relay_outside(struck[-1])
        fault.happens()
        if link == "power":
            cluster.lab.power_off(struck[-1])
        else:
            cluster.lab.shell(struck[-1], cut(*SIDES[link]))

    def undo() -> None:
        if not struck:
            return
        name = struck.pop()
        if link == "power":
            cluster.lab.power_on(name)
        else:
            cluster.lab.shell(name, f"nft destroy table inet {CUT}")
        cluster.wait_until_whole(WHOLE_SECONDS, but="relay|rtpengine")
        relay_goes_home(cluster, name)

    def relayed(one: Trouble) -> bool:
        return relay in one.relays and 0 < one.silence <= RELAY_BOUND_SECONDS

    what = "power cut of" if link == "power" else f"{link} network lost by"
    expected = Expected(
        STRUCK_SECONDS,
        figure="addresses away",
        measure=traffic.away,
        bound=1.0,
        excused=relayed,
        undo=undo,
    )
    if link == "both":
        what = "both networks lost by"
    rolling(f"{what} {'the holder' if holder else 'another server'}", strike, expected)


def server(cluster: Cluster, holder: bool) -> str:
    """The one that holds the addresses, or the first other one."""
    found = cluster.holder()
    return found if holder else next(name for name in cluster.servers if name != found)


def cut(*sides: str) -> str:
    """Drop all that comes and goes on some sides."""
    devices = ", ".join(sides)
    chains = "; ".join(
        f"chain {hook} {{ type filter hook {hook} priority -400; {way} {{ {devices} }} drop; }}"
        for hook, way in (("input", "iifname"), ("output", "oifname"))
    )
    return f"nft 'table inet {CUT} {{ {chains}; }}'"
