# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which secrets may be changed, and how a run that was interrupted goes on."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import rotation

INPUTS: dict[str, Any] = {
    "ringmain_database_engine": "galera",
    "ringmain_subscribers": [{"tenant": "acme", "extension": "1001", "voicemail": True}],
}
ON_POSTGRESQL = {**INPUTS, "ringmain_database_engine": "postgresql"}
SECRETS = {
    "database_asterisk_password": "asterisk-one",
    "database_edge_password": "edge-one",
    "asterisk_ami_password": "ami-one",
    "edge_secret": "secret-one",
}


def test_all_is_what_costs_nothing() -> None:
    found = rotation.plan(["all"], INPUTS, SECRETS, gap=False)
    assert found.names == (
        "database_asterisk_password",
        "database_edge_password",
        "asterisk_ami_password",
        "subscribers.901@verify",
        "subscribers.902@verify",
    )
    assert list(found.left) == ["edge_secret"]
    floating = {**INPUTS, "ringmain_media_addresses": [{"outside": "a", "inside": "b"}]}
    found = rotation.plan(["all"], floating, SECRETS, gap=False)
    assert list(found.left) == ["edge_secret", "relay_store_password"]


def test_postgresql_has_one_password_only() -> None:
    found = rotation.plan(["all"], ON_POSTGRESQL, SECRETS, gap=False)
    assert found.names[0] == "asterisk_ami_password"
    assert set(found.left) == {"edge_secret", *rotation.DATABASE}
    with pytest.raises(rotation.RotationError, match="database_edge_password stays as it is: Post"):
        rotation.plan(["database_edge_password"], ON_POSTGRESQL, SECRETS, gap=False)
    allowed = rotation.plan(["database_edge_password"], ON_POSTGRESQL, SECRETS, gap=True)
    assert allowed.names == ("database_edge_password",)


def test_a_subscriber_is_changed_only_by_name() -> None:
    wanted = ["subscribers.1001@acme", "voicemail_pins.1001@acme", "subscribers.1001@acme"]
    found = rotation.plan(wanted, INPUTS, SECRETS, gap=False)
    assert found.names == ("subscribers.1001@acme", "voicemail_pins.1001@acme")
    assert found.left == {}


def test_everything_that_is_wrong_is_said_at_once() -> None:
    wanted = ["edge_secret", "ca_key", "subscribers.9@acme"]
    with pytest.raises(rotation.RotationError) as refused:
        rotation.plan(wanted, INPUTS, SECRETS, gap=True)
    lines = str(refused.value).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("edge_secret stays as it is: phones could not end their calls")
    assert lines[1].startswith("ca_key stays as it is: servers that trust another authority")
    assert lines[2].startswith("subscribers.9@acme is no secret of this cluster: there are ")
    with pytest.raises(rotation.RotationError, match="name what to change"):
        rotation.plan([], INPUTS, SECRETS, gap=False)


def test_only_database_passwords_have_a_previous_value() -> None:
    names = ["database_edge_password", "asterisk_ami_password"]
    kept = rotation.previous_values(names, SECRETS)
    assert kept == {"previous": {"database_edge_password": "edge-one"}}
    assert rotation.previous_values(["asterisk_ami_password"], SECRETS) == {}


def test_an_interrupted_run_goes_on_with_its_own_values() -> None:
    begun = {**SECRETS, "previous": {"database_edge_password": "zero", "other": ""}}
    assert rotation.unfinished(begun) == ("database_edge_password",)
    found = rotation.plan(["all"], INPUTS, begun, gap=False)
    assert (found.names, found.unfinished) == ((), ("database_edge_password",))
    assert rotation.forgotten(begun) == {"previous": {"database_edge_password": ""}}
    ended = {**SECRETS, "previous": {"database_edge_password": ""}}
    assert rotation.unfinished(ended) == ()
    assert rotation.forgotten(ended) == {}
    assert rotation.plan(["all"], INPUTS, ended, gap=False).names != ()
