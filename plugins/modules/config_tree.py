#!/usr/bin/python
# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: config_tree
short_description: Render, check and swap whole configuration directories
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Renders a directory of the role's templates on the controller and makes it the content of a
    directory on the host, in one task.
  - All trees are staged beside their destinations, then all checks run on the staged trees, then
    all trees are swapped in. When a check fails nothing is touched.
  - The destination belongs to this task as a whole. What is not rendered is removed, except for
    what O(trees[].keep) names, and drift of content, permissions and owners is repaired.
  - The tree that was live before the last change of content stays beside the destination as
    C(.NAME.ringmain-previous).
  - A run that is cut short leaves nothing that a second run does not complete.
extends_documentation_fragment:
  - ringmain.voip.attributes
attributes:
  check_mode:
    support: full
    description: Can run in check mode. The checks run on a temporary copy when O(installed) is
      true.
  diff_mode:
    support: full
    description: Shows every file that changes, except for the content of those that
      O(trees[].secret) names.
options:
  trees:
    description: The directories to write.
    type: list
    elements: dict
    required: true
    suboptions:
      src:
        description:
          - Directory below the role's C(templates/).
          - Files whose name ends in C(.j2) are rendered like M(ansible.builtin.template) does, and
            lose this suffix. One that renders to nothing but white space is left out. All other
            files are copied as they are.
          - C(include) and C(import) find other templates below C(templates/) and below this
            directory.
          - The variable C(config_tree_path) is O(trees[].dest) while the templates of this tree
            are rendered.
        type: str
        required: true
      dest:
        description: Absolute path of the directory on the host.
        type: str
        required: true
      owner:
        description: User who owns all files and directories, by name or number.
        type: str
        default: root
      group:
        description: Group of all files and directories, by name or number.
        type: str
        default: root
      mode:
        description:
          - Octal permissions of files.
          - A file that may be executed in the role may be executed by everyone who may read it.
        type: str
        default: "0640"
      directory_mode:
        description: Octal permissions of directories, O(trees[].dest) included.
        type: str
        default: "0750"
      keep:
        description:
          - Patterns of what is not ours below O(trees[].dest) and is carried over as it is.
          - A pattern without a slash matches the name of a file or directory at any depth,
            one with a slash is anchored at O(trees[].dest). Wildcards do not cross slashes.
          - What is kept and also rendered is written only when it is missing.
        type: list
        elements: str
        default: []
      check:
        description:
          - Commands that must succeed on the staged tree, whose path takes the place of C({tree}).
          - They run on the host, as the task's user and without a shell. A single string is one
            command.
        type: list
        elements: str
        default: []
      secret:
        description: Patterns, as in O(trees[].keep), of files whose content never shows in diffs
          and messages.
        type: list
        elements: str
        default: []
      restart_for:
        description: Patterns, as in O(trees[].keep), of files whose change takes effect only when
          the service restarts.
        type: list
        elements: str
        default: []
  service:
    description:
      - Names the file C(/etc/ringmain/digests/SERVICE), which holds the digest of the files that
        O(trees[].restart_for) names.
      - The service's unit copies it to C(/run/ringmain/SERVICE.digest) when it starts.
    type: str
  installed:
    description: When false the checks are left out, because what they need is not installed yet
      (check mode on an empty server).
    type: bool
    default: true
  rendered:
    description: What the controller rendered. The action plugin fills it in, a task leaves it out.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Render, check and swap the configuration
  ringmain.voip.config_tree:
    trees:
      - src: etc/kamailio
        dest: /etc/kamailio
        group: kamailio
        keep:
          - "*.local"
        check: kamailio -c -f {tree}/kamailio.cfg
        restart_for:
          - "*.cfg"
      - src: etc/systemd/system/kamailio.service.d
        dest: /etc/systemd/system/kamailio.service.d
        mode: "0644"
        directory_mode: "0755"
    service: kamailio
    installed: "{{ __kamailio_installed }}"
  register: __kamailio_tree

- name: Say that a restart is pending
  ansible.builtin.debug:
    msg: The running Kamailio is older than its configuration
  when: __kamailio_tree.restart_pending
"""

RETURN = r"""
changed_files:
  description: Every path that was (in check mode would be) written, removed or repaired.
  returned: success
  type: list
  elements: str
  sample:
    - /etc/kamailio/kamailio.cfg
digest:
  description: SHA-256 over the files of all trees whose change needs a restart.
  returned: success
  type: str
  sample: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
restart_pending:
  description:
    - Whether the service runs with an older digest than RV(digest).
    - False when the service has not been started with a digest.
  returned: success
  type: bool
  sample: false
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringmain.voip.plugins.module_utils.config_tree import (
    ConfigTreeError,
    Tree,
    apply,
    parse_mode,
    unpack,
)

TREE_SPEC: dict[str, t.Any] = {
    "src": {"type": "str", "required": True},
    "dest": {"type": "str", "required": True},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "mode": {"type": "str", "default": "0640"},
    "directory_mode": {"type": "str", "default": "0750"},
    "keep": {"type": "list", "elements": "str", "default": []},
    "check": {"type": "list", "elements": "str", "default": []},
    "secret": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "restart_for": {"type": "list", "elements": "str", "default": []},
}


def build_trees(params: dict[str, t.Any]) -> list[Tree]:
    """Trees of the module's parameters. Raises ConfigTreeError."""
    rendered = unpack(params["rendered"])
    if len(rendered) != len(params["trees"]):
        raise ConfigTreeError(
            f"{len(params['trees'])} trees are wanted, {len(rendered)} are rendered"
        )
    return [
        Tree(
            dest=os.path.normpath(given["dest"]),
            files=files,
            owner=given["owner"],
            group=given["group"],
            mode=parse_mode(given["mode"], f"mode of {given['dest']}"),
            directory_mode=parse_mode(
                given["directory_mode"], f"directory_mode of {given['dest']}"
            ),
            keep=tuple(given["keep"]),
            checks=tuple(given["check"]),
            secret=tuple(given["secret"]),
            restart_for=tuple(given["restart_for"]),
        )
        for given, files in zip(params["trees"], rendered, strict=True)
    ]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "trees": {"type": "list", "elements": "dict", "required": True, "options": TREE_SPEC},
            "service": {"type": "str"},
            "installed": {"type": "bool", "default": True},
            "rendered": {"type": "str", "default": "", "no_log": True},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    try:
        outcome = apply(
            build_trees(module.params),
            service=module.params["service"],
            installed=module.params["installed"],
            check_mode=module.check_mode,
            with_diff=module._diff,
            scratch=module.tmpdir,
        )
    except ConfigTreeError as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=f"The configuration could not be replaced: {exc}")
    else:
        module.exit_json(
            changed=outcome.changed,
            changed_files=outcome.changed_files,
            digest=outcome.digest,
            restart_pending=outcome.restart_pending,
            **({"diff": outcome.diff} if module._diff else {}),
        )


if __name__ == "__main__":
    main()
