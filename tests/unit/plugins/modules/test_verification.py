# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules and filters of the verification: how they speak with Ansible."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringmain.voip.plugins.filter import (
    call_results,
    evidence_text,
    result_table,
)
from ansible_collections.ringmain.voip.plugins.module_utils import ami, ng, phones
from ansible_collections.ringmain.voip.plugins.modules import (
    asterisk_channels,
    rtpengine_info,
    test_calls,
)

Outcome = tuple[int, dict[str, Any]]
STREAM = ng.Stream("a", "198.18.0.11:30000", "", 5, 0, kernelized=True, last_kernel_packet=70)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def call(main: Callable[[], None], **params: Any) -> Outcome:
        with patch_module_args(params), pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), json.loads(capsys.readouterr().out)

    return call


class Relay:
    """An RTPEngine whose counters grow by 100 with each query."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.packets = 0
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            message, peer = self.socket.recvfrom(65535)
            if message == b"end":
                return
            cookie, _space, body = message.partition(b" ")
            answer = self.answer(ng.decode(body))
            self.socket.sendto(cookie + b" " + ng.encode(answer), peer)

    def answer(self, request: Any) -> dict[str, Any]:
        if request["command"] == "list":
            return {"result": "ok", "calls": ["c1", "c5"]}
        if request["command"] == "statistics":
            total = {"relayedpackets_kernel": self.packets, "relayedpackets_user": 3}
            return {"result": "ok", "statistics": {"totalstatistics": total}}
        if request["call-id"] != "c1":
            return {"result": "error", "error-reason": "Unknown call-id"}
        self.packets += 100
        stream = {
            "local address": "198.18.0.11",
            "local port": 30000,
            "endpoint": {"address": "198.18.0.101", "port": 7000},
            "flags": ["RTP"],
            "stats": {"packets": self.packets, "errors": 0},
        }
        return {"result": "ok", "tags": {"a": {"medias": [{"streams": [stream]}]}}}

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"end", ("127.0.0.1", self.port))
        self.thread.join(5)
        self.socket.close()
        assert not self.thread.is_alive()


def test_relay_is_looked_at_twice(run: Callable[..., Outcome]) -> None:
    relay = Relay()
    code, found = run(
        rtpengine_info.main, port=relay.port, call_ids=["c1", "c2"], watch_seconds=0.01
    )
    relay.close()
    assert code == 0
    assert found["calls"] == 2
    assert found["changed"] is False
    assert [session["call_id"] for session in found["sessions"]] == ["c1"]
    stream = found["sessions"][0]["streams"][0]
    assert (stream["packets_before"], stream["packets"]) == (100, 200)
    assert stream["in_kernel"] is None
    assert found["forwarded"] == {"kernel_before": 0, "user_before": 3, "kernel": 200, "user": 3}


def test_relay_is_looked_at_once(run: Callable[..., Outcome]) -> None:
    relay = Relay()
    _code, found = run(rtpengine_info.main, port=relay.port, call_ids=["c1"])
    relay.close()
    stream = found["sessions"][0]["streams"][0]
    assert (stream["packets_before"], stream["packets"]) == (100, 100)


def test_new_stream_counts_from_nothing() -> None:
    found = rtpengine_info.compared({}, {"c1": ng.Session("c1", (STREAM,))}, None)
    assert found[0]["streams"][0]["packets_before"] == 0


@pytest.mark.parametrize(
    ("later", "ports", "in_kernel"),
    [
        ({"last_kernel_packet": 72}, {STREAM.local}, True),
        ({"last_kernel_packet": 72, "kernelized": False}, {STREAM.local}, False),
        ({"last_kernel_packet": 72}, {"198.18.0.11:30002"}, False),
        # Its counter grows all the same: kernel and user space share it.
        ({"packets": 99}, {STREAM.local}, False),
    ],
)
def test_a_stream_is_in_the_kernel_that_forwards_it_now(
    later: dict[str, Any], ports: set[str], in_kernel: bool
) -> None:
    before = {"c1": ng.Session("c1", (STREAM,))}
    after = {"c1": ng.Session("c1", (dataclasses.replace(STREAM, **later),))}
    found = rtpengine_info.compared(before, after, ports)
    assert found[0]["streams"][0]["in_kernel"] is in_kernel


def test_a_relay_without_its_table_is_an_error(run: Callable[..., Outcome]) -> None:
    relay = Relay()
    code, found = run(rtpengine_info.main, port=relay.port, table=999)
    relay.close()
    assert code == 1
    assert found["msg"].startswith("table 999 of RTPEngine's kernel module cannot be read: ")


def test_silent_relay_is_named(run: Callable[..., Outcome]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    code, found = run(rtpengine_info.main, port=port)
    assert code == 1
    assert found["msg"].startswith(f"127.0.0.1:{port}: RTPEngine does not answer: ")


class Manager:
    """An Asterisk with one channel whose counters grow with each look."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.received = 30
        self.thread = threading.Thread(target=self.serve, daemon=True)
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
        start = f"Response: Success\nActionID: {headers['ActionID']}\n"
        if headers["Action"] == "Login" and headers["Secret"] != "geheim":
            return start.replace("Success", "Error") + "Message: Authentication failed\n\n"
        if headers["Action"] == "CoreShowChannels":
            self.received += 5
            number = f"ActionID: {headers['ActionID']}\n"
            return (
                f"{start}\nEvent: CoreShowChannel\n{number}Channel: PJSIP/verify-901-0000000a\n\n"
                f"Event: CoreShowChannelsComplete\n{number}EventList: Complete\n\n"
            )
        values = {"CHANNEL(pjsip,call-id)": "c1", "CHANNEL(rtcp,rxcount)": str(self.received)}
        return f"{start}Value: {values.get(headers.get('Variable', ''), '7')}\n\n"

    def close(self) -> None:
        self.thread.join(5)
        self.server.close()
        assert not self.thread.is_alive()


