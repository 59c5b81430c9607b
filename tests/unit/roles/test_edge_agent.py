# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The edge's data service: the copy it keeps, and when it leaves it alone."""

from __future__ import annotations

import json
import logging
import socket
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from programs import load

agent = load("roles/kamailio/templates/usr/local/lib/ringmain-edge/edge_agent.py")

TABLES = {
    "edge_tenant": [("a.example", "a")],
    "edge_subscriber": [("901@a.example", "0" * 32)],
    "edge_route": [("a:901", "extension:901"), (":4930", "a:extension:901")],
}


class Database:
    """A connection whose views hold C(tables), or which fails."""

    def __init__(self, tables: dict[str, list[tuple[str, str]]]) -> None:
        self.tables = tables
        self.fails = False
        self.fetched = 0
        self.closed = 0
        self._rows: list[Any] = []

    def __call__(self) -> Database:
        if self.fails:
            raise OSError("no route")
        return self

    def cursor(self) -> Database:
        return self

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def close(self) -> None:
        self.closed += 1

    def execute(self, statement: str) -> None:
        if self.fails:
            raise OSError("gone")
        name = statement.split()[-1]
        if statement.startswith("SELECT COUNT"):
            rows = self.tables[name]
            self._rows = [(len(rows), hash(tuple(sorted(rows))))]
        elif statement.startswith("SELECT key_name"):
            self.fetched += 1
            self._rows = list(self.tables[name])

    def fetchone(self) -> Any:
        return self._rows[0]

    def fetchall(self) -> Any:
        return self._rows


class Kamailio:
    def __init__(self) -> None:
        self.calls: list[tuple[str, list[Any]]] = []
        self.away = False

    def __call__(self, method: str, params: list[Any]) -> str:
        if self.away:
            raise FileNotFoundError("no socket")
        self.calls.append((method, params))
        return "Ok"


RELOADS = [("htable.reload", [table]) for table in ("tenant", "subscriber", "route")]


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Any, Database, Kamailio, Path]:
    database = Database({name: list(rows) for name, rows in TABLES.items()})
    kamailio = Kamailio()
    path = tmp_path / "edge.sqlite"
    made = agent.Agent(
        {
            "data_file": str(path),
            "database_driver": "mariadb",
            "outside_ip": "192.0.2.1",
            "interval": 1,
        },
        kamailio,
        database,
    )
    return made, database, kamailio, path


def content(path: Path, table: str) -> list[tuple[str, str]]:
    database = sqlite3.connect(path)
    try:
        return database.execute(f"SELECT key_name, key_value FROM {table} ORDER BY 1").fetchall()
    finally:
        database.close()


def step(made: Any) -> None:
    made.copy()
    made.tell()


def test_the_first_round_copies_everything_and_marks_it(parts: Any) -> None:
    made, kamailio, path = parts[0], parts[2], parts[3]
    step(made)
    assert content(path, "edge_tenant") == [("*", "filled"), ("a.example", "a")]
    assert content(path, "edge_subscriber") == TABLES["edge_subscriber"]
    assert content(path, "edge_route") == sorted(TABLES["edge_route"])
    assert kamailio.calls == RELOADS
    assert path.stat().st_mode & 0o777 == 0o640


def test_an_unchanged_database_is_not_fetched_again(parts: Any) -> None:
    made, database, kamailio, path = parts
    step(made)
    inode = path.stat().st_ino
    step(made)
    assert (database.fetched, path.stat().st_ino, kamailio.calls) == (3, inode, RELOADS)


def test_a_change_replaces_the_file_and_tells_kamailio(parts: Any) -> None:
    made, database, kamailio, path = parts
    step(made)
    inode = path.stat().st_ino
    database.tables["edge_route"].append(("a:902", "extension:902"))
    step(made)
    assert path.stat().st_ino != inode
    assert ("a:902", "extension:902") in content(path, "edge_route")
    assert kamailio.calls == RELOADS * 2


def test_after_its_own_restart_it_fetches_only_what_changed(parts: Any) -> None:
    made, database, kamailio = parts[:3]
    step(made)
    again = agent.Agent(made.settings, kamailio, database)
    step(again)
    assert database.fetched == 3
    assert kamailio.calls == RELOADS * 2  # it cannot know what Kamailio has in memory


