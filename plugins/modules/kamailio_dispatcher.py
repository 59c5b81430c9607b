#!/usr/bin/python
# Copyright (c) Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kamailio_dispatcher
short_description: Keep one set of Kamailio's dispatcher list
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Makes one set of a dispatcher list hold exactly the wanted destinations. Other sets stay as they
    are.
  - A destination that is drained (flag 4, attribute C(drain=REASON:RUN-ID)) stays drained.
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
  set:
    description: Number of the set.
    type: int
    required: true
  destinations:
    description: All destinations of the set, in order.
    type: list
    elements: dict
    required: true
    suboptions:
      uri:
        description: SIP URI of the destination.
        type: str
        required: true
      flags:
        description: Sum of 1 (inactive), 2 (trying) and 8 (probing) at the start.
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
    path: /var/lib/kamailio/dispatcher.list
    set: 1
    destinations:
      - uri: sip:192.0.2.11:5080
        attrs: {duid: pbx1, rweight: 100}
      - uri: sip:192.0.2.12:5080
        attrs: {duid: pbx2, rweight: 50}
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
drained:
  description: The drained destinations of the set with C(REASON:RUN-ID).
  returned: success
  type: dict
  sample:
    "sip:192.0.2.12:5080": upgrade:20261121T0645
"""

import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringmain.voip.plugins.module_utils.dispatcher import (
    Destination,
    DispatcherError,
    differences,
    merge,
    parse,
    parse_process,
    render,
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


def main() -> None:
    """Compare, write, reload, compare again."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "set": {"type": "int", "required": True},
            "destinations": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "uri": {"type": "str", "required": True},
                    "flags": {"type": "int", "default": 0},
                    "priority": {"type": "int", "default": 0},
                    "attrs": {"type": "dict", "default": {}},
                },
            },
            "rpc_socket": {"type": "path", "default": "/run/kamailio/rpc.sock"},
            "timeout": {"type": "float", "default": 5.0},
        },
        supports_check_mode=True,
    )
    path = module.params["path"]
    rpc = KamailioRpc(datagram_transport(module.params["rpc_socket"], module.params["timeout"]))
    try:
        before = ""
        if os.path.exists(path):
            with open(path, encoding="utf-8") as stream:
                before = stream.read()
        wanted = wish(module.params["set"], module.params["destinations"])
        listed = merge(parse(before), module.params["set"], wanted)
        after = render(listed)
        process = running_list(rpc)
        differing = [] if process is None else differences(listed, process)
        if before != after and not module.check_mode:
            write(module, path, after)
        if differing and not module.check_mode:
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
        changed=before != after or bool(differing),
        diff={"before": before, "after": after, "before_header": path, "after_header": path},
        running=process is not None,
        reloaded=bool(differing),
        differences=differing,
        drained={
            item.uri: item.drained
            for item in listed
            if item.set_id == module.params["set"] and item.drained is not None
        },
    )


if __name__ == "__main__":
    main()
