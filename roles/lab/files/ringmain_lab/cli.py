# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The commands."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import json
import os
import shlex
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import base, image, machine, names, server, switch, virtual
from .archives import Archive
from .lab import Lab, registry, registry_locked
from .names import LabError, Member

BOOT_PATIENCE = 90.0
# An emulated machine among others that are busy.
EMULATED_BOOT_PATIENCE = 600.0
STOP_PATIENCE = 120.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        lab = Lab(options.id)
        machine.check_root()
        return int(options.run(lab, options) or 0)
    except LabError as error:
        print(f"lab.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab.py: interrupted; the same command again takes it up", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="lab.py", description="Throw-away Debian servers.")
    top.add_argument("--id", default=os.environ.get("RINGMAIN_LAB_ID", "demo"), help="lab's name")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: object, text: str = "") -> argparse.ArgumentParser:
        # Without help text a command is not listed.
        added = commands.add_parser(name, help=text) if text else commands.add_parser(name)
        added.set_defaults(run=run)
        return added

    added = command("up", up, "make the lab, or what is missing of it, and start all its servers")
    added.add_argument("--servers", type=listed, help="names, comma-separated (srv1,srv2,srv3)")
    added.add_argument("--probes", type=listed, help="machines outside only (probe1)")
    added.add_argument("--machines", type=listed, help="virtual machines, on both networks (none)")
    added.add_argument(
        "--nested", type=listed, default=[], help="servers to make so that they can hold a lab"
    )
    command("down", down, "remove the lab with all that its servers hold")
    command("status", status, "print what there is, as JSON")
    command("env", env, "print the variables that the inventory reads")
    for name, run, text in (
        ("start", start, "switch servers on"),
        ("stop", stop, "shut servers down in order"),
        ("kill", kill, "cut the power of servers"),
    ):
        added = command(name, run, text)
        added.add_argument("names", nargs="+", metavar="NAME")
        if name == "start":
            added.add_argument(
                "--room",
                type=int,
                metavar="MB",
                help="room left on the disk; what is written there is gone with the power",
            )
    for name, run, text in (
        ("unplug", unplug, "pull a server's cable out of a network"),
        ("plug", plug, "put it in again"),
    ):
        added = command(name, run, text)
        added.add_argument("name", metavar="NAME")
        added.add_argument("networks", nargs="+", choices=names.NETWORKS, metavar="NETWORK")
    added = command("exec", execute, "run a command on a server, without SSH")
    added.add_argument("name", metavar="NAME")
    added.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND…")
    for name, run, text in (
        ("save", save, "keep the present state of all disks (servers are off meanwhile)"),
        ("restore", restore, "cut the power, put all disks back to a saved state, and start"),
        ("drop", drop, "forget a saved state"),
    ):
        added = command(name, run, text)
        added.add_argument("tag", metavar="TAG")
    command("_switch", lambda lab, options: switch.keep(lab))
    command("_serve", lambda lab, options: server.serve(lab, options.name)).add_argument("name")
    command("_boot", lambda lab, options: server.boot(lab, options.name)).add_argument("name")
    return top


def listed(text: str) -> list[str]:
    """A comma-separated list; empty text is the empty list."""
    return [word for word in text.split(",") if word]


@contextlib.contextmanager
def owned(lab: Lab) -> Iterator[None]:
    """Hold the lab's lock while its state changes."""

    def busy(pid: int) -> None:
        raise LabError(
            f"process {pid} is at work on lab '{lab.id}': wait for it, or end it with 'kill {pid}'"
        )

    with machine.locked(machine.RUNTIME / f".{lab.id}.lock", busy):
        yield


