# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give secrets of a cluster new values in its inventory, on the controller alone."""

from __future__ import annotations

import datetime
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.ringmain.voip.plugins.module_utils import rotation
from ansible_collections.ringmain.voip.plugins.module_utils.contract import (
    merge_secrets,
    missing_secrets,
)
from ansible_collections.ringmain.voip.plugins.plugin_utils import secrets_file
from ansible_collections.ringmain.voip.plugins.plugin_utils.cluster import (
    read_secrets,
    secrets_command,
)
from ansible_collections.ringmain.voip.plugins.plugin_utils.plain import to_plain


class ActionModule(ActionBase):
    """Reaches no host. What it makes never shows in its result."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False
    _VALID_ARGS = frozenset(("inputs", "cluster", "state", "names", "gap"))

    def run(
        self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None
    ) -> dict[str, t.Any]:
        """Make new values, or forget the previous ones."""
        task_vars = task_vars or {}
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        arguments = to_plain(self._task.args)
        inputs, state = arguments.get("inputs"), arguments.get("state", "new")
        cluster = str(arguments.get("cluster") or "all")
        if not isinstance(inputs, dict) or state not in ("new", "forgotten"):
            raise AnsibleActionFail(
                "inputs must be the cluster's variables, and state either new or forgotten"
            )
        known = read_secrets(task_vars, self._templar.template)
        if missing_secrets(inputs, known):
            command = secrets_command(task_vars, cluster)
            raise AnsibleActionFail(
                f"some secrets are missing: make them and bring them to the servers first, with "
                f"{command} and site.yml"
            )
        names = arguments.get("names") or []
        names = names.split(",") if isinstance(names, str) else names
        names = [str(name).strip() for name in names]
        try:
            plan = rotation.Rotation((), rotation.unfinished(known), {})
            if state == "new":
                plan = rotation.plan(names, inputs, known, boolean(arguments.get("gap", False)))
                added = self._new(plan.names, known, str(inputs["ringmain_domain"]))
            else:
                added = rotation.forgotten(known)
            path, variable, present = secrets_file.choose_last_file(
                secrets_file.find_directory(task_vars, cluster)
            )
            if added and not self._task.check_mode:
                secrets_file.write_file(path, variable, present, added)
        except (rotation.RotationError, secrets_file.SecretsError) as exc:
            raise AnsibleActionFail(f"nothing was changed: {exc}") from exc
        except OSError as exc:
            raise AnsibleActionFail(f"the secrets cannot be written: {exc}") from exc
        result |= {
            "changed": bool(added),
            "names": list(plan.names),
            "unfinished": list(plan.unfinished),
            "left": dict(plan.left),
            "file": str(path) if path.exists() else "",
        }
        return result

    def _new(
        self, names: t.Sequence[str], known: dict[str, t.Any], domain: str
    ) -> dict[str, t.Any]:
        """New values for these names, with the previous ones that are still needed."""
        now = datetime.datetime.now(datetime.UTC)
        made = secrets_file.generate(names, known, domain, now)
        return merge_secrets([made, rotation.previous_values(names, known)])
