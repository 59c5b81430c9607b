# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The release after this one: the same collection with one more step of the schema."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .lab import ROOT

FOLDER = ROOT / ".cache" / "next-release" / "ansible_collections" / "ringmain" / "voip"

# On the table that every call writes to, as a step of a real release would be.
STEP = "029_cdr_next.sql"
STATEMENT = (
    "ALTER TABLE cdr ADD COLUMN IF NOT EXISTS next_release VARCHAR(20) NOT NULL DEFAULT '';\n"
)
LEVELS = (
    "__schema_level: 1\n__schema_runs_on: [1, 2]\n",
    "__schema_level: 2\n__schema_runs_on: [1, 3]\n",
)


def make() -> Path:
    """The folder of its playbooks, which find their own roles and plugins; made anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    words = ["git", "ls-files", "-z", "--", "plugins", "roles", "playbooks", "meta", "galaxy.yml"]
    listed = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        target = FOLDER / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    (FOLDER / "roles" / "schema" / "files" / "migrations" / STEP).write_text(STATEMENT)
    levels = FOLDER / "roles" / "schema" / "vars" / "main.yml"
    text = levels.read_text(encoding="utf-8")
    assert LEVELS[0] in text, f"{levels} has other levels than this act knows"
    levels.write_text(text.replace(*LEVELS), encoding="utf-8")
    return FOLDER / "playbooks"
