# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
import typing as t

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils.package_files import (
    find_files,
    missing_files,
    parse_installed,
)

SHA = "0123456789abcdef" * 4


def test_installed_versions_have_no_epoch_and_leftovers_do_not_count() -> None:
    lines = [
        "asterisk 1:22.10.1+dfsg-1~x1 installed",
        "asterisk-modules 1:22.10.1+dfsg-1~x1 config-files",
        "asterisk-doc  not-installed",
        "odbc-mariadb 3.1.15-5 installed",
    ]
    assert parse_installed(lines) == {
        "asterisk": "22.10.1+dfsg-1~x1",
        "odbc-mariadb": "3.1.15-5",
    }


def test_only_other_versions_are_missing_and_order_is_kept() -> None:
    files = [
        {"path": "/d/asterisk-config_2-1_all.deb", "sha256": SHA},
        {"path": "/d/asterisk-modules_2-1_amd64.deb", "sha256": SHA},
        {"path": "/d/asterisk_2-1_amd64.deb", "sha256": SHA},
    ]
    missing = missing_files(files, {"asterisk": "1-1", "asterisk-modules": "2-1"})
    assert [(entry["name"], entry["version"]) for entry in missing] == [
        ("asterisk-config", "2-1"),
        ("asterisk", "2-1"),
    ]
    assert missing[0] == {
        "name": "asterisk-config",
        "version": "2-1",
        "basename": "asterisk-config_2-1_all.deb",
        "sha256": SHA,
        "path": "/d/asterisk-config_2-1_all.deb",
    }


def test_nothing_is_missing_when_all_is_there() -> None:
    files = [{"file": "asterisk_2-1_amd64.deb", "sha256": SHA}]
    assert missing_files(files, {"asterisk": "2-1"}, "/d") == []


def test_a_manifest_names_files_below_its_directory() -> None:
    files = [{"file": "asterisk_2-1_amd64.deb", "sha256": SHA, "name": "ignored"}]
    assert missing_files(files, {}, "/d")[0]["path"] == "/d/asterisk_2-1_amd64.deb"


def test_an_address_may_be_quoted_and_carry_an_epoch() -> None:
    url = "https://example.test/pool/asterisk_1%3a22.1%2bdfsg-1_amd64.deb?x=1"
    [entry] = missing_files([{"url": url, "sha256": SHA}], {})
    assert (entry["version"], entry["basename"], entry["url"]) == (
        "22.1+dfsg-1",
        "asterisk_1:22.1+dfsg-1_amd64.deb",
        url,
    )
    assert missing_files([{"url": url, "sha256": SHA}], {"asterisk": "22.1+dfsg-1"}) == []


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"sha256": SHA}, "a package file needs either path or url, not none"),
        (
            {"path": "/a_1_all.deb", "url": "https://x/a_1_all.deb", "sha256": SHA},
            "a package file needs either path or url, not ['path', 'url']",
        ),
        (
            {"path": "/d/asterisk.deb", "sha256": SHA},
            "/d/asterisk.deb is not named like a Debian package (NAME_VERSION_ARCHITECTURE.deb)",
        ),
        (
            {"path": "/d/asterisk_1_all.deb", "sha256": "ABC"},
            "/d/asterisk_1_all.deb needs sha256, 64 hexadecimal digits in lower case",
        ),
        (
            {"path": "/d/asterisk_1_all.deb"},
            "/d/asterisk_1_all.deb needs sha256, 64 hexadecimal digits in lower case",
        ),
    ],
)
def test_a_wrong_entry_is_named(entry: dict[str, t.Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        missing_files([entry], {})


def test_the_files_of_some_packages_are_found() -> None:
    listed = {
        "/first": ["kamailio_6.0.1-1+deb13u2_amd64.deb", "asterisk-config_22.10-1_all.deb"],
        "/second": ["mariadb-server_1%3a11.8-1_amd64.deb", "asterisk-config_22.10-1_all.deb"],
    }
    packages = {
        "kamailio": "6.0.1-1+deb13u2",
        "mariadb-server": "1:11.8-1",
        "asterisk-config": "1:22.10-1",
        "asterisk": "1:22.10-1",
        "kamailio-utils-modules": "6.0.1-1+deb13u2",
    }
    assert find_files(packages, listed) == (
        [
            "/first/kamailio_6.0.1-1+deb13u2_amd64.deb",
            "/second/mariadb-server_1%3a11.8-1_amd64.deb",
            "/first/asterisk-config_22.10-1_all.deb",
        ],
        ["asterisk 1:22.10-1", "kamailio-utils-modules 6.0.1-1+deb13u2"],
    )
    assert find_files({}, listed) == ([], [])
