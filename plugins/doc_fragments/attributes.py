# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the attributes of modules mean; each module says how far it supports them."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes of every module that works on a host."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and say what it would change, without changing it.
  diff_mode:
    description: Shows what has changed, or would change in check mode, when in diff mode.
  platform:
    description: Works on Linux hosts.
    support: full
    platforms: linux
"""
