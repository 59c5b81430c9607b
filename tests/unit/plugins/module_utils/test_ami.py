# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manager client against bytes as Asterisk 22 sends them."""

from __future__ import annotations

import re
import socket
import threading

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import ami

BANNER = b"Asterisk Call Manager/9.0.0\r\n"


def message(**headers: str) -> bytes:
    return "".join(f"{key}: {value}\r\n" for key, value in headers.items()).encode() + b"\r\n"


class Scripted:
    """A transport that answers the n-th action with the n-th script; `{}` is its ActionID."""

    def __init__(self, *answers: bytes, first: bytes = BANNER) -> None:
        self.answers = list(answers)
        self.pending = [first]
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.sent.append(data)
        number = re.search(rb"ActionID: (\d+)", data)
        assert number is not None
        if self.answers:
            self.pending.append(self.answers.pop(0).replace(b"{}", number.group(1)))

    def receive(self) -> bytes:
        if not self.pending:
            raise TimeoutError("timed out")
        # In small pieces, as a network may deliver it.
        data = self.pending.pop(0)
        if len(data) > 7:
            self.pending.insert(0, data[7:])
        return data[:7]


OK = message(Response="Success", ActionID="{}")


def logged_in(*answers: bytes) -> tuple[ami.Client, Scripted]:
    transport = Scripted(OK, *answers)
    client = ami.Client(transport)
    client.login("ringmain", "geheim")
    return client, transport


def test_login_wants_no_events() -> None:
    _client, transport = logged_in()
    assert transport.sent == [
        b"Action: Login\r\nActionID: 1\r\n"
        b"Username: ringmain\r\nSecret: geheim\r\nEvents: off\r\n\r\n"
    ]


def test_other_servers_are_noticed() -> None:
    with pytest.raises(ami.AmiError, match=r"this is not Asterisk's manager: b'SSH-2\.0"):
        ami.Client(Scripted(first=b"SSH-2.0-x\r\n")).login("ringmain", "geheim")


def test_refused_login_does_not_show_the_secret() -> None:
    answer = message(Response="Error", ActionID="{}", Message="Authentication failed")
    with pytest.raises(ami.AmiError) as refused:
        ami.Client(Scripted(answer)).login("ringmain", "geheim")
    assert str(refused.value) == "Asterisk refuses Login: Authentication failed"


def test_events_and_answers_to_others_are_passed_over() -> None:
    client, _transport = logged_in(
        message(Event="FullyBooted") + message(Response="Success", ActionID="9") + OK
    )
    assert client.action("Ping")["ActionID"] == "2"


def test_listing_ends_at_its_mark() -> None:
    client, _transport = logged_in(
        message(Response="Success", ActionID="{}", EventList="start")
        + message(Event="CoreShowChannel", ActionID="{}", Channel="PJSIP/a-1-0000000a")
        + message(Event="CoreShowChannelsComplete", ActionID="{}", EventList="Complete"),
        message(Response="Error", ActionID="{}"),
    )
    assert [item["Channel"] for item in client.listing("CoreShowChannels")] == [
        "PJSIP/a-1-0000000a"
    ]
    with pytest.raises(ami.AmiError, match="Asterisk refuses CoreShowChannels: no reason given"):
        client.listing("CoreShowChannels")


def test_line_break_cannot_add_a_header() -> None:
    client, transport = logged_in()
    with pytest.raises(ami.AmiError, match="a line break in Channel of Getvar"):
        client.variable("x\r\nAction: Command", "y")
    assert len(transport.sent) == 1


def test_silence_is_an_error() -> None:
    client, _transport = logged_in()
    with pytest.raises(ami.AmiError, match="Asterisk's manager does not answer: timed out"):
        client.action("Ping")


def test_closed_connection_is_an_error() -> None:
    transport = Scripted(first=b"")
    with pytest.raises(ami.AmiError, match="Asterisk's manager has closed the connection"):
        ami.Client(transport).login("ringmain", "geheim")


def test_connection_lost_while_sending_is_an_error() -> None:
    class Broken(Scripted):
        def send(self, data: bytes) -> None:
            raise BrokenPipeError("Broken pipe")

    with pytest.raises(ami.AmiError, match="Asterisk's manager is gone: Broken pipe"):
        ami.Client(Broken()).login("ringmain", "geheim")


def test_message_without_an_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ami, "_LONGEST_MESSAGE", 20)
    with pytest.raises(ami.AmiError, match="sends a message without an end"):
        ami.Client(Scripted(first=b"x" * 40)).login("ringmain", "geheim")


