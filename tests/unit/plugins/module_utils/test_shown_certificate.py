# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A TLS server on loopback shows its certificate, which is or is not the one in a file."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from pathlib import Path

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import shown_certificate
from ansible_collections.ringmain.voip.plugins.plugin_utils import authority


def make(path: Path) -> Path:
    """A key with a certificate of its own, the key first, and another certificate after them."""
    now = datetime.datetime.now(datetime.UTC)
    key = authority.make_key()
    path.write_text(key + authority.make_authority(key, "one", now))
    return path


def test_what_is_shown_is_compared_with_a_file(tmp_path: Path) -> None:
    own, other = make(tmp_path / "own.pem"), make(tmp_path / "other.pem")
    certificate = tmp_path / "cert.pem"
    certificate.write_text("-----BEGIN" + own.read_text().split("-----BEGIN")[2])
    stranger = tmp_path / "stranger.pem"
    stranger.write_text("-----BEGIN" + other.read_text().split("-----BEGIN")[2])
    # A bundle counts by its first certificate.
    certificate.write_text(certificate.read_text() + stranger.read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _address = server.accept()
            with context.wrap_socket(peer, server_side=True) as wrapped:
                wrapped.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        shown = shown_certificate.shown_by(server.getsockname())
        thread.join()
    assert shown == shown_certificate.first_in(str(certificate))
    assert shown != shown_certificate.first_in(str(stranger))


def test_a_file_without_a_certificate_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    with pytest.raises(ValueError, match="Invalid PEM"):
        shown_certificate.first_in(str(tmp_path / "empty.pem"))
