# Copyright (c) Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep what Kamailio reads: the local copy of the database, and the files it starts from.

``prepare`` runs before Kamailio starts and makes sure that both SQLite files exist and are sound,
and that the list of destinations says of drains what the other edges say.
``run`` stays: it copies the edge_* views whenever they changed and tells Kamailio, it lets only the
holder of the outside address ping phones behind NAT, has Kamailio tell other edges the drains, and
asks the relays whether they are there, so that no call waits for one that is not.

Without the database the last good copy goes on serving; nothing here stands in a call's way.
"""

from __future__ import annotations

import argparse
import contextlib
import grp
import importlib
import json
import logging
import os
import pwd
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

log = logging.getLogger("edge-agent")

VIEWS = {"edge_tenant": "tenant", "edge_subscriber": "subscriber", "edge_route": "route"}
"""View in the database (and table of the copy) -> table in Kamailio's memory."""

MARKER = "*"
"""Key in edge_tenant which says that the copy was filled from the database at least once."""

Rows = list[tuple[str, str]]


# --- the local copy -------------------------------------------------------------------------


def write_copy(path: Path, tables: dict[str, Rows], fingerprint: str) -> None:
    """Replace the copy at ``path`` in one step; whoever reads sees the old one or the new one."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o640)
    os.fchmod(descriptor, 0o640)  # whatever the umask: Kamailio's group reads it
    os.close(descriptor)
    database = sqlite3.connect(new, isolation_level=None)
    try:
        database.execute("BEGIN")
        database.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        database.execute("INSERT INTO meta VALUES ('fingerprint', ?)", (fingerprint,))
        database.execute(
            "CREATE TABLE version (table_name TEXT PRIMARY KEY, table_version INTEGER NOT NULL)"
        )
        for view in VIEWS:
            # Kamailio's htable wants types with each row: 0 is a string, 0 never expires.
            database.execute(
                f"CREATE TABLE {view} (key_name TEXT PRIMARY KEY, key_type INTEGER NOT NULL"
                " DEFAULT 0, value_type INTEGER NOT NULL DEFAULT 0, key_value TEXT NOT NULL,"
                " expires INTEGER NOT NULL DEFAULT 0)"
            )
            database.execute("INSERT INTO version VALUES (?, 2)", (view,))
            database.executemany(
                f"INSERT INTO {view} (key_name, key_value) VALUES (?, ?)", tables.get(view, [])
            )
        database.execute("COMMIT")
    finally:
        database.close()
    os.replace(new, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_fingerprint(path: Path) -> str | None:
    """What the copy at ``path`` was made from; None when there is no sound copy."""
    if not path.is_file():
        return None
    try:
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            if database.execute("PRAGMA quick_check").fetchone() != ("ok",):
                return None
            row = database.execute("SELECT value FROM meta WHERE name = 'fingerprint'").fetchone()
            return str(row[0]) if row else None
        finally:
            database.close()
    except sqlite3.DatabaseError:
        return None


def is_sound_location(path: Path) -> bool:
    """True when Kamailio can start from the locations file."""
    if not path.is_file():
        return False
    try:
        database = sqlite3.connect(path)
        try:
            known = database.execute(
                "SELECT count(*) FROM version WHERE table_name = 'location'"
            ).fetchone()
            return (database.execute("PRAGMA quick_check").fetchone(), known) == (("ok",), (1,))
        finally:
            database.close()
    except sqlite3.DatabaseError:
        return False


def write_empty_location(path: Path, schemas: Iterable[Path]) -> None:
    """Make an empty locations file from the schemas which Kamailio's package brings."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    database = sqlite3.connect(new)
    try:
        for schema in schemas:
            database.executescript(schema.read_text(encoding="ascii"))
        database.execute("PRAGMA journal_mode = WAL")
    finally:
        database.close()
    os.replace(new, path)


def set_aside(path: Path) -> None:
    """Keep a broken file for whoever wants to know why, and make room for a new one."""
    if path.exists():
        log.error("%s is not readable: kept as %s.broken, starting empty", path, path.name)
        os.replace(path, path.with_name(path.name + ".broken"))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


# --- drains ---------------------------------------------------------------------------------

