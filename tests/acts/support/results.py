# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What acts have seen, kept in a file for whoever makes a table of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Results:
    """Rows of a table by name, in the file at ``path``; nowhere if that is None."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def rows(self) -> dict[str, Any]:
        """All that is kept."""
        if self.path is None or not self.path.exists():
            return {}
        found = json.loads(self.path.read_text(encoding="utf-8"))
        assert isinstance(found, dict)
        return found

    def add(self, what: str, values: dict[str, Any]) -> None:
        """Keep one row in place of what was there by that name."""
        if self.path is None:
            return
        found = self.rows() | {what: values}
        self.path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
