# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: conntrack_sizing
short_description: Size a voice server's connection tracking
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Entries and buckets of the connection tracking table for one server that carries the given
    calls alone, for the
    kernel's default UDP timeouts of 30 and 120 seconds.
positional: _input
extends_documentation_fragment:
  - ringmain.voip.sizing
options:
  untracked:
    description: Whether the firewall keeps audio out of connection tracking (NOTRACK).
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show what a proxy with 5000 phones needs
  ansible.builtin.debug:
    msg: "{{ 500 | ringmain.voip.conntrack_sizing(functions=['edge'], registrations=5000) }}"
"""

RETURN = r"""
_value:
  description: C(conntrack_max) and C(conntrack_buckets).
  type: dict
  sample: {"conntrack_max": 16384, "conntrack_buckets": 32768}
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.ringmain.voip.plugins.module_utils import capacity
from ansible_collections.ringmain.voip.plugins.plugin_utils.plain import to_plain


def conntrack_sizing(calls: t.Any, **options: t.Any) -> dict[str, t.Any]:
    """Convert to plain data and ask the core."""
    try:
        plain = {"untracked": False, **to_plain(options)}
        found = capacity.limits(*capacity.single(int(calls), **plain))
        return {name: found[name] for name in ("conntrack_max", "conntrack_buckets")}
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"conntrack_sizing: {error}") from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Any]:
        """By name."""
        return {"conntrack_sizing": conntrack_sizing}