DISABLED = 4
Drains = dict[tuple[str, str], str]
"""Set and URI of a drained destination -> its mark REASON:RUN-ID."""


def read_drains(lines: Iterable[str]) -> Drains:
    """What a list of destinations says of drains."""
    found = {}
    for line in lines:
        words = line.split()
        if len(words) < 2 or words[0].startswith("#"):
            continue
        attrs = [pair.partition("=") for pair in (words[4] if len(words) > 4 else "").split(";")]
        mark = [value for name, _equals, value in attrs if name == "drain"]
        if mark or int(words[2] if len(words) > 2 else 0) & DISABLED:
            found[words[0], words[1]] = mark[0] if mark else ""
    return found


def write_drains(lines: Iterable[str], drains: Drains) -> list[str]:
    """The list with these drains and no others."""
    changed = []
    for line in lines:
        words = line.split()
        if len(words) < 2 or words[0].startswith("#"):
            changed.append(line)
            continue
        words += ["0", "0", ""][len(words) - 2 :]
        pairs = [pair for pair in words[4].split(";") if pair and not pair.startswith("drain=")]
        mark = drains.get((words[0], words[1]))
        flags = int(words[2]) & ~DISABLED if mark is None else int(words[2]) | DISABLED
        pairs += [f"drain={mark}"] if mark else []
        changed.append(
            " ".join((*words[:2], str(flags), words[3], ";".join(pairs))).rstrip() + "\n"
        )
    return changed


def pack_drains(drains: Drains) -> str:
    """The drains as the value of a header; a hyphen for none: Kamailio sends no empty one."""
    return (
        ",".join(f"{number}|{uri}|{mark}" for (number, uri), mark in sorted(drains.items())) or "-"
    )


def unpack_drains(value: str) -> Drains:
    """The other way round."""
    parts = [item.split("|") for item in value.split(",") if item.count("|") == 2]
    return {(number.strip(), uri): mark.strip() for number, uri, mark in parts}


def ask_for_drains(own: str, port: int, peer: str, timeout: float = 0.5) -> Drains | None:
    """What another edge says, asked before our Kamailio has its port; None without an answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout)
        client.bind((own, 0))
        client.connect((peer, port))
        token, here = os.urandom(8).hex(), f"{own}:{client.getsockname()[1]}"
        client.send(
            (
                f"OPTIONS sip:{peer}:{port} SIP/2.0\r\n"
                f"Via: SIP/2.0/UDP {here};rport;branch=z9hG4bK{token}\r\n"
                f"From: <sip:drains@{here}>;tag={token}\r\nTo: <sip:{peer}:{port}>\r\n"
                f"Call-ID: {token}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 5\r\n"
                "Content-Length: 0\r\n\r\n"
            ).encode()
        )
        try:
            lines = client.recv(65535).decode(errors="replace").split("\r\n")
        except OSError:
            return None
    for line in lines:
        name, _colon, value = line.partition(":")
        if name.strip().lower() == "x-ringmain-drains":
            return unpack_drains(value.strip())
    return None


def learn_drains(settings: dict[str, Any]) -> None:
    """Take over what the living edges say, all of it together; without one ours stays.

    Whoever was away may have missed a drain, or the end of one.
    """
    path = Path(settings["dispatcher_file"])
    if not path.is_file():
        return
    answers = [
        ask_for_drains(settings["address"], settings["cluster_port"], peer)
        for peer in settings["peers"]
    ]
    heard = [answer for answer in answers if answer is not None]
    if not heard:
        return
    said = {key: mark for answer in heard for key, mark in answer.items()}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    changed = write_drains(lines, said)
    if read_drains(lines) == read_drains(changed):
        return
    new = path.with_name(path.name + ".new")
    new.write_text("".join(changed), encoding="utf-8")
    new.chmod(0o644)
    os.replace(new, path)
    log.warning("drains as the other edges have them: %s", pack_drains(read_drains(changed)))


def prepare(settings: dict[str, Any]) -> None:
    """Before Kamailio starts: all files exist, are sound and belong to who uses them."""
    learn_drains(settings)
    kamailio = pwd.getpwnam("kamailio")
    location = Path(settings["location_file"])
    if not is_sound_location(location):
        set_aside(location)
        write_empty_location(location, [Path(schema) for schema in settings["location_schemas"]])
    for path in (location, *(location.with_name(location.name + s) for s in ("-wal", "-shm"))):
        if path.exists():
            os.chown(path, kamailio.pw_uid, kamailio.pw_gid)
            path.chmod(0o640)
    data = Path(settings["data_file"])
    owner, reader = pwd.getpwnam("ringmain-edge").pw_uid, grp.getgrnam("kamailio").gr_gid
    if not data.parent.exists():  # on a new server Kamailio starts before the data service does
        data.parent.mkdir(mode=0o750)
        os.chown(data.parent, owner, reader)
    if read_fingerprint(data) is None:
        set_aside(data)
        write_copy(data, {}, "")
        log.warning("no copy of the database yet: the edge answers 503 until one is made")
    os.chown(data, owner, reader)


# --- the database ---------------------------------------------------------------------------


def connect(settings: dict[str, Any]) -> Any:
    """Open the database; only a server with a certificate of the cluster's CA is believed."""
    if settings["database_driver"] == "postgresql":
        connection = importlib.import_module("psycopg2").connect(
            host=settings["database_host"],
            port=settings["database_port"],
            user=settings["database_user"],
            password=settings["database_password"],
            dbname=settings["database_name"],
            sslmode="verify-full",
            sslrootcert=settings["database_ca"],
            connect_timeout=3,
            # Whoever is between notices a server that freezes; the kernel one that is gone.
            tcp_user_timeout=10000,
            options="-c statement_timeout=10s",
        )
        connection.autocommit = True
        return connection
    return importlib.import_module("pymysql").connect(
        host=settings["database_host"],
        port=settings["database_port"],
        user=settings["database_user"],
        password=settings["database_password"],
        database=settings["database_name"],
        ssl_ca=settings["database_ca"],
        ssl_verify_cert=True,
        ssl_verify_identity=True,
        connect_timeout=3,
        read_timeout=10,
        write_timeout=10,
        charset="utf8mb4",
        autocommit=True,
    )


