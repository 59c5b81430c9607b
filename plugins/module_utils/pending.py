# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which services run with another configuration than the one on disk."""

from __future__ import annotations

from collections.abc import Mapping


def pending_services(written: Mapping[str, str], running: Mapping[str, str]) -> list[str]:
    """Names of the services whose running digest is not the written one, sorted.

    C(written) maps a service to the digest of the configuration on disk, C(running) to the digest
    of the one it started with. A service that does not run has nothing pending.
    """
    return sorted(
        service for service, digest in running.items() if written.get(service, digest) != digest
    )
