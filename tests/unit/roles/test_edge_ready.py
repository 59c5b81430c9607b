# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What decides whether an edge may hold the addresses: its answer, and a drain."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "roles/keepalived/files/edge_ready.py"


def ask(answer: str, listed: Path | None = None, flags: int = 32) -> int:
    """The program's exit code against an edge that answers once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as edge:
        edge.bind(("127.0.0.1", 0))
        edge.settimeout(5)
        port = edge.getsockname()[1]
        words = ["127.0.0.1", str(port)]
        if listed is not None:
            listed.write_text(
                "# a comment\n1 sip:127.0.0.1:5080 4 0 duid=a\n"
                f"3 sip:127.0.0.1:{port} {flags} 0 duid=a\n"
            )
            words.append(str(listed))

        def serve() -> None:
            try:
                _request, client = edge.recvfrom(4096)
            except TimeoutError:
                return
            edge.sendto(f"{answer}\r\n\r\n".encode(), client)

        drained = listed is not None and flags & 4
        thread = threading.Thread(target=serve)
        if not drained:
            thread.start()
        done = subprocess.run([sys.executable, "-IS", str(SOURCE), *words], check=False)
        if not drained:
            thread.join()
        return done.returncode


@pytest.mark.parametrize(
    ("answer", "code"), [("SIP/2.0 200 Ready", 0), ("SIP/2.0 503 Locations Not Synchronised", 1)]
)
def test_the_answer_decides(answer: str, code: int) -> None:
    assert ask(answer) == code


def test_a_drained_edge_is_not_ready(tmp_path: Path) -> None:
    listed = tmp_path / "dispatcher.list"
    assert ask("SIP/2.0 200 Ready", listed, flags=32) == 0
    assert ask("SIP/2.0 200 Ready", listed, flags=36) == 1


def test_a_list_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    listed = tmp_path / "none" / "dispatcher.list"
    listed.parent.mkdir()
    assert ask("SIP/2.0 200 Ready", listed) == 0
    listed.write_text("3 sip:127.0.0.1:1 x\n")
    assert ask("SIP/2.0 200 Ready") == 0
