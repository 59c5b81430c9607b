# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the secrets that a cluster's inventory lacks, on the controller alone."""

from __future__ import annotations

import datetime
import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.ringmain.voip.plugins.module_utils.contract import missing_secrets
from ansible_collections.ringmain.voip.plugins.plugin_utils import secrets_file
from ansible_collections.ringmain.voip.plugins.plugin_utils.cluster import read_secrets
from ansible_collections.ringmain.voip.plugins.plugin_utils.plain import to_plain


def find_directory(task_vars: dict[str, t.Any], cluster: str) -> Path:
    """Where the cluster's variables are, beside its inventory. Raises SecretsError."""
    if cluster not in task_vars["groups"]:
        raise secrets_file.SecretsError(
            f"ringmain_cluster is {cluster!r}, which is no group of this inventory: "
            "name the group that holds all hosts of the cluster"
        )
    found = set()
    for name in task_vars["groups"][cluster]:
        variables = task_vars["hostvars"][name]
        # A list of hosts on the command line has a directory too, but no variables are read there.
        if Path(str(variables.get("inventory_file"))).exists():
            found.add(str(variables["inventory_dir"]))
    if len(found) != 1:
        where = (
            f"in {len(found)} directories ({', '.join(sorted(found))})" if found else "in no file"
        )
        raise secrets_file.SecretsError(
            f"the hosts of the cluster are {where}, so there is no one place for its secrets: "
            "describe all of them in one inventory directory and give it with -i"
        )
    return Path(found.pop(), "group_vars", cluster)


class ActionModule(ActionBase):
    """Reaches no host. What it makes never shows in its result."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False
    _VALID_ARGS = frozenset(("inputs", "cluster"))

    def run(
        self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None
    ) -> dict[str, t.Any]:
        """Make what is missing and name it."""
        task_vars = task_vars or {}
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        inputs = to_plain(self._task.args.get("inputs"))
        if not isinstance(inputs, dict) or not inputs.get("ringmain_domain"):
            raise AnsibleActionFail(
                "ringmain_domain is not set: describe the cluster in its inventory first"
            )
        known = read_secrets(task_vars, self._templar.template)
        missing = missing_secrets(inputs, known)
        now = datetime.datetime.now(datetime.UTC)
        try:
            directory = find_directory(task_vars, str(self._task.args.get("cluster") or "all"))
            path, variable, present = secrets_file.choose_file(directory)
            loose = secrets_file.loose_files(directory)
            made = secrets_file.generate(missing, known, str(inputs["ringmain_domain"]), now)
            if not self._task.check_mode:
                for other in loose:
                    other.chmod(0o600)
                if made:
                    secrets_file.write_file(path, variable, present, made)
        except secrets_file.SecretsError as exc:
            raise AnsibleActionFail(str(exc)) from exc
        except OSError as exc:
            raise AnsibleActionFail(f"the secrets cannot be written: {exc}") from exc
        result |= {
            "changed": bool(made or loose),
            "made": missing,
            "file": str(path) if made else "",
        }
        return result
