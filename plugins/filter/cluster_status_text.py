# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: cluster_status_text
short_description: Write the status of a cluster as text
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - A verdict, a line per server, the daemons' versions, and what is drained, waits or is wrong.
positional: _input, output
options:
  _input:
    description: The status that P(ringmain.voip.cluster_status#filter) makes.
    type: dict
    required: true
  output:
    description: A table to read, the same in Markdown, or JSON for machines.
    type: str
    choices: [text, markdown, json]
    default: text
"""

EXAMPLES = r"""
- name: Show it
  ansible.builtin.debug:
    msg: "{{ status | ringmain.voip.cluster_status_text }}"
"""

RETURN = r"""
_value:
  description: Text of many lines.
  type: str
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.ringmain.voip.plugins.module_utils.cluster_status import text
from ansible_collections.ringmain.voip.plugins.plugin_utils.plain import to_plain


def cluster_status_text(status: t.Any, output: str = "text") -> str:
    """Convert to plain data and ask the core."""
    try:
        return text(to_plain(status), str(output))
    except ValueError as error:
        raise AnsibleFilterError(f"cluster_status_text: {error}") from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Any]:
        """By name."""
        return {"cluster_status_text": cluster_status_text}
