#!/usr/bin/python
# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything about one server at a glance."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_status
short_description: See at once how a server of the cluster is
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Asks all daemons of a server at the same time, each for two seconds at the most, and looks at
    its units, packages and configuration. Nothing is changed.
  - A daemon that does not answer is no error; it is said in its place.
extends_documentation_fragment:
  - ringmain.voip.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  functions:
    description: What the server does, as far as V(edge), V(media), V(pbx) and V(database).
    type: list
    elements: str
    required: true
  address:
    description: Its address in the inside network.
    type: str
    required: true
  floating:
    description: The addresses that float between the edges.
    type: list
    elements: str
    required: true
  relay_addresses:
    description:
      - Addresses at which relays take commands. Of those that float, the ones that are here are
        asked. Empty for the server's own address.
    type: list
    elements: str
    default: []
  ports:
    description:
      - Ports of the daemons, C(sip_check), C(relay_control), C(pbx_ami) and C(patroni_rest).
    type: dict
    required: true
  ami_password:
    description: Password of the user C(ringmain) of Asterisk's manager interface.
    type: str
    default: ""
  database_driver:
    description: What the database speaks.
    type: str
    choices: [mariadb, postgresql]
    default: mariadb
  database_socket:
    description: MariaDB's Unix socket.
    type: path
    default: /run/mysqld/mysqld.sock
  database_members:
    description: How many members the database has.
    type: int
    default: 3
  dispatcher_list:
    description: Kamailio's list of destinations.
    type: path
    default: /var/lib/ringmain/dispatcher.list
  rpc_socket:
    description: Kamailio's datagram socket.
    type: path
    default: /run/kamailio/rpc.sock
  tls_directory:
    description: Directory of C(ca.pem), C(cert.pem) and C(key.pem).
    type: path
    default: /etc/ringmain/tls
"""

EXAMPLES = r"""
- name: See how it is
  ringmain.voip.node_status:
    functions: [edge, pbx]
    address: 192.0.2.11
    floating: [203.0.113.10, 192.0.2.10]
    ports: "{{ ringmain_plan.ports }}"
    ami_password: "{{ ringmain_secrets.asterisk_ami_password }}"
  register: node
"""

RETURN = r"""
node:
  description: What was found. A part that did not answer has only C(error).
  returned: success
  type: dict
  contains:
    addresses:
      description: Floating addresses that the server holds.
      type: list
      elements: str
    services:
      description:
        - Each daemon with C(name), C(state), C(since), C(restarts), C(version) (of the installed
          package), C(waits_for_package) (an older program still runs) and
          C(waits_for_configuration).
      type: list
      elements: dict
    kernel:
      description: The running kernel, and C(next), which a reboot would choose.
      type: dict
    done:
      description: The last rolling run that did its work here, C(REASON:RUN-ID).
      type: str
    edge:
      description:
        - Of an edge, C(ready) with C(answer), C(registrations), C(destinations) (with C(set),
          C(name), C(uri), C(state), C(drain)) and C(differences) between its list and its process.
      type: dict
    media:
      description: Of a relay, its C(sessions), and C(addresses) of the relays that are here.
      type: dict
    pbx:
      description: Of a PBX node, its C(calls), C(channels), and C(oldest) in seconds.
      type: dict
    database:
      description: Of a database member, C(role), C(complaint), and what the engine says.
      type: dict
