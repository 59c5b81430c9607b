# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the secrets that a cluster's inventory lacks, on the controller alone."""

from __future__ import annotations

import datetime
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.ringmain.voip.plugins.module_utils.contract import missing_secrets
from ansible_collections.ringmain.voip.plugins.plugin_utils import secrets_file
from ansible_collections.ringmain.voip.plugins.plugin_utils.cluster import read_secrets
from ansible_collections.ringmain.voip.plugins.plugin_utils.plain import to_plain


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
            directory = secrets_file.find_directory(
                task_vars, str(self._task.args.get("cluster") or "all")
            )
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
