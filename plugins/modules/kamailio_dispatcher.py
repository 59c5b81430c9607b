#!/usr/bin/python
# Copyright (c) Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kamailio_dispatcher
short_description: Keep Kamailio's dispatcher list, and drain what is in it
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - With O(state=present), makes each set in O(sets) hold exactly the wanted destinations. Other
    sets stay as they are, and so does a drain (flag 4, attribute C(drain=REASON:RUN-ID)).
  - With O(state=drained) and O(state=undrained), takes nodes out of traffic and puts them back, in
    the list and in the process. Calls that they have live on.
  - With O(state=read), only tells who is drained.
  - The file is replaced in one step, a running Kamailio reloads it, and afterwards file and process
    agree. Where no Kamailio runs, it is the file alone.
  - A process that has it otherwise than the file is a difference too and is repaired by a reload.
extends_documentation_fragment:
  - ringmain.voip.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  path:
    description: Absolute path of the list. Its directory is made when it is missing.
    type: path
    required: true
  state:
    description: What to do.
    type: str
    choices: [present, drained, undrained, read]
    default: present
  sets:
    description: With O(state=present), the sets to keep. Otherwise the sets to act on, all if none.
    type: list
    elements: dict
    default: []
    suboptions:
      id:
        description: Number of the set.
        type: int
        required: true
      destinations:
        description: All destinations of the set, in order.
        type: list
        elements: dict
        default: []
        suboptions:
          uri:
            description: SIP URI of the destination.
            type: str
            required: true
          flags:
            description: Sum of 1 (inactive), 2 (trying), 8 (probing) at the start, 32 (no pings).
            type: int
            default: 0
          priority:
            description: Priority, the higher the earlier, for algorithms which know of it.
            type: int
            default: 0
          attrs:
            description: Attributes, for example C(duid) and C(rweight).
            type: dict
            default: {}
  nodes:
    description: Names (C(duid)) of the nodes to drain or undrain.
    type: list
    elements: str
    default: []
  reason:
    description:
      - Why they are drained, a word of letters, digits, V(-), V(_) and V(.).
      - With O(state=present), destinations that join a set which was there before are drained.
    type: str
  run_id:
    description:
      - Who drains them. What another run has drained is refused.
      - To undrain without it puts back whatever drained the node.
    type: str
  rpc_socket:
    description: Unix datagram socket of Kamailio's JSON-RPC.
    type: path
    default: /run/kamailio/rpc.sock
  timeout:
    description: How many seconds Kamailio has for each answer.
    type: float
    default: 5.0
"""

EXAMPLES = r"""
- name: Tell Kamailio its PBX nodes
  ringmain.voip.kamailio_dispatcher:
    path: /var/lib/ringmain/dispatcher.list
    sets:
      - id: 1
        destinations:
          - uri: sip:192.0.2.11:5080
            attrs: {duid: pbx1, rweight: 100}
          - uri: sip:192.0.2.12:5080
            attrs: {duid: pbx2, rweight: 50}

- name: Send pbx2 no new calls
  ringmain.voip.kamailio_dispatcher:
    path: /var/lib/ringmain/dispatcher.list
    state: drained
    nodes: [pbx2]
    reason: upgrade
    run_id: 20261121T0645
"""

RETURN = r"""
reloaded:
  description: Whether Kamailio has (in check mode would have) reloaded the list.
  returned: success
  type: bool
running:
  description: Whether a Kamailio runs.
  returned: success
  type: bool
differences:
  description: What the process had otherwise than the list, before.
  returned: success
  type: list
  elements: str
drains:
  description: Names of drained nodes, the sets they are drained in, and C(REASON:RUN-ID) of each.
  returned: success
  type: dict
  sample:
    pbx2: {"1": "upgrade:20261121T0645"}
