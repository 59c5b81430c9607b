# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: evidence_text
short_description: Write what stands behind failed results as text
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - For each result what was measured, what was expected, and its details; after that what each
    phone said and its SIP messages.
positional: phones
options:
  _input:
    description: Results with C(check), C(measured), C(expected) and C(detail).
    type: list
    elements: dict
    required: true
  phones:
    description: Lines of each phone, as in RV(ringmain.voip.test_calls#module:evidence).
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Show the evidence
  ansible.builtin.debug:
    msg: "{{ calls.results | rejectattr('ok') | ringmain.voip.evidence_text(calls.evidence) }}"
"""

RETURN = r"""
_value:
  description: Text of many lines.
  type: str
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.ringmain.voip.plugins.module_utils import media_path as core


def evidence_text(
    failed: Iterable[Mapping[str, Any]], phones: Mapping[str, Iterable[str]] | None = None
) -> str:
    """Turn template values into plain ones and ask the core."""
    said = {str(phone): [str(line) for line in lines] for phone, lines in (phones or {}).items()}
    return "\n".join(core.evidence([dict(result) for result in failed], said))


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """By name."""
        return {"evidence_text": evidence_text}