SPOKEN: dict[str, dict[str, Any]] = {
    "mariadb": {
        "sum": "BIT_XOR(CAST(CONV(LEFT(MD5(CONCAT(key_name, '\\n', key_value)), 16), 16, 10)"
        " AS UNSIGNED))",
        "begin": (
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        ),
    },
    "postgresql": {
        "sum": "BIT_XOR(('x' || LEFT(MD5(CONCAT(key_name, CHR(10), key_value)), 16))"
        "::bit(64)::bigint)",
        "begin": ("START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",),
    },
}
"""What the two databases say in their own ways: a sum over all rows of a view, in any order, and
the begin of a transaction that sees one moment."""


def fetch_fingerprint(cursor: Any, driver: str) -> str:
    """One short line that differs whenever any row of the views does, computed by the server."""
    parts = []
    for view in VIEWS:
        cursor.execute(f"SELECT COUNT(*), COALESCE({SPOKEN[driver]['sum']}, 0) FROM {view}")
        parts.append(":".join(str(value) for value in cursor.fetchone()))
    return " ".join(parts)


def fetch_tables(cursor: Any, driver: str) -> dict[str, Rows]:
    """All rows of the views, from one moment."""
    for statement in SPOKEN[driver]["begin"]:
        cursor.execute(statement)
    try:
        tables: dict[str, Rows] = {}
        for view in VIEWS:
            cursor.execute(f"SELECT key_name, key_value FROM {view}")
            tables[view] = [(str(key), str(value)) for key, value in cursor.fetchall()]
        return tables
    finally:
        cursor.execute("COMMIT")


# --- Kamailio -------------------------------------------------------------------------------


def call_kamailio(path: str, method: str, params: list[Any], timeout: float = 5.0) -> Any:
    """One JSON-RPC call over Kamailio's datagram socket; raises OSError or RuntimeError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.bind("")  # an address of the kernel's choice, for the answer
        client.settimeout(timeout)
        client.connect(path)
        client.send(
            json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).encode()
        )
        answer = json.loads(client.recv(1 << 20))
    if "error" in answer:
        raise RuntimeError(f"{method}: {answer['error'].get('message', answer['error'])}")
    return answer.get("result")


def holds_address(address: str) -> bool:
    """True when ``address`` is one of this host now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


