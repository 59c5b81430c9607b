# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server's Kamailio has in its tables in memory."""

from __future__ import annotations

from collections.abc import Iterable

from .lab import Lab

# Calls one method for some keys of a table, and prints those for which it succeeds, a line each.
EACH = r"""
import json, socket, sys
method, table, *keys = sys.argv[1:]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
    client.bind("")
    client.settimeout(3)
    client.connect("/run/kamailio/rpc.sock")
    for key in keys:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": [table, key]}
        client.send(json.dumps(request).encode())
        if "result" in json.loads(client.recv(65536)):
            print(key)
"""


def held(lab: Lab, server: str, method: str, table: str, keys: Iterable[str]) -> list[str]:
    """Those of some keys that are in a table, by a method that fails without."""
    return lab.python(server, EACH, method, table, *keys).split()


def forget(lab: Lab, server: str, tables: Iterable[str], key: str) -> None:
    """Take a key out of some hash tables, where it is in them."""
    for table in tables:
        lab.python(server, EACH, "htable.delete", table, key)
