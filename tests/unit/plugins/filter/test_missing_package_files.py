# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.ringmain.voip.plugins.filter.missing_package_files import FilterModule

SHA = "0123456789abcdef" * 4


def test_the_filter_compares_with_what_dpkg_says() -> None:
    missing = FilterModule().filters()["missing_package_files"]
    files = [{"file": f"asterisk_{version}_all.deb", "sha256": SHA} for version in ("1-1", "2-1")]
    found = missing(files, ["asterisk 1:1-1 installed"], "/d")
    assert [entry["path"] for entry in found] == ["/d/asterisk_2-1_all.deb"]


def test_an_error_names_the_filter() -> None:
    missing = FilterModule().filters()["missing_package_files"]
    with pytest.raises(AnsibleFilterError, match="missing_package_files: a package file needs"):
        missing([{"sha256": SHA}], [])
