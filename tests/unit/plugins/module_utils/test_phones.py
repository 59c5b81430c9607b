# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control connection against scripted bytes, the process against a scripted baresip.

What the real baresip does with all this is shown on the lab by verify.yml.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import phones, tones

ACCOUNT = phones.Account("901", "verify.example.net", "geheim")
PROXY = phones.Proxy("198.18.0.10", 5060)

# Answers commands as baresip 1.1 does; what a call does is given by the number dialled.
SCRIPTED_BARESIP = """#!{python}
import json, os, re, socket, sys, wave
directory = sys.argv[sys.argv.index("-f") + 1]
config = open(directory + "/config").read()
if "198.18.9.9" in config:
    print("main: network init failed", flush=True)
    sys.exit(1)
port = int(re.search(r"ctrl_tcp_listen\\t127.0.0.1:(\\d+)", config)[1])
listener = socket.create_server(("127.0.0.1", port))
peer, _address = listener.accept()
stream = peer.makefile("rwb")

def send(message):
    data = json.dumps(message).encode()
    stream.write(b"%d:%s," % (len(data), data))
    stream.flush()

def event(kind, **more):
    send({{"event": True, "type": kind, **more}})

while True:
    digits = b""
    while (digit := stream.read(1)) not in (b":", b""):
        digits += digit
    if not digits:
        break
    command = json.loads(stream.read(int(digits)))
    stream.read(1)
    name, params, data, ok = command["command"], command["params"], "", True
    if name == "uanew":
        print("account", params.partition(">")[0], flush=True)
        event("REGISTER_OK" if "geheim" in params else "REGISTER_FAIL",
              param="200 OK" if "geheim" in params else "401 Unauthorized")
    elif name == "dial" and params == "sip:nobody@x":
        data = "call id: c0\\n"
        event("CALL_CLOSED", id="c0", param="404 Not Found", direction="outgoing")
    elif name == "dial" and params == "sip:silent@x":
        data = "call id: c2\\n"
    elif name == "dial" and params == "sip:odd@x":
        data = "nothing to dial with\\n"
    elif name == "dial":
        data = "call id: c1\\n"
        event("CALL_ESTABLISHED", id="c1", param=params, direction="outgoing")
        event("CALL_ESTABLISHED", id="c9", param="sip:other@x", direction="incoming")
        with wave.open(directory + "/heard.wav", "wb") as heard:
            heard.setparams((1, 2, 8000, 0, "NONE", ""))
            heard.writeframes(b"\\0\\0" * 800)
    elif name == "hangup" and params == "c1":
        print("packets:   303    301", flush=True)
        event("CALL_CLOSED", id="c1", param="Connection reset by user")
    elif name == "hang":
        continue
    elif name == "unknown":
        ok = False
    send({{"response": True, "ok": ok, "data": data, "token": command["token"]}})
"""


