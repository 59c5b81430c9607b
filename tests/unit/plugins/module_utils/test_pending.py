# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which services wait for a restart."""

from __future__ import annotations

from ansible_collections.ringmain.voip.plugins.module_utils.pending import pending_services


def test_a_service_with_another_configuration_is_pending() -> None:
    """Sorted, and only those that differ."""
    written = {"kamailio": "new", "asterisk": "same", "galera": "new"}
    running = {"kamailio": "old", "asterisk": "same", "galera": "old"}
    assert pending_services(written, running) == ["galera", "kamailio"]


def test_a_service_that_does_not_run_has_nothing_pending() -> None:
    """It takes what is on disk when it starts."""
    assert pending_services({"kamailio": "new"}, {}) == []


def test_a_service_that_nobody_configured_here_has_nothing_pending() -> None:
    """No configuration on disk, none to take up."""
    assert pending_services({}, {"kamailio": "old"}) == []
