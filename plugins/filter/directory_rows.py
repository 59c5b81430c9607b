# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory's rows of the database."""

from __future__ import annotations

DOCUMENTATION = r"""
name: directory_rows
short_description: The inventory's rows of the database
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Makes the rows of the tables C(tenants), C(subscribers), C(numbers) and C(services), those of
    the reserved tenant included.
  - Passwords become the hash of digest authentication, which is a secret too. Use C(no_log).
positional: subscribers, numbers, services
options:
  _input:
    description: C(ringmain_tenants).
    type: list
    elements: dict
    required: true
  subscribers:
    description: C(ringmain_subscribers).
    type: list
    elements: dict
    required: true
  numbers:
    description: C(ringmain_numbers).
    type: list
    elements: dict
    required: true
  services:
    description: C(ringmain_services).
    type: list
    elements: dict
    required: true
  secrets:
    description: C(ringmain_secrets), of which the passwords of the subscribers are used.
    type: dict
    required: true
  domain:
    description: C(ringmain_domain).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Keep the inventory's rows
  ansible.builtin.include_role:
    name: ringmain.voip.schema
  vars:
    schema_rows: >-
      {{ ringmain_tenants | ringmain.voip.directory_rows(
           ringmain_subscribers, ringmain_numbers, ringmain_services,
           secrets=ringmain_secrets, domain=ringmain_domain) }}
"""

RETURN = r"""
_value:
  description: Table to list of rows, parents before children.
  type: dict
"""

import typing as t
from collections.abc import Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.ringmain.voip.plugins.module_utils import contract
from ansible_collections.ringmain.voip.plugins.plugin_utils.plain import to_plain


def directory_rows(
    tenants: t.Any,
    subscribers: t.Any,
    numbers: t.Any,
    services: t.Any,
    *,
    secrets: t.Any,
    domain: t.Any,
) -> dict[str, list[dict[str, str]]]:
    """Rows by table. Raises AnsibleFilterError naming a subscriber without password."""
    try:
        return contract.directory_rows(
            str(domain),
            to_plain(tenants),
            to_plain(subscribers),
            to_plain(numbers),
            to_plain(services),
            to_plain(secrets).get("subscribers", {}),
        )
    except ValueError as exc:
        raise AnsibleFilterError(str(exc)) from exc


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., t.Any]]:
        """Name to function."""
        return {"directory_rows": directory_rows}
