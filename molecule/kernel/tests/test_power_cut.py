# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a power cut leaves of a relay that forwards in the kernel: everything but its calls."""

from __future__ import annotations

from relay_calls import Relay, in_the_kernel, joined, talk


def test_the_kernel_forwards_again(after_a_power_cut: Relay, outside: str, pbx: str) -> None:
    """New calls find module, table and rule in place, without anyone acting."""
    relay = after_a_power_cut
    assert relay.client.calls() == []
    with joined(1, outside, pbx, relay) as calls, in_the_kernel(relay, hops=2) as heard:
        heard += talk(calls, 2.0)