"""

import contextlib
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringmain.voip.plugins.module_utils import (
    ami,
    dispatcher,
    galera_status,
    kernel_forwarding,
    ng,
    node_state,
    patroni,
    pending,
    sip_options,
)
from ansible_collections.ringmain.voip.plugins.module_utils.kamailio_rpc import (
    KamailioRpc,
    NotRunningError,
    RpcError,
    datagram_transport,
)
from ansible_collections.ringmain.voip.plugins.module_utils.patroni_client import PatroniClient

PATIENCE = 2.0
"""Seconds that a daemon has to answer."""

Part = dict[str, Any]


class Node:
    """The server this runs on. Each method looks at one part and fits a thread of its own."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params

    def services(self) -> list[Part]:
        """Units, versions, and who waits for what."""
        wanted = node_state.services(self.params["functions"], self.params["database_driver"])
        properties = "Id,LoadState,ActiveState,MainPID,ActiveEnterTimestamp,NRestarts"
        units = node_state.parse_units(
            self.module.run_command(
                ["systemctl", "show", "-p", properties, *(each.unit for each in wanted)]
            )[1]
        )
        form = "${db:Status-Abbrev} ${Package} ${Version}\\n"
        packages = [each.package for each in wanted if each.package]
        # It fails when one of them is missing, and lists the others all the same.
        listed = self.module.run_command(["dpkg-query", "-W", "-f", form, *packages])[1]
        replaced = [name for name, unit in units.items() if replaced_code(unit.get("MainPID"))]
        waiting = pending.pending_services(
            digests("/etc/ringmain/digests", ""), digests("/run/ringmain", ".digest")
        )
        versions = node_state.parse_versions(listed)
        return node_state.describe_services(wanted, units, versions, replaced, waiting)

    def addresses(self) -> list[str]:
        """Which floating addresses are here."""
        return [address for address in self.params["floating"] if is_here(address)]

    def kernel(self) -> Part:
        """The running one, and the one after a reboot."""
        running = os.uname().release
        present = [path.name.removeprefix("vmlinuz-") for path in Path("/boot").glob("vmlinuz-*")]
        return {"running": running, "next": kernel_forwarding.bootable(running, present)[-1]}

    def done(self) -> str:
        """Which run was the last to finish here."""
        with contextlib.suppress(FileNotFoundError):
            return Path("/var/lib/ringmain/last_run").read_text(encoding="ascii").strip()
        return ""

    def edge(self) -> Part:
        """Whether it is ready, whom it knows, and whom it sends calls to."""
        rpc = KamailioRpc(datagram_transport(self.params["rpc_socket"], PATIENCE))
        with open(self.params["dispatcher_list"], encoding="utf-8") as stream:
            listed = dispatcher.parse(stream.read())
        flags: dict[tuple[int, str], str] = {}
        running: list[dispatcher.Destination] = []
        try:
            answer = rpc.call("dispatcher.list")
            flags = node_state.process_flags(answer)
            running = dispatcher.parse_process(answer or {})
        except RpcError as error:
            # An empty list is reported as a fault.
            if "No Destination Sets" not in error.message:
                raise
        silent = node_state.silent_relays(rpc.call("htable.dump", "away"))
        contacts = rpc.call("stats.fetchn", "usrloc:location_contacts")
        asked = sip_options.ask(
            "127.0.0.1", self.params["ports"]["sip_check"], PATIENCE, source="127.0.0.1"
        )
        return {
            "ready": asked is not None and asked.status == 200,
            "answer": f"{asked.status} {asked.reason}" if asked else "no answer",
            "registrations": int(contacts["usrloc.location_contacts"]),
            "destinations": node_state.describe_destinations(listed, flags, silent),
            "differences": dispatcher.differences(listed, running),
        }

    def media(self) -> Part:
        """What it relays."""
        port = self.params["ports"]["relay_control"]
        relays = self.params["relay_addresses"] or [self.params["address"]]
        here = [address for address in relays if is_here(address)]
        exchanges = (
            ng.UdpExchange(address, port, timeout=PATIENCE / 2, tries=2) for address in here
        )
        return {
            "sessions": sum(ng.Client(exchange).sessions() for exchange in exchanges),
            "addresses": here,
        }

    def pbx(self) -> Part:
        """Who talks."""
        port = self.params["ports"]["pbx_ami"]
        with contextlib.closing(ami.SocketTransport("127.0.0.1", port, PATIENCE)) as link:
            client = ami.Client(link)
            client.login("ringmain", self.params["ami_password"])
            channels = ami.channels(client)
        return {
            "calls": ami.calls(channels),
            "channels": len(channels),
            "oldest": max((channel.seconds for channel in channels), default=0),
        }

    def database(self) -> Part:
        """Where the member stands."""
        if self.params["database_driver"] == "mariadb":
            status: dict[str, str] = {}
            try:
                with galera_status.connect(
                    self.params["database_socket"], int(PATIENCE)
                ) as connection:
                    status = galera_status.read(connection)
            except galera_status.FAILURES as error:
                return {"error": str(error)}
            found = galera_status.describe(status)
            members = self.params["database_members"]
            return {
                **found,
                "role": found["state"],
                "complaint": galera_status.complaint(found, members),
            }
        directory = self.params["tls_directory"]
        client = PatroniClient(
            self.params["address"],
            self.params["ports"]["patroni_rest"],
            f"{directory}/ca.pem",
            f"{directory}/cert.pem",
            f"{directory}/key.pem",
            PATIENCE,
        )
        answer = client.status()
        return {
            "role": (answer or {}).get("role", ""),
            "complaint": patroni.complaint(answer),
            "waits_for_restart": bool((answer or {}).get("pending_restart")),
        }


