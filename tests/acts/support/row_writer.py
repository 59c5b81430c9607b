# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a server: writes numbered call records through the local HAProxy until its input ends.

Arguments: driver, port, password, a name for the rows. Then it prints one JSON object: the numbers
of the rows whose insertion was acknowledged, and the longest time between two acknowledgements.
A row that was not acknowledged may be there or not; its number is not used again.
"""

from __future__ import annotations

import importlib
import json
import sys
import threading
import time
from typing import Any

CA = "/etc/ringmain/tls/ca.pem"
PAUSE_SECONDS = 0.05
INSERT = (
    "INSERT INTO cdr (uniqueid, sequence, calldate, userfield)"
    " VALUES (%s, %s, '2000-01-01 00:00:00', 'row of an act')"
)


def connect(driver: str, port: int, password: str) -> Any:
    """A connection of the PBX nodes' account, which commits each statement."""
    if driver == "postgresql":
        connection = importlib.import_module("psycopg2").connect(
            host="127.0.0.1",
            port=port,
            user="asterisk",
            password=password,
            dbname="ringmain",
            sslmode="verify-full",
            sslrootcert=CA,
            connect_timeout=2,
        )
        connection.autocommit = True
        return connection
    return importlib.import_module("pymysql").connect(
        host="127.0.0.1",
        port=port,
        user="asterisk",
        password=password,
        database="ringmain",
        ssl_ca=CA,
        connect_timeout=2,
        read_timeout=30,
        autocommit=True,
    )


def main() -> None:
    """Write until standard input is closed."""
    driver, port, password, name = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    connection: Any = None
    acknowledged: list[int] = []
    complaints: dict[str, int] = {}
    number, longest, last = 0, 0.0, time.monotonic()
    while not ended.is_set():
        number += 1
        try:
            if connection is None:
                connection = connect(driver, port, password)
            with connection.cursor() as cursor:
                cursor.execute(INSERT, (name, number))
        except Exception as error:  # whatever it is, the row is not acknowledged
            text = str(error).strip().splitlines()[0][:120] if str(error).strip() else repr(error)
            complaints[text] = complaints.get(text, 0) + 1
            connection = None
        else:
            acknowledged.append(number)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        time.sleep(PAUSE_SECONDS)
    longest = max(longest, time.monotonic() - last)
    print(json.dumps({"acknowledged": acknowledged, "longest": longest, "complaints": complaints}))


if __name__ == "__main__":
    main()
