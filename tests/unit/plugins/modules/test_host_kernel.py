# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module on a tree of files in place of the kernel's; the acts run it on real kernels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringmain.voip.plugins.modules import host_kernel

RMEM = "net.core.rmem_max"
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel with one key, and an empty /etc."""
    monkeypatch.setattr(host_kernel, "PROC_SYS", tmp_path / "sys")
    monkeypatch.setattr(host_kernel, "CONFIGURATION", tmp_path / "etc")
    (tmp_path / "sys/net/core").mkdir(parents=True)
    (tmp_path / "sys/net/core/rmem_max").write_text("212992\n")
    return tmp_path


@pytest.fixture
def run(tree: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the module with these options; what it returns."""

    def call(**params: Any) -> dict[str, Any]:
        with patch_module_args({"name": "media1", **params}), pytest.raises(SystemExit):
            host_kernel.main()
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return call


def value(tree: Path) -> str:
    """What the kernel has."""
    return (tree / "sys/net/core/rmem_max").read_text().strip()


def test_first_run_sets_and_second_changes_nothing(run: Run, tree: Path) -> None:
    first = run(sysctl={RMEM: 8388608}, module_options={"nf_conntrack": "hashsize=512"})
    assert (first["changed"], first["set"]) == (True, [RMEM])
    assert value(tree) == "8388608"
    texts = {path.parent.name: path.read_text() for path in tree.glob("etc/*/zz-ringmain.conf")}
    assert texts == {
        "sysctl.d": f"# Ansible managed\n{RMEM} = 8388608\n",
        "modprobe.d": "# Ansible managed\noptions nf_conntrack hashsize=512\n",
        "modules-load.d": "# Ansible managed\n",
    }
    second = run(sysctl={RMEM: 8388608}, module_options={"nf_conntrack": "hashsize=512"})
    assert (second["changed"], second["set"]) == (False, [])


def test_drift_is_repaired_in_kernel_and_file(run: Run, tree: Path) -> None:
    run(sysctl={RMEM: 8388608})
    (tree / "sys/net/core/rmem_max").write_text("4096\n")
    assert run(sysctl={RMEM: 8388608})["set"] == [RMEM]
    drop_in = tree / "etc/sysctl.d/zz-ringmain.conf"
    drop_in.chmod(0o600)
    again = run(sysctl={RMEM: 8388608})
    assert (again["changed"], again["set"]) == (True, [])
    assert drop_in.stat().st_mode & 0o777 == 0o644


def test_check_mode_shows_and_changes_nothing(run: Run, tree: Path) -> None:
    found = run(sysctl={RMEM: 8388608}, _ansible_check_mode=True, _ansible_diff=True)
    assert (found["changed"], found["set"]) == (True, [RMEM])
    running = next(each for each in found["diff"] if each["before_header"] == "running kernel")
    assert running["before"] == f"{RMEM} = 212992\n"
    assert running["after"] == f"{RMEM} = 8388608\n"
    assert value(tree) == "212992"
    assert not (tree / "etc").exists()


def test_what_is_absent_is_an_error_and_nothing_is_set(run: Run, tree: Path) -> None:
    found = run(sysctl={RMEM: 8388608, "net.no": 1})
    assert found["failed"]
    assert found["msg"].startswith("media1 has a kernel that does not let these be set: net.no (")
    assert value(tree) == "212992"
    assert not (tree / "etc").exists()


def test_what_is_allowed_to_be_absent_is_told(run: Run, tree: Path) -> None:
    found = run(sysctl={RMEM: 8388608, "net.no": 1}, unsettable_allowed=["net.n*"])
    assert found["unsettable"] == ["net.no (wanted 1; absent)"]
    assert value(tree) == "8388608"
    assert "-net.no = 1\n" in (tree / "etc/sysctl.d/zz-ringmain.conf").read_text()


def test_module_that_is_not_there(run: Run) -> None:
    """An error that names it, or told where that is allowed."""
    found = run(modules=["ringmain_no_such_module"])
    assert found["msg"].startswith("media1 cannot load kernel modules: ringmain_no_such_module (")
    found = run(modules=["ringmain_no_such_module"], unloadable_allowed=["*"])
    assert found["unloadable"] == ["ringmain_no_such_module"]


def test_server_smaller_than_declared(run: Run) -> None:
    assert run(cores=100000)["msg"].endswith("or give the server more")
