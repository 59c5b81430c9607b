# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every role introduces itself, and links in the documentation lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
PAGES = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/**/*.md", "roles/*/README.md")
    for path in ROOT.glob(pattern)
)
LINK = re.compile(r"\[[^\]]*\]\((?!https?://|mailto:)([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings give it, as Git hosts form them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("role", ROLES)
def test_role_has_all_its_files(role: str) -> None:
    """What a reader looks for first is there."""
    wanted = ["README.md", "defaults/main.yml", "meta/main.yml", "meta/argument_specs.yml"]
    assert [name for name in wanted if not (ROOT / "roles" / role / name).is_file()] == []


@pytest.mark.parametrize("role", ROLES)
def test_role_says_where_it_runs(role: str) -> None:
    """The role's metadata agree with the collection's."""
    path = ROOT / "roles" / role / "meta" / "main.yml"
    info = yaml.safe_load(path.read_text())["galaxy_info"]
    assert info["license"] == "GPL-3.0-or-later"
    assert info["min_ansible_version"] == "2.19"
    platforms = [
        (each["name"], version) for each in info["platforms"] for version in each["versions"]
    ]
    assert ("Debian", "trixie") in platforms
    assert info["description"]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link names a file of this repository, and a heading in it."""
    broken = []
    for link in LINK.findall((ROOT / page).read_text()):
        name, _hash, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_target_of_make_is_on_its_list() -> None:
    """`make help` prints the comment of a target, so every target has one."""
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z][a-z-]*):(?!=)(.*)$", makefile, flags=re.MULTILINE)
    assert [target for target, rest in targets if " ## " not in rest] == []