def up(lab: Lab, options: argparse.Namespace) -> int:
    """Make the lab what the options say, whatever state it is in."""
    began = time.monotonic()
    machine.RUNTIME.mkdir(parents=True, exist_ok=True)
    machine.CACHE.mkdir(parents=True, exist_ok=True)
    with owned(lab):
        wanted = wanted_members(lab, options)
        virtual_ones = [member for member in wanted if member.is_virtual]
        machine.check_tools(bool(virtual_ones))
        machine.check_overlay()
        machine.check_room(machine.RUNTIME, 1 << 30)
        remove_strays(lab)
        entries = base.machine_archives()
        claim(lab, entries)
        lab.make_key()
        changed = remove_surplus(lab, wanted)
        with base.ensured(entries) as (key, built):
            made = [member for member in wanted if not is_made(lab, member)]
            for member in made:
                if not member.is_virtual:
                    lab.create(member, key, member.name in options.nested)
        if virtual_ones:
            with image.ensured(entries) as (key, image_built):
                built = built or image_built
                for member in made:
                    if member.is_virtual:
                        lab.create(member, key, nested=False)
        lab.write_known_hosts()
        switched = ensure_switch(lab)
        started = switch_on(lab, [member.name for member in wanted])
        changed = changed or built or bool(made) or switched or bool(started)
    result = {
        "changed": changed,
        "id": lab.id,
        "slot": lab.slot,
        "base_built": built,
        "created": [member.name for member in made],
        "started": started,
        "seconds": round(time.monotonic() - began, 1),
        "members": describe(lab),
    }
    print(json.dumps(result, indent=1))
    machine.say(f"lab '{lab.id}' is up in slot {lab.slot}")
    return 0


def wanted_members(lab: Lab, options: argparse.Namespace) -> list[Member]:
    """What the options name, else what the lab has, else three servers and a probe."""
    named = (options.servers, options.probes, options.machines)
    if any(each is not None for each in named):
        wanted = names.members(*(each or [] for each in named))
    else:
        wanted = lab.members() or names.members(["srv1", "srv2", "srv3"], ["probe1"])
    containers = {member.name for member in wanted if not member.is_virtual}
    unknown = set(options.nested) - containers
    if unknown:
        raise LabError(f"--nested names {', '.join(sorted(unknown))}, which --servers does not")
    return wanted


def claim(lab: Lab, entries: list[Archive]) -> None:
    """Give the lab a slot and write down where its packages come from."""
    with registry_locked():
        if lab.exists():
            # Servers made earlier may stand on others than the machine has now.
            entries = entries + [entry for entry in lab.archives if entry not in entries]
            if entries == lab.archives:
                return
            lab.store(lab.slot, entries)
            # It has the old list; the servers keep the networks alive meanwhile.
            machine.kill_group(machine.group_of(lab.id, "switch"))
        else:
            lab.store(names.choose_slot(lab.id, registry(), busy_networks()), entries)


def busy_networks() -> list[ipaddress.IPv4Network]:
    """Networks that this machine routes to, in any table but the local one."""
    routes = json.loads(machine.run(["ip", "-4", "-json", "route", "show"]).stdout or "[]")
    found = []
    for route in routes:
        with contextlib.suppress(ValueError):
            found.append(ipaddress.IPv4Network(route["dst"]))
    return found


def remove_strays(lab: Lab) -> None:
    """End processes of this lab that its files know nothing of."""
    known = {member.name for member in lab.members()} | {"switch"}
    if not lab.exists():
        known = set()
    for name, group in machine.groups_of_lab(lab.id).items():
        if name not in known:
            machine.kill_group(group)
    for leftover in (lab.path / "servers").glob(".*.new"):
        shutil.rmtree(leftover)
    collect_layers(lab)


def is_made(lab: Lab, member: Member) -> bool:
    """Whether the member's disk exists, on a base tree that exists."""
    spec = machine.read_json(lab.directory(member.name) / "spec.json")
    below = image.directory if member.is_virtual else base.tree
    return spec is not None and spec["kind"] == member.kind and below(spec["base"]).is_dir()


def remove_surplus(lab: Lab, wanted: list[Member]) -> bool:
    """Remove members that are wanted no more, or as something else."""
    surplus = [member for member in lab.members() if member not in wanted]
    for member in surplus:
        machine.say(f"removing {member.name}")
        machine.kill_group(machine.group_of(lab.id, member.name))
        if member.is_virtual:
            virtual.remove_ports(lab, member)
        lab.close_ssh(member)
        shutil.rmtree(lab.directory(member.name))
    return bool(surplus)


def ensure_switch(lab: Lab) -> bool:
    """Have the networks and the package cache; whether they had to be made."""
    if lab.switch_process():
        return False
    machine.kill_group(machine.group_of(lab.id, "switch"))
    lab.switch_ready.unlink(missing_ok=True)
    machine.launch(lab.id, "switch", machine.own_command(lab.id, "_switch"), lab.switch_log)
    machine.wait_for(
        "the lab's networks do not stand",
        lambda: lab.switch_process() is not None,
        20,
        lab.switch_log,
    )
    machine.say("networks and package cache stand")
    return True


