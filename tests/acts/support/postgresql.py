# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL cluster on the lab: who is what."""

from __future__ import annotations

import json
from collections.abc import Sequence

from .lab import Lab

PATRONICTL = "patronictl -c /etc/patroni/config.yml"


class Postgres:
    """Three members, each on a server of its own."""

    def __init__(self, lab: Lab, servers: Sequence[str]) -> None:
        self.lab = lab
        self.servers = list(servers)

    def roles(self, asked: str) -> dict[str, str]:
        """Member to role, for those that run in step, as one server sees it."""
        listed = json.loads(self.lab.shell(asked, f"{PATRONICTL} list -f json", timeout=30))
        return {
            member["Member"]: member["Role"]
            for member in listed
            if member["State"] in ("running", "streaming")
        }

    def with_role(self, role: str) -> str:
        """The one server with a role: Leader or Sync Standby."""
        found = [name for name, its in self.roles(self.servers[0]).items() if its == role]
        assert len(found) == 1, f"{role}: {found}"
        return found[0]

    def primary(self) -> str:
        """The server whose PostgreSQL takes writes."""
        return self.with_role("Leader")

    def etcd_leader(self) -> str:
        """The server whose etcd leads the others."""
        for name in self.servers:
            script = (
                "address=$(awk '/^listen-client-urls/ {print $2}' /etc/etcd/ringmain.yml);"
                " etcdctl --cacert /etc/ringmain/tls/ca.pem --cert /etc/ringmain/tls/cert.pem"
                " --key /etc/ringmain/tls/key.pem --endpoints $address endpoint status -w json"
            )
            status = json.loads(self.lab.shell(name, script))[0]["Status"]
            if status["leader"] == status["header"]["member_id"]:
                return name
        raise AssertionError("no etcd leads")
