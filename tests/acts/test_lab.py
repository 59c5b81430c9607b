# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab itself: it comes up, survives what is done to it, and leaves nothing.

Needs root. Uses labs of its own beside whatever else is up.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "roles" / "lab" / "files" / "lab.py"
RUNTIME = Path("/var/lib/ringmain-lab")
LAB, OTHER, BROKEN = "act-lab", "act-lab-2", "act-broken"


def start(lab_id: str, *words: str) -> subprocess.Popen[str]:
    """Start lab.py, with its output in pipes."""
    command = [sys.executable, str(PROGRAM), "--id", lab_id, *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def lab(lab_id: str, *words: str, fails: bool = False, given: str = "") -> str:
    """Run lab.py to its end; its standard output, or its standard error when it has to fail."""
    process = start(lab_id, *words)
    out, err = process.communicate(given)
    assert (process.returncode != 0) == fails, f"{words}: {process.returncode}\n{out}\n{err}"
    return err if fails else out


def shell(lab_id: str, name: str, script: str, **options: Any) -> str:
    """Run a script on a server."""
    return lab(lab_id, "exec", name, "--", "bash", "-c", script, **options).strip()


def up(lab_id: str, servers: str = "srv1,srv2", probes: str = "probe1") -> Any:
    """Bring a lab up; the result it prints."""
    return json.loads(lab(lab_id, "up", "--servers", servers, "--probes", probes))


def inits(lab_id: str) -> dict[str, int | None]:
    """The process id of every server's init: it changes with each boot."""
    found = json.loads(lab(lab_id, "status"))["members"]
    return {name: member["init"] for name, member in found.items()}


def traces() -> dict[str, set[str]]:
    """Everything on the machine that a lab of these tests could have left."""
    processes = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if any(word in (LAB, OTHER, BROKEN) for word in words):
            processes.add(" ".join(words))
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    links = json.loads(subprocess.check_output(["ip", "-json", "link"]))
    groups = [Path(entry[0]) for entry in os.walk("/sys/fs/cgroup")]
    ours = re.compile(rf"(.*\.)?({LAB}|{OTHER}|{BROKEN})($|\.)")
    return {
        "processes": processes,
        "mounts": {line.split()[4] for line in mounts if ours.search(line.split()[4])},
        "interfaces": {link["ifname"] for link in links if link["ifname"].startswith("rm")},
        "groups": {str(path) for path in groups if any(map(ours.match, path.parts))},
        "namespaces": set(os.listdir("/run/netns")) if Path("/run/netns").exists() else set(),
        "files": {path.name for path in RUNTIME.iterdir() if ours.search(path.name)},
    }


@pytest.fixture(scope="module", autouse=True)
def clean() -> Iterator[None]:
    """Whatever happens, no lab of these tests stays; and what was there before is all there is."""
    for lab_id in (LAB, OTHER, BROKEN):
        lab(lab_id, "down")
    before = traces()
    yield
    for lab_id in (LAB, OTHER, BROKEN):
        lab(lab_id, "down")
    left = {kind: found - before[kind] for kind, found in traces().items()}
    # Other labs may come and go meanwhile: theirs are not ours.
    left["interfaces"] = set()
    assert not any(left.values()), left


@pytest.fixture(scope="module")
def slot() -> int:
    """The slot of a lab with two servers and a probe."""
    return int(up(LAB)["slot"])


def test_a_second_up_changes_nothing(slot: int) -> None:
    """Not even a process."""
    before = inits(LAB)
    again = up(LAB)
    assert (again["changed"], again["created"], again["started"]) == (False, [], [])
    assert inits(LAB) == before
    assert lab(LAB, "env") == f"RINGMAIN_LAB_ID={LAB}\nRINGMAIN_LAB_SLOT={slot}\n"


def test_commands_on_a_server() -> None:
    """Exit status, standard input, and the words of the errors."""
    assert lab(LAB, "exec", "srv1", "--", "tr", "a-z", "A-Z", given="abc") == "ABC"
    shell(LAB, "srv1", "exit 3", fails=True)
    assert lab(LAB, "exec", "nobody", "--", "true", fails=True) == (
        f"lab.py: lab '{LAB}' has no server 'nobody': it has srv1, srv2, probe1\n"
    )
    assert lab("act-none", "status", fails=True) == (
        "lab.py: there is no lab 'act-none': start it with 'lab.py --id act-none up'\n"
    )


def test_a_cable_is_pulled_and_put_in_again() -> None:
    """The server sees it, on this network alone."""
    carrier = "cat /sys/class/net/outside/carrier /sys/class/net/inside/carrier"
    lab(LAB, "unplug", "srv1", "inside")
    assert shell(LAB, "srv1", carrier).split() == ["1", "0"]
    lab(LAB, "plug", "srv1", "inside")
    assert shell(LAB, "srv1", carrier).split() == ["1", "1"]


def test_ssh_checks_host_keys(slot: int) -> None:
    """By the lab's known_hosts, written when the servers were made."""
    options = ["BatchMode=yes", "StrictHostKeyChecking=yes"]
    options += [f"UserKnownHostsFile={RUNTIME / LAB / 'known_hosts'}"]
    for address, name in ((f"198.19.{slot}.12", "srv2"), (f"198.18.{slot}.101", "probe1")):
        command = ["ssh", "-i", str(RUNTIME / LAB / "id_ed25519"), f"root@{address}", "hostname"]
        for option in options:
            command[1:1] = ["-o", option]
        assert subprocess.check_output(command, text=True) == f"{name}\n"


def test_networks(slot: int) -> None:
    """Servers meet on both sides; a probe meets them outside alone, even if it tries harder."""
    ping = "ping -q -c1 -W1 "
    shell(LAB, "srv1", f"{ping} 198.18.{slot}.12 && {ping} 198.19.{slot}.12")
    shell(LAB, "probe1", f"{ping} 198.18.{slot}.11 && {ping} 198.18.{slot}.12")
    for route in ("true", f"ip route add 198.19.{slot}.0/24 via 198.18.{slot}.2"):
        shell(LAB, "probe1", f"{route} && ! {ping} 198.19.{slot}.11")
        shell(LAB, "probe1", f"! {ping} 198.19.{slot}.12")
    shell(LAB, "probe1", f"ip route delete 198.19.{slot}.0/24")
    shell(LAB, "srv1", f"[ $(cat /proc/sys/net/ipv4/ip_forward) = 0 ] && ! {ping} 192.0.2.1")


def test_packages_are_downloaded_once() -> None:
    """What one server installed, another gets from the cache."""
    install = "apt-get -q update && apt-get -qy install --no-install-recommends arping"
    shell(LAB, "srv1", install)
    log = RUNTIME / LAB / "packages.log"
    before = log.read_text() if log.exists() else ""
    shell(LAB, "srv2", install)
    assert (log.read_text() if log.exists() else "") == before


def test_a_floating_address_moves(slot: int) -> None:
    """With gratuitous ARP, as between any servers at a switch."""
    address = f"198.18.{slot}.10"
    shell(LAB, "srv1", f"ip address add {address}/32 dev outside")
    who = f"ping -q -c1 -W1 {address} >/dev/null; ip neighbour show {address}"
    assert f":{slot:02x}:0b " in shell(LAB, "probe1", who)
    shell(LAB, "srv1", f"ip address delete {address}/32 dev outside")
    announce = f"arping -q -U -c 1 -S {address} -i outside {address}"
    shell(LAB, "srv2", f"ip address add {address}/32 dev outside; {announce}; true")
    assert f":{slot:02x}:0c " in shell(LAB, "probe1", f"ip neighbour show {address}")
    shell(LAB, "probe1", f"ping -q -c1 -W1 {address}")
    shell(LAB, "srv2", f"ip address delete {address}/32 dev outside")


def test_a_power_cut_is_silent_and_the_disk_stays(slot: int) -> None:
    """Peers hear no good-bye; the same disk, with the journal, boots again."""
    shell(LAB, "srv1", "echo kept > /root/file")
    before = inits(LAB)
    talk = f"exec 3<>/dev/tcp/198.19.{slot}.11/22; read -r hello <&3; echo $hello; "
    # A connection that is closed ends 'read' with 1, silence with a status above 128.
    listener = start(LAB, "exec", "srv2", "--", "bash", "-c", talk + "read -t 3 x <&3; echo $?")
    assert listener.stdout
    assert listener.stdout.readline().startswith("SSH-2.0")
    lab(LAB, "kill", "srv1")
    assert int(listener.communicate()[0]) > 128
    assert lab(LAB, "exec", "srv1", "true", fails=True) == (
        f"lab.py: srv1 is off: 'lab.py --id {LAB} start srv1' starts it\n"
    )
    lab(LAB, "start", "srv1")
    assert shell(LAB, "srv1", "cat /root/file; journalctl --list-boots -q | wc -l") == "kept\n2"
    after = inits(LAB)
    assert after["srv2"] == before["srv2"]
    assert after["srv1"] != before["srv1"]


def test_a_disk_without_room() -> None:
    """The disk's files are there, there is room for little more, and that goes with the power."""
    shell(LAB, "srv1", "echo old > /root/file")
    assert "is running" in lab(LAB, "start", "--room", "40", "srv1", fails=True)
    lab(LAB, "kill", "srv1")
    assert "none" in lab(LAB, "start", "--room", "0", "srv1", fails=True)
    lab(LAB, "start", "--room", "40", "srv1")
    full = "cat /root/file; echo new > /root/file; fallocate -l 50M /root/big 2>&1 || true"
    said = shell(LAB, "srv1", full)
    assert said.startswith("old\n")
    assert "No space left" in said
    lab(LAB, "kill", "srv1")
    lab(LAB, "start", "srv1")
    assert shell(LAB, "srv1", "cat /root/file; ls /root/big 2>/dev/null || true") == "old"


def test_stop_is_in_order_and_reboot_comes_back() -> None:
    """Units are stopped before the power goes."""
    marker = "[Service]\nExecStart=sleep infinity\nExecStop=/bin/sh -c 'echo bye > /root/stopped'"
    shell(LAB, "srv1", f'echo "{marker}" > /etc/systemd/system/m.service; systemctl start m')
    lab(LAB, "stop", "srv1")
    assert json.loads(lab(LAB, "status"))["members"]["srv1"]["running"] is False
    lab(LAB, "start", "srv1")
    assert shell(LAB, "srv1", "cat /root/stopped") == "bye"
    before = inits(LAB)["srv1"]
    shell(LAB, "srv1", "ip link set inside mtu 1400; systemctl reboot")
    deadline = time.monotonic() + 30
    while inits(LAB)["srv1"] in (before, None):
        assert time.monotonic() < deadline, "srv1 does not come back from its reboot"
        time.sleep(0.2)
    assert up(LAB)["changed"] is False  # it waits for SSH
    assert shell(LAB, "srv1", "cat /sys/class/net/inside/mtu") == "1500"


def test_saved_states() -> None:
    """A state is what the disks held, deletions and renamed directories included."""
    shell(LAB, "srv1", "mkdir /root/d; echo 1 > /root/d/file")
    lab(LAB, "save", "one")
    shell(LAB, "srv1", "mv /root/d /root/e; echo 2 > /root/e/file; mv /etc/apt /etc/apt2")
    lab(LAB, "save", "two")
    shell(LAB, "srv1", "rm -r /root/e; mv /etc/apt2 /etc/apt")
    lab(LAB, "restore", "one")
    assert shell(LAB, "srv1", "cat /root/d/file; ls -d /etc/apt /root/?") == "1\n/etc/apt\n/root/d"
    lab(LAB, "restore", "two")
    assert shell(LAB, "srv1", "cat /root/e/file; ls -d /etc/apt? /root/?") == (
        "2\n/etc/apt2\n/root/e"
    )
    assert json.loads(lab(LAB, "status"))["tags"] == ["one", "two"]
    lab(LAB, "restore", "one")
    lab(LAB, "drop", "two")
    assert lab(LAB, "restore", "two", fails=True) == (
        f"lab.py: lab '{LAB}' has no saved state 'two': it has one\n"
    )
    lab(LAB, "drop", "one")
    assert shell(LAB, "srv1", "cat /root/d/file") == "1"


def test_two_labs_stand_beside_each_other(slot: int) -> None:
    """With the same names of servers; taking one down leaves the other alone."""
    before = inits(LAB)
    other = up(OTHER, "srv1", "")["slot"]
    assert other != slot
    addresses = shell(OTHER, "srv1", "ip -o -4 address show scope global")
    assert re.findall(r"inet (\S+)/24", addresses) == [f"198.18.{other}.11", f"198.19.{other}.11"]
    lab(OTHER, "down")
    assert inits(LAB) == before
    shell(LAB, "srv1", f"ping -q -c1 -W1 198.19.{slot}.12")


def test_the_network_keeper_can_die(slot: int) -> None:
    """The servers keep the networks; the next up brings the package cache back."""
    before = inits(LAB)
    keeper = json.loads(lab(LAB, "status"))["switch"]
    os.kill(keeper, signal.SIGKILL)
    ping = f"ping -q -c1 -W1 198.19.{slot}.12"
    shell(LAB, "srv1", ping)
    assert up(LAB)["changed"] is True
    assert inits(LAB) == before
    shell(LAB, "srv1", f"{ping} && apt-get -q update")


def test_members_come_and_go() -> None:
    """Those that stay are not touched."""
    before = inits(LAB)["srv2"]
    assert up(LAB, "srv2,srv3", "")["created"] == ["srv3"]
    assert set(inits(LAB)) == {"srv2", "srv3"}
    assert inits(LAB)["srv2"] == before


@pytest.mark.parametrize("seconds", [0.3, 0.7, 1.0, 1.4, 1.8])
def test_an_interrupted_up_is_repaired(seconds: float) -> None:
    """At whatever moment it was killed."""
    process = start(BROKEN, "up", "--servers", "srv1,srv2", "--probes", "")
    time.sleep(seconds)
    process.kill()
    process.communicate()
    assert set(up(BROKEN, "srv1", "")["members"]) == {"srv1"}
    shell(BROKEN, "srv1", "systemctl is-active ssh")
    lab(BROKEN, "down")


def test_two_commands_at_once_do_not_mix() -> None:
    """The second says who is at work."""
    first = start(BROKEN, "up", "--servers", "srv1", "--probes", "")
    while not (RUNTIME / BROKEN / "servers" / "srv1").exists():
        assert first.poll() is None
        time.sleep(0.01)
    assert lab(BROKEN, "down", fails=True) == (
        f"lab.py: process {first.pid} is at work on lab '{BROKEN}': wait for it, or end it with "
        f"'kill {first.pid}'\n"
    )
    assert first.wait() == 0
    first.communicate()


def test_down_needs_no_files() -> None:
    """When somebody deleted the runtime directory of a running lab, nothing stays either."""
    shutil.rmtree(RUNTIME / BROKEN)
    lab(BROKEN, "down")
    left = traces()
    assert not any(BROKEN in text for kind in left.values() for text in kind), left