def switch_on(lab: Lab, wanted: Iterable[str]) -> list[str]:
    """Start those that are off, and wait until all answer; returns which were started."""
    wanted = list(wanted)
    ensure_switch(lab)
    off = [name for name in wanted if not lab.is_running(name) or is_stuck(lab, name)]
    # Those of a virtual machine belong to its own kernel.
    machine.check_inotify(sum(not lab.member(name).is_virtual for name in off))
    for name in off:
        machine.kill_group(machine.group_of(lab.id, name))
        settle(lab, name)
        command = ["nsenter", f"--net=/proc/{lab.switch_process()}/ns/net"]
        command += machine.own_command(lab.id, "_serve", name)
        machine.launch(lab.id, name, command, lab.directory(name) / "console.log")
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(lambda name: wait_for_ssh(lab, name), wanted))
    if off:
        machine.say(f"started: {', '.join(off)}")
    return off


def is_stuck(lab: Lab, name: str) -> bool:
    """Whether a server lost its networks: their keeper and all servers but this one died."""
    keeper = machine.holder(lab.directory(name) / "lock")
    try:
        theirs = os.stat(f"/proc/{keeper}/ns/net").st_ino
        return theirs != os.stat(f"/proc/{lab.switch_process()}/ns/net").st_ino
    except FileNotFoundError:
        return True


def wait_for_ssh(lab: Lab, name: str) -> None:
    """Wait until the server's SSH greets."""
    address = names.reach_address(lab.slot, lab.member(name))

    def greets() -> bool:
        try:
            with socket.create_connection((address, 22), timeout=2) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    log = lab.directory(name) / "console.log"
    what = (
        f"{name} does not answer at {address} port 22 (look with 'lab.py --id {lab.id} exec "
        f"{name} -- journalctl -b'; 'kill {name}' and 'up' boot it again)"
    )
    patience = EMULATED_BOOT_PATIENCE if lab.member(name).is_virtual else BOOT_PATIENCE
    machine.wait_for(what, greets, patience, log)


def down(lab: Lab, options: argparse.Namespace) -> int:
    """Remove everything of the lab but the caches, whatever is left of it."""
    began = time.monotonic()
    machine.RUNTIME.mkdir(parents=True, exist_ok=True)
    with owned(lab):
        groups = machine.groups_of_lab(lab.id)
        changed = bool(groups) or lab.path.exists()
        for group in groups.values():
            machine.kill_group(group)
        if not machine.runs_systemd():
            machine.remove_group(machine.group_of(lab.id, "switch").parent)
            with contextlib.suppress(OSError):  # other labs
                machine.group_of(lab.id, "switch").parent.parent.rmdir()
        if lab.exists():
            for member in lab.members():
                lab.close_ssh(member)
            for side in names.NETWORKS:
                own = names.machine_interface(lab.slot, side)
                machine.run(["ip", "link", "delete", own], check=False)
        if lab.path.exists():
            # The slot is free for others from here on.
            gone = lab.path.with_name(f".{lab.id}.gone")
            if gone.exists():
                shutil.rmtree(gone)
            lab.path.rename(gone)
        for gone in machine.RUNTIME.glob(f".{lab.id}.gone"):
            shutil.rmtree(gone)
        (machine.RUNTIME / f".{lab.id}.lock").unlink()
    print(json.dumps({"changed": changed, "id": lab.id}))
    machine.say(f"lab '{lab.id}' is gone ({time.monotonic() - began:.1f}s)")
    return 0


def describe(lab: Lab) -> dict[str, dict[str, object]]:
    """The members, for machines to read."""
    return {
        member.name: {
            "kind": member.kind,
            "address": names.reach_address(lab.slot, member),
            "running": lab.is_running(member.name),
            "init": lab.leader(member.name),
        }
        for member in lab.members()
    }


def status(lab: Lab, options: argparse.Namespace) -> int:
    """Print what there is."""
    content = {
        "id": lab.id,
        "slot": lab.slot,
        "switch": lab.switch_process(),
        "tags": lab.tags(),
        "members": describe(lab),
    }
    print(json.dumps(content, indent=1))
    return 0


