# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table that `make soak` puts into the documentation."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def results(root: Path) -> Any:
    """The tool."""
    path = root / "tests" / "tools" / "results.py"
    spec = importlib.util.spec_from_file_location("results", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_table_has_a_row_for_each_fault(results: Any) -> None:
    seen = {"acknowledged": 90, "missing": 1, "gap": 2.4, "bound": 3.0, "calls": 8, "failed": 2}
    assert results.table({"switchover": seen}).splitlines()[2:] == [
        "| switchover | 1 of 90 | 2.4 s | 3 s | 2 of 8 |"
    ]


def test_table_of_faults_under_load(results: Any) -> None:
    seen: dict[str, Any] = {
        "load": "80",
        "runs": 20,
        "attempts": 90,
        "failed": 1,
        "up": 80,
        "dropped": 2,
        "setting_up": 3,
    }
    seen |= {"setup_lost": 0, "figure": "away", "p50": 0.7, "max": 0.9, "bound": 1.0}
    seen |= {"slowest": 1.5, "stall": 0.02, "silence": 0.41}
    rows = {"cut": seen, "nothing": seen | {"bound": None, "dropped": 0}}
    assert results.table(rows).splitlines()[2:] == [
        "| cut | 80 | 20 | 1 of 90 | 2 of 80, silent for 0.41 s at most | 0 of 3"
        " | away 0.7 s, 0.9 s | 1 s | 1.5 s | 0.02 s |",
        "| nothing | 80 | 20 | 1 of 90 | 0 of 80 | 0 of 3 | away 0.7 s, 0.9 s | none | 1.5 s"
        " | 0.02 s |",
    ]


def test_only_what_is_between_the_markers_is_replaced(results: Any) -> None:
    page = "a\n<!-- x: written by the run -->\nold\n<!-- x: end -->\nb\n"
    once = results.insert(page, "x", "new\n")
    assert once == page.replace("old", "new")
    assert results.insert(once, "x", "new\n") == once


def test_page_without_markers_is_an_error(results: Any) -> None:
    with pytest.raises(ValueError, match="no markers"):
        results.insert("a\n", "x", "new\n")
