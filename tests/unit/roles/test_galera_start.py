# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The start helper on a database host, with other members that answer over real HTTP."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import galera

PROGRAM = (
    Path(__file__).resolve().parents[3]
    / "roles/galera/templates/usr/local/lib/ringmain-galera/start.py"
)
CLUSTER = "573d421e-e57b-11f1-84ac-7218251964fd"
WAITS = galera.Member(phase=galera.WAITING, uuid=CLUSTER, seqno=100)
UP = galera.Member(phase=galera.PRIMARY, uuid=CLUSTER, synced=True, running=True)
GRASTATE = f"# GALERA saved state\nversion: 2.1\nuuid:    {CLUSTER}\nseqno:   -1\n"


class Peer:
    """Another member's agent; ``file`` holds what it says, none means 404."""

    def __init__(self, file: Path) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = file.read_bytes() if file.exists() else b""
                self.send_response(200 if body else 404)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        self.file = file
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def says(self, member: galera.Member) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(galera.member_to_dict(member)))
        new.replace(self.file)


class Host:
    """One database host: the program with directories of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        spec = importlib.util.spec_from_file_location(f"start_{name}", PROGRAM)
        assert spec is not None
        assert spec.loader is not None
        self.program: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.program)
        self.data = folder / name / "data"
        self.run = folder / name / "run"
        for path in (self.data, self.run):
            path.mkdir(parents=True)
        (self.data / "grastate.dat").write_text(GRASTATE + "safe_to_bootstrap: 0\n")
        (folder / name / "position").write_text(f"X=--wsrep_start_position={CLUSTER}:100\n")
        places = {
            "HERE": folder / name,
            "DATA": self.data,
            "RUN": self.run,
            "START_FILE": self.run / "start.json",
            "ORDER_FILE": self.run / "bootstrap-order",
            "ENVIRONMENT_FILE": self.run / "bootstrap.env",
            "OPERATOR_FILE": folder / name / "wsrep-new-cluster",
            "POSITION_FILE": folder / name / "position",
        }
        for place, path in places.items():
            setattr(self.program, place, path)
        self.name = name

    def knows(self, ports: dict[str, int]) -> None:
        """Tell the host where the members' agents are."""
        self.program.ask = self._asker(ports)
        members = [{"name": name, "address": name} for name in ports]
        cluster = {"name": self.name, "members": members, "health_port": 0, "reserve_mb": 1}
        (self.program.HERE / "cluster.json").write_text(json.dumps(cluster))

    def _asker(self, ports: dict[str, int]) -> Any:
        # All agents share one address here, so that only their ports tell them apart.
        ask = self.program.ask
        return lambda address, _port: ask("127.0.0.1", ports[address])

    def phase(self) -> str:
        """What the host says of itself."""
        return str(json.loads((self.run / "start.json").read_text())["phase"])


@pytest.fixture(autouse=True)
def core(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The role puts the decisions beside the program under this name."""
    monkeypatch.setitem(sys.modules, "galera", galera)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return galera


def one_host(folder: Path) -> tuple[Host, Peer, Peer]:
    host = Host(folder, "a")
    peers = Peer(folder / "b.json"), Peer(folder / "c.json")
    host.knows({"a": 0, "b": peers[0].port, "c": peers[1].port})
    return host, *peers


def start(host: Host) -> threading.Thread:
    thread = threading.Thread(target=host.program.start, daemon=True)
    thread.start()
    return thread


def test_it_waits_for_a_cluster_and_joins_it(tmp_path: Path) -> None:
    host, b, _c = one_host(tmp_path)
    (host.data / "gvwstate.dat").write_text("")
    b.says(WAITS)
    thread = start(host)
    thread.join(1.5)
    assert thread.is_alive()
    assert host.phase() == galera.WAITING
    b.says(UP)
    thread.join(5)
    assert not thread.is_alive()
    assert host.phase() == galera.STARTING
    assert not (host.run / "bootstrap.env").exists()
    assert not (host.data / "gvwstate.dat").exists()


def test_the_most_advanced_bootstraps_for_one_start_only(tmp_path: Path) -> None:
    host, b, c = one_host(tmp_path)
    b.says(replace(WAITS, seqno=99))
    c.says(replace(WAITS, seqno=98))
    thread = start(host)
    thread.join(5)
    assert not thread.is_alive()
    assert host.phase() == galera.BOOTSTRAPPING
    environment = host.run / "bootstrap.env"
    assert environment.read_text() == "_WSREP_NEW_CLUSTER=--wsrep-new-cluster\n"
    assert "safe_to_bootstrap: 1\n" in (host.data / "grastate.dat").read_text()
    host.program.done()
    assert not environment.exists()
    assert not (host.run / "start.json").exists()


def test_a_leftover_bootstrap_is_forgotten_at_the_next_start(tmp_path: Path) -> None:
    host, b, _c = one_host(tmp_path)
    (host.run / "bootstrap.env").write_text("_WSREP_NEW_CLUSTER=--wsrep-new-cluster\n")
    b.says(UP)
    thread = start(host)
    thread.join(5)
    assert not thread.is_alive()
    assert not (host.run / "bootstrap.env").exists()


def test_a_new_cluster_needs_an_order_that_is_used_up(tmp_path: Path) -> None:
    host, _b, _c = one_host(tmp_path)
    (host.data / "grastate.dat").unlink()
    thread = start(host)
    thread.join(1.5)
    assert thread.is_alive()
    order = host.run / "bootstrap-order"
    # One for another position counts for nothing, and is gone.
    order.write_text("573d421e-e57b-11f1-84ac-7218251964fd:7\n")
    thread.join(2.5)
    assert thread.is_alive()
    assert not order.exists()
    order.write_text("00000000-0000-0000-0000-000000000000:-1\n")
    thread.join(5)
    assert not thread.is_alive()
    assert (host.run / "bootstrap.env").exists()
    assert not (host.run / "bootstrap-order").exists()


def test_an_order_does_not_touch_a_member_of_a_cluster(tmp_path: Path) -> None:
    host, b, _c = one_host(tmp_path)
    (host.run / "bootstrap-order").touch()
    b.says(UP)
    thread = start(host)
    thread.join(5)
    assert not thread.is_alive()
    assert not (host.run / "bootstrap.env").exists()


def test_two_never_join_at_one_time(tmp_path: Path) -> None:
    """Two hosts that see the cluster at one moment go one after the other."""
    up = Peer(tmp_path / "c.json")
    up.says(UP)
    hosts = [Host(tmp_path, name) for name in ("a", "b")]
    agents = [Peer(host.run / "start.json") for host in hosts]
    for host in hosts:
        host.knows({"a": agents[0].port, "b": agents[1].port, "c": up.port})
    threads = [start(host) for host in hosts]
    threads[0].join(8)
    threads[1].join(0.1)
    # One went; as long as it has not arrived, the other one waits.
    gone = [host for host, thread in zip(hosts, threads, strict=True) if not thread.is_alive()]
    assert len(gone) == 1
    assert gone[0].phase() == galera.STARTING
    gone[0].program.done()
    agents[hosts.index(gone[0])].says(UP)
    for thread in threads:
        thread.join(8)
        assert not thread.is_alive()
