#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read, start and await one member of a Galera cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: galera_member
short_description: Start one member of a Galera cluster and wait until it is synced
version_added: 0.1.0
author: Ringmain contributors (@ringmain)
description:
  - Reads where a member stands, decides whether it creates the cluster, joins it or merely starts,
    and waits until it is synced.
  - A cluster is created only when every member has been read, none has ever been part of a
    cluster and none is running. A running server is never stopped or restarted.
extends_documentation_fragment:
  - ringmain.voip.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  state:
    description:
      - V(read) returns the member's state.
      - V(started) decides and starts without waiting, so that members which need each other can
        be started one after another. Only the member that creates the cluster waits for itself.
      - V(synced) waits until the member is synced.
      - V(waiting) starts a member of a stopped cluster and waits until its position is known. The
        member itself then waits for the others. Refused while any member is running.
      - V(recovered) decides which member brings the stopped cluster back on an operator's word.
        That one does, and waits until it is synced; on the others nothing is done.
    type: str
    required: true
    choices: [read, started, synced, waiting, recovered]
  name:
    description: Name of this member.
    type: str
    required: true
  members:
    description: All members in their fixed order; the first creates the cluster.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the member.
        type: str
        required: true
      address:
        description: Its address on the inside network.
        type: str
        required: true
  health_port:
    description: Port of the members' health agents.
    type: int
    default: 9200
  known:
    description:
      - What O(state=read) returned for each member, or nothing for members that were not read.
      - A member that was not read counts only if its agent says that it is in the primary
        component.
    type: dict
    default: {}
  without:
    description: Members that O(state=recovered) gives up, because they will not come back.
    type: list
    elements: str
    default: []
  chosen:
    description: Member whose data O(state=recovered) takes where the members disagree.
    type: str
    default: ""
  deadline:
    description: Seconds until O(state=synced), O(state=waiting) and O(state=recovered) give up.
    type: int
    default: 300
  account:
    description:
      - Operating system user that may ask the database for its status over the unix socket.
      - Created when missing, once the member is synced.
    type: str
  certificate:
    description:
      - File with the server's certificate. When the server shows another one, O(state=synced) has
        it and its replication read it again; nothing is restarted and no connection ends.
    type: path
  socket:
    description: Unix socket of the server.
    type: path
    default: /run/mysqld/mysqld.sock
  data:
    description: Data directory of the server.
    type: path
    default: /var/lib/mysql
  service:
    description: Name of the server's unit.
    type: str
    default: mariadb.service
"""

EXAMPLES = r"""
- name: Wait until this member is synced
  ringmain.voip.galera_member:
    state: synced
    name: db1
    members:
      - name: db1
        address: 192.0.2.1
      - name: db2
        address: 192.0.2.2
      - name: db3
        address: 192.0.2.3
"""

RETURN = r"""
member:
  description: Where the member stands.
  returned: always
  type: dict
  sample:
    phase: primary
    uuid: 6ba7b810-9dad-11d1-80b4-00c04fd430c8
    seqno: -1
    safe_to_bootstrap: false
    running: true
    synced: true
action:
  description: What was decided.
  returned: for O(state=started) and O(state=recovered)
  type: str
  sample: join
reason:
  description: Why.
  returned: for O(state=started) and O(state=recovered)
  type: str
  sample: the cluster is up
seconds:
  description: How long the member took to be synced.
  returned: for O(state=synced)
  type: float
  sample: 2.5
renewed:
  description: Whether the server had to take up a new certificate.
  returned: for O(state=synced)
  type: bool
  sample: false
