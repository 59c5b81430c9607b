# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: call_results
short_description: All results of a round of test calls
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Puts together what M(ringmain.voip.test_calls) found with the phones, what
    M(ringmain.voip.rtpengine_info) found on the relays meanwhile, and what
    M(ringmain.voip.asterisk_channels) found on the PBXs.
  - Says whether both legs of the call are relayed, joined at the relay, and without audio at a PBX;
    and whether relays that were asked for their kernel's table forward there.
  - A host that could not be asked and calls that could not be made are results that are not ok.
positional: relays, pbxs
options:
  _input:
    description: What M(ringmain.voip.test_calls) returned.
    type: dict
    required: true
  relays:
    description: What M(ringmain.voip.rtpengine_info) returned, by host.
    type: dict
    required: true
  pbxs:
    description: What M(ringmain.voip.asterisk_channels) returned, by host.
    type: dict
    required: true
  watch_seconds:
    description: Seconds between the two looks.
    type: float
    default: 2.0
"""

EXAMPLES = r"""
- name: Put all results together
  ansible.builtin.set_fact:
    results: "{{ calls | ringmain.voip.call_results({'srv1': relay}, {'srv1': pbx}) }}"
"""

RETURN = r"""
_value:
  description: Results with C(check), C(ok), C(measured), C(expected) and C(detail).
  type: list
  elements: dict
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.ringmain.voip.plugins.module_utils import media_path


def plain(value: Any) -> Any:
    """Ansible's lazy and tagged containers as plain ones."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def call_results(
    calls: Mapping[str, Any],
    relays: Mapping[str, Any],
    pbxs: Mapping[str, Any],
    watch_seconds: float = 2.0,
) -> list[dict[str, object]]:
    """Turn registered values into looks and ask the core."""
    return media_path.all_results(
        plain(calls),
        plain(relays),
        plain(pbxs),
        media_path.Expected(watch_seconds=float(watch_seconds)),
    )


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """By name."""
        return {"call_results": call_results}
