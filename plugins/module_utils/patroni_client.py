# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Patroni's REST API, one member's."""

from __future__ import annotations

from typing import Any

from ansible_collections.ringmain.voip.plugins.module_utils.tls_request import request


class PatroniClient:
    """Asks one member; the paths are those of the cluster's and this host's certificates."""

    def __init__(
        self, address: str, port: int, ca: str, certificate: str, key: str, timeout: float = 5
    ) -> None:
        self.address = (address, port)
        self._url = f"https://{address}:{port}"
        self._timeout = timeout
        self._identity = {"ca": ca, "certificate": certificate, "key": key}

    def ask(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """Send one request and return what is answered. Raises OSError or ValueError."""
        return request(self._identity, f"{self._url}{path}", method, body, self._timeout)

    def status(self) -> dict[str, Any] | None:
        """Say where the member stands; None when that is not to be had."""
        try:
            status = self.ask("/patroni")
        except (OSError, ValueError):
            return None
        return status if isinstance(status, dict) else None
