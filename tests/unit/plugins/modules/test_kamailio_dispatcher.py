# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module against a scripted Kamailio that reads the same file, over a real socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringmain.voip.plugins.module_utils.dispatcher import (
    DISABLED,
    Destination,
    parse,
)
from ansible_collections.ringmain.voip.plugins.modules import kamailio_dispatcher

A, B, C = (f"sip:192.0.2.{number}:5080" for number in (1, 2, 3))


class Kamailio:
    """Holds what it has read of the list, and reads it again when told to."""

    def __init__(self, directory: Path) -> None:
        self.list = directory / "dispatcher.list"
        self.socket = directory / "rpc.sock"
        self.has: list[Destination] = []
        self.reloads = 0
        self.busy = 0
        self.deaf = False
        self._methods = {
            "dispatcher.list": self.show,
            "dispatcher.reload": self.reload,
        }
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._server.bind(str(self.socket))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.sendto(b"stop", str(self.socket))
        self._thread.join()
        self._server.close()

    def _serve(self) -> None:
        while (received := self._server.recvfrom(65536))[0] != b"stop":
            request = json.loads(received[0])
            try:
                answer = {"result": self._methods[request["method"]]()}
            except RuntimeError as error:
                answer = {"error": {"code": 500, "message": str(error)}}
            self._server.sendto(json.dumps({**answer, "id": request["id"]}).encode(), received[1])

    def reload(self) -> str:
        if self.busy:
            self.busy -= 1
            raise RuntimeError("Ongoing reload")
        self.reloads += 1
        if not self.deaf:
            self.has = parse(self.list.read_text())
        return "Ok. Dispatcher successfully reloaded."

    def show(self) -> dict[str, Any]:
        if not self.has:
            raise RuntimeError("No Destination Sets")
        return {
            "RECORDS": [
                {
                    "SET": {
                        "ID": item.set_id,
                        "TARGETS": [
                            {
                                "DEST": {
                                    "URI": item.uri,
                                    "FLAGS": "DX" if item.flags & DISABLED else "AP",
                                    "PRIORITY": item.priority,
                                    "ATTRS": {"BODY": item.body},
                                }
                            }
                        ],
                    }
                }
                for item in self.has
            ]
        }


@pytest.fixture
def kamailio(tmp_path: Path) -> Iterator[Kamailio]:
    server = Kamailio(tmp_path)
    yield server
    server.close()


def run(
    directory: Path,
    destinations: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    *,
    check: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """What the module returns, with its exit code as C(rc)."""
    arguments = {
        "path": str(directory / "dispatcher.list"),
        "sets": [{"id": 1, "destinations": destinations}] if destinations else [],
        **more,
        "rpc_socket": str(directory / "rpc.sock"),
        "timeout": 2,
        "_ansible_check_mode": check,
        "_ansible_diff": True,
        "_ansible_remote_tmp": str(directory),
    }
    with patch_module_args(arguments), pytest.raises(SystemExit) as ended:
        kamailio_dispatcher.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return {**result, "rc": ended.value.code}


def test_without_a_process_it_is_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(tmp_path, [{"uri": A, "attrs": {"duid": "a", "rweight": 100}}], capsys)
    assert (first["changed"], first["running"], first["reloaded"]) == (True, False, False)
    assert (tmp_path / "dispatcher.list").read_text().splitlines()[1:] == [
        f"1 {A} 0 0 duid=a;rweight=100"
    ]
    assert (tmp_path / "dispatcher.list").stat().st_mode & 0o777 == 0o644
    second = run(tmp_path, [{"uri": A, "attrs": {"duid": "a", "rweight": 100}}], capsys)
    assert second["changed"] is False


def test_the_directory_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "new", [{"uri": A}], capsys)["changed"] is True
    assert parse((tmp_path / "new" / "dispatcher.list").read_text()) == [Destination(1, A)]


