#!/usr/bin/env python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Put what acts have seen into docs/reliability.md: NAME of the markers there, FILE of results.

The table stands between `<!-- NAME: written by the run -->` and `<!-- NAME: end -->`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
HEAD = (
    "| fault | acknowledged rows missing | nobody took writes for | bound | failed calls |\n"
    "| --- | --- | --- | --- | --- |\n"
)


LOAD_HEAD = (
    "| under load | calls | runs | failed attempts | dropped calls | lost in set-up"
    " | middle and greatest | bound | slowest answer | machine stood still |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
)


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The rows of a table, in the order in which the acts ran; all of one kind."""
    if all("runs" in row for row in results.values()):
        return load_table(results)
    return HEAD + "".join(
        f"| {what} | {row['missing']} of {row['acknowledged']} | {row['gap']} s"
        f" | {row['bound']:g} s | {row['failed']} of {row['calls']} |\n"
        for what, row in results.items()
    )


def bound(seconds: float | None) -> str:
    """A bound, if there is one."""
    return "none" if seconds is None else f"{seconds:g} s"


def dropped(row: Mapping[str, Any]) -> str:
    """How many calls were, and for how long those that went on were silent."""
    silent = f", silent for {row['silence']:.2f} s at most" if row["dropped"] else ""
    return f"{row['dropped']} of {row['up']}{silent}"


def load_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """What faults cost the calls of a traffic."""
    return LOAD_HEAD + "".join(
        f"| {what} | {row['load']} | {row['runs']} | {row['failed']} of {row['attempts']}"
        f" | {dropped(row)} | {row['setup_lost']} of {row['setting_up']}"
        f" | {row['figure']} {row['p50']} s, {row['max']} s"
        f" | {bound(row['bound'])}"
        f" | {row['slowest']} s | {row['stall']} s |\n"
        for what, row in results.items()
    )


def insert(page: str, name: str, text: str) -> str:
    """The page with a text between its markers. Raises ValueError where there are none."""
    begin, end = f"<!-- {name}: written by the run -->\n", f"<!-- {name}: end -->"
    if begin not in page or end not in page:
        raise ValueError(f"there are no markers {begin.strip()} and {end}")
    before, _sign, rest = page.partition(begin)
    return f"{before}{begin}{text}{end}{rest.partition(end)[2]}"


def main() -> None:
    """Do it."""
    name, file = sys.argv[1:]
    results = json.loads(Path(file).read_text(encoding="utf-8"))
    page = insert(PAGE.read_text(encoding="utf-8"), name, table(results))
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
