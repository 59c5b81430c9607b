# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: result_table
short_description: Write results of a verification as text
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - One line per result with verdict, check and what was measured; what was expected where they
    differ. The last line counts them.
options:
  _input:
    description: Results with C(check), C(ok), C(measured) and C(expected).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what was found
  ansible.builtin.debug:
    msg: "{{ calls.results | ringmain.voip.result_table }}"
"""

RETURN = r"""
_value:
  description: Text of many lines.
  type: str
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.ringmain.voip.plugins.module_utils import media_path as core


def result_table(results: Iterable[Mapping[str, Any]]) -> str:
    """Turn template values into plain ones and ask the core."""
    return "\n".join(core.table([dict(result) for result in results]))


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """By name."""
        return {"result_table": result_table}