def env(lab: Lab, options: argparse.Namespace) -> int:
    """Print the variables of the inventory as NAME=value lines."""
    print(f"RINGMAIN_LAB_ID={lab.id}\nRINGMAIN_LAB_SLOT={lab.slot}")
    return 0


def start(lab: Lab, options: argparse.Namespace) -> int:
    """Switch servers on."""
    with owned(lab):
        wanted = checked(lab, options.names)
        if options.room is not None:
            server.limit_room(lab, wanted, options.room)
        if not switch_on(lab, options.names):
            machine.say("they are running already")
    return 0


def stop(lab: Lab, options: argparse.Namespace) -> int:
    """Shut servers down in order."""
    with owned(lab):
        shut_down(lab, checked(lab, options.names))
    return 0


def kill(lab: Lab, options: argparse.Namespace) -> int:
    """Cut the power; prints when that was."""
    with owned(lab):
        print(cut_power(lab, checked(lab, options.names)))
    return 0


def checked(lab: Lab, wanted: list[str]) -> list[str]:
    """The names, once all of them are known to be members."""
    for name in wanted:
        lab.spec(name)
    return wanted


def shut_down(lab: Lab, wanted: Iterable[str]) -> None:
    """Shut servers down in order, all at the same time; returns when all are off."""
    running = [name for name in wanted if lab.is_running(name)]
    for name in running:
        if lab.member(name).is_virtual:
            virtual.press_power_button(lab, name)
            continue
        leader = lab.leader(name)
        if leader is None:
            raise LabError(f"{name} has not begun to boot: cut its power with 'kill {name}'")
        os.kill(leader, signal.SIGRTMIN + 4)
    for name in running:
        machine.wait_for(
            f"{name} has not shut down: cut its power with 'kill {name}'; it is not off",
            lambda name=name: not lab.is_running(name),  # type: ignore[misc]
            STOP_PATIENCE,
            lab.directory(name) / "console.log",
        )
        machine.kill_group(machine.group_of(lab.id, name))
    machine.say(f"off: {', '.join(running) or 'nothing was running'}")


def cut_power(lab: Lab, wanted: Iterable[str]) -> float:
    """Kill all processes of the servers at once, unheard by anybody else.

    Returns when they were not heard any more, in seconds of the monotonic clock.

    The network goes first: a process that dies would say good-bye to its TCP peers, and a server
    without power cannot.
    """
    wanted = list(wanted)
    for name in wanted:
        # Its ports are gone if it is off.
        set_ports(lab, name, lab.member(name).networks, "down", check=False)
    moment = time.monotonic()
    with ThreadPoolExecutor(max_workers=16) as pool:
        groups = [machine.group_of(lab.id, name) for name in wanted]
        list(pool.map(machine.kill_group, groups))
    for name in wanted:
        # Nothing has told the SSH client that its connection is dead: have it make a new one.
        lab.ssh_control(lab.member(name)).unlink(missing_ok=True)
    machine.say(f"power cut: {', '.join(wanted)}")
    return moment


def set_ports(lab: Lab, name: str, networks: Iterable[str], state: str, check: bool = True) -> None:
    """Switch a server's ports at the bridges up or down: it sees its cables connected or not."""
    pid = lab.network_process()
    member = lab.member(name)
    for net in networks if pid else ():
        at_bridge = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "link"]
        machine.run([*at_bridge, "set", names.port_name(net, member), state], check=check)


def unplug(lab: Lab, options: argparse.Namespace) -> int:
    """Pull cables; prints when that was."""
    checked(lab, [options.name])
    set_ports(lab, options.name, options.networks, "down")
    print(time.monotonic())
    return 0


def plug(lab: Lab, options: argparse.Namespace) -> int:
    """Put them in again."""
    checked(lab, [options.name])
    set_ports(lab, options.name, options.networks, "up")
    return 0


