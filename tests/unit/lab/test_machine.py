# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Locks and files, with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ringmain_lab import machine
from ringmain_lab.names import LabError

HOLD = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from ringmain_lab import machine
def busy(pid):
    print("busy", pid, flush=True)
with machine.locked(Path(sys.argv[2]), busy):
    print("held", flush=True)
    sys.stdin.read()
"""
FILES = str(Path(machine.__file__).resolve().parents[1])


def hold(path: Path) -> subprocess.Popen[str]:
    """A process that holds a lock, or waits for it, until its input ends."""
    command = [sys.executable, "-c", HOLD, FILES, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def say(process: subprocess.Popen[str]) -> str:
    """Its next line."""
    assert process.stdout
    return process.stdout.readline().strip()


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    """However it ends."""
    path = tmp_path / "lock"
    assert machine.holder(path) is None
    first = hold(path)
    assert say(first) == "held"
    assert machine.holder(path) == first.pid
    assert machine.holder(path) == first.pid  # asking changes nothing
    second = hold(path)
    assert say(second) == f"busy {first.pid}"
    first.kill()
    first.wait()
    assert say(second) == "held"
    assert machine.holder(path) == second.pid
    second.communicate("")
    assert machine.holder(path) is None


def test_a_lock_on_a_file_that_its_holder_removed_does_not_count(tmp_path: Path) -> None:
    """Or two would hold it: one the old file, one the new."""
    path = tmp_path / "lock"
    first = hold(path)
    assert say(first) == "held"
    second = hold(path)
    assert say(second) == f"busy {first.pid}"
    path.unlink()
    first.communicate("")
    assert say(second) == "held"
    assert machine.holder(path) == second.pid
    second.communicate("")


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """What an interrupted write left is no obstacle, and what it spoilt counts as nothing."""
    path = tmp_path / "file.json"
    assert machine.read_json(path) is None
    (tmp_path / ".file.json.new").write_text("half")
    machine.write_atomically(path, '{"a": 1}', mode=0o600)
    assert machine.read_json(path) == {"a": 1}
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file.json"]
    path.write_text('{"a":')
    assert machine.read_json(path) is None


def test_missing_room_is_named(tmp_path: Path) -> None:
    """With how much is needed."""
    machine.check_room(tmp_path, 0)
    with pytest.raises(LabError, match=r"MB of room left, 1073741824 MB are needed: free some"):
        machine.check_room(tmp_path, 1 << 50)


def test_missing_inotify_instances_are_named() -> None:
    """Before servers hang in the middle of their start."""
    machine.check_inotify(0)
    with pytest.raises(LabError, match=r"^9999 more servers need 79992 inotify instances; root "):
        machine.check_inotify(9999)


def test_missing_tools_are_named_as_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the line can be pasted."""
    monkeypatch.setattr(machine, "TOOLS", {"no-such-tool": "tool-package", "sh": "dash"})
    monkeypatch.setattr(machine, "KEYRING", Path("/nonexistent"))
    with pytest.raises(LabError) as error:
        machine.check_tools()
    assert str(error.value) == (
        "this machine lacks what a lab needs: run 'apt-get install debian-archive-keyring "
        "tool-package'"
    )


def test_units_of_a_lab_are_not_those_of_another() -> None:
    """'a' and 'a-b' may both exist."""
    assert machine.unit_name("a-b", "srv1") == "ringmain-lab.a-b.srv1.service"
    assert not Path(machine.unit_name("a-b", "srv1")).match(machine.unit_name("a", "*"))


def test_a_failed_command_shows_what_it_said() -> None:
    """Its words, its status, its output."""
    with pytest.raises(LabError) as error:
        machine.run(["sh", "-c", "echo no such luck >&2; exit 3"])
    assert str(error.value) == ("'sh -c echo no such luck >&2; exit 3' failed (3): no such luck")
