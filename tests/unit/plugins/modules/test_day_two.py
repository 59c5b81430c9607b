# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules that look and wait on live nodes, against scripted daemons over real sockets."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringmain.voip.plugins.module_utils import galera_status, ng
from ansible_collections.ringmain.voip.plugins.modules import (
    asterisk_drain,
    galera_info,
    kamailio_rpc,
    node_status,
    rtpengine_drain,
    sip_options,
)

Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(
        main: Callable[[], None], check: bool = False, **params: Any
    ) -> tuple[int, dict[str, Any]]:
        arguments = {**params, "_ansible_check_mode": check}
        with patch_module_args(arguments), pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), json.loads(capsys.readouterr().out)

    return call


def closed_port(kind: socket.SocketKind) -> int:
    """A port of loopback on which nobody listens."""
    with socket.socket(socket.AF_INET, kind) as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


class Datagrams:
    """Answers each datagram with what C(answer) makes of it; None is silence."""

    def __init__(
        self, family: socket.AddressFamily, address: Any, answer: Callable[[bytes], bytes | None]
    ) -> None:
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.family = family
        self.answer = answer
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            message, peer = self.socket.recvfrom(65535)
            if message == b"end":
                return
            answer = self.answer(message)
            if answer is not None:
                self.socket.sendto(answer, peer)

    def close(self) -> None:
        with socket.socket(self.family, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"end", self.socket.getsockname())
        self.thread.join()
        self.socket.close()


# --- kamailio_rpc -------------------------------------------------------------


class Kamailio:
    """Knows one call, `double`, and remembers what it was asked."""

    def __init__(self, path: Path) -> None:
        self.asked: list[tuple[str, list[Any]]] = []
        self.server = Datagrams(socket.AF_UNIX, str(path), self.answer)

    def answer(self, message: bytes) -> bytes | None:
        request = json.loads(message)
        self.asked.append((request["method"], request["params"]))
        if request["method"] == "silence":
            return None
        if request["method"] == "double":
            body: dict[str, Any] = {"result": request["params"] * 2}
        else:
            body = {"error": {"code": 500, "message": "command not found"}}
        return json.dumps({"jsonrpc": "2.0", "id": request["id"], **body}).encode()


@pytest.fixture
def kamailio(tmp_path: Path) -> Iterator[Kamailio]:
    daemon = Kamailio(tmp_path / "rpc.sock")
    yield daemon
    daemon.server.close()


def test_a_call_returns_what_kamailio_says(kamailio: Kamailio, tmp_path: Path, run: Run) -> None:
    where = str(tmp_path / "rpc.sock")
    code, found = run(kamailio_rpc.main, method="double", params=[1, "a"], rpc_socket=where)
    assert (code, found["changed"], found["result"]) == (0, False, [1, "a", 1, "a"])
    assert kamailio.asked == [("double", [1, "a"])]


def test_a_call_that_changes_is_not_made_in_check_mode(
    kamailio: Kamailio, tmp_path: Path, run: Run
) -> None:
    params = {"method": "double", "changes": True, "rpc_socket": str(tmp_path / "rpc.sock")}
    _code, found = run(kamailio_rpc.main, check=True, **params)
    assert (found["changed"], found["result"], kamailio.asked) == (True, None, [])
    _code, found = run(kamailio_rpc.main, **params)
    assert (found["changed"], found["result"]) == (True, [])
    # What changes nothing is asked in check mode, too.
    run(kamailio_rpc.main, check=True, **{**params, "changes": False})
    assert len(kamailio.asked) == 2


def test_calls_that_fail_say_why(kamailio: Kamailio, tmp_path: Path, run: Run) -> None:
    where = str(tmp_path / "rpc.sock")
    code, found = run(kamailio_rpc.main, method="nonsense", rpc_socket=where)
    assert (code, found["code"]) == (1, 500)
    assert found["msg"].startswith("Kamailio refuses nonsense: command not found.")
    code, found = run(kamailio_rpc.main, method="silence", rpc_socket=where, timeout=0.2)
    assert code == 1
    assert "does not answer silence within 0.2 s" in found["msg"]
    code, found = run(kamailio_rpc.main, method="double", rpc_socket=str(tmp_path / "none"))
    assert code == 1
    assert found["msg"].startswith(f"no Kamailio behind {tmp_path / 'none'}.")


# --- asterisk_drain -----------------------------------------------------------