def test_without_the_database_the_copy_stays_and_is_said_once(
    parts: Any, caplog: pytest.LogCaptureFixture
) -> None:
    made, database, path = parts[0], parts[1], parts[3]
    step(made)
    before = path.read_bytes()
    database.fails = True
    with caplog.at_level(logging.INFO):
        step(made)
        step(made)
        step(made)
    assert path.read_bytes() == before
    assert database.closed == 1
    assert [record.message for record in caplog.records] == [
        "database not reached, keeping the last copy: gone",
        "database not reached, keeping the last copy: no route",
    ]


def test_a_database_that_comes_back_is_used_again(parts: Any) -> None:
    made, database, path = parts[0], parts[1], parts[3]
    database.fails = True
    step(made)
    assert not path.exists()
    database.fails = False
    step(made)
    assert content(path, "edge_subscriber") == TABLES["edge_subscriber"]


def test_a_database_without_any_tenant_does_not_empty_the_copy(
    parts: Any, caplog: pytest.LogCaptureFixture
) -> None:
    made, database, path = parts[0], parts[1], parts[3]
    step(made)
    for rows in database.tables.values():
        rows.clear()
    with caplog.at_level(logging.WARNING):
        step(made)
    assert ("a.example", "a") in content(path, "edge_tenant")
    assert "no tenants at all" in caplog.text


def test_a_reload_is_owed_until_kamailio_has_taken_it(parts: Any) -> None:
    made, kamailio = parts[0], parts[2]
    kamailio.away = True
    step(made)
    assert kamailio.calls == []
    kamailio.away = False
    step(made)
    assert kamailio.calls == RELOADS


@pytest.mark.parametrize(("address", "state"), [("127.0.0.1", 1), ("192.0.2.1", 0)])
def test_only_the_holder_of_the_address_pings_phones(parts: Any, address: str, state: int) -> None:
    made, kamailio = parts[0], parts[2]
    made.settings["outside_ip"] = address
    made.gate_pings()
    assert kamailio.calls == [("nathelper.enable_ping", [state])]


@pytest.mark.parametrize("broken", [b"", b"not a database", None])
def test_a_broken_copy_counts_as_none(tmp_path: Path, broken: bytes | None) -> None:
    path = tmp_path / "edge.sqlite"
    if broken is not None:
        path.write_bytes(broken)
    assert agent.read_fingerprint(path) is None


def test_a_cut_short_replacement_does_not_stop_the_next(tmp_path: Path) -> None:
    path = tmp_path / "edge.sqlite"
    (tmp_path / "edge.sqlite.new").write_bytes(b"half")
    agent.write_copy(path, TABLES, "f")
    assert agent.read_fingerprint(path) == "f"
    assert not (tmp_path / "edge.sqlite.new").exists()


SCHEMAS = {
    "standard.sql": "CREATE TABLE version (table_name TEXT, table_version INTEGER);",
    "usrloc.sql": "CREATE TABLE location (ruid TEXT);INSERT INTO version VALUES ('location', 9);",
}


def test_locations_are_made_and_then_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "location.sqlite"
    schemas = []
    for name, text in SCHEMAS.items():
        (tmp_path / name).write_text(text)
        schemas.append(tmp_path / name)
    assert not agent.is_sound_location(path)
    agent.write_empty_location(path, schemas)
    assert agent.is_sound_location(path)
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()


@pytest.mark.parametrize("broken", [b"", b"x" * 8192])
def test_broken_locations_are_kept_aside(tmp_path: Path, broken: bytes) -> None:
    path = tmp_path / "location.sqlite"
    path.write_bytes(broken)
    (tmp_path / "location.sqlite-wal").write_bytes(b"y")
    assert not agent.is_sound_location(path)
    path.write_bytes(broken)
    agent.set_aside(path)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["location.sqlite.broken"]


def serve(path: Path, answer: Callable[[Any], Any]) -> threading.Thread:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(str(path))

    def loop() -> None:
        with server:
            request, sender = server.recvfrom(65536)
            server.sendto(json.dumps(answer(json.loads(request))).encode(), sender)

    thread = threading.Thread(target=loop)
    thread.start()
    return thread


