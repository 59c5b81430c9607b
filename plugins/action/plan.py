# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check a cluster's inputs and make its plan, on the controller alone."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.ringmain.voip.plugins.module_utils.contract import (
    cluster_errors,
    make_plan,
)
from ansible_collections.ringmain.voip.plugins.plugin_utils.cluster import (
    read_hosts,
    read_members,
    read_secrets,
    secrets_command,
)
from ansible_collections.ringmain.voip.plugins.plugin_utils.plain import to_plain


class ActionModule(ActionBase):
    """Reaches no host: whatever it needs is in the inventory."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False
    _VALID_ARGS = frozenset(("inputs", "groups", "cluster", "secrets"))

    def run(
        self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None
    ) -> dict[str, t.Any]:
        """Report every error at once, or return the plan."""
        task_vars = task_vars or {}
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        inputs = to_plain(self._task.args.get("inputs"))
        if not isinstance(inputs, dict):
            raise AnsibleActionFail("inputs must be a dictionary of the cluster's variables")
        cluster = str(self._task.args.get("cluster") or "all")
        if cluster not in task_vars["groups"]:
            result |= {
                "failed": True,
                "msg": f"ringmain_cluster is {cluster!r}, which is no group of this inventory: "
                "name the group that holds all hosts of the cluster",
            }
            return result
        names = to_plain(self._task.args.get("groups") or {})
        members = read_members(task_vars["groups"], names, cluster)
        hosts = read_hosts(task_vars["hostvars"], members)
        wanted = boolean(self._task.args.get("secrets", True))
        secrets = read_secrets(task_vars, self._templar.template) if wanted else None
        command = secrets_command(task_vars, cluster)
        errors = cluster_errors(inputs, hosts, members, secrets, command)
        if errors:
            count = "One input needs" if len(errors) == 1 else f"{len(errors)} inputs need"
            lines = "\n".join(f"- {error}" for error in errors)
            result |= {
                "failed": True,
                "msg": f"{count} correction; no server was touched.\n{lines}",
            }
            return result
        result |= {"changed": False, "plan": make_plan(inputs, hosts, members)}
        return result
