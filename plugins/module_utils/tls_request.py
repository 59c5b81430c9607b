# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A request to one of the cluster's daemons, which want a certificate and show theirs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.urls import open_url

# The options of the documentation fragment C(identity).
IDENTITY_SPEC: dict[str, Any] = {
    "ca": {"type": "path", "required": True},
    "certificate": {"type": "path", "required": True},
    "key": {"type": "path", "required": True, "no_log": False},
}


def request(
    identity: Mapping[str, Any], url: str, method: str = "GET", body: Any = None, seconds: float = 5
) -> Any:
    """Send one request, with a body as JSON if there is one; what is answered: data, or else text.

    ``identity`` has the values of IDENTITY_SPEC, ``seconds`` is what the answer may take. Raises
    OSError or ValueError.
    """
    with open_url(
        url,
        method=method,
        data=None if body is None else json.dumps(body),
        headers={"Content-Type": "application/json"},
        timeout=seconds,
        use_proxy=False,
        ca_path=identity["ca"],
        client_cert=identity["certificate"],
        client_key=identity["key"],
    ) as answer:
        text = answer.read().decode()
    return json.loads(text) if text.startswith(("{", "[")) else text
