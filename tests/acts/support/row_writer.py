# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a server: writes numbered call records through the local HAProxy until its input ends.

Arguments: `write` or `read`, driver, port, a name for the rows; the password is the first line of
the input. Each event is one line, printed when it happens, so that whoever listens has it even when
this server loses its power:

    TIME + NUMBER    the insertion of this row was acknowledged
    TIME - WORDS     that of the next number was not; it may be there or not
    TIME . SECONDS   the end, and by how much a thread that only sleeps was late at the worst

TIME is the kernel's monotonic clock. `read` prints the numbers that are there, one in a line.
"""

from __future__ import annotations

import importlib
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
SELECT = "SELECT sequence FROM cdr WHERE uniqueid = %s"


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


def say(sign: str, what: object) -> None:
    """Print one event."""
    print(f"{time.monotonic():.3f} {sign} {what}", flush=True)


def write(driver: str, port: int, password: str, name: str) -> None:
    """Write until standard input is closed."""
    ended = threading.Event()
    lateness = [0.0]

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    def sleep() -> None:
        while not ended.is_set():
            began = time.monotonic()
            time.sleep(PAUSE_SECONDS)
            lateness[0] = max(lateness[0], time.monotonic() - began - PAUSE_SECONDS)

    for work in (wait_for_end, sleep):
        threading.Thread(target=work, daemon=True).start()
    connection: Any = None
    number = 0
    while not ended.is_set():
        number += 1
        try:
            if connection is None:
                connection = connect(driver, port, password)
            with connection.cursor() as cursor:
                cursor.execute(INSERT, (name, number))
        except Exception as error:  # whatever it is, the row is not acknowledged
            say("-", (str(error).strip() or repr(error)).splitlines()[0][:120])
            connection = None
        else:
            say("+", number)
        time.sleep(PAUSE_SECONDS)
    say(".", f"{lateness[0]:.3f}")


def main() -> None:
    """Do what the command line says."""
    verb, driver, port, name = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    password = sys.stdin.readline().strip()
    if verb == "write":
        write(driver, port, password, name)
        return
    with connect(driver, port, password).cursor() as cursor:
        cursor.execute(SELECT, (name,))
        for (number,) in cursor.fetchall():
            print(number)


if __name__ == "__main__":
    main()