def execute(lab: Lab, options: argparse.Namespace) -> int:
    """Run a command on a server, in place of this process; on a virtual machine by SSH."""
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not words:
        raise LabError(f"say what to run: lab.py --id {lab.id} exec {options.name} -- COMMAND")
    if lab.member(options.name).is_virtual:
        address = names.reach_address(lab.slot, lab.member(options.name))
        files = ["-i", str(lab.key), "-o", f"UserKnownHostsFile={lab.known_hosts}"]
        words = [shlex.quote(word) for word in words]
        os.execvp("ssh", ["ssh", "-q", "-T", *files, f"root@{address}", "--", *words])
    leader = lab.leader(options.name)
    if leader is None:
        raise LabError(
            f"{options.name} is off: 'lab.py --id {lab.id} start {options.name}' starts it"
        )
    environment = {
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TERM": os.environ.get("TERM", "dumb"),
        "USER": "root",
    }
    command = ["nsenter", f"--target={leader}", "--mount", "--uts", "--ipc", "--net", "--pid"]
    command += ["--cgroup", "--wdns=/root", "--", *words]
    os.execvpe(command[0], command, {**environment, "PATH": environment["PATH"]})


def settle(lab: Lab, name: str) -> None:
    """Finish what an interrupted save or restore began on a server's layers."""
    directory = lab.directory(name)
    spec = lab.spec(name)
    newest = spec["layers"][0] if spec["layers"] else None
    if newest and not (lab.path / "layers" / newest).is_dir():
        # It was written down, but the disk was not moved there yet.
        spec["layers"].pop(0)
        lab.store_spec(name, spec)
    for part in ("upper", "work", "root", "nested"):
        (directory / part).mkdir(exist_ok=True)


def save(lab: Lab, options: argparse.Namespace) -> int:
    """Freeze the disks as they are: what servers write from now on goes on top."""
    with owned(lab):
        tag_file(lab, options.tag)
        everyone = [member.name for member in lab.members()]
        running = [name for name in everyone if lab.is_running(name)]
        shut_down(lab, running)
        (lab.path / "layers").mkdir(exist_ok=True)
        saved = {}
        for name in everyone:
            settle(lab, name)
            spec = lab.spec(name)
            layer = f"{name}.{time.time_ns()}"
            spec["layers"].insert(0, layer)
            lab.store_spec(name, spec)
            (lab.directory(name) / "upper").rename(lab.path / "layers" / layer)
            settle(lab, name)
            saved[name] = {"base": spec["base"], "layers": spec["layers"]}
        (lab.path / "tags").mkdir(exist_ok=True)
        machine.write_atomically(
            tag_file(lab, options.tag), json.dumps({"members": saved}, indent=1)
        )
        collect_layers(lab)
        switch_on(lab, running)
        machine.say(f"saved as '{options.tag}'")
    return 0


def restore(lab: Lab, options: argparse.Namespace) -> int:
    """Put the disks back and start the servers."""
    with owned(lab):
        content = machine.read_json(tag_file(lab, options.tag))
        if content is None:
            raise LabError(
                f"lab '{lab.id}' has no saved state '{options.tag}': it has "
                f"{', '.join(lab.tags()) or 'none'}"
            )
        there = {member.name for member in lab.members()}
        missing = sorted(set(content["members"]) - there)
        if missing:
            raise LabError(
                f"'{options.tag}' holds {', '.join(missing)}, which this lab no longer has: "
                "bring them up first"
            )
        cut_power(lab, content["members"])
        for name, kept in content["members"].items():
            spec = lab.spec(name)
            # Emptied first: on other layers its changes would make no sense.
            for part in ("upper", "work"):
                if (lab.directory(name) / part).exists():
                    shutil.rmtree(lab.directory(name) / part)
            lab.store_spec(name, {**spec, **kept})
        collect_layers(lab)
        switch_on(lab, content["members"])
        machine.say(f"restored '{options.tag}'")
    return 0


def drop(lab: Lab, options: argparse.Namespace) -> int:
    """Forget a saved state, and delete what only it needed."""
    with owned(lab):
        lab.members()
        tag_file(lab, options.tag).unlink(missing_ok=True)
        collect_layers(lab)
    return 0


def tag_file(lab: Lab, tag: str) -> Path:
    """The file of a saved state."""
    names.check_id(tag)
    return lab.path / "tags" / f"{tag}.json"


def collect_layers(lab: Lab) -> None:
    """Delete layers that neither a server nor a saved state stands on."""
    used: set[str] = set()
    for member in lab.members():
        used.update(lab.spec(member.name)["layers"])
    for tag in lab.tags():
        content = machine.read_json(tag_file(lab, tag)) or {"members": {}}
        for kept in content["members"].values():
            used.update(kept["layers"])
    for layer in (lab.path / "layers").glob("*"):
        if layer.name not in used:
            shutil.rmtree(layer)
