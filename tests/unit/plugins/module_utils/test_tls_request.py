# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to a real server that wants a certificate of the same authority."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils.tls_request import request

MAKE = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Echo(BaseHTTPRequestHandler):
    """Says what it was asked, or a plain word."""

    def do_POST(self) -> None:
        given = self.rfile.read(int(self.headers["Content-Length"]))
        said = json.dumps({"path": self.path, "given": json.loads(given)})
        self.answer(said.encode())

    def do_GET(self) -> None:
        self.answer(b"fine")

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def identity(folder: Path, name: str) -> dict[str, str]:
    """A key and a certificate that is its own authority."""
    key, certificate = folder / f"{name}-key.pem", folder / f"{name}.pem"
    files = ("-keyout", str(key), "-out", str(certificate))
    who = ("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1")
    subprocess.run([*MAKE, *files, *who], check=True, capture_output=True)
    return {"ca": str(certificate), "certificate": str(certificate), "key": str(key)}


@pytest.fixture
def ours(tmp_path: Path) -> dict[str, str]:
    """The identity that the server has, too."""
    return identity(tmp_path, "ours")


@pytest.fixture
def url(ours: dict[str, str]) -> Iterator[str]:
    """A server that talks to this identity alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ours["certificate"], ours["key"])
    context.load_verify_locations(ours["ca"])
    context.verify_mode = ssl.CERT_REQUIRED
    server = HTTPServer(("127.0.0.1", 0), Echo)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_data_and_text_are_answered(ours: dict[str, str], url: str) -> None:
    assert request(ours, f"{url}/a", "POST", {"b": 1}) == {"path": "/a", "given": {"b": 1}}
    assert request(ours, url) == "fine"


def test_a_stranger_is_not_heard_and_not_believed(
    ours: dict[str, str], url: str, tmp_path: Path
) -> None:
    stranger = identity(tmp_path, "stranger")
    with pytest.raises(OSError, match=r"alert|reset|closed|EOF"):
        request({**stranger, "ca": ours["ca"]}, url)
    with pytest.raises(OSError, match="verify failed"):
        request({**ours, "ca": stranger["ca"]}, url)
