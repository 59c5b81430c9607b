# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module's options become trees."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.ringmain.voip.plugins.module_utils.config_tree import (
    ConfigTreeError,
    Rendered,
    Tree,
    pack,
)
from ansible_collections.ringmain.voip.plugins.modules.config_tree import TREE_SPEC, build_trees

FILES = {"main.cfg": Rendered(b"x")}


def given(**more: Any) -> dict[str, Any]:
    """One tree's options as AnsibleModule hands them over."""
    checked = ArgumentSpecValidator(TREE_SPEC).validate({"src": "etc/x", "dest": "/etc/x/", **more})
    assert checked.error_messages == []
    return dict(checked.validated_parameters)


def test_defaults() -> None:
    trees = build_trees({"trees": [given()], "rendered": pack([FILES])})
    assert trees == [Tree("/etc/x", FILES, "root", "root", 0o640, 0o750)]


def test_all_options() -> None:
    options = {
        "owner": "kamailio",
        "group": "kamailio",
        "mode": "0600",
        "directory_mode": "0700",
        "keep": ["certs"],
        "check": ["kamailio -c -f {tree}/kamailio.cfg"],
        "secret": ["secrets.cfg"],
        "restart_for": ["*"],
    }
    tree = build_trees({"trees": [given(**options)], "rendered": pack([FILES])})[0]
    assert (tree.owner, tree.group, tree.mode, tree.directory_mode) == (
        "kamailio",
        "kamailio",
        0o600,
        0o700,
    )
    assert (tree.keep, tree.checks) == (("certs",), ("kamailio -c -f {tree}/kamailio.cfg",))
    assert (tree.secret, tree.restart_for) == (("secrets.cfg",), ("*",))


def test_what_was_rendered_must_fit() -> None:
    with pytest.raises(ConfigTreeError, match=r"^1 trees are wanted, 2 are rendered$"):
        build_trees({"trees": [given()], "rendered": pack([FILES, FILES])})


@pytest.mark.parametrize("option", ["mode", "directory_mode"])
def test_a_wrong_mode_names_option_and_tree(option: str) -> None:
    with pytest.raises(ConfigTreeError, match=f"^{option} of /etc/x/ must be octal permissions"):
        build_trees({"trees": [given(**{option: "rwx"})], "rendered": pack([FILES])})