"""

import json
import os
import time
import traceback
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.urls import open_url
from ansible_collections.ringmain.voip.plugins.module_utils import galera, galera_status

PYMYSQL_ERROR = None
try:
    import pymysql
except ImportError:
    PYMYSQL_ERROR = traceback.format_exc()

RUN = "/run/ringmain-galera"
START_FILE = f"{RUN}/start.json"
ORDER_FILE = f"{RUN}/bootstrap-order"


class Server:
    """The MariaDB server on this host."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params

    def connect(self) -> Any:
        """Open a connection as root over the unix socket."""
        return galera_status.connect(self.params["socket"])

    def status(self) -> dict[str, str]:
        """Return the wsrep status; empty when the server does not answer."""
        try:
            with self.connect() as connection:
                return galera_status.read(connection)
        except (pymysql.MySQLError, OSError):
            return {}

    def unit(self) -> dict[str, str]:
        """Return properties of the unit."""
        out = self.module.run_command(
            ["systemctl", "show", "-p", "ActiveState,SubState,Result", self.params["service"]],
            check_rc=True,
        )[1]
        return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)

    def saved(self, name: str) -> str:
        """Return the text of a file in the data directory, or nothing."""
        try:
            with open(os.path.join(self.params["data"], name), encoding="utf-8") as file:
                return file.read()
        except OSError:
            return ""

    def member(self) -> galera.Member:
        """Read where this member stands."""
        position = galera.parse_grastate(self.saved("grastate.dat"))
        status = self.status()
        active = self.unit()["ActiveState"] == "active"
        phase = galera.STOPPED
        if status.get("wsrep_cluster_status") == "Primary":
            phase = galera.PRIMARY
        elif status:
            phase = galera.NON_PRIMARY
        elif active:
            phase = galera.SILENT
        return galera.Member(
            phase=phase,
            synced=galera_status.is_synced(status),
            running=active,
            **position,
        )

    def waiting(self) -> galera.Member | None:
        """Return what the start helper says of this member while it waits; else None."""
        try:
            with open(START_FILE, encoding="utf-8") as file:
                told = galera.member_from_dict(json.load(file))
        except (OSError, ValueError):
            return None
        return told if told.frozen else None

    def start(self) -> None:
        """Begin to start the server, now and at every boot."""
        service = self.params["service"]
        self.module.run_command(["systemctl", "reset-failed", service])
        self.module.run_command(["systemctl", "enable", service], check_rc=True)
        self.module.run_command(["systemctl", "start", "--no-block", service], check_rc=True)

    def order_bootstrap(self, member: galera.Member) -> None:
        """Tell the start helper to bootstrap from this position."""
        os.makedirs(RUN, mode=0o755, exist_ok=True)
        with open(f"{ORDER_FILE}.new", "w", encoding="utf-8") as file:
            file.write(galera.order_text(member))
        os.replace(f"{ORDER_FILE}.new", ORDER_FILE)

    def log(self) -> str:
        """Return the last lines of the server's log that tell of the cluster or of errors."""
        out = self.module.run_command(
            [
                "journalctl",
                "-u",
                self.params["service"],
                "-b",
                "-n",
                "400",
                "-o",
                "cat",
                "--no-pager",
            ]
        )[1]
        words = ("ERROR", "error", "fail", "wait:", "refus", "SST", "Primary", "primary")
        return "\n".join([line for line in out.splitlines() if any(w in line for w in words)][-25:])

    def ensure_account(self, name: str) -> bool:
        """Create the account that may ask for the status; returns whether it was missing."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT COUNT(*) FROM mysql.global_priv WHERE User = %s AND Host = 'localhost'",
                (name,),
            )
            if cursor.fetchone()[0]:
                return False
            if not self.module.check_mode:
                cursor.execute(
                    "CREATE USER IF NOT EXISTS %s@'localhost' IDENTIFIED VIA unix_socket", (name,)
                )
            return True


def ask(address: str, port: int) -> galera.Member | None:
    """Return another member's state if it says that it is in the primary component."""
    host = f"[{address}]" if ":" in address else address
    try:
        answer = open_url(f"http://{host}:{port}/state", timeout=2, use_proxy=False)
        member = galera.member_from_dict(json.loads(answer.read()))
    except (OSError, ValueError):
        return None
    return member if member.phase == galera.PRIMARY else None


def started(module: AnsibleModule, server: Server) -> None:
    """Decide, and start the server; only who creates the cluster waits for it."""
    params = module.params
    order = [member["name"] for member in params["members"]]
    states: dict[str, galera.Member | None] = {}
    for member in params["members"]:
        told = params["known"].get(member["name"])
        if member["name"] == params["name"]:
            states[member["name"]] = server.member()
        elif told:
            states[member["name"]] = galera.member_from_dict(told)
        else:
            states[member["name"]] = ask(member["address"], params["health_port"])
    action = galera.deploy_action(params["name"], order, states)
    if action.action == "refuse":
        module.fail_json(msg=f"{params['name']} is not started: {action.reason}")
    changed = action.action != "nothing"
    if changed and not module.check_mode:
        if action.action == "bootstrap":
            server.order_bootstrap(server.member())
        server.start()
        if action.action == "bootstrap":
            # The others ask this member's agent, which needs the account.
            await_synced(module, server)
    module.exit_json(
        changed=changed,
        action=action.action,
        reason=action.reason,
        member=galera.member_to_dict(server.member()),
    )