def test_media_of_the_channels_of_some_endpoints() -> None:
    def value(text: str) -> bytes:
        return message(Response="Success", ActionID="{}", Value=text)

    client, transport = logged_in(
        message(Response="Success", ActionID="{}", EventList="start")
        + b"".join(
            message(Event="CoreShowChannel", ActionID="{}", Channel=name)
            for name in (
                "PJSIP/verify-901-0000000a",
                "PJSIP/verify-9011-0000000b",
                "PJSIP/verify-902-0000000c",
                "PJSIP/verify-902-0000000d",
                "Local/verify-901-0000000e",
            )
        )
        + message(Event="CoreShowChannelsComplete", ActionID="{}", EventList="Complete"),
        value("call-1"),
        value("31"),
        value("29"),
        message(Response="Error", ActionID="{}", Message="No such channel"),
        value("call-2"),
        value(""),
        value("2"),
    )
    assert ami.channel_media(client, ["verify-901", "verify-902"]) == [
        ami.ChannelMedia("PJSIP/verify-901-0000000a", "call-1", 31, 29),
        ami.ChannelMedia("PJSIP/verify-902-0000000d", "call-2", 0, 2),
    ]
    assert b"Variable: CHANNEL(pjsip,call-id)\r\n" in transport.sent[2]


def test_other_refusals_of_a_variable_are_errors() -> None:
    client, _transport = logged_in(
        message(Response="Success", ActionID="{}")
        + message(Event="CoreShowChannel", ActionID="{}", Channel="PJSIP/a-1-0000000a")
        + message(Event="CoreShowChannelsComplete", ActionID="{}", EventList="Complete"),
        message(Response="Error", ActionID="{}", Message="Permission denied"),
    )
    with pytest.raises(ami.AmiError, match="Asterisk refuses Getvar: Permission denied"):
        ami.channel_media(client, ["a-1"])


def test_socket_transport_speaks_to_a_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _address = server.accept()
            with peer:
                peer.sendall(BANNER)
                peer.recv(1000)
                peer.sendall(OK.replace(b"{}", b"1"))

        thread = threading.Thread(target=serve)
        thread.start()
        transport = ami.SocketTransport("127.0.0.1", server.getsockname()[1])
        ami.Client(transport).login("ringmain", "geheim")
        thread.join(5)
        transport.close()
        port = server.getsockname()[1]
    with pytest.raises(ami.AmiError, match="no connection to Asterisk's manager"):
        ami.SocketTransport("127.0.0.1", port)


def channel(**headers: str) -> bytes:
    return message(Event="CoreShowChannel", ActionID="{}", **headers)


START = message(Response="Success", ActionID="{}", EventList="start")
COMPLETE = message(Event="CoreShowChannelsComplete", ActionID="{}", EventList="Complete")


def test_calls_are_counted_by_what_belongs_together() -> None:
    up = {"ChannelStateDesc": "Up", "Linkedid": "1.1"}
    client, _transport = logged_in(
        START
        + channel(Channel="PJSIP/a-1", Uniqueid="1.1", Duration="01:02:03", **up)
        + channel(Channel="PJSIP/b-2", Uniqueid="1.2", Duration="00:00:09", **up)
        + channel(Channel="PJSIP/c-3", Uniqueid="1.3", ChannelStateDesc="Ring", Duration="?")
        + COMPLETE
    )
    found = ami.channels(client)
    assert found == [
        ami.Channel("PJSIP/a-1", "1.1", "Up", 3723),
        ami.Channel("PJSIP/b-2", "1.1", "Up", 9),
        ami.Channel("PJSIP/c-3", "1.3", "Ring", 0),
    ]
    assert ami.calls(found) == 2
    assert [each.answered for each in found] == [True, True, False]


def test_hanging_up_passes_over_what_has_ended() -> None:
    client, transport = logged_in(
        OK, message(Response="Error", ActionID="{}", Message="No such channel"), OK
    )
    found = [
        ami.Channel("PJSIP/a-1", "1", "Up", 1),
        ami.Channel("PJSIP/b-2", "1", "Up", 1),
        ami.Channel("PJSIP/c-3", "2", "Ring", 1),
    ]
    assert ami.hang_up(client, found) == 2
    causes = [re.search(rb"Cause: (\d+)", sent) for sent in transport.sent[1:]]
    assert [cause and cause[1] for cause in causes] == [b"16", b"16", b"34"]


def test_a_refused_hang_up_is_an_error() -> None:
    client, _transport = logged_in(
        message(Response="Error", ActionID="{}", Message="Permission denied")
    )
    with pytest.raises(ami.AmiError, match="Asterisk refuses Hangup: Permission denied"):
        ami.hang_up(client, [ami.Channel("PJSIP/a-1", "1", "Up", 1)])
