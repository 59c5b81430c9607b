# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The certificate that a daemon shows, to be compared with the one in its file."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path


def open_context() -> ssl.SSLContext:
    """For whoever only wants to see a certificate: nothing is believed that its owner says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def shown_by(address: tuple[str, int], timeout: float = 5) -> bytes | None:
    """What a TLS server shows, as DER. Raises OSError."""
    with (
        socket.create_connection(address, timeout=timeout) as plain,
        open_context().wrap_socket(plain) as wrapped,
    ):
        return wrapped.getpeercert(binary_form=True)


def first_in(path: str) -> bytes:
    """The first certificate of a PEM file, as DER. Raises OSError or ValueError."""
    text = Path(path).read_text(encoding="utf-8")
    first, end, _rest = text.partition(ssl.PEM_FOOTER)
    return ssl.PEM_cert_to_DER_cert(f"{first}{end}")
