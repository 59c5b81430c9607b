#!/usr/bin/python
# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rtpengine_kernel_info
short_description: See whether RTPEngine can forward in the kernel of a host
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Looks at a Debian host for what RTPEngine's kernel module needs, for the running kernel and for
    every later one that a reboot would choose. Nothing is changed.
extends_documentation_fragment:
  - ringmain.voip.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  after_install:
    description:
      - What RV(missing_packages) named is installed now; what it should have brought and has not
        is a problem.
    type: bool
    default: false
  table:
    description: Number of RTPEngine's table in the kernel.
    type: int
    default: 0
  chain:
    description: RTPEngine's chain in the table C(ip filter) of nftables.
    type: str
    default: rtpengine
"""

EXAMPLES = r"""
- name: See what this kernel lacks
  ringmain.voip.rtpengine_kernel_info:
  register: kernel

- name: Install it
  ansible.builtin.apt:
    name: "{{ kernel.missing_packages }}"
"""

RETURN = r"""
release:
  description: The running kernel.
  type: str
  returned: success
  sample: 6.12.48+deb13-amd64
kernels:
  description: The running kernel and later ones that are installed, oldest first.
  type: list
  elements: dict
  returned: success
  contains:
    release:
      description: Release of the kernel.
      type: str
      sample: 6.12.48+deb13-amd64
    headers:
      description: Whether modules can be built for it.
      type: bool
      sample: true
    module:
      description: Version of RTPEngine's module that is built for it; empty when none is.
      type: str
      sample: 12.5.1.31
missing_packages:
  description: Packages to install.
  type: list
  elements: str
  returned: success
  sample: [linux-headers-amd64, rtpengine-kernel-dkms]
problems:
  description: Why this host cannot forward in the kernel, each with the next step.
  type: list
  elements: str
  returned: success
  sample: []
owner:
  description: Process id of the daemon that the table belongs to; null while there is none.
  type: int
  returned: success
  sample: 713
rule:
  description: Whether the firewall hands packets to the module.
  type: bool
  returned: success
  sample: true
"""

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import kernel_forwarding

PROC = Path("/proc/rtpengine")
DKMS = Path("/var/lib/dkms/rtpengine")


def kernel(release: str) -> kernel_forwarding.Kernel:
    """What is there for one kernel."""
    built = DKMS.glob(f"*/{release}/*/module/{kernel_forwarding.MODULE}.ko*")
    return kernel_forwarding.Kernel(
        release,
        headers=Path("/lib/modules", release, "build").exists(),
        module=max((path.parents[3].name for path in built), default=""),
    )


def installed(module: AnsibleModule, patterns: list[str]) -> dict[str, str]:
    """Versions of the installed packages whose names match."""
    form = "${db:Status-Abbrev} ${Package} ${Version}\\n"
    # It fails when a pattern matches nothing, and lists the others all the same.
    _status, listed, _errors = module.run_command(["dpkg-query", "-W", "-f", form, *patterns])
    lines = [line.split() for line in listed.splitlines()]
    return {words[1]: words[2] for words in lines if len(words) == 3 and words[0] == "ii"}


def available(module: AnsibleModule, names: list[str]) -> frozenset[str]:
    """Which of these packages some archive has."""
    # A name that no archive has is no error here.
    _status, listed, _errors = module.run_command(["apt-cache", "madison", *names])
    return frozenset(line.partition("|")[0].strip() for line in listed.splitlines())


def look(module: AnsibleModule) -> kernel_forwarding.Host:
    """Everything that does not depend on a running RTPEngine."""
    release = os.uname().release
    present = [path.name.removeprefix("vmlinuz-") for path in Path("/boot").glob("vmlinuz-*")]
    releases = kernel_forwarding.bootable(release, present)
    wanted = kernel_forwarding.wanted_packages(release, releases)
    return kernel_forwarding.Host(
        release,
        kernels=tuple(kernel(each) for each in releases),
        packages=installed(module, ["linux-headers-*", "rtpengine-*"]),
        available=available(module, wanted) if wanted else frozenset(),
    )


def owner(table: int) -> int | None:
    """Whom the table belongs to."""
    try:
        return kernel_forwarding.table_owner((PROC / str(table) / "status").read_text("ascii"))
    except OSError:
        return None


def main() -> None:
    """Look."""
    module = AnsibleModule(
        argument_spec={
            "after_install": {"type": "bool", "default": False},
            "table": {"type": "int", "default": 0},
            "chain": {"type": "str", "default": "rtpengine"},
        },
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
    host = look(module)
    rule = False
    nft = module.get_bin_path("nft", opt_dirs=["/usr/sbin"])
    if nft:
        chain = [nft, "list", "chain", "ip", "filter", module.params["chain"]]
        rule = kernel_forwarding.has_rule(module.run_command(chain)[1])
    result: dict[str, Any] = {
        "release": host.release,
        "kernels": [dict(each.__dict__) for each in host.kernels],
        "missing_packages": kernel_forwarding.missing_packages(host),
        "problems": kernel_forwarding.problems(host, module.params["after_install"]),
        "owner": owner(module.params["table"]),
        "rule": rule,
    }
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
