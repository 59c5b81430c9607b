# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: missing_package_files
short_description: Package files that a host still lacks
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - From a list of Debian package files keeps those whose package is not installed in just this
    version.
  - Name and version come from the name of the file.
positional: installed, directory
options:
  _input:
    description:
      - Dictionaries with C(sha256) and one of C(path), C(url) or C(file), a name below
        O(directory).
    type: list
    elements: dict
    required: true
  installed:
    description:
      - What C(dpkg-query) printed in the format C(${Package} ${Version} ${db:Status-Status}),
        by line.
    type: list
    elements: str
    required: true
  directory:
    description: Directory of entries with C(file).
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Name what is missing
  ansible.builtin.debug:
    msg: "{{ asterisk_files | ringmain.voip.missing_package_files(query.stdout_lines) }}"
"""

RETURN = r"""
_value:
  description:
    - One dictionary per missing file, with C(name), C(version), C(basename), C(sha256) and C(path)
      or C(url).
  type: list
  elements: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.ringmain.voip.plugins.module_utils.package_files import (
    missing_files,
    parse_installed,
)


def missing_package_files(
    files: t.Any, installed: t.Any, directory: str = ""
) -> list[dict[str, str]]:
    """Turn template values into plain ones and ask the core."""
    try:
        return missing_files(
            [dict(entry) for entry in files],
            parse_installed(str(line) for line in installed),
            str(directory),
        )
    except ValueError as exc:
        raise AnsibleFilterError(f"missing_package_files: {exc}") from exc


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Any]:
        """By name."""
        return {"missing_package_files": missing_package_files}
