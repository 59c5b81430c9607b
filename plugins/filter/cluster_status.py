# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: cluster_status
short_description: Put together and judge what a cluster's servers say of themselves
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Makes one status of the plan and the results of M(ringmain.voip.node_status), with all that is
    wrong in words.
positional: _input, plan
options:
  _input:
    description:
      - Server to the registered result of M(ringmain.voip.node_status), also where it failed or the
        server was unreachable.
    type: dict
    required: true
  plan:
    description: The plan that C(ringmain.voip.plan) returns.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Judge
  ansible.builtin.set_fact:
    status: "{{ {'srv1': node} | ringmain.voip.cluster_status(ringmain_plan) }}"
"""

RETURN = r"""
_value:
  description:
    - C(domain), C(whole), C(verdict), C(problems), C(notices), C(addresses), C(nodes), C(drains)
      and C(runs).
  type: dict
"""

import typing as t

from ansible_collections.ringmain.voip.plugins.module_utils.cluster_status import build
from ansible_collections.ringmain.voip.plugins.plugin_utils.plain import to_plain


def cluster_status(results: t.Any, plan: t.Any) -> dict[str, t.Any]:
    """Convert to plain data and ask the core."""
    nodes: dict[str, dict[str, t.Any]] = {}
    for name, result in to_plain(results).items():
        if result.get("node"):
            nodes[name] = {"node": result["node"]}
        elif result.get("msg"):
            nodes[name] = {"error": str(result["msg"]).removeprefix("Task failed: ")}
    return build(to_plain(plan), nodes)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Any]:
        """By name."""
        return {"cluster_status": cluster_status}