class Clock:
    """Time that passes only while somebody waits for bytes."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Scripted:
    """A transport: each receive takes the next item; None lets the whole timeout pass."""

    def __init__(self, clock: Clock, *items: bytes | None) -> None:
        self.clock = clock
        self.items = list(items)
        self.sent = b""
        self.closed = False

    def send(self, data: bytes) -> None:
        self.sent += data

    def receive(self, timeout: float) -> bytes | None:
        item = self.items.pop(0) if self.items else None
        self.clock.now += timeout if item is None else 0.25
        return item

    def close(self) -> None:
        self.closed = True


def control(*items: bytes | None) -> tuple[phones.Control, Scripted]:
    clock = Clock()
    transport = Scripted(clock, *items)
    return phones.Control(transport, "901", clock), transport


def message(**content: Any) -> bytes:
    return phones.netstring(json.dumps(content).encode())


def test_account_line_sends_everything_to_the_proxy() -> None:
    assert phones.account_line(ACCOUNT, PROXY, 3600) == (
        "<sip:901@verify.example.net;transport=udp>;auth_user=901;auth_pass=geheim"
        ';outbound="sip:198.18.0.10:5060;transport=udp";regint=3600;answermode=auto'
        ";audio_codecs=PCMA/8000/1;mwi=no;call_transfer=no"
    )


@pytest.mark.parametrize(
    ("account", "what"),
    [
        (phones.Account("9;1", "verify.example.net", "geheim"), "user"),
        (phones.Account("901", "", "geheim"), "domain"),
        (phones.Account("901", "verify.example.net", 'ge"heim'), "password"),
        (phones.Account("901", "verify.example.net", "geheim\n"), "password"),
    ],
)
def test_account_that_would_break_the_line_is_refused(account: phones.Account, what: str) -> None:
    with pytest.raises(phones.PhoneError, match=f"the {what} of .* is empty or has a character"):
        phones.account_line(account, PROXY, 60)


def test_other_transports_are_refused() -> None:
    with pytest.raises(phones.PhoneError, match="transport 'tls' is neither udp nor tcp"):
        phones.account_line(ACCOUNT, phones.Proxy("198.18.0.10", 5061, "tls"), 60)


def test_password_is_in_no_representation() -> None:
    assert "geheim" not in repr(ACCOUNT)
    assert ACCOUNT.aor == "901@verify.example.net"


def test_configuration_stays_in_its_directory() -> None:
    text = phones.configuration("/run/p", "198.18.0.101", "outside", 5070, 4470)
    assert "sip_listen\t198.18.0.101:5070\n" in text
    assert "net_interface\toutside\n" in text
    assert "ctrl_tcp_listen\t127.0.0.1:4470\n" in text
    assert "audio_player\taufile,/run/p/heard.wav\n" in text
    assert "account" not in text


def test_netstrings_arrive_in_pieces() -> None:
    reader = phones.NetstringReader()
    assert reader.feed(b"1") == []
    assert reader.feed(b"1:hello ") == []
    assert reader.feed(b"world") == []
    assert reader.feed(b",0:,2:a") == [b"hello world", b""]
    assert reader.feed(b"b,") == [b"ab"]


@pytest.mark.parametrize("data", [b"hello", b"5:hellox", b"9999999:x", b"123456789", b":x"])
def test_other_protocols_are_noticed(data: bytes) -> None:
    with pytest.raises(phones.PhoneError, match="not its control protocol"):
        phones.NetstringReader().feed(data)


def test_command_waits_for_its_own_answer_and_keeps_events() -> None:
    link, transport = control(
        message(event=True, type="CALL_RINGING", id="c1", param="sip:x"),
        message(response=True, ok=True, data="late", token="0")
        + message(message=True, body="text")
        + message(response=True, ok=True, data="done", token="1"),
    )
    assert link.command("dial", "sip:902@x") == "done"
    sent = transport.sent.partition(b":")[2][:-1]
    assert json.loads(sent) == {"command": "dial", "params": "sip:902@x", "token": "1"}
    assert [(event.kind, event.call_id, event.at) for event in link.events] == [
        ("CALL_RINGING", "c1", 100.25)
    ]


def test_command_fails_without_showing_its_parameters() -> None:
    link, _transport = control(message(response=True, ok=False, data="geheim", token="1"))
    with pytest.raises(phones.PhoneError) as refused:
        link.command("uanew", "auth_pass=geheim")
    assert str(refused.value) == "901: the command uanew was refused"


def test_command_without_answer_ends_at_its_deadline() -> None:
    link, transport = control(message(event=True, type="CALL_RTCP"), None)
    with pytest.raises(phones.PhoneError, match="901: no answer to the command hang in 5 s"):
        link.command("hang")
    assert transport.clock.now == 105.0


def test_command_that_baresip_would_cut_is_refused() -> None:
    link, transport = control()
    with pytest.raises(phones.PhoneError, match="the command uanew is too long"):
        link.command("uanew", "x" * 1000)
    assert transport.sent == b""


def test_end_of_the_connection_is_an_error() -> None:
    link, _transport = control(b"")
    with pytest.raises(phones.PhoneError, match="901: the phone has closed its control conn"):
        link.pump(1)


def test_unreadable_message_is_an_error() -> None:
    link, _transport = control(phones.netstring(b"{"))
    with pytest.raises(phones.PhoneError, match="901: unreadable message from the phone"):
        link.pump(1)


def test_wait_finds_earlier_and_later_events_from_a_position_on() -> None:
    link, transport = control(
        message(event=True, type="A") + message(event=True, type="B"),
        None,
        message(event=True, type="A", param="second"),
    )
    assert link.wait(lambda event: event.kind == "B", 3) == link.events[1]
    assert link.wait(lambda event: event.kind == "A", 3) == link.events[0]
    assert link.wait(lambda event: event.kind == "A", 3, since=2) is None
    found = link.wait(lambda event: event.kind == "A", 3, since=2)
    assert found is not None
    assert found.param == "second"
    link.close()
    assert transport.closed


@pytest.mark.parametrize(
    ("param", "code"), [("404 Not Found", 404), ("Connection reset by peer", None), ("", None)]
)
def test_code_of_an_event(param: str, code: int | None) -> None:
    assert phones.Event(0, "CALL_CLOSED", "c", param, "", "", {}).code == code


def test_packet_counts_are_the_last_in_the_log() -> None:
    assert phones.packet_counts("nothing") is None
    log = "packets:   1   2\nx\npackets:            443          444\navg. bitrate: 57.5\n"
    assert phones.packet_counts(log) == phones.Packets(443, 444)


def test_log_is_readable_and_hides_digest_responses() -> None:
    log = (
        "one\n\n\x1b[36;1m#\n\x1b[;mREGISTER sip:x SIP/2.0\r\n"
        'Authorization: Digest username="901", response="abc", qop=auth\r\n'
        'Proxy-Authorization: Digest response="def"\n'
    )
    assert phones.readable_log(log, 4) == [
        "#",
        "REGISTER sip:x SIP/2.0",
        'Authorization: Digest username="901", response="(hidden)", qop=auth',
        'Proxy-Authorization: Digest response="(hidden)"',
    ]


TRACE = """\
baresip v1.1.0
baresip is ready.
\x1b[36;1m#
UDP 198.18.0.101:5070 -> 198.18.0.10:5060
REGISTER sip:x;transport=udp SIP/2.0
Via: SIP/2.0/UDP 198.18.0.101:5070
Call-ID: abc
CSeq: 7 REGISTER
Supported:
Content-Length: 0

\x1b[;m
\x1b[36;1m#
UDP 198.18.0.10:5060 -> 198.18.0.101:5070
SIP/2.0 200 OK
Call-ID: abc
CSeq: 7 REGISTER

v=0
o=- 1 1 IN IP4 198.18.0.10
\x1b[;m
901@x: (prio 0) {0/UDP/v4} 200 OK () [1 binding]
packets:            303          303
#
TCP 198.18.0.10:5060 -> 198.18.0.101:5070
"""


def test_ladder_has_one_line_for_a_message() -> None:
    assert phones.ladder(TRACE) == [
        "UDP 198.18.0.101:5070 -> 198.18.0.10:5060  REGISTER sip:x;transport=udp SIP/2.0"
        "  (CSeq 7 REGISTER, Call-ID abc)",
        "UDP 198.18.0.10:5060 -> 198.18.0.101:5070  SIP/2.0 200 OK  (CSeq 7 REGISTER, Call-ID abc)",
        "901@x: (prio 0) {0/UDP/v4} 200 OK () [1 binding]",
        "packets:            303          303",
        "TCP 198.18.0.10:5060 -> 198.18.0.101:5070    (CSeq ?, Call-ID ?)",
    ]


def test_ladder_of_a_phone_that_never_was_ready_is_what_it_said() -> None:
    assert phones.ladder("") == []
    assert phones.ladder("main: network init failed\n") == ["main: network init failed"]


def test_path_is_what_the_kernel_says() -> None:
    def run(command: Sequence[str]) -> str:
        assert list(command) == ["ip", "-json", "route", "get", "198.18.0.10"]
        return '[{"dst":"198.18.0.10","dev":"outside","prefsrc":"198.18.0.101","flags":[]}]'

    assert phones.path_to("198.18.0.10", run) == ("198.18.0.101", "outside")


@pytest.mark.parametrize(
    "failure",
    [
        subprocess.CalledProcessError(2, "ip"),
        FileNotFoundError("ip"),
        ValueError("no JSON"),
        IndexError("no route"),
    ],
)
def test_no_path_is_an_error(failure: Exception) -> None:
    def run(_command: Sequence[str]) -> str:
        raise failure

    with pytest.raises(phones.PhoneError, match=r"this host has no route to 198\.18\.0\.10"):
        phones.path_to("198.18.0.10", run)


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., phones.Phone]:
    program = tmp_path / "baresip"
    program.write_text(SCRIPTED_BARESIP.format(python=sys.executable), encoding="utf-8")
    program.chmod(0o700)

    def start(address: str = "127.0.0.1", program: str = str(program)) -> phones.Phone:
        directory = tmp_path / "phone"
        return phones.launch("901", directory, (address, "lo"), 800, 2, program)

    return start


def test_phone_lives_in_a_private_directory_and_takes_it_along(
    launch: Callable[..., phones.Phone], tmp_path: Path
) -> None:
    directory = tmp_path / "phone"
    with launch() as phone:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        tone = tones.listen(tones.read_wave((directory / "tone.wav").read_bytes()), 800)
        assert (tone.heard_ms, tone.gaps) == (3000, ())
        phone.add_account(ACCOUNT, PROXY, 60)
        event = phone.registered(2)
        assert event is not None
        assert event.code == 200
        for path in directory.iterdir():
            assert b"geheim" not in path.read_bytes()
        pid = phone._process.pid
    assert not directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_phone_tells_of_a_refused_registration(launch: Callable[..., phones.Phone]) -> None:
    with launch() as phone:
        phone.add_account(phones.Account("901", "verify.example.net", "wrong"), PROXY, 60)
        event = phone.registered(2)
        assert event is not None
        assert event.code == 401


def test_phone_calls_hears_and_hangs_up(launch: Callable[..., phones.Phone]) -> None:
    with launch() as phone:
        assert phone.recording() == b""
        position = phone.position()
        attempt = phone.dial("sip:902@x", 2)
        assert (attempt.call_id, attempt.answered, attempt.code) == ("c1", True, 200)
        incoming = phone.incoming(2)
        assert incoming is not None
        assert incoming.call_id == "c9"
        phone.hang_up("c1")
        ended = phone.closed("c1", 2)
        assert ended is not None
        assert ended.param == "Connection reset by user"
        assert len(tones.read_wave(phone.recording())) == 800
        assert phone.recording() == b""
        assert phones.packet_counts(phone.log(position)) == phones.Packets(303, 301)


def test_phone_tells_why_a_call_was_not_answered(launch: Callable[..., phones.Phone]) -> None:
    with launch() as phone:
        refused = phone.dial("sip:nobody@x", 2)
        assert (refused.answered, refused.code, refused.reason) == (False, 404, "404 Not Found")
        silent = phone.dial("sip:silent@x", 0.2)
        assert (silent.answered, silent.code, silent.reason) == (False, None, "no answer in 0.2 s")
        with pytest.raises(phones.PhoneError, match="did not dial sip:odd@x: nothing to dial"):
            phone.dial("sip:odd@x", 2)


def test_phone_that_is_gone_is_noticed(launch: Callable[..., phones.Phone]) -> None:
    with launch() as phone:
        phone._process.kill()
        with pytest.raises(phones.PhoneError, match="has closed its control connection"):
            phone.control.pump(2)


def test_phone_that_crashes_is_told_from_one_that_lives(
    launch: Callable[..., phones.Phone],
) -> None:
    with launch() as phone:
        assert not phone.crashed()
        os.kill(phone._process.pid, signal.SIGSEGV)
        assert phone.crashed(5.0)


def test_phone_that_does_not_come_up_says_why(
    launch: Callable[..., phones.Phone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phones, "free_port", lambda _address, _kind: 4470)
    with pytest.raises(phones.PhoneError, match="it said: main: network init failed"):
        launch(address="198.18.9.9")
    assert not (tmp_path / "phone").exists()


def test_missing_program_is_an_error(launch: Callable[..., phones.Phone], tmp_path: Path) -> None:
    with pytest.raises(phones.PhoneError, match="cannot start /nowhere/baresip: No such file"):
        launch(program="/nowhere/baresip")
    assert not (tmp_path / "phone").exists()


def test_stubborn_phone_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint(1, flush=True)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", program + "time.sleep(60)"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    directory = tmp_path / "phone"
    directory.mkdir()
    link, transport = control()
    monkeypatch.setattr(phones, "PATIENCE", 0.2)
    phones.Phone(link, process, directory).stop()
    assert process.returncode == -9
    assert transport.closed
    process.stdout.close()


def test_socket_transport_reports_silence_bytes_and_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        transport = phones.SocketTransport(socket.create_connection(server.getsockname()))
        peer, _address = server.accept()
        assert transport.receive(0.01) is None
        peer.sendall(b"abc")
        assert transport.receive(1) == b"abc"
        transport.send(b"def")
        assert peer.recv(10) == b"def"
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        peer.close()
        assert transport.receive(1) == b""
        transport.close()