# --- relays ---------------------------------------------------------------------------------


class Relays:
    """Which relays give no answer, asked each half second; Kamailio's table C(away) has them.

    Those that answer are told which calls ended without their knowledge: table C(owed) has these,
    by Call-ID and number of the relay.
    """

    WINDOW = 0.5
    """Seconds between two questions, all of which an answer may take."""
    MISSES = 3
    """So many questions without an answer, and a relay is away."""
    ENDS = 200
    """So many ends are told in one window."""

    def __init__(
        self,
        own: str,
        relays: dict[str, tuple[str, int]],
        kamailio: Callable[[str, list[Any]], Any],
    ) -> None:
        self.peers = {(host, int(port)): number for number, (host, port) in relays.items()}
        self.kamailio = kamailio
        self.missed = dict.fromkeys(relays, 0)
        # From the host's own address: a relay's may be here only as a guest.
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((own, 0))

    def turn(self) -> None:
        """Ask all, listen for one window, tell Kamailio who is away, and who is back."""
        token = os.urandom(4).hex()
        for peer in self.peers:
            with contextlib.suppress(OSError):
                self.socket.sendto(f"{token} d7:command4:pinge".encode(), peer)
        here = self.listen(token.encode(), time.monotonic() + self.WINDOW)
        for peer, number in self.peers.items():
            was_away = self.missed[number] >= self.MISSES
            self.missed[number] = 0 if number in here else self.missed[number] + 1
            if self.missed[number] >= self.MISSES:
                if not was_away:
                    log.warning("relay %s gives no answer: no new calls for it", peer[0])
                self.tell("htable.seti", ["away", number, 1])
            elif was_away:
                log.info("relay %s answers again", peer[0])
                self.tell("htable.delete", ["away", number])

    def listen(self, token: bytes, end: float) -> set[str]:
        """The relays that answered this question, heard until the whole window is over."""
        here = set()
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                answer, peer = self.socket.recvfrom(4096)
            except OSError:  # its time is over, or somebody has no such port
                continue
            if peer in self.peers and answer.startswith(token):
                here.add(self.peers[peer])
        return here

    def settle(self) -> None:
        """Tell relays that are here what they are owed. Nobody is, once his relay has answered."""
        try:
            found = self.kamailio("htable.dump", ["owed"])
        except (OSError, RuntimeError, ValueError):
            return
        keys = [str(item["name"]) for entry in found or () for item in entry["slot"]]
        ends = {}
        for key in keys[: self.ENDS]:
            call_id, _colon, number = key.rpartition(":")
            peer = next((peer for peer, each in self.peers.items() if each == number), None)
            if peer is None or self.missed[number]:
                continue
            cookie = os.urandom(8).hex().encode()
            ends[cookie] = key
            raw = call_id.encode()
            command = b"d7:call-id%d:%s7:command6:delete12:delete-delayi0ee" % (len(raw), raw)
            with contextlib.suppress(OSError):
                self.socket.sendto(cookie + b" " + command, peer)
        for cookie in self.hear(set(ends)):
            self.tell("htable.delete", ["owed", ends[cookie]])

    def hear(self, cookies: set[bytes]) -> set[bytes]:
        """Those of some commands that were answered within a window."""
        heard: set[bytes] = set()
        end = time.monotonic() + self.WINDOW
        while heard < cookies and (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            with contextlib.suppress(OSError):
                answer, peer = self.socket.recvfrom(65535)
                if peer in self.peers:
                    heard.add(answer.partition(b" ")[0])
        return heard & cookies

    def tell(self, method: str, params: list[Any]) -> None:
        """Say it to Kamailio; one that is away hears it with the next question."""
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            self.kamailio(method, params)

    def run(self) -> None:
        """Repeat for ever."""
        while True:
            self.turn()
            self.settle()


# --- the service ----------------------------------------------------------------------------


class Agent:
    """What ``run`` repeats, with the database and Kamailio as callables."""

    def __init__(
        self,
        settings: dict[str, Any],
        kamailio: Callable[[str, list[Any]], Any],
        database: Callable[[], Any],
    ) -> None:
        self.settings = settings
        self.kamailio = kamailio
        self.database = database
        self.connection: Any = None
        self.data = Path(settings["data_file"])
        self.fingerprint = read_fingerprint(self.data)
        self.reload_owed = True
        self.said: dict[str, str] = {}

    def say(self, topic: str, message: str, level: int = logging.WARNING) -> None:
        """Log what changed about ``topic``; the same message is not repeated each round."""
        if self.said.get(topic) != message:
            log.log(level, "%s", message)
            self.said[topic] = message

    def copy(self) -> None:
        """Bring the copy up to date when the database differs from it."""
        driver = self.settings["database_driver"]
        try:
            if self.connection is None:
                self.connection = self.database()
            with self.connection.cursor() as cursor:
                fingerprint = fetch_fingerprint(cursor, driver)
                if fingerprint == self.fingerprint:
                    self.say("database", "database reached, copy is current", logging.INFO)
                    return
                tables = fetch_tables(cursor, driver)
        except Exception as error:  # any failure means the same: keep serving the last copy
            if self.connection is not None:
                self.connection.close()
            self.connection = None
            self.say("database", f"database not reached, keeping the last copy: {error}")
            return
        if not tables["edge_tenant"] and self.fingerprint:
            self.say("database", "the database has no tenants at all: keeping the last copy")
            return
        tables["edge_tenant"].append((MARKER, "filled"))
        write_copy(self.data, tables, fingerprint)
        self.fingerprint = fingerprint
        self.reload_owed = True
        counts = ", ".join(f"{len(tables[view])} in {view}" for view in VIEWS)
        self.say("database", f"copied: {counts}", logging.INFO)

    def tell(self) -> None:
        """Have Kamailio load the copy if it may have an older one in memory."""
        if not self.reload_owed:
            return
        try:
            for table in VIEWS.values():
                self.kamailio("htable.reload", [table])
        except (OSError, RuntimeError, ValueError) as error:
            self.say("kamailio", f"Kamailio did not load the copy, will ask again: {error}")
            return
        self.reload_owed = False
        self.say("kamailio", "Kamailio has loaded the copy", logging.INFO)

    def gate_pings(self) -> None:
        """Phones are pinged from the outside address, so by its holder alone."""
        try:
            self.kamailio(
                "nathelper.enable_ping", [int(holds_address(self.settings["outside_ip"]))]
            )
        except (OSError, RuntimeError, ValueError):
            # Kamailio is away; when it comes back it loads the copy by itself.
            return

    def tell_drains(self) -> None:
        """Kamailio tells the other edges who is drained, when they ask."""
        try:
            lines = Path(self.settings["dispatcher_file"]).read_text(encoding="utf-8").splitlines()
            drains = pack_drains(read_drains(lines))
            self.kamailio("pv.shvSet", ["drains", "str", drains])
        except (OSError, RuntimeError, ValueError) as error:
            self.say("drains", f"the other edges are not told of drains: {error}")
            return
        self.say("drains", f"drains: {drains}", logging.INFO)

    def run(self) -> None:
        """Repeat for ever."""
        while True:
            self.copy()
            self.tell()
            self.gate_pings()
            self.tell_drains()
            time.sleep(self.settings["interval"])


def main(arguments: list[str]) -> int:
    """Entry point: prepare or run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["prepare", "run"])
    parser.add_argument("--settings", default="/etc/ringmain-edge/agent.json")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    settings = json.loads(Path(options.settings).read_text(encoding="utf-8"))
    os.umask(0o027)
    if options.command == "prepare":
        prepare(settings)
        return 0

    def kamailio(method: str, params: list[Any]) -> Any:
        return call_kamailio(settings["rpc_socket"], method, params)

    relays = Relays(settings["address"], settings["relays"], kamailio)
    threading.Thread(target=relays.run, daemon=True).start()
    Agent(settings, kamailio, database=lambda: connect(settings)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
