# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service that lets relays follow their addresses: what it starts, kills and has written."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import load

agent = load("roles/valkey/templates/usr/local/lib/ringmain-relay/relay_agent.py")

LISTING = """\
ID:                                                      gen-a-2 | del:n | creat:  1795295706 | \
prx:198.51.100.21:56082 | redis: 1 | frgn:n | rec:n
ID: a|b=0123456789012345678901234567890123456789012345678901234567@192.0.2.1 | del:n | creat:  1 | \
prx:198.51.100.21:56082 | redis: 1 | frgn:n | rec:n
"""


def test_what_a_relay_says_of_its_sessions() -> None:
    assert agent.session_ids(LISTING) == {
        "gen-a-2",
        "a|b=0123456789012345678901234567890123456789012345678901234567@192.0.2.1",
    }
    assert agent.session_count("Current sessions own: 12\nCurrent sessions foreign: 3\n") == 12
    with pytest.raises(ValueError, match="has to say how many"):
        agent.session_count("")


# --- who is frozen ------------------------------------------------------------


def silence(watch: Any, start: float, process: int, count: int = agent.UNANSWERED) -> list[str]:
    """What is said of so many unanswered questions, one after another."""
    return [
        watch.unanswered(start + number * agent.TICK, lambda: process)
        for number in range(1, count + 1)
    ]


def test_who_answered_and_is_silent_is_frozen() -> None:
    watch = agent.Watch()
    watch.answered(10.0, lambda: 7)
    assert silence(watch, 10.0, 7) == ["wait"] * 4 + ["frozen"]
    assert silence(watch, 11.0, 7, 12) == ["wait"] * 12, "killed once, not each time"


def test_who_starts_is_left_in_peace() -> None:
    watch = agent.Watch()
    watch.begin(10.0)
    assert silence(watch, 10.0, 7, 20) == ["wait"] * 20
    watch.answered(20.0, lambda: 7)
    assert silence(watch, 20.0, 8, 8) == ["wait"] * 8, "another process than the one that answered"


def test_who_is_not_there_is_started_again() -> None:
    watch = agent.Watch()
    watch.answered(10.0, lambda: 7)
    assert silence(watch, 10.0, 0)[-1] == "gone"


def test_a_wait_of_ones_own_is_no_freeze() -> None:
    """Nobody is killed because this service, or the machine, stood still."""
    watch = agent.Watch()
    watch.answered(10.0, lambda: 7)
    assert silence(watch, 10.0, 7, 4) == ["wait"] * 4
    assert watch.unanswered(20.0, lambda: 7) == "wait"
    assert silence(watch, 20.0, 7, 4) == ["wait"] * 4
    assert silence(watch, 20.8, 7, 1) == ["frozen"]


# --- a relay ------------------------------------------------------------------


