# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What holds on every server after site.yml."""

from __future__ import annotations

from testinfra.host import Host


def test_no_unit_has_failed(host: Host) -> None:
    """systemd knows of nothing that should run and does not."""
    assert host.check_output("systemctl --failed --plain --no-legend") == ""


def test_changes_of_the_database_are_written_down(host: Host) -> None:
    """Every member has a binary log with rows in it, to start point-in-time recovery from."""
    logs = host.check_output("mariadb --batch --skip-column-names -e 'SHOW BINARY LOGS'")
    names = [f"/var/lib/mysql/{line.split()[0]}" for line in logs.splitlines()]
    assert names
    seen = host.check_output(f"mariadb-binlog --verbose {' '.join(names)}")
    assert "### INSERT INTO `ringmain`.`subscribers`" in seen
