# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a server of the cluster: looks at everything there and prints one JSON object.

Arguments: inside address, address and port of its relay's control. Needs nothing but Python and the
services' own tools. What cannot be found out is missing or carries an `error`; judging is left to
the reader.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

ENGINE_UNITS = {
    "galera": ("mariadb", "ringmain-galera-health"),
    "postgresql": ("etcd", "patroni", "ringmain-postgresql-room"),
}
UNITS = (
    "haproxy",
    "asterisk",
    "valkey-server",
    "ringmain-relay",
    "rtpengine-daemon",
    "kamailio",
    "ringmain-edge",
    "keepalived",
    "ringmain-keepalived",
)
UNREADY = "/run/ringmain/edge.unready"
RPC_SOCKET = "/run/kamailio/rpc.sock"
PBX_SET = 1  # beside it are the relays and the edges, which nobody probes
TREES = (
    "/etc/kamailio",
    "/etc/asterisk",
    "/etc/rtpengine",
    "/etc/valkey",
    "/etc/ringmain-relay",
    "/etc/keepalived",
    "/etc/haproxy",
    "/etc/etcd",
    "/etc/mysql",
    "/etc/patroni",
    "/etc/ringmain",
    "/etc/ringmain-edge",
    "/etc/apt/apt.conf.d",
    "/etc/modprobe.d",
    "/etc/modules-load.d",
    "/etc/needrestart",
    "/etc/sysctl.d",
    "/etc/systemd/system",
    "/usr/local",
)


def output(*words: str, seconds: float = 5) -> str:
    """What a command prints; an empty text when it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def engine() -> str:
    """Which database runs here."""
    return "postgresql" if os.path.exists("/etc/patroni/config.yml") else "galera"


def patroni(address: str) -> dict[str, str]:
    """Member to role of the database cluster, for those that are in step."""
    context = ssl.create_default_context(cafile="/etc/ringmain/tls/ca.pem")
    url = f"https://{address}:8008/cluster"
    try:
        with urllib.request.urlopen(url, timeout=5, context=context) as answer:
            members = json.load(answer)["members"]
    except (OSError, ValueError, KeyError):
        return {}
    return {
        member["name"]: member["role"]
        for member in members
        if member["state"] in ("running", "streaming")
    }


def units() -> dict[str, dict[str, str]]:
    """State, main process and its start of every unit."""
    watched = (*ENGINE_UNITS[engine()], *UNITS)
    wanted = "Id,ActiveState,SubState,MainPID,ExecMainStartTimestampMonotonic,NRestarts"
    text = output("systemctl", "show", "-p", wanted, *(f"{unit}.service" for unit in watched))
    found = {}
    for block in text.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values:
            found[values.pop("Id").removesuffix(".service")] = values
    return found


def galera() -> dict[str, str]:
    """The member's own view of the database cluster."""
    query = "SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_cluster_size', \
'wsrep_local_state_comment', 'wsrep_ready', 'wsrep_cluster_status', 'wsrep_cluster_state_uuid')"
    text = output("mariadb", "--batch", "--skip-column-names", "-e", query)
    return dict(line.split("\t", 1) for line in text.splitlines())


def schema() -> str:
    """All applied migrations, a hash over all columns, and one of what each table of rows says."""
    queries: tuple[str, ...] = (
        "SELECT version, name, checksum FROM ringmain.ringmain_schema ORDER BY version",
        "SELECT table_name, column_name, column_type FROM information_schema.columns"
        " WHERE table_schema = 'ringmain' ORDER BY 1, 2",
        "CHECKSUM TABLE ringmain.tenants, ringmain.subscribers, ringmain.numbers,"
        " ringmain.services, ringmain.settings",
    )
    if engine() == "postgresql":
        tables = ("tenants", "subscribers", "numbers", "services", "settings")
        queries = (
            "SELECT version, name, checksum FROM ringmain_schema ORDER BY version",
            "SELECT table_name, column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = 'public' ORDER BY 1, 2",
            *(f"SELECT * FROM {table} AS t ORDER BY t::text" for table in tables),
        )
        words = ("psql", "-h", "/run/postgresql", "-p", "3306", "-U", "postgres", "-At")
        text = output(*words, "ringmain", "-c", "; ".join(queries))
    else:
        text = output("mariadb", "--batch", "-e", "; ".join(queries))
    return hashlib.sha256(text.encode()).hexdigest() if text else "unknown"


def rpc(method: str, *params: Any) -> Any:
    """A call to Kamailio."""
    request = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.bind("")
        client.settimeout(3)
        client.connect(RPC_SOCKET)
        client.send(json.dumps(request).encode())
        answer = json.loads(client.recv(65536))
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer["result"]


def edge() -> dict[str, Any]:
    """Kamailio: where it sends calls, how many contacts it holds, whether it says it is ready."""
    try:
        sets = rpc("dispatcher.list")["RECORDS"]
        contacts = int(rpc("stats.fetch", "usrloc:")["usrloc.location_contacts"])
        silent = rpc("htable.dump", "away")
        ready = Path(UNREADY).read_text(encoding="ascii").strip() == "0"
    except (OSError, ValueError, KeyError) as error:
        return {"error": repr(error)}
    targets = {
        f"{record['SET']['ID']} {target['DEST']['URI']}": target["DEST"]["FLAGS"]
        for record in sets
        if record["SET"]["ID"] == PBX_SET
        for target in record["SET"]["TARGETS"]
    }
    return {
        "destinations": targets,
        "contacts": contacts,
        "relays_out": sorted(item["name"] for entry in silent for item in entry["slot"]),
        "ready": ready,
    }


def relay(address: str, port: int) -> str:
    """What RTPEngine answers to a ping."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        try:
            client.connect((address, port))
            client.send(b"whole d7:command4:pinge")
            return client.recv(65535).decode(errors="replace")
        except OSError as error:
            return repr(error)


def addresses() -> list[str]:
    """All IPv4 addresses of this host."""
    found = json.loads(output("ip", "-json", "-4", "address") or "[]")
    return [item["local"] for link in found for item in link["addr_info"]]


def hashes() -> dict[str, str]:
    """Permissions, owner and hash of every file of the services' trees."""
    found = {}
    for tree in TREES:
        for folder, _folders, files in os.walk(tree):
            if ".ringmain-previous" in folder:
                continue  # what was there before the last change, kept for the way back
            for name in files:
                path = os.path.join(folder, name)
                status = os.lstat(path)
                if os.path.islink(path):
                    content = os.readlink(path).encode()
                else:
                    with open(path, "rb") as stream:
                        content = stream.read()
                digest = hashlib.sha256(content).hexdigest()
                found[path] = f"{status.st_mode:o} {status.st_uid}:{status.st_gid} {digest}"
    return found


def main() -> None:
    """Print the report; with a fourth argument `files` also the hashes of all files."""
    address, relay_address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    report = {
        "units": units(),
        "engine": engine(),
        "galera": galera(),
        "patroni": patroni(address) if engine() == "postgresql" else {},
        "edge": edge(),
        "relay": relay(relay_address, port),
        "asterisk": output("asterisk", "-rx", "core show uptime seconds"),
        "addresses": addresses(),
    }
    if sys.argv[4:] == ["files"]:
        report |= {"files": hashes(), "schema": schema()}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
