# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain data from what Ansible hands to plugins: lazy, tagged containers and strings."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping


def to_plain(value: t.Any) -> t.Any:
    """Copy a value into dict, list, str, int, float, bool and None; anything else becomes a str."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): to_plain(value[key]) for key in value}
    if isinstance(value, (list, tuple, set)):
        return [to_plain(item) for item in value]
    # The constructors copy: what they give carries no tag.
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    return str(value)