"""

import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringmain.voip.plugins.module_utils.dispatcher import (
    Destination,
    DispatcherError,
    differences,
    drain,
    make_mark,
    marks,
    merge,
    parse,
    parse_process,
    render,
    undrain,
    wish,
)
from ansible_collections.ringmain.voip.plugins.module_utils.kamailio_rpc import (
    KamailioRpc,
    NotRunningError,
    RpcError,
    datagram_transport,
)

RELOAD_DELTA = 5
"""Kamailio allows one reload in this many seconds."""


def running_list(rpc: KamailioRpc) -> list[Destination] | None:
    """What the process has; None when none runs."""
    try:
        return parse_process(rpc.call("dispatcher.list") or {})
    except NotRunningError:
        return None
    except RpcError as error:
        # An empty list is reported as a fault.
        if "No Destination Sets" in error.message:
            return []
        raise


def reload_list(rpc: KamailioRpc, pause: t.Callable[[float], None] = time.sleep) -> None:
    """Have Kamailio read the list; waits out the time it wants between two reloads."""
    for second in range(RELOAD_DELTA + 2):
        try:
            rpc.call("dispatcher.reload")
            return
        except RpcError as error:
            if "Ongoing reload" not in error.message or second == RELOAD_DELTA + 1:
                raise
        pause(1)


def write(module: AnsibleModule, path: str, text: str) -> None:
    """Replace the list in one step, readable by Kamailio."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    new = os.path.join(module.tmpdir, "dispatcher.list")
    with open(new, "w", encoding="utf-8") as stream:
        stream.write(text)
    module.atomic_move(new, path)
    module.set_mode_if_different(path, "0644", False)


def wanted(params: t.Mapping[str, t.Any], listed: list[Destination]) -> list[Destination]:
    """The list as the task wants it. Raises DispatcherError."""
    state, sets = params["state"], params["sets"]
    if state == "present":
        newcomers = make_mark(params["reason"], params["run_id"]) if params["run_id"] else ""
        for item in sets:
            wished = wish(item["id"], item["destinations"])
            listed = merge(listed, item["id"], wished, newcomers)
        return listed
    numbers = [item["id"] for item in sets]
    if state == "drained":
        mark = make_mark(params["reason"], params["run_id"])
        return drain(listed, params["nodes"], mark, numbers)
    if state == "undrained":
        own = make_mark(params["reason"], params["run_id"]) if params["run_id"] else None
        return undrain(listed, params["nodes"], own, numbers)
    return listed


def main() -> None:
    """Compare, write, reload, compare again."""
    destination = {
        "uri": {"type": "str", "required": True},
        "flags": {"type": "int", "default": 0},
        "priority": {"type": "int", "default": 0},
        "attrs": {"type": "dict", "default": {}},
    }
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {
                "type": "str",
                "choices": ["present", "drained", "undrained", "read"],
                "default": "present",
            },
            "sets": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "id": {"type": "int", "required": True},
                    "destinations": {
                        "type": "list",
                        "elements": "dict",
                        "default": [],
                        "options": destination,
                    },
                },
            },
            "nodes": {"type": "list", "elements": "str", "default": []},
            "reason": {"type": "str"},
            "run_id": {"type": "str"},
            "rpc_socket": {"type": "path", "default": "/run/kamailio/rpc.sock"},
            "timeout": {"type": "float", "default": 5.0},
        },
        required_if=[("state", "drained", ("reason", "run_id"))],
        required_by={"run_id": ["reason"]},
        supports_check_mode=True,
    )
    path = module.params["path"]
    rpc = KamailioRpc(datagram_transport(module.params["rpc_socket"], module.params["timeout"]))
    reads = module.params["state"] == "read"
    try:
        before = ""
        if os.path.exists(path):
            with open(path, encoding="utf-8") as stream:
                before = stream.read()
        listed = wanted(module.params, parse(before))
        after = before if reads else render(listed)
        process = running_list(rpc)
        differing = [] if process is None else differences(listed, process)
        acts = not (module.check_mode or reads)
        if before != after and acts:
            write(module, path, after)
        if differing and acts:
            reload_list(rpc)
            left = differences(listed, running_list(rpc) or [])
            if left:
                module.fail_json(
                    msg=f"Kamailio has reloaded {path} and still differs: {'; '.join(left)}. "
                    "Look into its log for lines of the dispatcher module."
                )
    except DispatcherError as error:
        module.fail_json(msg=f"{path}: {error}")
    except (NotRunningError, RpcError, OSError) as error:
        module.fail_json(
            msg=f"Kamailio behind {module.params['rpc_socket']} did not do as asked: {error}. "
            "See whether it is alive with: systemctl status kamailio"
        )
    module.exit_json(
        changed=not reads and (before != after or bool(differing)),
        diff={"before": before, "after": after, "before_header": path, "after_header": path},
        running=process is not None,
        reloaded=not reads and bool(differing),
        differences=differing,
        drains={
            name: {str(number): mark for number, mark in sets.items()}
            for name, sets in marks(listed).items()
        },
    )


if __name__ == "__main__":
    main()
