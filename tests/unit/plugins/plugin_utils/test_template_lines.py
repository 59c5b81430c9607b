# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The line at which a template fails, with Ansible's own engine."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.ringmain.voip.plugins.plugin_utils.template_lines import failing_line

VARIABLES: dict[str, Any] = {
    "rows": [{"n": 1}, {"m": 1}],
    "broken": trust_as_template("{{ nope }}"),
}


def render(text: str, more: dict[str, Any]) -> object:
    """Render as the action plugin does."""
    templar = Templar(DataLoader(), {**VARIABLES, **more})
    result: object = templar.template(trust_as_template(text), overrides={"trim_blocks": True})
    return result


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("a\nb\n{{ nope }}\nc\n{{ rows }}\n{% if true %}x{% endif %}\n", 3),
        ("a\n{% for x in rows %}\n\n{{ x.n }}\n{{ rows }}{% endfor %}\n{{ rows }}\n", 4),
        ("a\n{{ nope.x | upper }}\n", 2),
        ("a\n\n{% if nope == 1 %}\n{% endif %}{{ rows }}\n", 3),
        ("{% for x in nope %}\n{% endfor %}\n{{ rows }}\n", 1),
        ("a\n{{ 1 / 0 }}\n{{ rows }}\n", 2),
        ("a\n{% if %}\n", 2),
        ("a\n\n{{ rows | nofilter }}\n", 3),
        ("{# a\ncomment #}\n{% raw %}{{ nope }}{% endraw %}\n{{- broken -}}\n", 4),
        ("{% set a = nope %}\n{{ rows }}\n{{ a }}\n", 3),
        ("\n{% include 'missing.j2' %}\n{{ rows }}\n", 2),
        ("{{ 'a' if nope else 'b' }}\n", 1),
    ],
)
def test_line(source: str, line: int) -> None:
    with pytest.raises(AnsibleError) as error:
        render(source, {})
    assert failing_line(source, error.value, render) == line


def test_no_line_is_better_than_a_wrong_one() -> None:
    """What fails only once, or deep inside a value, has no line."""
    nested = "{{ rows }}\n{{ rows, nope }}\n{{ rows }}\n"
    with pytest.raises(AnsibleError) as error:
        render(nested, {})
    assert failing_line(nested, error.value, render) is None
    assert failing_line("a\n{{ rows }}\n", AnsibleError("once"), render) is None
