# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: newer_packages
author: Ringmain contributors (@ringmain)
version_added: 0.1.0
short_description: What apt would upgrade
description:
  - Reads what C(apt-get --simulate install) prints, and says which installed packages it would
    replace, and by what.
options:
  _input:
    description: Its lines.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: See what is newer
  ansible.builtin.debug:
    msg: "{{ simulated.stdout_lines | ringmain.voip.newer_packages }}"
"""

RETURN = r"""
_value:
  description:
    - C(name), C(installed), C(candidate) of each, and C(jump), whether it is another major version.
  type: list
  elements: dict
"""

from collections.abc import Iterable
from typing import Any

from ansible_collections.ringmain.voip.plugins.module_utils import package_files


def newer_packages(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Plain text in, plain data out."""
    return package_files.newer_packages(str(line) for line in lines)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """Name and function."""
        return {"newer_packages": newer_packages}