class Host:
    """What a relay finds: addresses, commands to systemd, and somebody who answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.local: set[str] = set()
        self.said: list[tuple[str, ...]] = []
        self.answering = False
        self.before = False
        self.process = 7
        self.killed: list[int] = []
        self.sessions = 0
        self.folder = folder
        monkeypatch.setattr(agent, "is_local", lambda address: address in self.local)
        monkeypatch.setattr(agent, "answers_at", lambda _address, _port: self.before)
        monkeypatch.setattr(agent, "systemctl", self.systemctl)
        monkeypatch.setattr(agent, "command_line", self.command_line)
        monkeypatch.setattr(agent.Relay, "_ping", lambda _relay: self.answering)
        monkeypatch.setattr(agent.os, "kill", lambda process, _signal: self.killed.append(process))

    def systemctl(self, *words: str) -> str:
        """Note it; say which process runs."""
        if words[0] == "show":
            return str(self.process)
        self.said.append(words)
        return ""

    def command_line(self, _address: str, _port: int, command: str) -> str:
        """Only how many sessions there are."""
        assert command == "list numsessions"
        return f"Current sessions own: {self.sessions}\n"

    def relay(self, home: bool = False) -> Any:
        """Relay 2 on this host."""
        found = {
            "number": 2,
            "home": home,
            "address": "192.0.2.22",
            "outside_address": "198.51.100.22",
            "unit": "rtpengine-guest@2.service",
            "cli_address": "127.0.0.3",
            "cli_port": 9900,
        }
        return agent.Relay(found, 2223, self.folder, "192.0.2.12")

    def flag(self, name: str) -> str:
        """What keepalived reads."""
        return (self.folder / f"relay-2.{name}").read_text().strip()


START = ("start", "--no-block", "rtpengine-guest@2.service")
STOP = ("stop", "--no-block", "rtpengine-guest@2.service")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    """One without any address of a relay."""
    return Host(monkeypatch, tmp_path)


def looks(relay: Any, start: float, count: int) -> None:
    """So many looks, a tick apart."""
    for number in range(count):
        relay.look(start + number * agent.TICK)


def test_a_relay_follows_its_addresses(host: Host) -> None:
    relay = host.relay()
    looks(relay, 0.0, 3)
    assert host.said == [STOP]
    assert host.flag("fault") == "0"
    host.local = {"192.0.2.22"}
    looks(relay, 1.0, 3)
    assert host.said == [STOP], "both addresses, or it has nothing to listen on"
    host.local = {"192.0.2.22", "198.51.100.22"}
    looks(relay, 2.0, 1)
    assert host.said == [STOP, START]
    assert host.flag("hold") == str(agent.CARRIES_GUEST), "its home, if that only stood still"
    host.answering, host.sessions = True, 3
    looks(relay, 2.2, 3)
    assert host.flag("hold") == str(agent.CARRIES_GUEST), "nobody takes a relay that carries calls"
    host.sessions = 0
    looks(relay, 4.0, 1)
    assert host.flag("hold") == "0", "an empty one may go home"
    host.local = set()
    looks(relay, 5.0, 2)
    assert host.said == [STOP, START, STOP]


def test_what_systemd_refuses_is_tried_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    relay = host.relay()

    def refuse(*_words: str) -> str:
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(agent, "systemctl", refuse)
        with pytest.raises(OSError, match="no"):
            relay.look(0.0)
    relay.look(1.0)
    assert host.said == [STOP]


def test_a_frozen_relay_is_killed(host: Host) -> None:
    host.local = {"192.0.2.22", "198.51.100.22"}
    host.answering = True
    relay = host.relay()
    looks(relay, 0.0, 3)
    host.answering = False
    looks(relay, 0.6, 4)
    assert host.killed == []
    looks(relay, 1.4, 1)
    assert host.killed == [7]
    assert not relay.answers, "its sessions are not compared before it has taken them up"


def test_a_relay_that_cannot_start_gives_its_addresses_away(host: Host) -> None:
    host.local = {"192.0.2.22", "198.51.100.22"}
    relay = host.relay()
    looks(relay, 0.0, 40)
    assert relay.fault.value == -1
    looks(relay, 8.2, 1)
    assert host.flag("fault") == "1"
    host.local = set()
    looks(relay, 9.0, 1)
    assert host.flag("fault") == "1", "not at once back to the host that cannot"
    looks(relay, 8.2 + agent.UNABLE_PAUSE, 1)
    assert host.flag("fault") == "0"


def test_a_relay_from_before_is_left_to_its_calls(host: Host) -> None:
    """site.yml gave a cluster in use floating addresses: nobody kills what still carries calls."""
    host.before = True
    relay = host.relay(home=True)
    looks(relay, 100.0, 40)
    assert host.said == []
    assert host.flag("fault") == "1"
    host.before = False
    looks(relay, 120.0, 2)
    assert host.said == [STOP]
    assert host.flag("fault") == "0"


# --- the store ----------------------------------------------------------------


class Peer:
    """A Valkey that gives prepared answers, and what it was asked."""

    def __init__(self, answers: Callable[[list[str]], bytes]) -> None:
        self.asked: list[list[str]] = []
        self._answers = answers
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _address = self._server.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                while head := stream.readline():
                    words = []
                    for _word in range(int(head[1:])):
                        size = int(stream.readline()[1:])
                        words.append(stream.read(size + 2)[:-2].decode("latin-1"))
                    self.asked.append(words)
                    stream.write(b"+OK\r\n" if words[0] == "AUTH" else self._answers(words))
                    stream.flush()

    def close(self) -> None:
        """No further connection."""
        self._server.close()

    def commands(self) -> list[list[str]]:
        """What it was asked but for passwords and looks."""
        return [words for words in self.asked if words[0] not in ("AUTH", "ROLE", "SELECT", "INFO")]


class Valkey:
    """What a Valkey answers; tests change it."""

    def __init__(self) -> None:
        self.role = b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
        self.bind = b"127.0.0.1 192.0.2.11"
        self.life = b"one"
        self.keys: list[bytes] = []

    def __call__(self, words: list[str]) -> bytes:
        if words[0] == "ROLE":
            return self.role
        if words[:2] == ["CONFIG", "GET"]:
            return b"*2\r\n$4\r\nbind\r\n$%d\r\n%s\r\n" % (len(self.bind), self.bind)
        if words[0] == "INFO":
            text = b"# Server\r\nrun_id:%s\r\nport:1\r\n" % self.life
            return b"$%d\r\n%s\r\n" % (len(text), text)
        if words[0] == "DBSIZE":
            return b":%d\r\n" % len(self.keys)
        if words[0] == "KEYS":
            keys = b"".join(b"$%d\r\n%s\r\n" % (len(key), key) for key in self.keys)
            return b"*%d\r\n%s" % (len(self.keys), keys)
        if words[0] == "BROKEN":
            return b"-ERR no such thing\r\n"
        return b"+OK\r\n"


@pytest.fixture
def valkey() -> Valkey:
    """One that takes writes and is empty."""
    return Valkey()


@pytest.fixture
def peer(valkey: Valkey) -> Iterator[Peer]:
    """It, on a port."""
    found = Peer(valkey)
    yield found
    found.close()


def settings_of(peer: Peer) -> dict[str, Any]:
    return {
        "unit": "valkey-server.service",
        "address": "192.0.2.11",
        "port": peer.port,
        "primary": "127.0.0.1",
        "password": "secret",
    }


def test_answers_of_all_kinds(peer: Peer, valkey: Valkey) -> None:
    store = agent.Store("127.0.0.1", peer.port, "secret")
    valkey.keys = [b"a", b"b\r\nc"]
    assert store.ask("KEYS", "*") == [b"a", b"b\r\nc"]
    assert store.ask("DBSIZE") == 2
    assert store.ask("SET", "x", b"1") == b"OK"
    with pytest.raises(agent.StoreError, match="no such thing"):
        store.ask("BROKEN")
    assert peer.asked[0] == ["AUTH", "secret"]
    peer.close()
    store.close()
    with pytest.raises(OSError, match=r"Valkey at 127\.0\.0\.1"):
        store.ask("PING")


def test_valkey_takes_writes_where_the_first_relay_is(peer: Peer, valkey: Valkey) -> None:
    store = agent.LocalStore(settings_of(peer) | {"primary": "192.0.2.21"})
    valkey.role = b"*5\r\n$5\r\nslave\r\n$10\r\n192.0.2.21\r\n:6379\r\n$7\r\nconnect\r\n:-1\r\n"
    store._watch._process = 7
    store.look(0.0, first=False)
    assert peer.commands() == []
    assert not store.copied
    valkey.role = valkey.role.replace(b"$7\r\nconnect\r\n", b"$9\r\nconnected\r\n")
    store.look(0.2, first=False)
    assert store.copied
    store.look(0.4, first=True)
    assert peer.commands() == [
        ["CONFIG", "GET", "bind"],
        ["CONFIG", "SET", "bind", "127.0.0.1 192.0.2.11 192.0.2.21"],
        ["REPLICAOF", "NO", "ONE"],
    ]
    valkey.role = b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
    valkey.bind = b"127.0.0.1 192.0.2.11 192.0.2.21"
    store.look(0.6, first=True)
    assert peer.commands()[3:] == [["CONFIG", "GET", "bind"]]
    store.look(0.8, first=False)
    assert peer.commands()[4:] == [["REPLICAOF", "192.0.2.21", str(peer.port)]]


class Sessions:
    """A relay's command line."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ids: list[str] = []
        self.written = 0
        monkeypatch.setattr(agent, "command_line", self)

    def __call__(self, _address: str, _port: int, command: str) -> str:
        if command == "active":
            self.written += 1
        if command == "list sessions own":
            return "".join(f"ID: {name:>60} | del:n | creat: 1\n" for name in self.ids)
        return f"Current sessions own: {len(self.ids)}\n"


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> Sessions:
    """One without sessions."""
    return Sessions(monkeypatch)


