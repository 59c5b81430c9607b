# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Each role's inputs: meta/argument_specs.yml and defaults/main.yml say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

ROLES = Path(__file__).resolve().parents[2] / "roles"
NAMES = sorted(path.name for path in ROLES.iterdir() if path.is_dir())
ABSENT = object()


def load(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; one that is not there is an empty one."""
    return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}


def defaults(role: str) -> dict[str, Any]:
    """The role's defaults."""
    return load(ROLES / role / "defaults" / "main.yml")


def entry_points(role: str) -> dict[str, dict[str, Any]]:
    """The role's entry points, each with its options."""
    specs = load(ROLES / role / "meta" / "argument_specs.yml").get("argument_specs", {})
    return {name: spec.get("options") or {} for name, spec in specs.items()}


def options(role: str) -> dict[str, dict[str, Any]]:
    """The options of all entry points; one that several share must be the same in each."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entry_points(role).values():
        for name, spec in entry.items():
            assert found.setdefault(name, spec) == spec, f"{role}: two descriptions of {name}"
    return found


def undescribed(where: str, spec: dict[str, Any]) -> list[str]:
    """Complaints about an option, or one inside it, that has no type or no description."""
    complaints = [f"{where} has no {key}" for key in ("type", "description") if not spec.get(key)]
    if spec.get("type") == "list" and not spec.get("elements"):
        complaints.append(f"{where} is a list and does not say of what (elements)")
    for name, inner in (spec.get("options") or {}).items():
        complaints += undescribed(f"{where}.{name}", inner)
    return complaints


def holds_template(value: Any) -> bool:
    """Whether a default is computed when the role runs."""
    if isinstance(value, dict):
        return any(map(holds_template, value.values()))
    if isinstance(value, list):
        return any(map(holds_template, value))
    return isinstance(value, str) and "{{" in value


def without_no_log(spec: dict[str, Any]) -> dict[str, Any]:
    """The option as the validator of modules takes it."""
    wanted = {"type", "elements", "choices", "required", "default"}
    plain = {key: value for key, value in spec.items() if key in wanted}
    if spec.get("options"):
        plain["options"] = {name: without_no_log(inner) for name, inner in spec["options"].items()}
    return plain


@pytest.mark.parametrize("role", NAMES)
def test_has_a_specification(role: str) -> None:
    """The role says what it is for and has the entry point that `roles:` uses."""
    spec = load(ROLES / role / "meta" / "argument_specs.yml").get("argument_specs", {})
    assert "main" in spec, f"{role} has no meta/argument_specs.yml with an entry point 'main'"
    assert [name for name in spec if not spec[name].get("short_description")] == []


@pytest.mark.parametrize("role", NAMES)
def test_inputs_are_described(role: str) -> None:
    """Every input, at any depth, has a type and a description."""
    complaints = [c for name, spec in options(role).items() for c in undescribed(name, spec)]
    assert complaints == []


@pytest.mark.parametrize("role", NAMES)
def test_inputs_carry_the_name_of_the_role(role: str) -> None:
    """No input of one role is taken for another's."""
    names = set(options(role)) | set(defaults(role))
    assert [name for name in sorted(names) if not name.startswith(f"{role}_")] == []


@pytest.mark.parametrize("role", NAMES)
def test_defaults_are_those_specified(role: str) -> None:
    """An input is required and has no default, or has the same default at both places."""
    given = defaults(role)
    described = options(role)
    complaints = [f"{name} is not described" for name in given if name not in described]
    for name, spec in described.items():
        default, value = spec.get("default", ABSENT), given.get(name, ABSENT)
        if spec.get("required"):
            if default is not ABSENT or value is not ABSENT:
                complaints.append(f"{name} is required and has a default")
        elif default is ABSENT or value is ABSENT:
            complaints.append(f"{name} is neither required nor has it a default at both places")
        elif (type(default), default) != (type(value), value):
            complaints.append(f"{name}: {default!r} is specified, {value!r} the default")
    assert complaints == []


@pytest.mark.parametrize("role", NAMES)
def test_defaults_pass_their_own_check(role: str) -> None:
    """A default has the type it claims and is among its choices."""
    given = {name: value for name, value in defaults(role).items() if not holds_template(value)}
    specs = {name: without_no_log(spec) for name, spec in options(role).items() if name in given}
    assert ArgumentSpecValidator(specs).validate(given).error_messages == []
