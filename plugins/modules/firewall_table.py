#!/usr/bin/python
# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall_table
short_description: Load a table of nftables on trial, and confirm it
version_added: 0.2.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Loads a file that replaces the table C(inet ringmain) when the running table is not what the
    file describes. To find out, the file is loaded in a network namespace of its own that vanishes
    at once, and what C(nft) lists there is compared with what runs. Counters and what packets added
    to sets are no difference.
  - New rules are on trial. Unless they are confirmed in time, the host goes back to the last ones
    that were, by itself; nobody has to be connected for it.
  - Other tables are neither read nor changed.
requirements:
  - nft 1.0.8 or newer (Debian package C(nftables)), C(unshare), systemd
extends_documentation_fragment:
  - ringmain.voip.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  state:
    description:
      - V(tried) loads O(rules) where the running table or O(confirmed) differs, and has the host
        load O(confirmed) again after O(rollback_seconds).
      - V(confirmed) calls that off and makes O(confirmed) a copy of O(rules). Run it over a new
        connection. It fails when it comes too late.
    type: str
    choices: [tried, confirmed]
    required: true
  rules:
    description: File that replaces the table, C(destroy table inet ringmain) first.
    type: path
    required: true
  confirmed:
    description:
      - Copy of the last O(rules) that were confirmed. At first it only removes the table. This is
        the file to load at boot.
    type: path
    required: true
  rollback_seconds:
    description: How long new rules are on trial, 10 at least.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: Load the rules on trial
  ringmain.voip.firewall_table:
    state: tried
    rules: /etc/ringmain/firewall/rules.nft
    confirmed: /var/lib/ringmain/firewall/confirmed.nft
  register: table

- name: Confirm them
  ringmain.voip.firewall_table:
    state: confirmed
    rules: /etc/ringmain/firewall/rules.nft
    confirmed: /var/lib/ringmain/firewall/confirmed.nft
  when: table is changed
"""

RETURN = r"""
loaded:
  description: Whether the running table was not what O(rules) describes.
  returned: success and O(state=tried)
  type: bool
"""

import os
import tempfile
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringmain.voip.plugins.module_utils.firewall import without_state

TABLE = ("inet", "ringmain")
TIMER = "ringmain-firewall-rollback"
EMPTY = "# No rules were confirmed yet.\ndestroy table inet ringmain\n"


class FirewallTable:
    """The running table of this host, and the two files."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.rules = Path(module.params["rules"])
        self.confirmed = Path(module.params["confirmed"])
        self.seconds = int(module.params["rollback_seconds"])

    def run(self, *words: str, why: str) -> str:
        """The output of a command that must succeed."""
        code, output, errors = self.module.run_command(list(words))
        if code:
            self.module.fail_json(msg=f"{os.uname().nodename}: {why}: {errors or output}".strip())
        return str(output)

    def described(self) -> str:
        """What nft lists when the file of rules is loaded, and nothing else is there."""
        script = 'nft --file "$1" && nft --stateless list table "$2" "$3"'
        words = ("unshare", "--net", "sh", "-c", script, "sh", str(self.rules), *TABLE)
        return without_state(self.run(*words, why=f"{self.rules} cannot be loaded"))

    def running(self) -> str:
        """What nft lists now; nothing when the table is not there."""
        tables = self.run("nft", "list", "tables", TABLE[0], why="the tables cannot be listed")
        if f"table {' '.join(TABLE)}" not in tables.splitlines():
            return ""
        listing = self.run(
            "nft", "--stateless", "list", "table", *TABLE, why="the table cannot be listed"
        )
        return without_state(listing)

    def trial(self) -> dict[str, t.Any]:
        """Load the rules where they differ, and have the host go back unless they are confirmed."""
        if self.module.check_mode and not self.rules.exists():
            return {"changed": True, "loaded": True}
        running, described = self.running(), self.described()
        loaded = running != described
        changed = loaded or _content(self.confirmed) != _content(self.rules)
        if changed and not self.module.check_mode:
            if not self.confirmed.exists():
                self.keep(EMPTY)
            self.arm()
            self.run("nft", "--file", str(self.rules), why=f"{self.rules} cannot be loaded")
        result: dict[str, t.Any] = {"changed": changed, "loaded": loaded}
        if self.module._diff:
            name = " ".join(("table", *TABLE))
            result["diff"] = {
                "before": running,
                "after": described,
                "before_header": f"{name} (running)",
                "after_header": f"{name} ({self.rules})",
            }
        return result

    def confirm(self) -> dict[str, t.Any]:
        """Call the way back off and keep the rules."""
        changed = _content(self.confirmed) != _content(self.rules)
        if self.module.check_mode:
            return {"changed": changed}
        self.disarm()
        if self.running() != self.described():
            connection = os.environ.get("SSH_CONNECTION", "").split()
            whence = (
                f" This connection comes from {connection[0]} to port {connection[3]}."
                if len(connection) == 4
                else ""
            )
            self.module.fail_json(
                msg=f"{os.uname().nodename}: with the new rules no new SSH connection came within "
                f"{self.seconds} s, so the previous rules are active again. Let the controller in: "
                "its address as this host sees it must be in ringmain_ssh_from, and the port of "
                f"SSH in ansible_port.{whence} Correct them and run the playbook again."
            )
        if changed:
            self.keep(self.rules.read_text(encoding="utf-8"))
        return {"changed": changed}

    def arm(self) -> None:
        """Have systemd load the confirmed rules again in a while."""
        self.disarm()
        self.run(
            "systemd-run",
            "--quiet",
            "--collect",
            f"--unit={TIMER}",
            f"--on-active={self.seconds}s",
            "--timer-property=AccuracySec=100ms",
            "--description=Go back to the last confirmed rules of Ringmain's packet filter",
            "/usr/sbin/nft",
            "--file",
            str(self.confirmed),
            why="the way back from the new rules cannot be prepared, so they were not loaded",
        )

    def disarm(self) -> None:
        """Call that off; nothing when it is off already."""
        self.module.run_command(["systemctl", "stop", f"{TIMER}.timer", f"{TIMER}.service"])

    def keep(self, text: str) -> None:
        """Write the confirmed rules so that a power cut leaves the old file or the new one."""
        self.confirmed.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.confirmed.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, self.confirmed)


def _content(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["tried", "confirmed"], "required": True},
            "rules": {"type": "path", "required": True},
            "confirmed": {"type": "path", "required": True},
            "rollback_seconds": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    if module.params["rollback_seconds"] < 10:
        module.fail_json(msg="rollback_seconds must be 10 at least: a connection takes its time")
    table = FirewallTable(module)
    result = table.trial() if module.params["state"] == "tried" else table.confirm()
    module.exit_json(**result)


if __name__ == "__main__":
    main()
