# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read from Ansible's variables, and how it becomes plain."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.ringmain.voip.plugins.filter import directory_rows, merge_secrets
from ansible_collections.ringmain.voip.plugins.plugin_utils import cluster
from ansible_collections.ringmain.voip.plugins.plugin_utils.plain import to_plain

GROUPS = {
    "all": ["a1", "a2", "b1", "b2", "p1"],
    "edge": ["a1", "b1", "a2"],
    "phones": ["p1"],
    "west": ["a2", "a1", "p1"],
}


def test_members_are_those_of_the_group_that_are_in_the_cluster() -> None:
    members = cluster.read_members(GROUPS, {"probes": "phones"}, "west")
    assert members == {
        "edge": ["a1", "a2"],
        "media": [],
        "pbx": [],
        "database": [],
        "storage": [],
        "probes": ["p1"],
    }
    assert cluster.read_members(GROUPS, {}, "all")["edge"] == ["a1", "b1", "a2"]


def test_hosts_have_what_is_set() -> None:
    hostvars: dict[str, dict[str, Any]] = {
        "a1": {"ringmain_address": "10.0.0.1", "ringmain_cores": 2, "other": 1},
        "p1": {},
    }
    assert cluster.read_hosts(hostvars, {"edge": ["a1"], "pbx": ["a1"], "probes": ["p1"]}) == {
        "a1": {"ringmain_address": "10.0.0.1", "ringmain_cores": 2},
        "p1": {},
    }


def test_parts_of_the_secrets_merge_in_the_order_of_their_numbers() -> None:
    parts = {
        "ringmain_secrets_10": {"a": "10"},
        "ringmain_secrets_2": {"a": "2", "subscribers": {"2@x": "p2"}},
        "ringmain_secrets": {"a": "1", "b": "1", "subscribers": {"1@x": "p1"}},
        "ringmain_secrets_old": {"a": "old"},
        "ringmain_secrets_3": "no dictionary",
    }
    assert cluster.read_secrets(parts, lambda value: value) == {
        "a": "10",
        "b": "1",
        "subscribers": {"1@x": "p1", "2@x": "p2"},
    }


@pytest.mark.parametrize(
    ("sources", "group", "expected"),
    [
        (["inv"], "all", "ansible-playbook -i inv ringmain.voip.secrets"),
        (
            ["my inv", "more"],
            "west",
            "ansible-playbook -i 'my inv' -i more ringmain.voip.secrets -e ringmain_cluster=west",
        ),
        ([], "all", "ansible-playbook -i INVENTORY ringmain.voip.secrets"),
    ],
)
def test_the_command_for_secrets_can_be_pasted(
    sources: list[str], group: str, expected: str
) -> None:
    assert cluster.secrets_command({"ansible_inventory_sources": sources}, group) == expected


def test_lazy_and_tagged_values_become_plain() -> None:
    variables = {
        "base": "10.0.0",
        "whole": {
            "address": trust_as_template("{{ base }}.1"),
            "rows": [{"n": trust_as_template("{{ 1 + 1 }}")}, None, True, 1.5],
        },
    }
    lazy = Templar(DataLoader(), variables).template(trust_as_template("{{ whole }}"))
    plain = to_plain(lazy)
    assert plain == {"address": "10.0.0.1", "rows": [{"n": 2}, None, True, 1.5]}
    assert json.loads(json.dumps(plain)) == plain
    parts = [plain, plain["rows"], plain["address"], plain["rows"][0]["n"], *plain["rows"][1:]]
    assert [type(part) for part in parts] == [dict, list, str, int, type(None), bool, float]
    assert to_plain({"a": {1, 2}, 3: DataLoader}) == {"a": [1, 2], "3": str(DataLoader)}


def test_filters_take_what_templates_hand_over() -> None:
    variables: dict[str, Any] = {
        "tenants": [{"name": "acme"}],
        "subscribers": [{"tenant": "acme", "extension": trust_as_template("{{ number }}")}],
        "number": "1001",
        "secrets": {"subscribers": {"1001@acme": "p", "901@verify": "p", "902@verify": "p"}},
    }
    templar = Templar(DataLoader(), variables)
    rows = templar.template(
        trust_as_template(
            "{{ tenants | ringmain.voip.directory_rows(subscribers, [], [],"
            " secrets=secrets, domain='voice.example.com') }}"
        )
    )
    assert to_plain(rows)["subscribers"][0]["extension"] == "1001"
    merged = templar.template(
        trust_as_template(
            "{{ [secrets, {'subscribers': {'1@a': 'x'}}] | ringmain.voip.merge_secrets }}"
        )
    )
    assert to_plain(merged)["subscribers"] == {
        **variables["secrets"]["subscribers"],
        "1@a": "x",
    }


def test_filters_have_their_names() -> None:
    assert list(directory_rows.FilterModule().filters()) == ["directory_rows"]
    assert list(merge_secrets.FilterModule().filters()) == ["merge_secrets"]


def test_the_filter_names_a_subscriber_without_password() -> None:
    with pytest.raises(AnsibleError, match="subscriber 901@verify has no password"):
        directory_rows.directory_rows([], [], [], [], secrets={}, domain="voice.example.com")
