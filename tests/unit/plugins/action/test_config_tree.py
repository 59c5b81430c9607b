# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""config_tree as a task of a role, from template to file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Play

TASK = "Write the tree"


class Role:
    """A role with templates that writes one tree."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path / "roles" / "demo"
        self.dest = tmp_path / "etc" / "demo"
        self.templates = self.path / "templates"
        self.tree: dict[str, Any] = {
            "src": "etc/demo",
            "dest": str(self.dest),
            "owner": str(os.getuid()),
            "group": str(os.getgid()),
        }
        self.write("etc/demo/main.cfg.j2", "value = {{ value }}\n")

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        """Add a template."""
        path = self.templates / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def play(self, *trees: dict[str, str], **variables: Any) -> dict[str, Any]:
        """The play that runs the role; with several trees each is a task of its own."""
        tasks = [
            {
                "name": f"{TASK} {number}" if trees else TASK,
                "ringmain.voip.config_tree": {"trees": [{**self.tree, **tree}]},
                "ignore_errors": bool(trees),
            }
            for number, tree in enumerate(trees or ({},))
        ]
        path = self.path / "tasks" / "main.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(tasks))
        return {"hosts": "all", "vars": {"value": "1", **variables}, "roles": ["demo"]}


@pytest.fixture
def role(tmp_path: Path) -> Role:
    """A role of the test's own."""
    return Role(tmp_path)


def test_templates_become_files_in_one_task(play: Play, role: Role) -> None:
    role.write("etc/demo/plain.txt", "{{ not rendered }}\n")
    role.write("etc/demo/run.sh", "#!/bin/sh\n", 0o755)
    role.write("etc/demo/empty.cfg.j2", "{% if false %}\nx\n{% endif %}\n")
    role.write(
        "parts/common.j2", "common {{ value }}\n{% macro line(x) %}line {{ x }}{% endmacro %}"
    )
    role.write(
        "etc/demo/sub/all.cfg.j2",
        "# {{ ansible_managed }}\n"
        "{% include 'parts/common.j2' %}\n"
        "{% from 'parts/common.j2' import line %}\n"
        "{% for row in rows %}\n{{ line(row.name) }}\n{% endfor %}\n"
        "at {{ config_tree_path }}, back\\slash\n",
    )
    content = role.play(rows="{{ [{'name': base ~ '-1'}] }}", base="row")
    first = play(content)
    assert first.code == 0, first.text
    assert first.results[TASK]["localhost"]["changed"]
    assert {str(p.relative_to(role.dest)): p.read_text() for p in role.dest.rglob("*.*")} == {
        "main.cfg": "value = 1\n",
        "plain.txt": "{{ not rendered }}\n",
        "run.sh": "#!/bin/sh\n",
        "sub/all.cfg": f"# Ansible managed\ncommon 1\nline row-1\nat {role.dest}, back\\slash\n",
    }
    assert os.access(role.dest / "run.sh", os.X_OK)
    second = play(content)
    assert not second.results[TASK]["localhost"]["changed"]


def test_check_and_diff_say_what_would_change_and_hide_secrets(play: Play, role: Role) -> None:
    role.write("etc/demo/odbc.ini.j2", "password = {{ password }}\n")
    role.tree["secret"] = "odbc.ini"
    content = role.play(password="swordfish-42")
    done = play(content, "--check", "--diff", "-vvv")
    result = done.results[TASK]["localhost"]
    assert result["changed_files"] == [
        str(role.dest),
        f"{role.dest}/main.cfg",
        f"{role.dest}/odbc.ini",
    ]
    assert result["diff"][1]["after"] == "value = 1\n"
    assert "swordfish" not in done.text
    assert not role.dest.exists()


@pytest.mark.parametrize("pipelining", ["true", "false"])
def test_a_failed_check_leaves_the_old_tree(
    play: Play, role: Role, pipelining: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"ansible_pipelining": pipelining}
    # One command with a comma, which a list option would cut in two.
    role.tree["check"] = "grep -q -e 'value = [1,2]$' {tree}/main.cfg"
    assert play(role.play(**variables)).code == 0
    done = play(role.play(value="broken", **variables))
    assert done.code == 2
    assert done.message(TASK) == (
        f"the check of {role.dest} failed with exit code 1: "
        f"grep -q -e 'value = [1,2]$' {role.dest}/main.cfg\n"
        "(it wrote nothing)\n"
        "Nothing was replaced: the running configuration is untouched. "
        "Correct the template or the inputs behind it and run again."
    )
    assert (role.dest / "main.cfg").read_text() == "value = 1\n"
    assert os.listdir(role.dest.parent) == ["demo"]


def test_what_cannot_be_rendered_names_file_and_line(play: Play, role: Role) -> None:
    role.write("undefined/main.cfg.j2", "one\n{{ nowhere }}\n{{ value }}\n")
    role.write("syntax/main.cfg.j2", "one\n\n{% if %}\n")
    done = play(role.play({"src": "undefined"}, {"src": "syntax"}))
    assert done.message(f"{TASK} 0").endswith(
        "undefined/main.cfg.j2, line 2, cannot be rendered: 'nowhere' is undefined"
    )
    assert done.message(f"{TASK} 1").endswith(
        "syntax/main.cfg.j2, line 3, cannot be rendered: Syntax error in template: "
        "Expected an expression, got 'end of statement block'"
    )
    assert not role.dest.exists()


def test_wrong_options_are_said(play: Play, role: Role) -> None:
    role.write("twice/main.cfg", "the same name\n")
    role.write("twice/main.cfg.j2", "the same name\n")
    wrong = [
        ({"src": "etc/nothing"}, "etc/nothing"),
        ({"src": "etc/demo/main.cfg.j2"}, "src must be a directory below the role's templates"),
        ({"src": "twice"}, "twice/main.cfg exists both with and without .j2"),
        ({"mode": "u+x"}, "must be octal permissions in quotes such as \"0640\", not 'u+x'"),
        ({"dest": ""}, "each of trees must be a dictionary with src and dest"),
        ({"dest": "/etc"}, "dest must be an absolute path at least two levels deep, not '/etc'"),
        ({"owner": "nobody-there"}, "the user nobody-there, who is to own"),
    ]
    done = play(role.play(*(change for change, _expected in wrong)))
    for number, (_change, expected) in enumerate(wrong):
        assert expected in done.message(f"{TASK} {number}")
    assert not role.dest.exists()


def test_the_handed_over_option_is_not_for_tasks(play: Play) -> None:
    options: list[dict[str, Any]] = [{"trees": [], "rendered": "x"}, {"trees": "x"}]
    tasks = [
        {"name": str(number), "ringmain.voip.config_tree": given, "ignore_errors": True}
        for number, given in enumerate(options)
    ]
    done = play({"hosts": "all", "tasks": tasks})
    assert "rendered is filled in by config_tree itself" in done.message("0")
    assert "trees must be a list of dictionaries with src and dest" in done.message("1")
