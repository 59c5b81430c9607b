#!/usr/bin/python
# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules and sysctls of a server's kernel, all in one task."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_kernel
short_description: Load kernel modules and set sysctls, now and at boot
version_added: 0.1.0
author: Ringmain contributors (@ringmain)
description:
  - Loads modules, sets sysctls and writes the files that do the same at boot, in one task. A task
    of M(ansible.posix.sysctl) per key would cost a third of a second each, and would stop at the
    first key that this kernel refuses.
  - What the running kernel has is compared with what is wanted, not the files alone, so that drift
    is repaired.
  - Before anything is set it is decided what cannot be. One error names all such keys, and nothing
    was changed but for the modules loaded to find out.
extends_documentation_fragment:
  - ringmain.voip.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  name:
    description: Name of the host, for messages.
    type: str
    required: true
  sysctl:
    description: Keys with their values. Values are compared as the kernel writes them.
    type: dict
    default: {}
  modules:
    description: Kernel modules to load before the keys are looked at, in this order.
    type: list
    elements: str
    default: []
  module_options:
    description: Options of modules, by module, as modprobe.d takes them.
    type: dict
    default: {}
  unsettable_allowed:
    description:
      - Patterns of keys that this kernel may lack or refuse to set, for containers.
      - A value that the kernel calls wrong is an error nevertheless.
    type: list
    elements: str
    default: []
  unloadable_allowed:
    description: Patterns of modules whose absence is no error, for containers.
    type: list
    elements: str
    default: []
  cores:
    description: Cores that the server must have at least; 0 for any number.
    type: int
    default: 0
  memory_mb:
    description:
      - Memory in MB that the server must have at least; 0 for any.
      - The kernel keeps some to itself, so an eighth less is enough.
    type: int
    default: 0
  file:
    description: Name of the files below C(/etc/sysctl.d), C(/etc/modules-load.d) and
      C(/etc/modprobe.d), without C(.conf). In each of them the last name wins.
    type: str
    default: zz-ringmain
"""

EXAMPLES = r"""
- name: Give the relay its kernel
  ringmain.voip.host_kernel:
    name: "{{ inventory_hostname }}"
    modules: [nf_conntrack]
    module_options:
      nf_conntrack: hashsize=262144
    sysctl:
      net.core.rmem_max: 8388608
      net.netfilter.nf_conntrack_max: 262144
"""

RETURN = r"""
set:
  description: Keys that were (in check mode would be) set.
  returned: success
  type: list
  elements: str
  sample: [net.core.rmem_max]
unsettable:
  description: Keys that are not as wanted and cannot be set, as O(unsettable_allowed) allows.
  returned: success
  type: list
  elements: str
  sample: ["vm.swappiness (is 60, wanted 1; read-only)"]
unloadable:
  description: Modules that could not be loaded, as O(unloadable_allowed) allows.
  returned: success
  type: list
  elements: str
  sample: [nf_conntrack]
owns_clock:
  description: Whether this system may set the clock, which a container may not.
  returned: success
  type: bool
  sample: true
"""

import os
import re
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringmain.voip.plugins.module_utils import host_kernel
from ansible_collections.ringmain.voip.plugins.module_utils.config_tree import replace_file

PROC_SYS = Path("/proc/sys")
CONFIGURATION = Path("/etc")
CAP_SYS_MODULE = 16
CAP_SYS_TIME = 25


def may(capability: int) -> bool:
    """Whether this process has a capability. A container's root has not all of them."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return bool(found and int(found[1], 16) >> capability & 1)


def memory_mb() -> int:
    """Memory of this server that the kernel manages."""
    found = re.match(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))
    return int(found[1]) // 1024 if found else 0


def read(key: str) -> host_kernel.Reading:
    """What the kernel has for a key."""
    path = PROC_SYS / host_kernel.path_of(key)
    try:
        return host_kernel.Reading(path.read_text(encoding="ascii"), os.access(path, os.W_OK))
    except FileNotFoundError:
        return host_kernel.Reading(None)
    except PermissionError:
        return host_kernel.Reading("unreadable", writable=False)


def write(difference: host_kernel.Difference) -> str:
    """Set a key; why the kernel did not take it, or nothing."""
    path = PROC_SYS / host_kernel.path_of(difference.key)
    try:
        path.write_text(difference.wanted, encoding="ascii")
    except OSError as error:
        return f"the kernel says: {error.strerror}"
    after = host_kernel.text_of(path.read_text(encoding="ascii"))
    if not host_kernel.same(difference.key, difference.wanted, after):
        return f"the kernel made it {after}"
    return ""


