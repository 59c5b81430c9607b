# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What role asterisk promises about its files."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROLE = Path(__file__).resolve().parents[3] / "roles" / "asterisk"
TREE = ROLE / "templates" / "etc" / "asterisk"


def load_vars() -> dict[str, object]:
    """The role's internal variables, unrendered."""
    loaded = yaml.safe_load((ROLE / "vars" / "main.yml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def test_each_file_takes_effect_by_a_reload_or_at_a_restart_and_never_by_both() -> None:
    variables = load_vars()
    reloaded, restarted = variables["__asterisk_reloads"], variables["__asterisk_restart_for"]
    assert isinstance(reloaded, dict)
    assert isinstance(restarted, list)
    files = {path.name.removesuffix(".j2") for path in TREE.iterdir()}
    named = sorted([*reloaded, *restarted, "ringmain-check"])
    assert named == sorted(files)


def test_each_reload_names_a_loaded_module_or_a_command_of_the_core() -> None:
    loaded = set(
        re.findall(
            r"^(?:load|require) = (\S+)$", (TREE / "modules.conf").read_text(encoding="utf-8"), re.M
        )
    )
    commands = load_vars()["__asterisk_reloads"]
    assert isinstance(commands, dict)
    unknown = {
        command
        for command in commands.values()
        if command.removeprefix("module reload ") not in loaded
        and command not in ("dialplan reload", "logger reload", "manager reload")
        and command != "module reload cdr"
    }
    assert unknown == set()


def test_secrets_stand_only_in_files_that_diffs_hide() -> None:
    tasks = yaml.safe_load((ROLE / "tasks" / "main.yml").read_text(encoding="utf-8"))
    [tree] = [
        tree
        for task in tasks
        for tree in task.get("ringmain.voip.config_tree", {}).get("trees", [])
        if tree["dest"] == "/etc/asterisk"
    ]
    with_secrets = {
        path.name.removesuffix(".j2")
        for path in TREE.iterdir()
        if "_password" in path.read_text(encoding="utf-8")
    }
    assert with_secrets == set(tree["secret"])