def test_a_process_reloads_and_then_agrees(
    kamailio: Kamailio, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(tmp_path, [{"uri": A}, {"uri": B}], capsys)
    assert (first["changed"], first["running"], first["reloaded"]) == (True, True, True)
    assert kamailio.has == [Destination(1, A), Destination(1, B)]
    second = run(tmp_path, [{"uri": A}, {"uri": B}], capsys)
    assert (second["changed"], second["reloaded"], kamailio.reloads) == (False, False, 1)


def test_check_mode_tells_and_touches_nothing(
    kamailio: Kamailio, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(tmp_path, [{"uri": A}], capsys, check=True)
    assert (result["changed"], result["reloaded"]) == (True, True)
    assert f"1 {A} 0 0" in result["diff"]["after"]
    assert result["diff"]["before"] == ""
    assert not kamailio.list.exists()
    assert kamailio.reloads == 0


def test_what_is_drained_stays_drained(
    kamailio: Kamailio, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kamailio.list.write_text(f"1 {A} 4 0 drain=upgrade:run7\n1 {B}\n2 {C} 4\n")
    result = run(tmp_path, [{"uri": A, "attrs": {"duid": "a"}}, {"uri": B}], capsys)
    assert result["drains"] == {"a": {"1": "upgrade:run7"}, C: {"2": ""}}
    assert kamailio.has == [
        Destination(1, A, DISABLED, 0, (("duid", "a"), ("drain", "upgrade:run7"))),
        Destination(1, B),
        Destination(2, C, DISABLED),
    ]


def test_a_process_that_has_it_otherwise_is_repaired(
    kamailio: Kamailio, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, [{"uri": A}], capsys)
    kamailio.has = [Destination(1, A, DISABLED)]
    result = run(tmp_path, [{"uri": A}], capsys)
    assert (result["changed"], result["reloaded"]) == (True, True)
    assert result["differences"] == [f"set 1: {A} is disabled in the process"]
    assert result["diff"]["before"] == result["diff"]["after"]
    assert kamailio.has == [Destination(1, A)]


def test_it_waits_for_the_time_kamailio_wants_between_reloads(
    kamailio: Kamailio,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    defaults = kamailio_dispatcher.reload_list.__defaults__
    assert defaults is not None
    monkeypatch.setattr(kamailio_dispatcher.reload_list, "__defaults__", (pauses.append,))
    kamailio.busy = 6
    assert run(tmp_path, [{"uri": A}], capsys)["reloaded"] is True
    assert pauses == [1] * 6
    kamailio.busy = 7
    result = run(tmp_path, [{"uri": B}], capsys)
    assert result["rc"] == 1
    assert "dispatcher.reload: Ongoing reload" in result["msg"]


def test_a_reload_that_changes_nothing_is_an_error(
    kamailio: Kamailio, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kamailio.deaf = True
    result = run(tmp_path, [{"uri": A}], capsys)
    assert result["rc"] == 1
    assert f"still differs: set 1: {A} is listed and not in the process" in result["msg"]
    assert "Look into its log" in result["msg"]


def test_a_broken_list_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dispatcher.list").write_text("1\n")
    result = run(tmp_path, [{"uri": A}], capsys)
    assert result["rc"] == 1
    assert "line 1: '1' is not SET URI FLAGS PRIORITY ATTRS" in result["msg"]
    assert (tmp_path / "dispatcher.list").read_text() == "1\n"


def test_a_silent_process_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "rpc.sock"))
        result = run(tmp_path, [{"uri": A}], capsys)
    assert result["rc"] == 1
    assert "did not do as asked: timed out" in result["msg"]
    assert "systemctl status kamailio" in result["msg"]
    assert not (tmp_path / "dispatcher.list").exists()


LIST = f"1 {A} 0 0 duid=a\n1 {B} 0 0 duid=b\n2 {C} 32 0 duid=a\n"


def drained(reason: str = "upgrade", run_id: str = "run7", **more: Any) -> dict[str, Any]:
    return {"state": "drained", "nodes": ["a"], "reason": reason, "run_id": run_id, **more}


def test_a_node_is_drained_and_put_back(
    kamailio: Kamailio, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kamailio.list.write_text(LIST)
    kamailio.has = parse(LIST)
    shown = run(tmp_path, [], capsys, check=True, **drained())
    assert (shown["changed"], kamailio.list.read_text(), kamailio.reloads) == (True, LIST, 0)
    first = run(tmp_path, [], capsys, **drained())
    assert first["drains"] == {"a": {"1": "upgrade:run7", "2": "upgrade:run7"}}
    assert [item.flags for item in kamailio.has] == [4, 0, 36]
    second = run(tmp_path, [], capsys, **drained())
    assert (second["changed"], kamailio.reloads) == (False, 1)
    back = run(tmp_path, [], capsys, **drained(state="undrained"))
    assert (back["changed"], back["drains"], kamailio.has) == (True, {}, parse(LIST))
    assert run(tmp_path, [], capsys, state="undrained", nodes=["a"])["changed"] is False


def test_one_function_of_a_node_is_drained(
    kamailio: Kamailio, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kamailio.list.write_text(LIST)
    result = run(tmp_path, [], capsys, **drained(sets=[{"id": 2}]))
    assert result["drains"] == {"a": {"2": "upgrade:run7"}}


def test_another_runs_drain_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dispatcher.list").write_text(LIST)
    run(tmp_path, [], capsys, **drained())
    for state in ("drained", "undrained"):
        result = run(tmp_path, [], capsys, **drained(run_id="run8", state=state))
        assert result["rc"] == 1
        assert "by 'upgrade:run7'" in result["msg"]
    assert run(tmp_path, [], capsys, state="undrained", nodes=["a"])["drains"] == {}


def test_a_strange_node_is_refused_with_those_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dispatcher.list").write_text(LIST)
    result = run(tmp_path, [], capsys, **drained(nodes=["x"]))
    assert "x is not in the list; it has a, b" in result["msg"]


def test_a_reason_that_would_break_the_list_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dispatcher.list").write_text(LIST)
    result = run(tmp_path, [], capsys, **drained(reason="new disk;x=1"))
    assert "the reason of a drain is letters" in result["msg"]


def test_who_is_drained_can_be_asked(
    kamailio: Kamailio, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kamailio.list.write_text(f"1 {A} 4 0 duid=a;drain=disk:anna\n1 {B} 4\n")
    result = run(tmp_path, [], capsys, state="read")
    assert (result["changed"], kamailio.reloads) == (False, 0)
    assert result["drains"] == {"a": {"1": "disk:anna"}, B: {"1": ""}}