class Host:
    """The kernel this module runs on, and the files for its next boot."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.changed = False
        self.diffs: list[dict[str, str]] = []

    def missing_modules(self, names: list[str]) -> tuple[list[str], dict[str, str]]:
        """Which modules are to be loaded, and which cannot be, with the reason."""
        to_load: list[str] = []
        failures: dict[str, str] = {}
        for name in names:
            if Path("/sys/module", name.replace("-", "_")).is_dir():
                continue
            modprobe = self.module.get_bin_path("modprobe")
            if not modprobe:
                failures[name] = "modprobe is missing: install kmod"
                continue
            command = [modprobe, "--dry-run", "--verbose", name]
            code, out, err = self.module.run_command(command)
            if code:
                failures[name] = (err or out).strip()
            elif "insmod " in out:  # else it is built in
                if may(CAP_SYS_MODULE):
                    to_load.append(name)
                else:
                    failures[name] = "this system may not load modules"
        return to_load, failures

    def load(self, names: list[str]) -> dict[str, str]:
        """Load modules unless in check mode; those that failed, with the reason."""
        failures = {}
        for name in names:
            self.changed = True
            if self.module.check_mode:
                continue
            code, out, err = self.module.run_command(["modprobe", name])
            if code:
                failures[name] = (err or out).strip()
        return failures

    def keep(self, directory: str, text: str) -> None:
        """Have our file in a directory of C(/etc) say this."""
        path = str(CONFIGURATION / directory / f"{self.module.params['file']}.conf")
        try:
            found = Path(path).read_text(encoding="utf-8")
            mode = os.stat(path).st_mode & 0o7777
        except FileNotFoundError:
            found, mode = "", 0o644
        if (found, mode) == (text, 0o644):
            return
        self.changed = True
        self.diffs.append(
            {"before_header": path, "after_header": path, "before": found, "after": text}
        )
        if not self.module.check_mode:
            replace_file(path, text.encode("utf-8"), 0o644, None, None)

    def set(self, differences: list[host_kernel.Difference]) -> list[host_kernel.Difference]:
        """Set keys unless in check mode; those that the kernel did not take, with the reason."""
        if differences:
            self.changed = True
            self.diffs.append(
                {
                    "before_header": "running kernel",
                    "after_header": "running kernel",
                    "before": "".join(f"{each.key} = {each.found}\n" for each in differences),
                    "after": "".join(f"{each.key} = {each.wanted}\n" for each in differences),
                }
            )
        if self.module.check_mode:
            return []
        answers = [(each, write(each)) for each in differences]
        return [
            host_kernel.Difference(each.key, each.wanted, each.found, answer)
            for each, answer in answers
            if answer
        ]


def run(module: AnsibleModule) -> dict[str, t.Any]:
    """Do what the module is asked for."""
    params = module.params
    host = Host(module)
    problems = host_kernel.hardware_problems(
        params["name"], params["cores"], os.cpu_count() or 1, params["memory_mb"], memory_mb()
    )
    to_load, unloadable = host.missing_modules(params["modules"])
    forbidden = {
        name: why
        for name, why in unloadable.items()
        if not host_kernel.is_allowed(name, params["unloadable_allowed"])
    }
    if forbidden:
        problems.append(host_kernel.module_problem(params["name"], forbidden))
    if problems:
        module.fail_json(msg=". ".join(problems))

    failures = host.load(to_load)
    if failures:
        module.fail_json(msg=host_kernel.module_problem(params["name"], failures))

    wanted = {str(key): host_kernel.text_of(value) for key, value in params["sysctl"].items()}
    readings = {key: read(key) for key in wanted}
    differences = host_kernel.compare(wanted, readings, module.check_mode and bool(to_load))
    unsettable = [each for each in differences if each.obstacle]
    refused = [
        each
        for each in unsettable
        if not host_kernel.is_allowed(each.key, params["unsettable_allowed"])
    ]
    settable = [each for each in differences if not each.obstacle]
    if not refused:
        refused = host.set(settable)
    if refused:
        module.fail_json(msg=host_kernel.sysctl_problem(params["name"], refused))

    options = {str(key): str(value) for key, value in params["module_options"].items()}
    host.keep("modules-load.d", host_kernel.modules_file(params["modules"]))
    host.keep("modprobe.d", host_kernel.options_file(options))
    host.keep("sysctl.d", host_kernel.sysctl_file(wanted, params["unsettable_allowed"]))
    return {
        "changed": host.changed,
        "set": [each.key for each in settable],
        "unsettable": [each.describe() for each in unsettable],
        "unloadable": sorted(unloadable),
        "owns_clock": may(CAP_SYS_TIME),
        **({"diff": host.diffs} if module._diff else {}),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "sysctl": {"type": "dict", "default": {}},
            "modules": {"type": "list", "elements": "str", "default": []},
            "module_options": {"type": "dict", "default": {}},
            "unsettable_allowed": {"type": "list", "elements": "str", "default": []},
            "unloadable_allowed": {"type": "list", "elements": "str", "default": []},
            "cores": {"type": "int", "default": 0},
            "memory_mb": {"type": "int", "default": 0},
            "file": {"type": "str", "default": "zz-ringmain"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except OSError as error:
        module.fail_json(msg=f"{module.params['name']}: {error}")


if __name__ == "__main__":
    main()