def test_pbx_is_looked_at_twice(run: Callable[..., Outcome]) -> None:
    manager = Manager()
    params = {"port": manager.port, "password": "geheim", "endpoints": ["verify-901"]}
    code, found = run(asterisk_channels.main, watch_seconds=0.01, **params)
    manager.close()
    assert code == 0
    assert found["channels"] == [
        {
            "channel": "PJSIP/verify-901-0000000a",
            "call_id": "c1",
            "received_before": 35,
            "received": 40,
            "sent_before": 7,
            "sent": 7,
        }
    ]


def test_channel_that_is_new_counts_from_nothing() -> None:
    media = ami.ChannelMedia("PJSIP/a-1-0000000a", "c1", 9, 8)
    found = asterisk_channels.compared([], [media])
    assert (found[0]["received_before"], found[0]["sent_before"]) == (0, 0)


def test_pbx_that_refuses_the_password_is_named(run: Callable[..., Outcome]) -> None:
    manager = Manager()
    code, found = run(
        asterisk_channels.main, port=manager.port, password="falsch", endpoints=["verify-901"]
    )
    manager.close()
    assert code == 1
    assert found["msg"].endswith("Asterisk refuses Login: Authentication failed")
    assert "falsch" not in json.dumps(found)


def test_session_is_private_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "session"
    path.mkdir()
    (path / "stale").touch()
    session = test_calls.Session(str(path))
    with session.open():
        assert path.stat().st_mode & 0o777 == 0o700
        assert list(path.iterdir()) == []
        other = test_calls.Session(str(path))
        with pytest.raises(phones.PhoneError, match="another run makes test calls"), other.open():
            pass
        assert path.exists()
    assert not path.exists()


def test_tasks_meet_during_the_conversation(tmp_path: Path) -> None:
    session = test_calls.Session(str(tmp_path / "session"))
    with session.open():
        talk = threading.Thread(target=session.hold, args=(["c1", "c9"], 30))
        started = time.monotonic()
        talk.start()
        assert session.meet(5) == ["c1", "c9"]
        assert talk.is_alive()
        session.part(0)
        talk.join(5)
        assert not talk.is_alive()
        assert time.monotonic() - started < 5


def test_part_waits_for_the_end_of_the_run(tmp_path: Path) -> None:
    session = test_calls.Session(str(tmp_path / "session"))

    def calls() -> None:
        with session.open():
            session.hold(["c1", "c9"], 30)
            time.sleep(0.3)

    run = threading.Thread(target=calls)
    run.start()
    session.meet(5)
    started = time.monotonic()
    session.part(0.1)
    assert time.monotonic() - started < 0.3
    assert run.is_alive()
    session.part(5)
    assert not session.path.exists()
    run.join(5)
    assert not run.is_alive()


def test_conversation_ends_without_the_other_tasks(tmp_path: Path) -> None:
    session = test_calls.Session(str(tmp_path / "session"))
    with session.open():
        session.hold(["c1", "c9"], 0.1)
        assert session.meet(0) == ["c1", "c9"]


def test_meeting_nobody_ends_in_time(run: Callable[..., Outcome], tmp_path: Path) -> None:
    session = str(tmp_path / "session")
    code, found = run(test_calls.main, phase="meet", session=session, hold_seconds=0.1)
    assert code == 1
    assert found["msg"] == f"no test calls are made in {session} within 0.1 s"
    code, found = run(test_calls.main, phase="part", session=session)
    assert (code, found["changed"]) == (0, False)


def test_meeting_talkers_returns_their_call_ids(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    session = test_calls.Session(str(tmp_path / "session"))
    with session.open():
        session.hold([], 30)
        code, found = run(test_calls.main, phase="meet", session=str(session.path))
    assert (code, found["call_ids"]) == (0, [])


def test_calls_need_accounts(run: Callable[..., Outcome]) -> None:
    code, found = run(test_calls.main)
    assert code == 1
    assert (
        "phase is run but all of the following are missing: proxy, caller, callee" in found["msg"]
    )


RESULT = {"check": "901 registers", "ok": True, "measured": "200 OK", "expected": "200"}


def test_filters_take_what_tasks_registered() -> None:
    filters = {
        **call_results.FilterModule().filters(),
        **result_table.FilterModule().filters(),
        **evidence_text.FilterModule().filters(),
    }
    found = filters["call_results"](
        {"results": [RESULT], "call_ids": ()},
        {"srv1": {"sessions": ()}},
        {"srv1": {"msg": "refused", "failed": True}},
    )
    assert [(result["check"], result["ok"]) for result in found] == [
        ("901 registers", True),
        ("PBX on srv1 answers", False),
        ("way of the audio", False),
    ]
    assert filters["result_table"](found).splitlines()[-1] == "3 checks, 2 failed"
    text = filters["evidence_text"]([{**found[1]}], {"901": ["INVITE"]})
    assert text.splitlines()[-2:] == ["phone 901:", "    INVITE"]
