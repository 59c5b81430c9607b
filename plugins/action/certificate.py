# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of certificate: judge what the host has, sign where the authority's key is."""

from __future__ import annotations

import datetime
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.ringmain.voip.plugins.plugin_utils import authority
from ansible_collections.ringmain.voip.plugins.plugin_utils.plain import to_plain

MODULE = "ringmain.voip.certificate"


class ActionModule(ActionBase):
    """One round trip to the host when nothing changes, two for a new certificate."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None
    ) -> dict[str, t.Any]:
        """Keep key and permissions, then renew the certificate if it has to be."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        arguments = to_plain(self._task.args)
        ca_key = arguments.pop("ca_key", None)
        names = arguments.get("names") or []
        ca_certificate = arguments.get("ca_certificate")
        if not ca_key or not ca_certificate or not isinstance(names, list) or not names:
            raise AnsibleActionFail("names, ca_key and ca_certificate must be given")
        result |= self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        if result.get("failed"):
            return result
        now = datetime.datetime.now(datetime.UTC)
        public_key, certificate = str(result["public_key"]), str(result.pop("certificate"))
        try:
            reason = authority.why_new(certificate, ca_certificate, public_key, names, now)
            if boolean(arguments.get("renew", False)):
                reason = reason or "a new one was asked for"
            result["reason"] = reason
            if not reason:
                return result
            if not self._task.check_mode:
                days = int(arguments.get("days") or 825)
                new = authority.sign(ca_key, ca_certificate, public_key, names, days, now)
                arguments["certificate"] = new
                changed_files = result["changed_files"]
                result |= self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
                if result.get("failed"):
                    return result
                result.pop("certificate")
                result["changed_files"] = changed_files + result["changed_files"]
        except authority.AuthorityError as exc:
            raise AnsibleActionFail(str(exc)) from exc
        result["changed"] = True
        if self._task.diff:
            result["diff"] = {"prepared": f"a new certificate for {', '.join(names)}: {reason}\n"}
        return result
