# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One dictionary of secrets of several."""

from __future__ import annotations

DOCUMENTATION = r"""
name: merge_secrets
short_description: Merge the parts of a cluster's secrets
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Merges dictionaries and the dictionaries inside them. A later value wins.
options:
  _input:
    description: The parts, as C(ringmain_secrets), C(ringmain_secrets_2) and so on hold them.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Put the parts together
  ansible.builtin.set_fact:
    ringmain_secrets: "{{ [ringmain_secrets, ringmain_secrets_2] | ringmain.voip.merge_secrets }}"
  no_log: true
"""

RETURN = r"""
_value:
  description: All secrets in one dictionary.
  type: dict
"""

import typing as t
from collections.abc import Callable

from ansible_collections.ringmain.voip.plugins.module_utils import contract
from ansible_collections.ringmain.voip.plugins.plugin_utils.plain import to_plain


def merge_secrets(parts: t.Any) -> dict[str, t.Any]:
    """The parts in one dictionary."""
    return contract.merge_secrets(to_plain(parts))


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., t.Any]]:
        """Name to function."""
        return {"merge_secrets": merge_secrets}
