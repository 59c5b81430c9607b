# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What holds on every server after site.yml."""

from __future__ import annotations

from testinfra.host import Host


def test_no_unit_has_failed(host: Host) -> None:
    """systemd knows of nothing that should run and does not."""
    assert host.check_output("systemctl --failed --plain --no-legend") == ""
