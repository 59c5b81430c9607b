# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: capacity_text
short_description: Write the sizes in a cluster's plan as text
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - What each tier carries, and each limit of each host with its reason. Hosts that are alike are
    shown once.
positional: _input, output
options:
  _input:
    description: The plan that C(ringmain.voip.plan) returns.
    type: dict
    required: true
  output:
    description: A table to read, the same in Markdown, or JSON for machines.
    type: str
    choices: [text, markdown, json]
    default: text
"""

EXAMPLES = r"""
- name: Show the plan
  ansible.builtin.debug:
    msg: "{{ ringmain_plan | ringmain.voip.capacity_text }}"
"""

RETURN = r"""
_value:
  description: Text of many lines.
  type: str
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.ringmain.voip.plugins.module_utils.capacity_text import plan_text
from ansible_collections.ringmain.voip.plugins.plugin_utils.plain import to_plain


def capacity_text(plan: t.Any, output: str = "text") -> str:
    """Convert to plain data and ask the core."""
    try:
        return plan_text(to_plain(plan), str(output))
    except ValueError as error:
        raise AnsibleFilterError(f"capacity_text: {error}") from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Any]:
        """By name."""
        return {"capacity_text": capacity_text}
