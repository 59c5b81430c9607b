# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of packages are kept, all of them or none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringmain.voip.plugins.modules import kept_packages

Run = Callable[..., dict[str, Any]]
OLD, NEW = "kamailio_6.0.1-1_amd64.deb", "kamailio_6.0.2-1_amd64.deb"


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the module; apt has kept two versions."""
    (tmp_path / "apt").mkdir()
    for name in (OLD, NEW):
        (tmp_path / "apt" / name).write_text(name)

    def call(version: str, **more: Any) -> dict[str, Any]:
        words = {
            "packages": {"kamailio": version},
            "sources": [str(tmp_path / "apt"), str(tmp_path / "kept")],
            "dest": str(tmp_path / "kept"),
        }
        with patch_module_args({**words, **more}), pytest.raises(SystemExit):
            kept_packages.main()
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return call


def kept(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "kept").glob("*"))


def test_what_is_named_is_kept_in_place_of_what_was_there(run: Run, tmp_path: Path) -> None:
    assert (run("6.0.1-1")["changed"], kept(tmp_path)) == (True, [OLD])
    assert (run("6.0.1-1")["changed"], kept(tmp_path)) == (False, [OLD])
    assert run("6.0.2-1")["files"] == [NEW]
    assert kept(tmp_path) == [NEW]


def test_what_is_kept_already_is_found_there(run: Run, tmp_path: Path) -> None:
    run("6.0.1-1")
    (tmp_path / "apt" / OLD).unlink()
    assert run("6.0.1-1")["changed"] is False
    assert (tmp_path / "kept" / OLD).read_text() == OLD


def test_a_missing_one_leaves_all_as_it_was(run: Run, tmp_path: Path) -> None:
    run("6.0.1-1")
    failed = run("6.0.3-1")
    assert failed["failed"] is True
    assert "no file of kamailio 6.0.3-1 is in" in failed["msg"]
    assert "there would be no way back" in failed["msg"]
    assert kept(tmp_path) == [OLD]


def test_check_mode_keeps_nothing(run: Run, tmp_path: Path) -> None:
    assert run("6.0.1-1", _ansible_check_mode=True)["changed"] is True
    assert kept(tmp_path) == []
