# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running member of a Galera cluster says of itself."""

from __future__ import annotations

import ssl
import traceback
import typing as t
from collections.abc import Mapping

from ansible_collections.ringmain.voip.plugins.module_utils import shown_certificate

MISSING = ""
"""The traceback of the driver's import, if it is not installed."""
FAILURES: tuple[type[Exception], ...] = (OSError, ValueError)
"""What connecting and reading may raise."""
try:
    import pymysql

    FAILURES += (pymysql.MySQLError,)
except ImportError:
    MISSING = traceback.format_exc()

STATUS = "SHOW GLOBAL STATUS LIKE 'wsrep\\_%'"
"""Answered by a member without quorum, too."""


def connect(path: str, timeout: int = 10, tls: ssl.SSLContext | None = None) -> t.Any:
    """Open a connection as root over the Unix socket. Raises one of FAILURES."""
    if MISSING:
        raise OSError("PyMySQL is not installed on this host")
    return pymysql.connect(
        unix_socket=path,
        user="root",
        connect_timeout=min(timeout, 2),
        read_timeout=timeout,
        ssl=tls,
    )


def read(connection: t.Any) -> dict[str, str]:
    """All wsrep variables by their names in small letters. Raises one of FAILURES."""
    with connection.cursor() as cursor:
        cursor.execute(STATUS)
        return {str(name).lower(): str(value) for name, value in cursor.fetchall()}


def shows_its_file(path: str, certificate: str) -> bool:
    """Whether the server shows clients the certificate in this file. Raises one of FAILURES."""
    with connect(path, tls=shown_certificate.open_context()) as connection:
        # PyMySQL keeps the connection to itself, and the server knows only the dates.
        shown = connection._sock.getpeercert(binary_form=True)
    return bool(shown == shown_certificate.first_in(certificate))


def read_certificates(path: str) -> None:
    """Have the server and its replication read their certificates again; no connection ends.

    Raises one of FAILURES.
    """
    with connect(path) as connection, connection.cursor() as cursor:
        # What is compared, the server's, comes last: a run that ends between them is repeated.
        cursor.execute("SET GLOBAL wsrep_provider_socket_ssl_reload = ON")
        cursor.execute("FLUSH LOCAL SSL")


def is_synced(status: Mapping[str, str]) -> bool:
    """Whether the member has all data and takes statements."""
    return status.get("wsrep_local_state_comment") == "Synced" and status.get("wsrep_ready") == "ON"


def describe(status: Mapping[str, str]) -> dict[str, t.Any]:
    """The state in plain data; nothing that only a running member knows when it says nothing."""

    def number(name: str) -> int | None:
        text = status.get(name, "").partition(".")[0]
        return int(text) if text.lstrip("-").isdigit() else None

    return {
        "running": bool(status),
        "synced": is_synced(status) and status.get("wsrep_cluster_status") == "Primary",
        "state": status.get("wsrep_local_state_comment", ""),
        "cluster_status": status.get("wsrep_cluster_status", ""),
        "cluster_size": number("wsrep_cluster_size"),
        "cluster_uuid": status.get("wsrep_cluster_state_uuid", ""),
        "last_committed": number("wsrep_last_committed"),
        "receive_queue": number("wsrep_local_recv_queue"),
    }


def complaint(described: Mapping[str, t.Any], members: int) -> str:
    """What is wrong with a member of a cluster of so many; empty when nothing is."""
    if not described["running"]:
        return "MariaDB does not answer"
    if described["cluster_status"] != "Primary":
        return f"it has no quorum ({described['cluster_status'] or 'no cluster'})"
    if not described["synced"]:
        return f"it is {described['state'] or 'not ready'}, not Synced"
    size = described["cluster_size"]
    if members and size is not None and size < members:
        return f"it sees {size} of {members} members"
    return ""