class Manager:
    """An Asterisk with one call of two channels that lasts for so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        self.hung_up: list[str] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        peer, _address = self.server.accept()
        with peer, peer.makefile("rwb") as stream:
            stream.write(b"Asterisk Call Manager/9.0.0\r\n")
            stream.flush()
            headers: dict[str, str] = {}
            for line in stream:
                key, _colon, value = line.decode().strip().partition(": ")
                if key:
                    headers[key] = value
                    continue
                stream.write(self.answer(headers).replace("\n", "\r\n").encode())
                stream.flush()
                headers = {}

    def answer(self, headers: dict[str, str]) -> str:
        number = f"ActionID: {headers['ActionID']}\n"
        if headers["Action"] == "Login" and headers["Secret"] != "geheim":
            return f"Response: Error\n{number}Message: Authentication failed\n\n"
        listed = ""
        if headers["Action"] == "Hangup":
            self.hung_up.append(headers["Channel"])
            self.looks = 0
        if headers["Action"] == "CoreShowChannels":
            for name in ("PJSIP/a-1", "PJSIP/b-2") if self.looks else ():
                listed += (
                    f"Event: CoreShowChannel\n{number}Channel: {name}\nLinkedid: 7.1\n"
                    "ChannelStateDesc: Up\nDuration: 00:01:01\n\n"
                )
            listed += f"Event: CoreShowChannelsComplete\n{number}EventList: Complete\n\n"
            self.looks = max(0, self.looks - 1)
        return f"Response: Success\n{number}\n{listed}"

    def close(self) -> None:
        self.thread.join(5)
        self.server.close()
        assert not self.thread.is_alive()


def test_a_node_is_empty_when_its_call_has_ended(run: Run) -> None:
    manager = Manager(looks=2)
    code, found = run(
        asterisk_drain.main, port=manager.port, password="geheim", wait_seconds=9, quiet_seconds=1
    )
    manager.close()
    assert (code, found["changed"]) == (0, False)
    assert (found["calls"], found["empty"], found["channels"]) == (0, True, [])
    assert found["waited"] == pytest.approx(2.0, abs=0.4)


def test_a_node_is_not_empty_while_somebody_talks(run: Run) -> None:
    manager = Manager(looks=99)
    _code, found = run(
        asterisk_drain.main, port=manager.port, password="geheim", wait_seconds=0.6, quiet_seconds=0
    )
    manager.close()
    assert (found["calls"], found["empty"], found["hung_up"]) == (1, False, 0)
    first = {"name": "PJSIP/a-1", "call": "7.1", "state": "Up", "seconds": 61}
    assert found["channels"][0] == first
    assert manager.hung_up == []


def test_what_is_left_is_hung_up_when_told_to(run: Run) -> None:
    manager = Manager(looks=99)
    params = {"port": manager.port, "password": "geheim", "wait_seconds": 0, "hang_up": True}
    _code, found = run(asterisk_drain.main, quiet_seconds=0.5, **params)
    manager.close()
    assert (found["changed"], found["hung_up"], found["calls"], found["empty"]) == (
        True,
        1,
        0,
        True,
    )
    assert manager.hung_up == ["PJSIP/a-1", "PJSIP/b-2"]


def test_check_mode_hangs_up_nobody_and_does_not_wait(run: Run) -> None:
    manager = Manager(looks=99)
    params = {"port": manager.port, "password": "geheim", "wait_seconds": 60, "hang_up": True}
    _code, found = run(asterisk_drain.main, check=True, **params)
    manager.close()
    assert (found["changed"], found["hung_up"], found["calls"]) == (True, 1, 1)
    assert (found["waited"], manager.hung_up) == (0.0, [])


def test_a_stopped_node_is_an_error_unless_allowed(run: Run) -> None:
    port = closed_port(socket.SOCK_STREAM)
    code, found = run(asterisk_drain.main, port=port, password="geheim")
    assert code == 1
    assert "See whether it runs: systemctl status asterisk" in found["msg"]
    code, found = run(asterisk_drain.main, port=port, password="geheim", allow_stopped=True)
    assert (code, found["empty"], found["running"]) == (0, True, False)


def test_a_refused_login_is_an_error_also_where_a_stopped_node_is_none(run: Run) -> None:
    manager = Manager(looks=0)
    code, found = run(asterisk_drain.main, port=manager.port, password="falsch", allow_stopped=True)
    manager.close()
    assert code == 1
    assert "Asterisk refuses Login: Authentication failed" in found["msg"]
    assert "falsch" not in json.dumps(found)


def test_a_wait_that_cannot_end_well_is_refused(run: Run) -> None:
    params = {"wait_seconds": 1, "quiet_seconds": 3}
    for main, more in ((asterisk_drain.main, {"password": "x"}), (rtpengine_drain.main, {})):
        code, found = run(main, **params, **more)
        assert code == 1
        assert "wait_seconds 1 is less than quiet_seconds 3" in found["msg"]


# --- rtpengine_drain ----------------------------------------------------------


class Relay:
    """Carries one session of its own for so many looks, and stands by for five."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        self.server = Datagrams(socket.AF_INET, ("127.0.0.1", 0), self.answer)
        self.port = self.server.socket.getsockname()[1]

    def answer(self, message: bytes) -> bytes:
        cookie, _space, body = message.partition(b" ")
        assert ng.decode(body) == {"command": "statistics"}
        own = 1 if self.looks else 0
        self.looks = max(0, self.looks - 1)
        current = {"sessionsown": own, "sessionsforeign": 5, "sessionstotal": 5 + own}
        answer = {"result": "ok", "statistics": {"currentstatistics": current}}
        return cookie + b" " + ng.encode(answer)