def is_here(address: str) -> bool:
    """Whether this host has the address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def digests(directory: str, suffix: str) -> dict[str, str]:
    """Digests of configurations by service."""
    return {
        path.name.removesuffix(suffix): path.read_text(encoding="ascii").strip()
        for path in Path(directory).glob(f"*{suffix}")
    }


def replaced_code(pid: str | None) -> bool:
    """Whether this process runs code that is not on disk any more."""
    if not pid or pid == "0":
        return False
    try:
        return node_state.runs_replaced_code(Path(f"/proc/{pid}/maps").read_text("utf-8"))
    except OSError:
        return False


def guarded(look: Callable[[], Any]) -> Any:
    """What a part says, or why it says nothing."""
    try:
        return look()
    except TimeoutError as error:
        return {"error": f"no answer in time ({error})"}
    except (
        OSError,
        ami.AmiError,
        ng.NgError,
        NotRunningError,
        RpcError,
        dispatcher.DispatcherError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:
        return {"error": str(error)}


def main() -> None:
    """Ask everybody at once."""
    module = AnsibleModule(
        argument_spec={
            "functions": {"type": "list", "elements": "str", "required": True},
            "address": {"type": "str", "required": True},
            "floating": {"type": "list", "elements": "str", "required": True},
            "relay_addresses": {"type": "list", "elements": "str", "default": []},
            "ports": {"type": "dict", "required": True},
            "ami_password": {"type": "str", "default": "", "no_log": True},
            "database_driver": {
                "type": "str",
                "default": "mariadb",
                "choices": ["mariadb", "postgresql"],
            },
            "database_socket": {"type": "path", "default": "/run/mysqld/mysqld.sock"},
            "database_members": {"type": "int", "default": 3},
            "dispatcher_list": {"type": "path", "default": "/var/lib/ringmain/dispatcher.list"},
            "rpc_socket": {"type": "path", "default": "/run/kamailio/rpc.sock"},
            "tls_directory": {"type": "path", "default": "/etc/ringmain/tls"},
        },
        supports_check_mode=True,
    )
    node = Node(module)
    looks: dict[str, Callable[[], Any]] = {
        "services": node.services,
        "addresses": node.addresses,
        "kernel": node.kernel,
        "done": node.done,
    }
    for function in ("edge", "media", "pbx", "database"):
        if function in module.params["functions"]:
            looks[function] = getattr(node, function)
    with ThreadPoolExecutor(len(looks)) as pool:
        found = dict(zip(looks, pool.map(guarded, looks.values()), strict=True))
    module.exit_json(changed=False, node=found)


if __name__ == "__main__":
    main()
