# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of config_tree: render a role's trees and hand them to the module."""

from __future__ import annotations

import os
import typing as t
from collections.abc import Iterator

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template
from ansible_collections.ringmain.voip.plugins.module_utils.config_tree import Rendered, pack
from ansible_collections.ringmain.voip.plugins.plugin_utils.template_lines import failing_line

SUFFIX = ".j2"


def list_sources(folder: str) -> Iterator[tuple[str, str]]:
    """Relative and absolute paths of all files below a folder, in order."""
    for directory, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(directory, name)
            yield os.path.relpath(path, folder), path


class ActionModule(ActionBase):
    """Render on the controller, then one round trip to the host."""

    TRANSFERS_FILES = False
    _requires_connection = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None
    ) -> dict[str, t.Any]:
        """Render all trees and run the module with them."""
        task_vars = task_vars or {}
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        trees = arguments.get("trees")
        if "rendered" in arguments:
            raise AnsibleActionFail("rendered is filled in by config_tree itself: leave it out")
        if not isinstance(trees, (list, tuple)):
            raise AnsibleActionFail("trees must be a list of dictionaries with src and dest")
        plain: list[dict[str, t.Any]] = []
        rendered: list[dict[str, Rendered]] = []
        for tree in trees:
            if not isinstance(tree, dict) or not tree.get("src") or not tree.get("dest"):
                raise AnsibleActionFail("each of trees must be a dictionary with src and dest")
            given = dict(tree)
            if isinstance(given.get("check"), str):
                # A list option would cut the command at its commas.
                given["check"] = [given["check"]]
            plain.append(given)
            rendered.append(self._render_tree(str(given["src"]), str(given["dest"]), task_vars))
        result.update(
            self._execute_module(
                module_name="ringmain.voip.config_tree",
                module_args={**arguments, "trees": plain, "rendered": pack(rendered)},
                task_vars=task_vars,
            )
        )
        return result

    def _render_tree(self, src: str, dest: str, task_vars: dict[str, t.Any]) -> dict[str, Rendered]:
        folder = self._find_needle("templates", src)
        if not os.path.isdir(folder):
            raise AnsibleActionFail(
                f"src must be a directory below the role's templates: {folder} is none"
            )
        depth = len(os.path.normpath(src).split(os.sep))
        templates = os.path.normpath(os.path.join(folder, *[".."] * depth))
        files: dict[str, Rendered] = {}
        for relative, path in list_sources(folder):
            name = relative.removesuffix(SUFFIX)
            if name in files:
                raise AnsibleActionFail(
                    f"{os.path.join(src, name)} exists both with and without {SUFFIX}"
                )
            if name == relative:
                with open(path, "rb") as stream:
                    content = stream.read()
            else:
                content = self._render(
                    path, os.path.join(src, relative), dest, name, task_vars, templates, folder
                )
                if not content.strip():
                    continue
            files[name] = Rendered(content, os.access(path, os.X_OK))
        return files

    def _render(
        self,
        path: str,
        shown: str,
        dest: str,
        name: str,
        task_vars: dict[str, t.Any],
        templates: str,
        folder: str,
    ) -> bytes:
        variables = {
            "ansible_managed": "Ansible managed",
            **task_vars,
            "config_tree_path": dest,
            "template_path": shown,
            "template_fullpath": path,
            "template_destpath": os.path.join(dest, name),
        }
        source = self._loader.get_text_file_contents(path)

        def render(text: str, more: dict[str, t.Any]) -> t.Any:
            templar = self._templar.copy_with_new_env(
                searchpath=[templates, folder, os.path.dirname(path)],
                available_variables={**variables, **more},
            )
            return templar.template(
                trust_as_template(text),
                escape_backslashes=False,
                overrides={"trim_blocks": True, "lstrip_blocks": False, "newline_sequence": "\n"},
            )

        try:
            text = render(source, {})
        except AnsibleError as exc:
            line = failing_line(source, exc, render)
            where = shown if line is None else f"{shown}, line {line},"
            raise AnsibleActionFail(
                f"{where} cannot be rendered: {exc.message}", orig_exc=exc
            ) from exc
        return ("" if text is None else str(text)).encode("utf-8")
