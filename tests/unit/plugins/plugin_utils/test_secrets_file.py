# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generated secrets and the files that keep them."""

from __future__ import annotations

import datetime
import os
import re
import stat
from pathlib import Path

import pytest
import yaml
from ansible_collections.ringmain.voip.plugins.plugin_utils import secrets_file
from ansible_collections.ringmain.voip.plugins.plugin_utils.secrets_file import SecretsError

NOW = datetime.datetime(2026, 11, 21, 12, 0, tzinfo=datetime.UTC)


def test_passwords_are_long_unambiguous_and_never_the_same() -> None:
    passwords = {secrets_file.make_password() for _turn in range(100)}
    assert len(passwords) == 100
    assert all(re.fullmatch(r"[a-km-zA-HJ-NP-Z2-9]{32}", password) for password in passwords)
    assert re.fullmatch(r"[0-9]{6}", secrets_file.make_pin())


def test_only_what_is_missing_is_made() -> None:
    missing = ["ca_key", "ca_certificate", "edge_secret", "subscribers.1@a", "voicemail_pins.1@a"]
    made = secrets_file.generate(missing, {"other": "x"}, "voice.example.com", NOW)
    assert sorted(made) == [
        "ca_certificate",
        "ca_key",
        "edge_secret",
        "subscribers",
        "voicemail_pins",
    ]
    assert list(made["subscribers"]) == ["1@a"]
    assert len(made["subscribers"]["1@a"]) == 32
    assert len(made["voicemail_pins"]["1@a"]) == 6
    assert secrets_file.generate([], {}, "voice.example.com", NOW) == {}


def test_a_lost_certificate_is_made_again_from_its_key_but_never_the_key_alone() -> None:
    whole = secrets_file.generate(["ca_key", "ca_certificate"], {}, "voice.example.com", NOW)
    again = secrets_file.generate(["ca_certificate"], whole, "voice.example.com", NOW)
    assert list(again) == ["ca_certificate"]
    with pytest.raises(SecretsError) as error:
        secrets_file.generate(["ca_key"], whole, "voice.example.com", NOW)
    assert str(error.value) == (
        "ringmain_secrets has ca_certificate without its ca_key: bring the key back, "
        "or remove ca_certificate and have every host certified anew"
    )


def test_the_first_file_is_readable_to_its_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "group_vars" / "all"
    path, variable, present = secrets_file.choose_file(directory)
    assert (path, variable, present) == (
        directory / "ringmain_secrets.yml",
        "ringmain_secrets",
        {},
    )
    made = {"ca_key": "-----BEGIN\nline\n-----END\n", "voicemail_pins": {"1@a": "040438"}}
    secrets_file.write_file(path, variable, present, made)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert yaml.safe_load(path.read_text()) == {"ringmain_secrets": made}
    assert "ca_key: |\n    -----BEGIN\n    line\n" in path.read_text()
    assert '1@a: "040438"' in path.read_text()
    assert os.listdir(directory) == ["ringmain_secrets.yml"]


def test_a_plain_file_is_extended(tmp_path: Path) -> None:
    path = tmp_path / "all" / "ringmain_secrets.yml"
    secrets_file.write_file(path, "ringmain_secrets", {}, {"subscribers": {"1@a": "one"}})
    chosen, variable, present = secrets_file.choose_file(path.parent)
    assert (chosen, variable, present) == (
        path,
        "ringmain_secrets",
        {"subscribers": {"1@a": "one"}},
    )
    secrets_file.write_file(chosen, variable, present, {"subscribers": {"2@a": "two"}})
    assert yaml.safe_load(path.read_text()) == {
        "ringmain_secrets": {"subscribers": {"1@a": "one", "2@a": "two"}}
    }


@pytest.mark.parametrize(
    "text",
    [
        "$ANSIBLE_VAULT;1.1;AES256\n6162\n",
        "ringmain_secrets:\n  ca_key: !vault |\n    $ANSIBLE_VAULT;1.1;AES256\n    6162\n",
        "ringmain_secrets: {}\nsomething_else: 1\n",
        "- a list\n",
        "not: [closed\n",
    ],
)
def test_what_is_encrypted_or_not_ours_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "ringmain_secrets.yml").write_text(text)
    path, variable, present = secrets_file.choose_file(tmp_path)
    assert (path, variable, present) == (
        tmp_path / "ringmain_secrets_2.yml",
        "ringmain_secrets_2",
        {},
    )
    path.write_text("$ANSIBLE_VAULT;1.1;AES256\n6162\n")
    assert secrets_file.choose_file(tmp_path)[1] == "ringmain_secrets_3"


def test_an_empty_dictionary_is_ours(tmp_path: Path) -> None:
    (tmp_path / "ringmain_secrets.yml").write_text("ringmain_secrets:\n")
    assert secrets_file.choose_file(tmp_path)[1:] == ("ringmain_secrets", {})


@pytest.mark.parametrize("suffix", [".yml", ".yaml", ".json"])
def test_a_file_that_the_directory_would_hide_is_in_the_way(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"all{suffix}").write_text("{}")
    directory = tmp_path / "all"
    with pytest.raises(SecretsError) as error:
        secrets_file.choose_file(directory)
    assert str(error.value) == (
        f"{directory}{suffix} would be ignored beside a directory {directory}: "
        f"move it to {directory}/main{suffix} and run again"
    )
    directory.mkdir()
    assert secrets_file.choose_file(directory)[1] == "ringmain_secrets"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ringmain_secrets.yml"
    secrets_file.write_file(path, "ringmain_secrets", {}, {"a": "1"})
    before = path.read_text()

    def fail(source: str, target: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        secrets_file.write_file(path, "ringmain_secrets", {"a": "1"}, {"b": "2"})
    assert path.read_text() == before
    assert os.listdir(tmp_path) == ["ringmain_secrets.yml"]


def test_files_that_others_may_read_are_found(tmp_path: Path) -> None:
    for name, mode in (("ringmain_secrets.yml", 0o600), ("ringmain_secrets_2.yml", 0o640)):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(mode)
    (tmp_path / "cluster.yml").write_text("")
    assert secrets_file.loose_files(tmp_path) == [tmp_path / "ringmain_secrets_2.yml"]


def test_values_that_must_win_go_to_the_last_file(tmp_path: Path) -> None:
    directory = tmp_path / "group_vars" / "all"
    directory.mkdir(parents=True)
    first, second, third = (
        directory / f"ringmain_secrets{suffix}.yml" for suffix in ("", "_2", "_3")
    )
    first.write_text("ringmain_secrets: {edge_secret: one}\n")
    assert secrets_file.choose_last_file(directory) == (
        first,
        "ringmain_secrets",
        {"edge_secret": "one"},
    )
    second.write_text("$ANSIBLE_VAULT;1.1;AES256\n6162\n")
    # The first one may be written, but what the second says would win.
    assert secrets_file.choose_last_file(directory) == (third, "ringmain_secrets_3", {})
    third.write_text("ringmain_secrets_3: {edge_secret: three}\n")
    assert secrets_file.choose_last_file(directory)[2] == {"edge_secret": "three"}


def test_secrets_that_come_from_elsewhere_are_not_shadowed(tmp_path: Path) -> None:
    directory = tmp_path / "group_vars" / "all"
    directory.mkdir(parents=True)
    with pytest.raises(SecretsError, match="so the secrets come from somewhere else"):
        secrets_file.choose_last_file(directory)
