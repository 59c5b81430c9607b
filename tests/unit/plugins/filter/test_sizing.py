# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sizing filters as playbooks use them: by their full names, in templates, as documented."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

SIZING = ("sysctl_sizing", "conntrack_sizing", "ulimit_sizing", "rtp_port_range")
Render = Callable[..., Any]


@pytest.fixture
def render() -> Render:
    """Evaluate an expression as Ansible does."""

    def evaluate(expression: str, **variables: Any) -> Any:
        templar = Templar(loader=DataLoader(), variables=variables)
        return templar.template(trust_as_template(f"{{{{ {expression} }}}}"))

    return evaluate


def documented(name: str) -> tuple[dict[str, Any], Any]:
    """The example's task, and the sample of what is returned."""
    module = importlib.import_module(f"ansible_collections.ringmain.voip.plugins.filter.{name}")
    (task,) = yaml.safe_load(module.EXAMPLES)
    return task, yaml.safe_load(module.RETURN)["_value"].get("sample")


def expression(task: Any) -> str:
    """The part of an example that calls a filter, up to what it does with the result."""
    text = next(word for word in strings(task) if "ringmain.voip." in word)
    inner = " ".join(text.split("{{", 1)[1].split("}}", 1)[0].split())
    inner = inner.partition(" | dict2items")[0]
    for attribute in (".rtpengine_open_files", ".tiers.media"):
        inner = inner.removesuffix(attribute)
    return inner.strip()


def strings(value: Any) -> list[str]:
    """All texts in nested data."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [str(value)]


@pytest.mark.parametrize("name", SIZING)
def test_the_example_gives_the_sample(render: Render, name: str) -> None:
    """Where only a part of the result is shown, that part."""
    task, sample = documented(name)
    found = render(expression(task))
    assert {key: found[key] for key in sample} == sample


def test_the_example_of_capacity_plan(render: Render) -> None:
    """Two relays, one of which may be missing, and what they carry."""
    task, _sample = documented("capacity_plan")
    found = render(expression(task), **task["vars"])
    assert found["errors"] == []
    assert set(found["limits"]) == {"media1", "media2"}
    assert found["tiers"]["media"]["carries"] >= 800


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("'many' | ringmain.voip.sysctl_sizing(functions=['media'])", "sysctl_sizing: invalid"),
        ("5 | ringmain.voip.conntrack_sizing(functions=['moon'])", "moon"),
        ("5 | ringmain.voip.ulimit_sizing(colour='red')", "colour"),
        ("'x' | ringmain.voip.rtp_port_range", "rtp_port_range: invalid"),
        ("5 | ringmain.voip.capacity_plan(calls=5)", "capacity_plan: "),
    ],
)
def test_mistakes_are_errors_of_the_filter(render: Render, call: str, words: str) -> None:
    """Not a traceback."""
    with pytest.raises(AnsibleError, match=words):
        render(call)
