# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module against scripted commands that write down what they were asked.

A table is the text of the file that was loaded last.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringmain.voip.plugins.modules import firewall_table

NFT = """#!/bin/sh
echo "nft $*" >> {log}
case "$*" in
    "list tables inet") if [ -e {table} ]; then echo "table inet ringmain"; fi ;;
    "--stateless list table inet ringmain") cat {table} ;;
    "--file "*) cp "$2" {table} ;;
esac
"""
# In a namespace of its own the file alone is what nft lists.
UNSHARE = '#!/bin/sh\ncat "$6"\n'
OTHERS = '#!/bin/sh\necho "${{0##*/}} $*" >> {log}\n'


class Host:
    """Commands, files, and what runs."""

    def __init__(self, folder: Path) -> None:
        self.rules = folder / "rules.nft"
        self.confirmed = folder / "var" / "confirmed.nft"
        self.table = folder / "table"
        self.log = folder / "log"
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        scripts = {"nft": NFT, "unshare": UNSHARE, "systemd-run": OTHERS, "systemctl": OTHERS}
        for name, text in scripts.items():
            path = bin_folder / name
            filled = text if name == "unshare" else text.format(log=self.log, table=self.table)
            path.write_text(filled, encoding="ascii")
            path.chmod(0o755)
        self.path = bin_folder
        self.rules.write_text("new\n", encoding="ascii")

    def commands(self) -> list[str]:
        """What was done, without what only looks."""
        lines = self.log.read_text(encoding="ascii").splitlines() if self.log.exists() else []
        return [line for line in lines if not line.startswith(("nft list", "nft --stateless"))]

    def run(
        self, capsys: pytest.CaptureFixture[str], state: str, **more: Any
    ) -> tuple[int, dict[str, Any]]:
        """Run the module; its exit code and result."""
        arguments = {
            "state": state,
            "rules": str(self.rules),
            "confirmed": str(self.confirmed),
            "rollback_seconds": 20,
            **more,
        }
        with patch_module_args(arguments), pytest.raises(SystemExit) as ended:
            firewall_table.main()
        return int(ended.value.code or 0), json.loads(capsys.readouterr().out)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host without a table."""
    found = Host(tmp_path)
    monkeypatch.setenv("PATH", f"{found.path}:/usr/bin:/bin")
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22")
    return found


Capture = pytest.CaptureFixture[str]


def test_the_way_back_is_ready_before_the_rules_are_loaded(host: Host, capsys: Capture) -> None:
    """At first it leads to no table at all."""
    code, result = host.run(capsys, "tried")
    assert (code, result["changed"], result["loaded"]) == (0, True, True)
    stopped, armed, loaded = host.commands()
    assert stopped.startswith("systemctl stop ringmain-firewall-rollback.timer")
    assert armed.startswith("systemd-run ")
    assert "--on-active=20s" in armed
    assert armed.endswith(f"/usr/sbin/nft --file {host.confirmed}")
    assert loaded == f"nft --file {host.rules}"
    assert host.confirmed.read_text().endswith("destroy table inet ringmain\n")


def test_confirmed_rules_stay(host: Host, capsys: Capture) -> None:
    """And a second run has nothing to do."""
    host.run(capsys, "tried")
    code, result = host.run(capsys, "confirmed")
    assert (code, result["changed"]) == (0, True)
    assert host.commands()[-1].startswith("systemctl stop ringmain-firewall-rollback.timer")
    assert host.confirmed.read_text() == "new\n"
    done = host.commands()
    code, result = host.run(capsys, "tried")
    assert (code, result["changed"], result["loaded"]) == (0, False, False)
    assert host.commands() == done


def test_too_late(host: Host, capsys: Capture) -> None:
    """The host has gone back: that is an error, and what is confirmed stays what it was."""
    host.run(capsys, "tried")
    host.table.write_text("old\n", encoding="ascii")
    before = host.confirmed.read_text()
    code, result = host.run(capsys, "confirmed")
    assert code == 1
    assert "no new SSH connection came within 20 s" in result["msg"]
    assert "This connection comes from 192.0.2.1 to port 22. Correct them" in result["msg"]
    assert host.confirmed.read_text() == before


def test_a_run_that_was_cut_short(host: Host, capsys: Capture) -> None:
    """Rules that run but were never confirmed are on trial again."""
    host.run(capsys, "tried")
    done = len(host.commands())
    code, result = host.run(capsys, "tried")
    assert (code, result["changed"], result["loaded"]) == (0, True, False)
    assert [line.split()[0] for line in host.commands()[done:]] == [
        "systemctl",
        "systemd-run",
        "nft",
    ]


def test_drift_in_check_mode(host: Host, capsys: Capture) -> None:
    """It is shown, and nothing is done."""
    host.run(capsys, "tried")
    host.run(capsys, "confirmed")
    host.table.write_text("drifted\n", encoding="ascii")
    done = host.commands()
    code, result = host.run(capsys, "tried", _ansible_check_mode=True, _ansible_diff=True)
    assert (code, result["changed"]) == (0, True)
    assert (result["diff"]["before"], result["diff"]["after"]) == ("drifted\n", "new\n")
    assert host.commands() == done


def test_check_mode_before_anything_was_written(host: Host, capsys: Capture) -> None:
    """The file of rules is not there yet."""
    host.rules.unlink()
    code, result = host.run(capsys, "tried", _ansible_check_mode=True)
    assert (code, result["changed"]) == (0, True)
    assert host.commands() == []


def test_too_short_a_trial(host: Host, capsys: Capture) -> None:
    """A connection takes its time."""
    code, result = host.run(capsys, "tried", rollback_seconds=9)
    assert code == 1
    assert "10 at least" in result["msg"]
