# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Answer over HTTP for the MariaDB server on this host.

GET /       200 when this member may take work, 503 with the reason otherwise (HAProxy asks this)
GET /state  what the other members need to know when they start (the start helper asks this)

One thread holds one connection over the unix socket and asks twice a second; requests are
answered from its last answer, so that any number of them costs the database nothing. An answer
older than MAX_AGE counts for nothing: a frozen server still accepts connections.

It also looks at the disk: ringmain-galera-room.path ends a member that has to make way.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pymysql

HERE = Path(__file__).resolve().parent
LEAVE_FILE = Path("/run/ringmain-galera-health/leave")
LEAVE_SECONDS = 5.0
POLL_SECONDS = 0.5
ANSWER_SECONDS = 0.7
MAX_AGE_SECONDS = 1.5
# Who stood still for longer than evs.suspect_timeout may be out and believe to be in, until its own
# timers tell it so.
STILL_SECONDS = 3.0
SETTLE_SECONDS = 3.0
STATUS = (
    "SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_local_state_comment',"
    " 'wsrep_cluster_status', 'wsrep_cluster_size', 'wsrep_ready', 'wsrep_cluster_state_uuid')"
)

sys.path.insert(0, str(HERE))
import galera  # type: ignore[import-not-found]  # noqa: E402
import start  # noqa: E402


class Poller(threading.Thread):
    """Holds the last answer of the database, or why there is none."""

    def __init__(self, path: str, user: str) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.user = user
        self.connection: pymysql.Connection | None = None
        # One tuple, replaced as a whole: (time, status, trouble, does the server run)
        self.last: tuple[float, dict[str, str], str, bool] = (0.0, {}, "not asked yet", False)
        self.settled = 0.0

    def run(self) -> None:
        while True:
            begun = time.monotonic()
            self.ask()
            time.sleep(max(0.05, POLL_SECONDS - (time.monotonic() - begun)))

    def ask(self) -> None:
        """Ask once and remember the answer."""
        try:
            if self.connection is None:
                self.connection = pymysql.connect(
                    unix_socket=self.path,
                    user=self.user,
                    connect_timeout=ANSWER_SECONDS,
                    read_timeout=ANSWER_SECONDS,
                    write_timeout=ANSWER_SECONDS,
                )
            with self.connection.cursor() as cursor:
                cursor.execute(STATUS)
                status = {str(name).lower(): str(value) for name, value in cursor.fetchall()}
            now, before = time.monotonic(), self.last[0]
            if before and now - before > STILL_SECONDS:
                self.settled = now + SETTLE_SECONDS
            self.last = (now, status, "", True)
        except (pymysql.MySQLError, OSError) as error:
            if self.connection is not None:
                # Without a farewell, which a frozen server would not take.
                self.connection._force_close()  # type: ignore[attr-defined]
                self.connection = None
            cause = getattr(error, "original_exception", None) or error
            gone = isinstance(cause, (ConnectionRefusedError, FileNotFoundError))
            if gone:
                self.last = (0.0, {}, "mariadbd does not run", False)
            else:
                self.last = (self.last[0], self.last[1], f"mariadbd does not answer: {error}", True)

    def status(self) -> tuple[dict[str, str], str, bool]:
        """Return (fresh status or nothing, trouble, does the server run)."""
        when, status, trouble, runs = self.last
        age = time.monotonic() - when
        if status and time.monotonic() < self.settled:
            return {}, "mariadbd stood still, and may not know yet what the others decided", True
        if status and age <= MAX_AGE_SECONDS:
            return status, "", True
        if runs and not trouble:
            trouble = f"mariadbd has not answered for {age:.1f} s"
        return {}, trouble, runs


class Watcher(threading.Thread):
    """Holds whether the disk has room, and has a member without any make way."""

    def __init__(self, cluster: dict[str, Any], poller: Poller) -> None:
        super().__init__(daemon=True)
        self.cluster = cluster
        self.poller = poller
        self.room = True

    def run(self) -> None:
        while True:
            self.room = start.has_room(self.cluster["reserve_mb"])
            # Who still waits to start waits for room as well.
            if not self.room and self.poller.status()[2] and not start.START_FILE.exists():
                self.look_around()
            time.sleep(POLL_SECONDS)

    def look_around(self) -> None:
        """Go if the others can do without this member."""
        order = [member["name"] for member in self.cluster["members"]]
        states = start.ask_all(self.cluster, galera.Member(running=True, room=False))
        if galera.makes_way(self.cluster["name"], order, states):
            print(
                f"less than {self.cluster['reserve_mb']} MB are free in {start.DATA}: this member "
                "leaves, or the others would wait for it; it comes back when there is room",
                flush=True,
            )
            LEAVE_FILE.touch()
            # Its end takes a moment; a second word would end what starts after it.
            time.sleep(LEAVE_SECONDS)


def state(status: dict[str, str], runs: bool, room: bool) -> Any:
    """Describe this member for the others."""
    try:
        told = galera.member_from_dict(json.loads(start.START_FILE.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        told = None
    synced = status.get("wsrep_local_state_comment") == "Synced"
    # Until its unit is up, a member counts as starting, though it answers while it still joins.
    if status and (synced or told is None):
        primary = status.get("wsrep_cluster_status") == "Primary"
        phase = galera.PRIMARY if primary else galera.NON_PRIMARY
        return galera.member_to_dict(
            galera.Member(
                phase=phase,
                uuid=(told.uuid if told else status.get("wsrep_cluster_state_uuid", "")),
                view=told.view if told else None,
                synced=synced,
                running=True,
                room=room,
            )
        )
    if told is not None:
        return galera.member_to_dict(told)
    return galera.member_to_dict(
        galera.Member(phase=galera.SILENT if runs else galera.STOPPED, running=runs)
    )


class Handler(BaseHTTPRequestHandler):
    """Answers one request and closes."""

    timeout = 2
    server_version = "ringmain-galera"
    sys_version = ""
    poller: Poller
    watcher: Watcher

    def do_GET(self) -> None:
        status, trouble, runs = self.poller.status()
        if self.path == "/state":
            self.answer(200, "application/json", json.dumps(state(status, runs, self.watcher.room)))
        elif self.path == "/":
            good, text = galera.usable(status) if status else (False, trouble)
            self.answer(200 if good else 503, "text/plain", text + "\n")
        else:
            self.answer(404, "text/plain", "there is / and /state\n")

    def answer(self, code: int, kind: str, text: str) -> None:
        """Send one whole answer."""
        body = text.encode()
        # HAProxy does not wait for more than the status.
        with contextlib.suppress(ConnectionError):
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing: several requests arrive every second."""


class Server(ThreadingHTTPServer):
    """Listens also before the address is there: it may come with the network, after us."""

    daemon_threads = True

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET:
            self.socket.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_FREEBIND", 15), 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Not HTTPServer's: it asks the resolver for a name, which can hang.
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]


def main() -> None:
    cluster = json.loads((HERE / "cluster.json").read_text(encoding="utf-8"))
    poller = Poller(cluster["socket"], cluster["user"])
    poller.start()
    watcher = Watcher(cluster, poller)
    watcher.start()
    Handler.poller, Handler.watcher = poller, watcher
    if ":" in cluster["address"]:
        Server.address_family = socket.AF_INET6
    Server((cluster["address"], cluster["health_port"]), Handler).serve_forever()


if __name__ == "__main__":
    main()