def test_call_kamailio_speaks_json_rpc(tmp_path: Path) -> None:
    thread = serve(tmp_path / "s", lambda request: {"result": request["params"], "id": 1})
    assert agent.call_kamailio(str(tmp_path / "s"), "m", ["x"]) == ["x"]
    thread.join()


def test_call_kamailio_raises_what_kamailio_refuses(tmp_path: Path) -> None:
    thread = serve(tmp_path / "s", lambda request: {"error": {"message": "no"}, "id": 1})
    with pytest.raises(RuntimeError, match="m: no"):
        agent.call_kamailio(str(tmp_path / "s"), "m", [])
    thread.join()


LIST = """# who is there
1 sip:192.0.2.1:5080 0 0 duid=a;rweight=100
1 sip:192.0.2.2:5080 4 0 duid=b;drain=disk:anna
2 sip:192.0.2.1:2223 36 0 duid=a;drain=upgrade:r1
"""
DRAINS = {
    ("1", "sip:192.0.2.2:5080"): "disk:anna",
    ("2", "sip:192.0.2.1:2223"): "upgrade:r1",
}


class Edge:
    """Another edge that answers one question for each of its answers; a name in place of a list
    of drains is left out of the reply."""

    def __init__(self, *headers: str) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.headers = headers
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        for header in self.headers:
            request, client = self.socket.recvfrom(4096)
            assert request.startswith(b"OPTIONS sip:127.0.0.1:")
            self.socket.sendto(f"SIP/2.0 200 OK\r\n{header}\r\n\r\n".encode(), client)

    def close(self) -> None:
        self.thread.join()
        self.socket.close()


def settings_of(tmp_path: Path, port: int, *peers: str) -> dict[str, Any]:
    (tmp_path / "dispatcher.list").write_text(LIST)
    return {
        "dispatcher_file": str(tmp_path / "dispatcher.list"),
        "address": "127.0.0.1",
        "cluster_port": port,
        "peers": peers,
    }


def test_drains_are_read_and_written() -> None:
    lines = LIST.splitlines(keepends=True)
    assert agent.read_drains(lines) == DRAINS
    assert agent.write_drains(lines, DRAINS) == lines
    none = agent.write_drains(lines, {})
    assert agent.read_drains(none) == {}
    assert none[2:] == [
        "1 sip:192.0.2.2:5080 0 0 duid=b\n",
        "2 sip:192.0.2.1:2223 32 0 duid=a\n",
    ]
    assert agent.unpack_drains(agent.pack_drains(DRAINS)) == DRAINS
    assert agent.unpack_drains(agent.pack_drains({})) == {}


def test_a_returning_edge_says_of_drains_what_the_others_say(tmp_path: Path) -> None:
    said = {("1", "sip:192.0.2.1:5080"): "upgrade:r2"}
    edge = Edge(f"X-Ringmain-Drains: {agent.pack_drains(said)}")
    agent.learn_drains(settings_of(tmp_path, edge.port, "127.0.0.1"))
    edge.close()
    after = (tmp_path / "dispatcher.list").read_text()
    assert agent.read_drains(after.splitlines()) == said
    assert (tmp_path / "dispatcher.list").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("header", ["X-Ringmain-Locations: 4", "X-Other: 1|sip:192.0.2.1:5080|a:b"])
def test_an_edge_that_does_not_know_changes_nothing(tmp_path: Path, header: str) -> None:
    edge = Edge(header)
    agent.learn_drains(settings_of(tmp_path, edge.port, "127.0.0.1"))
    edge.close()
    assert (tmp_path / "dispatcher.list").read_text() == LIST


def test_alone_or_without_a_list_nothing_changes(tmp_path: Path) -> None:
    agent.learn_drains(settings_of(tmp_path, 9, "127.0.0.1"))
    assert (tmp_path / "dispatcher.list").read_text() == LIST
    (tmp_path / "dispatcher.list").unlink()
    agent.learn_drains({**settings_of(tmp_path, 9), "dispatcher_file": str(tmp_path / "none")})
    assert not (tmp_path / "none").exists()