def test_what_the_store_lacks_is_written_again(
    peer: Peer, valkey: Valkey, sessions: Sessions, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "command_line", sessions)
    relay = host.relay()
    sync = agent.Sync(settings_of(peer))
    sessions.ids, valkey.keys = ["a", "b"], [b"a", b"b"]
    sync.look([relay])
    sync.look([relay])
    assert sessions.written == 0
    assert ["SELECT", "2"] in peer.asked
    sessions.ids = ["a", "b", "c"]
    sync.look([relay])
    assert sessions.written == 0, "a call that begins is written in a moment"
    sync.look([relay])
    assert sessions.written == 1
    valkey.keys = [b"a", b"b", b"c"]
    sync.look([relay])
    sync.look([relay])
    assert sessions.written == 1
    valkey.life, valkey.keys = b"two", []
    sync.look([relay])
    assert sessions.written == 2, "at once when the store has begun a new life"


def test_what_is_no_session_any_more_leaves_the_store(
    peer: Peer, valkey: Valkey, sessions: Sessions, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "command_line", sessions)
    relay = host.relay()
    sync = agent.Sync(settings_of(peer))
    sessions.ids, valkey.keys = ["a"], [b"a", b"gone"]
    sync.look([relay])
    assert [words for words in peer.asked if words[0] == "DEL"] == []
    sync.look([relay])
    assert [words for words in peer.asked if words[0] == "DEL"] == [["DEL", "gone"]]
    assert sessions.written == 0


def test_as_many_keys_as_sessions_may_be_others(
    peer: Peer, valkey: Valkey, sessions: Sessions, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "command_line", sessions)
    relay = host.relay()
    sync = agent.Sync(settings_of(peer))
    sessions.ids, valkey.keys = ["a"], [b"a"]
    sync.look([relay])
    sessions.ids = ["b"]
    for _look in range(agent.WHOLE_LOOK):
        sync.look([relay])
    assert sessions.written == 1
