# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Let mariadbd go when it is safe, and as what: part of mariadb.service, before the server.

    start          wait until this member may start (ExecStartPre, after galera_recovery)
    start --done   forget what was said for this start (ExecStartPost, ExecStopPost)

The health agent asks and looks at the disk with the functions here.

Every member publishes its recovered position through the health agent and asks for those of the
others. galera.py decides; this file reads, asks and writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DATA = Path("/var/lib/mysql")
RUN = Path("/run/ringmain-galera")
START_FILE = RUN / "start.json"
ORDER_FILE = RUN / "bootstrap-order"  # written by a deployment or recovery, for one position
ENVIRONMENT_FILE = RUN / "bootstrap.env"  # read by mariadb.service for this start only
OPERATOR_FILE = Path("/run/mysqld/wsrep-new-cluster")  # galera_new_cluster: an operator's word
POSITION_FILE = Path("/run/mysqld/ringmain-position")
ASK_SECONDS = 1.0
REMIND_SECONDS = 60.0

sys.path.insert(0, str(HERE))
import galera  # type: ignore[import-not-found]  # noqa: E402


def read(path: Path) -> str:
    """Return a file's text, or nothing."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def replace(path: Path, text: str, mode: int, like: Path | None = None) -> None:
    """Write a file so that neither a reader nor a power cut meets half of it."""
    new = path.with_name(f".{path.name}.new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)
        file.flush()
        if like is not None:
            owner = like.stat()
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        os.fsync(file.fileno())
    new.replace(path)


def publish(member: galera.Member) -> None:
    """Tell the health agent, which tells the others."""
    replace(START_FILE, json.dumps(galera.member_to_dict(member)), 0o644)


def own_state() -> galera.Member:
    """Read this member's position from its data directory."""
    saved = galera.parse_grastate(read(DATA / "grastate.dat"))
    uuid, seqno = saved["uuid"], saved["seqno"]
    recovered = galera.parse_position(read(POSITION_FILE))
    # After a crash grastate.dat has no seqno; InnoDB knows it. A uuid that only one of the two
    # knows (an interrupted state transfer) proves nothing: the member then starts as a new one.
    if recovered is not None and recovered[0] == uuid:
        seqno = max(seqno, recovered[1])
    return galera.Member(
        phase=galera.WAITING,
        uuid=uuid,
        seqno=seqno,
        safe_to_bootstrap=saved["safe_to_bootstrap"],
        view=galera.parse_view(read(DATA / "gvwstate.dat")),
    )


def has_room(needed_mb: int) -> bool:
    """Whether so many megabytes are free where the data are."""
    disk = os.statvfs(DATA)
    return disk.f_bavail * disk.f_frsize >= needed_mb * 1024 * 1024


def ask(address: str, port: int) -> galera.Member | None:
    """Ask one member for its state; None when it does not answer with one."""
    host = f"[{address}]" if ":" in address else address
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/state", timeout=ASK_SECONDS) as answer:
            return galera.member_from_dict(json.load(answer))
    except (OSError, ValueError):
        return None


def ask_all(cluster: dict[str, Any], mine: galera.Member) -> dict[str, galera.Member | None]:
    """Ask all other members."""
    return {
        member["name"]: mine
        if member["name"] == cluster["name"]
        else ask(member["address"], cluster["health_port"])
        for member in cluster["members"]
    }


def say(action: galera.Action, mine: galera.Member) -> None:
    """Write the decision to the journal."""
    missing = f" (waiting for {', '.join(action.waiting_for)})" if action.waiting_for else ""
    print(
        f"{action.action}: {action.reason}{missing}; own position {mine.uuid}:{mine.seqno}",
        flush=True,
    )


def wait_for_action(cluster: dict[str, Any], mine: galera.Member) -> galera.Action:
    """Ask around until there is something to do."""
    order = [member["name"] for member in cluster["members"]]
    said: galera.Action | None = None
    when = 0.0
    while True:
        if OPERATOR_FILE.exists():
            return galera.Action("operator", "an operator ordered a new cluster")
        if ORDER_FILE.exists():
            order_given = read(ORDER_FILE)
            ORDER_FILE.unlink()
            if order_given == galera.order_text(mine):
                return galera.Action("bootstrap", "an operator's run ordered it")
            print(f"an order for another position is ignored: {order_given.strip()}", flush=True)
        # Who joined with what a running member keeps would soon go again.
        if mine.room != has_room(2 * cluster["reserve_mb"]):
            mine = dataclasses.replace(mine, room=not mine.room)
            publish(mine)
        action = galera.boot_action(cluster["name"], order, ask_all(cluster, mine))
        if action.action == "join":
            # Say so, then look again: two that look at one moment both see the other, and the
            # order decides in the next round.
            going = dataclasses.replace(mine, phase=galera.STARTING)
            publish(going)
            action = galera.boot_action(cluster["name"], order, ask_all(cluster, going))
            if action.action == "wait":
                publish(mine)
        if action.action != "wait":
            return action
        if action != said or time.monotonic() - when > REMIND_SECONDS:
            say(action, mine)
            said, when = action, time.monotonic()
        time.sleep(1.0)


def start() -> None:
    cluster = json.loads(read(HERE / "cluster.json"))
    # The unit's umask is for data; what is said here is for the agent, another user.
    os.umask(0o022)
    RUN.mkdir(mode=0o755, exist_ok=True)
    ENVIRONMENT_FILE.unlink(missing_ok=True)
    mine = own_state()
    publish(mine)
    action = wait_for_action(cluster, mine)
    say(action, mine)
    if action.action in ("bootstrap", "operator"):
        publish(galera.Member(galera.BOOTSTRAPPING, mine.uuid, mine.seqno))
    else:
        publish(dataclasses.replace(mine, phase=galera.STARTING))
    if action.action == "bootstrap":
        if not mine.virgin:
            # Galera itself would only trust the mark of an orderly stop.
            saved = DATA / "grastate.dat"
            replace(saved, galera.allow_bootstrap(read(saved)), 0o660, like=saved)
        replace(ENVIRONMENT_FILE, "_WSREP_NEW_CLUSTER=--wsrep-new-cluster\n", 0o600)
    if action.action in ("bootstrap", "join"):
        # The last view has served: a cluster is there, or this member makes it.
        with contextlib.suppress(FileNotFoundError):
            (DATA / "gvwstate.dat").unlink()


def done() -> None:
    for path in (START_FILE, ENVIRONMENT_FILE, ORDER_FILE):
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--done"]:
        done()
    else:
        start()