@pytest.mark.parametrize(("looks", "sessions", "empty"), [(1, 0, True), (99, 1, False)])
def test_a_relay_is_empty_when_its_own_sessions_have_ended(
    run: Run, looks: int, sessions: int, empty: bool
) -> None:
    relay = Relay(looks)
    code, found = run(rtpengine_drain.main, port=relay.port, wait_seconds=1.6, quiet_seconds=0.5)
    relay.server.close()
    assert (code, found["changed"], found["running"]) == (0, False, True)
    assert (found["sessions"], found["empty"]) == (sessions, empty)


def test_a_stopped_relay_is_an_error_unless_allowed(run: Run) -> None:
    port = closed_port(socket.SOCK_DGRAM)
    code, found = run(rtpengine_drain.main, port=port)
    assert code == 1
    assert "See whether it runs: systemctl status rtpengine-daemon" in found["msg"]
    code, found = run(rtpengine_drain.main, port=port, allow_stopped=True)
    assert (code, found["empty"], found["running"]) == (0, True, False)


# --- sip_options --------------------------------------------------------------


def refuse(message: bytes) -> bytes:
    """An answer that copies what it must."""
    lines = message.split(b"\r\n")
    return b"\r\n".join([b"SIP/2.0 503 Not Yet", *lines[1:]])


def test_any_final_answer_will_do(run: Run) -> None:
    server = Datagrams(socket.AF_INET, ("127.0.0.1", 0), refuse)
    port = server.socket.getsockname()[1]
    code, found = run(sip_options.main, address="127.0.0.1", port=port)
    server.close()
    assert (code, found["changed"], found["answered"]) == (0, False, True)
    assert (found["status"], found["reason"]) == (503, "Not Yet")


def test_no_answer_is_an_error_unless_told_otherwise(run: Run) -> None:
    port = closed_port(socket.SOCK_DGRAM)
    code, found = run(sip_options.main, address="127.0.0.1", port=port)
    assert code == 1
    assert f"127.0.0.1:{port} does not answer OPTIONS: " in found["msg"]
    code, found = run(
        sip_options.main, address="127.0.0.1", port=port, fail_without_answer=False, timeout=0.5
    )
    assert (code, found["answered"], found["status"]) == (0, False, 0)
    assert "refused" in found["reason"]


# --- galera_info --------------------------------------------------------------


def test_a_database_that_is_not_there_is_said(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Driver:
        """What the module needs of PyMySQL when nobody listens."""

        @staticmethod
        def connect(**arguments: Any) -> Any:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(arguments["unix_socket"])

    monkeypatch.setattr(galera_status, "pymysql", Driver, raising=False)
    monkeypatch.setattr(galera_status, "MISSING", "")
    code, found = run(galera_info.main, socket=str(tmp_path / "none"))
    assert (code, found["running"], found["synced"]) == (0, False, False)
    assert "No such file" in found["error"]


# --- node_status --------------------------------------------------------------


def test_a_server_whose_daemons_are_all_away_is_no_error(run: Run, tmp_path: Path) -> None:
    """Every part says why it says nothing, and all at once."""
    ports = {
        "relay_control": closed_port(socket.SOCK_DGRAM),
        "pbx_ami": closed_port(socket.SOCK_STREAM),
        "sip_check": closed_port(socket.SOCK_DGRAM),
        "patroni_rest": closed_port(socket.SOCK_STREAM),
    }
    listed = tmp_path / "dispatcher.list"
    listed.write_text("1 sip:192.0.2.1:5080\n")
    code, found = run(
        node_status.main,
        functions=["edge", "media", "pbx", "database"],
        address="127.0.0.1",
        floating=["127.0.0.1", "203.0.113.10"],
        ports=ports,
        dispatcher_list=str(listed),
        rpc_socket=str(tmp_path / "rpc.sock"),
        database_driver="postgresql",
        tls_directory=str(tmp_path),
    )
    node = found["node"]
    assert (code, found["changed"]) == (0, False)
    assert node["addresses"] == ["127.0.0.1"]
    assert node["edge"] == {"error": f"no Kamailio behind {tmp_path / 'rpc.sock'}"}
    assert "RTPEngine does not answer" in node["media"]["error"]
    assert "no connection to Asterisk's manager" in node["pbx"]["error"]
    assert node["database"]["complaint"] == "Patroni does not answer"


def test_a_relay_says_its_sessions(run: Run) -> None:
    relay = Relay(looks=9)
    _code, found = run(
        node_status.main,
        functions=["media"],
        address="127.0.0.1",
        floating=[],
        ports={"relay_control": relay.port},
    )
    relay.server.close()
    assert found["node"]["media"] == {"sessions": 1, "addresses": ["127.0.0.1"]}
    assert [each["name"] for each in found["node"]["services"]] == ["rtpengine-daemon"]
    assert "edge" not in found["node"]