class Relay:
    """A relay that answers pings when it is told to."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(2)
        self.at = list(map(str, self.socket.getsockname()))

    def answer(self, prefix: bytes = b"") -> None:
        request, client = self.socket.recvfrom(4096)
        cookie, _space, rest = request.partition(b" ")
        assert rest == b"d7:command4:pinge"
        self.socket.sendto(prefix + cookie + b" d6:result4:ponge", client)


@pytest.fixture
def relays(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two of them, numbers 21 and 22, the service's part that asks them, and Kamailio."""
    monkeypatch.setattr(agent.Relays, "WINDOW", 0.1)
    both = [Relay(), Relay()]
    kamailio = Kamailio()
    asking = agent.Relays("127.0.0.1", {"21": both[0].at, "22": both[1].at}, kamailio)
    yield both, asking, kamailio
    for one in (*both, asking):
        one.socket.close()


def turn(asking: Any, *answers: Callable[[], None]) -> None:
    thread = threading.Thread(target=asking.turn)
    thread.start()
    for answer in answers:
        answer()
    thread.join()


def test_a_relay_is_away_after_three_questions_and_until_it_answers(relays: Any) -> None:
    (one, other), asking, kamailio = relays
    turn(asking, one.answer, other.answer)
    turn(asking, one.answer)
    turn(asking, one.answer)
    assert kamailio.calls == []
    turn(asking, one.answer)
    turn(asking, one.answer)
    assert kamailio.calls == [("htable.seti", ["away", "22", 1])] * 2
    for _question in range(4):
        other.socket.recvfrom(4096)
    turn(asking, one.answer, other.answer)
    assert kamailio.calls[2:] == [("htable.delete", ["away", "22"])]


def test_an_answer_to_an_earlier_question_is_none_to_this_one(relays: Any) -> None:
    (one, other), asking, kamailio = relays
    for _question in range(3):
        turn(asking, one.answer, lambda: other.answer(b"0"))
    assert kamailio.calls == [("htable.seti", ["away", "22", 1])]


def test_a_kamailio_that_is_away_is_told_again(relays: Any) -> None:
    (one, _other), asking, kamailio = relays
    kamailio.away = True
    for _question in range(3):
        turn(asking, one.answer)
    kamailio.away = False
    turn(asking, one.answer)
    assert kamailio.calls == [("htable.seti", ["away", "22", 1])]


class Owing(Kamailio):
    """One that owes relays the ends of calls."""

    def __init__(self, *keys: str) -> None:
        super().__init__()
        self.owed = list(keys)

    def __call__(self, method: str, params: list[Any]) -> Any:
        if method == "htable.dump":
            return [{"entry": 1, "size": 1, "slot": [{"name": key}]} for key in self.owed]
        return super().__call__(method, params)


def test_a_relay_that_is_here_is_told_what_it_is_owed(relays: Any) -> None:
    (one, other), asking, _kamailio = relays
    asking.kamailio = kamailio = Owing("a:b@phone:21", "c:22", "d:21", "e:23")
    asking.missed["22"] = 1
    told = []

    def answer() -> None:
        for reply in (True, False):
            request, client = one.socket.recvfrom(4096)
            cookie, _space, command = request.partition(b" ")
            told.append(command)
            if reply:
                one.socket.sendto(cookie + b" d6:result2:oke", client)

    thread = threading.Thread(target=answer)
    thread.start()
    asking.settle()
    thread.join()
    assert told == [
        b"d7:call-id9:a:b@phone7:command6:delete12:delete-delayi0ee",
        b"d7:call-id1:d7:command6:delete12:delete-delayi0ee",
    ]
    assert kamailio.calls == [("htable.delete", ["owed", "a:b@phone:21"])], "the rest is told again"
    other.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        other.socket.recvfrom(4096)


def test_nobody_is_told_where_nothing_is_owed_or_kamailio_is_away(relays: Any) -> None:
    (one, _other), asking, kamailio = relays
    asking.kamailio = Owing()
    asking.settle()
    asking.kamailio = kamailio
    kamailio.away = True
    asking.settle()
    one.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        one.socket.recvfrom(4096)
