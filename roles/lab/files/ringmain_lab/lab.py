# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is known of one lab on disk: its members, their layers, keys, and who is running."""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import machine, names
from .archives import Archive
from .names import LabError, Member


class Lab:
    """One lab's files below the runtime directory, and questions about its processes.

    Attributes:
        slot: number of its networks; LabError when the lab does not exist.
    """

    def __init__(self, lab_id: str) -> None:
        self.id = names.check_id(lab_id)
        self.path = machine.RUNTIME / lab_id
        self.key = self.path / "id_ed25519"
        self.known_hosts = self.path / "known_hosts"
        self.switch_lock = self.path / "switch.lock"
        self.switch_ready = self.path / "switch.ready"
        self.switch_log = self.path / "switch.log"
        self.packages_log = self.path / "packages.log"

    def exists(self) -> bool:
        """Whether an 'up' got as far as giving it a slot."""
        return machine.read_json(self.path / "lab.json") is not None

    @property
    def slot(self) -> int:
        """See the class."""
        return int(self._stored()["slot"])

    @property
    def archives(self) -> list[Archive]:
        """The archives its servers may ask the package cache for."""
        return [Archive(**entry) for entry in self._stored()["archives"]]

    def store(self, slot: int, archives: list[Archive]) -> None:
        """Write down slot and archives."""
        self.path.mkdir(parents=True, exist_ok=True)
        content = {"slot": slot, "archives": [vars(entry) for entry in archives]}
        machine.write_atomically(self.path / "lab.json", json.dumps(content, indent=1))

    def _stored(self) -> Any:
        content = machine.read_json(self.path / "lab.json")
        if content is None:
            raise LabError(f"there is no lab '{self.id}': start it with 'lab.py --id {self.id} up'")
        return content

    def directory(self, name: str) -> Path:
        """Everything that is a member's own."""
        return self.path / "servers" / name

    def spec(self, name: str) -> dict[str, Any]:
        """A member's record: kind, number, nested, base (key), layers (newest first), host_key."""
        content = machine.read_json(self.directory(name) / "spec.json")
        if content is None:
            raise LabError(
                f"lab '{self.id}' has no server '{name}': it has "
                f"{', '.join(member.name for member in self.members()) or 'none'}"
            )
        return dict(content)

    def store_spec(self, name: str, spec: dict[str, Any]) -> None:
        """Replace a member's record."""
        machine.write_atomically(self.directory(name) / "spec.json", json.dumps(spec, indent=1))

    def member(self, name: str) -> Member:
        """The member of that name."""
        spec = self.spec(name)
        return Member(name, spec["kind"], spec["number"])

    def members(self) -> list[Member]:
        """All members: servers, virtual machines, probes, each by number."""
        found = []
        for path in (self.path / "servers").glob("[a-z]*/spec.json"):
            spec = machine.read_json(path)
            if spec:
                found.append(Member(path.parent.name, spec["kind"], spec["number"]))
        return sorted(found, key=lambda m: names.FIRST_HOST[m.kind] + m.number)

    def is_running(self, name: str) -> bool:
        """Whether somebody looks after this member's machine, running or booting."""
        return machine.holder(self.directory(name) / "lock") is not None

    def leader(self, name: str) -> int | None:
        """Process id of the member's init, seen from this machine; None while there is none.

        Of a virtual machine the machine sees no processes: always None.
        """
        own_depth = len(_namespaced_pids("self"))
        for pid in machine.processes(machine.group_of(self.id, name)):
            inside = _namespaced_pids(str(pid))
            # Init of the server itself, not of a container within it.
            if len(inside) == own_depth + 1 and inside[-1] == 1:
                return pid
        return None

    def switch_process(self) -> int | None:
        """Process id of the lab's network keeper, once the networks stand."""
        pid = machine.holder(self.switch_lock)
        ready = machine.read_json(self.switch_ready)
        return pid if pid and ready == pid else None

    def network_process(self) -> int | None:
        """Any process in the lab's network namespace: the keeper's, or a server's."""
        pid = self.switch_process()
        for member in [] if pid else self.members():
            pid = pid or machine.holder(self.directory(member.name) / "lock")
        return pid

    def write_known_hosts(self) -> None:
        """Write down the servers' host keys, so that SSH can check them."""
        lines = []
        for member in self.members():
            addresses = [names.member_address(self.slot, n, member) for n in member.networks]
            key = self.spec(member.name)["host_key"]
            lines.append(f"{','.join([member.name, *addresses])} {key}\n")
        machine.write_atomically(self.known_hosts, "".join(lines))

    def ssh_control(self, member: Member) -> Path:
        """Where the inventory has SSH keep its shared connection to a server."""
        return self.path / f"ssh-{names.reach_address(self.slot, member)}"

    def close_ssh(self, member: Member) -> None:
        """End the shared connection to a server that is gone for good."""
        control = self.ssh_control(member)
        if control.exists():
            machine.run(["ssh", "-O", "exit", "-o", f"ControlPath={control}", "-"], check=False)
            control.unlink(missing_ok=True)

    def make_key(self) -> None:
        """Make the key pair that opens all servers."""
        if not self.key.with_suffix(".pub").is_file():
            make_ssh_key(self.key, f"ringmain-lab-{self.id}")

    def create(self, member: Member, base: str, nested: bool) -> None:
        """Make a member's directory, whole or not at all."""
        final = self.directory(member.name)
        new = final.with_name(f".{member.name}.new")
        for leftover in (new, final):
            if leftover.exists():
                shutil.rmtree(leftover)
        upper = new / "upper"
        for part in ("upper", "work", "root", "nested"):
            (new / part).mkdir(parents=True)
        address = f"http://{names.host_address(self.slot, member.networks[-1], names.CACHE_HOST)}"
        interfaces = []
        for net in member.networks:
            own = names.member_address(self.slot, net, member)
            interfaces.append(f"auto {net}\niface {net} inet static\n    address {own}/24\n")
        links = {}
        for net in member.networks if member.is_virtual else ():
            hardware = names.hardware_address(self.slot, net, member)
            links[f"etc/systemd/network/10-{net}.link"] = (
                f"[Match]\nMACAddress={hardware}\n\n[Link]\nName={net}\n"
            )
        files = {
            **links,
            "etc/hostname": f"{member.name}\n",
            "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {member.name}\n::1 localhost\n",
            "etc/machine-id": f"{uuid.uuid4().hex}\n",
            "etc/network/interfaces.d/static": "\n".join(interfaces),
            "etc/apt/apt.conf.d/10proxy": (
                f'Acquire::http::Proxy "{address}:{names.CACHE_PORT}";\n'
                # The first byte comes when the cache has the whole file.
                'Acquire::http::Timeout "600";\n'
            ),
            "root/.ssh/authorized_keys": self.key.with_suffix(".pub").read_text(encoding="ascii"),
        }
        # A virtual machine takes them from an archive at its first boot.
        own_files = new / "seed" if member.is_virtual else upper
        for name, content in files.items():
            path = own_files / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        for private in ("root", "root/.ssh"):
            (own_files / private).chmod(0o700)
        host_key = own_files / "etc/ssh/ssh_host_ed25519_key"
        host_key.parent.mkdir()
        make_ssh_key(host_key, f"root@{member.name}")
        spec = {
            "kind": member.kind,
            "number": member.number,
            "nested": nested,
            "base": base,
            "layers": [],
            "host_key": " ".join(host_key.with_suffix(".pub").read_text().split()[:2]),
        }
        if member.is_virtual:
            archive = ["--create", "--file", str(new / "seed.tar"), "--directory", str(own_files)]
            machine.run(["tar", *archive, "--owner=0", "--group=0", "etc", "root"])
            shutil.rmtree(own_files)
        (new / "spec.json").write_text(json.dumps(spec, indent=1), encoding="utf-8")
        new.rename(final)

    def tags(self) -> list[str]:
        """Names of the saved states."""
        return sorted(path.stem for path in (self.path / "tags").glob("[!.]*.json"))


def make_ssh_key(path: Path, comment: str) -> None:
    """Make an Ed25519 key pair without passphrase; an incomplete one is replaced."""
    path.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
    machine.run(command)


def registry() -> dict[str, int]:
    """Slots of all labs by id."""
    found = {}
    for path in machine.RUNTIME.glob("[a-z0-9]*/lab.json"):
        content = machine.read_json(path)
        if content:
            found[path.parent.name] = int(content["slot"])
    return found


@contextlib.contextmanager
def registry_locked() -> Iterator[None]:
    """Hold the lock under which labs take their slots."""

    def wait(pid: int) -> None:
        machine.say(f"waiting for process {pid}, which is taking a slot")

    with machine.locked(machine.RUNTIME / ".lock", wait):
        yield


def _namespaced_pids(pid: str) -> list[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path("/proc", pid, "status").read_text(encoding="utf-8").splitlines():
            if line.startswith("NSpid:"):
                return [int(field) for field in line.split()[1:]]
    return []