def await_synced(module: AnsibleModule, server: Server) -> tuple[galera.Member, bool, float]:
    """Wait until the member is synced, and see to the account.

    Returns (state, was the account missing, seconds waited); fails with the log's words.
    """
    params = module.params
    begun = time.monotonic()
    while True:
        member = server.member()
        seconds = round(time.monotonic() - begun, 1)
        if member.synced or module.check_mode:
            break
        if seconds > params["deadline"]:
            unit = server.unit()
            module.fail_json(
                msg=f"{params['name']} is not synced after {params['deadline']} s: it is "
                f"{member.phase}, its unit {unit['ActiveState']} ({unit['SubState']}). Its log "
                f"says:\n{server.log()}",
                member=galera.member_to_dict(member),
            )
        time.sleep(0.5)
    missing = False
    if params["account"] and member.synced:
        missing = server.ensure_account(params["account"])
    return member, missing, seconds


def waiting(module: AnsibleModule, server: Server) -> None:
    """Start the member of a stopped cluster, and wait until it says where it stands."""
    params = module.params
    known = {name: galera.member_from_dict(told) for name, told in params["known"].items() if told}
    running = galera.running(known)
    if running:
        module.fail_json(msg=f"nothing was touched: {running}")
    found = server.waiting()
    changed = found is None
    if changed and not module.check_mode:
        server.start()
    begun = time.monotonic()
    while not module.check_mode:
        found = server.waiting()
        now = found or server.member()
        # The members may not need an operator: then they are on their way.
        if found or now.phase == galera.PRIMARY:
            break
        if time.monotonic() - begun > params["deadline"]:
            module.fail_json(
                msg=f"{params['name']} does not say where it stands after {params['deadline']} s. "
                f"Its log says:\n{server.log()}"
            )
        time.sleep(0.5)
    module.exit_json(changed=changed, member=galera.member_to_dict(found or server.member()))


def recovered(module: AnsibleModule, server: Server) -> None:
    """Decide who brings the cluster back; if it is this member, do so."""
    params = module.params
    states = {
        name: galera.member_from_dict(told) if told else None
        for name, told in params["known"].items()
    }
    mine = states.get(params["name"])
    if any(state and state.phase == galera.PRIMARY for state in states.values()):
        action = galera.Action("nothing", "the members found together without an operator")
    else:
        order = [member["name"] for member in params["members"]]
        action = galera.recovery(order, states, params["without"], params["chosen"])
    if action.action == "refuse":
        module.fail_json(msg=f"the cluster is not brought back: {action.reason}")
    leads = mine is not None and params["name"] in action.waiting_for
    if leads and mine is not None and not module.check_mode:
        server.order_bootstrap(mine)
        await_synced(module, server)
    module.exit_json(
        changed=leads,
        action=action.action,
        reason=f"{', '.join(action.waiting_for)}: {action.reason}",
        member=galera.member_to_dict(server.member()),
    )


def synced(module: AnsibleModule, server: Server) -> None:
    """Wait for the member, and have it show its present certificate."""
    member, changed, seconds = await_synced(module, server)
    path, file = module.params["socket"], module.params["certificate"]
    renewed = False
    try:
        if file and member.synced and not galera_status.shows_its_file(path, file):
            renewed = True
            if not module.check_mode:
                galera_status.read_certificates(path)
                if not galera_status.shows_its_file(path, file):
                    module.fail_json(
                        msg=f"{module.params['name']} does not show the new certificate in {file}. "
                        "See 'journalctl -u mariadb' there"
                    )
    except galera_status.FAILURES as error:
        module.fail_json(
            msg=f"{module.params['name']} does not take up the certificate in {file}: {error}"
        )
    module.exit_json(
        changed=changed or renewed,
        member=galera.member_to_dict(member),
        seconds=seconds,
        renewed=renewed,
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "required": True,
                "choices": ["read", "started", "synced", "waiting", "recovered"],
            },
            "name": {"type": "str", "required": True},
            "members": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "address": {"type": "str", "required": True},
                },
            },
            "health_port": {"type": "int", "default": 9200},
            "known": {"type": "dict", "default": {}},
            "without": {"type": "list", "elements": "str", "default": []},
            "chosen": {"type": "str", "default": ""},
            "deadline": {"type": "int", "default": 300},
            "account": {"type": "str"},
            "certificate": {"type": "path"},
            "socket": {"type": "path", "default": "/run/mysqld/mysqld.sock"},
            "data": {"type": "path", "default": "/var/lib/mysql"},
            "service": {"type": "str", "default": "mariadb.service"},
        },
        supports_check_mode=True,
    )
    if PYMYSQL_ERROR:
        module.fail_json(msg=missing_required_lib("PyMySQL"), exception=PYMYSQL_ERROR)
    server = Server(module)
    if module.params["state"] == "read":
        module.exit_json(changed=False, member=galera.member_to_dict(server.member()))
    acts = {"started": started, "synced": synced, "waiting": waiting, "recovered": recovered}
    acts[module.params["state"]](module, server)


if __name__ == "__main__":
    main()
