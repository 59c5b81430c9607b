# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is read from the machine's apt."""

from __future__ import annotations

import pytest
from ringmain_lab.archives import (
    Archive,
    archives,
    first_mirror,
    mirror_list,
    origin_url,
    parse_index_targets,
    source_lines,
)
from ringmain_lab.names import LabError

LISTING = """\
https://packages.vendor.example/debian/|Docker|Docker CE|bookworm|stable
http://mirror.example/debian/|Debian|Debian|bookworm|main
http://mirror.example/debian/|Debian|Debian|bookworm|contrib
http://mirror.example/debian/|Debian|Debian|bookworm-updates|main
http://mirror.example/debian/|Debian|Debian|bookworm-updates|main
http://mirror.example/security/|Debian|Debian-Security|bookworm-security|main
http://mirror.example/backports/|Debian|Debian Backports|bookworm-backports|main

garbage
"""
MAIN = ("http://mirror.example/debian/", "Debian", "bookworm")
UPDATES = ("http://mirror.example/debian/", "Debian", "bookworm-updates")
SECURITY = ("http://mirror.example/security/", "Debian-Security", "bookworm-security")


def test_only_debian_counts() -> None:
    """Other vendors use Debian's code names too; a component or target makes no second entry."""
    assert parse_index_targets(LISTING) == [
        MAIN,
        UPDATES,
        SECURITY,
        ("http://mirror.example/backports/", "Debian Backports", "bookworm-backports"),
    ]


def test_archives_of_another_release() -> None:
    """A Debian 12 machine builds Debian 13 servers from the same mirrors."""
    assert archives(parse_index_targets(LISTING)) == [
        Archive("http://mirror.example/debian/", "http://mirror.example/debian/", "trixie"),
        Archive("http://mirror.example/debian/", "http://mirror.example/debian/", "trixie-updates"),
        Archive(
            "http://mirror.example/security/", "http://mirror.example/security/", "trixie-security"
        ),
    ]


def test_a_machine_without_updates_and_security() -> None:
    """The servers get what the machine has, no more."""
    assert [a.suite for a in archives([MAIN])] == ["trixie"]


@pytest.mark.parametrize("targets", [[], [SECURITY, UPDATES]])
def test_a_machine_that_knows_no_debian(targets: list[tuple[str, str, str]]) -> None:
    """Most likely its lists were deleted."""
    with pytest.raises(LabError) as error:
        archives(targets)
    assert str(error.value) == (
        "apt on this machine knows no Debian archive, so there is nothing to build servers from: "
        "check the Debian entries in /etc/apt/sources.list.d, run 'apt-get update', and try again"
    )


@pytest.mark.parametrize(
    ("origin", "uri"),
    [
        ("https://mirror.example/debian", "http://mirror.example/debian/"),
        ("https://mirror.example:8443/debian/", "http://mirror.example:8443/debian/"),
        # Credentials stay with the machine.
        ("https://me:secret@mirror.example/debian/", "http://mirror.example/debian/"),
        ("file:/srv/mirror/debian/", "http://archive0.invalid/"),
    ],
)
def test_servers_speak_plain_http_to_the_cache(origin: str, uri: str) -> None:
    """And the cache asks as the machine would."""
    found = archives([(origin, "Debian", "trixie")])
    assert found == [Archive(uri, origin, "trixie")]
    assert origin_url(f"{uri}dists/trixie/InRelease", found) == (
        origin.rstrip("/") + "/dists/trixie/InRelease"
    )


@pytest.mark.parametrize(
    ("uri", "listed"),
    [
        ("mirror+file:/etc/apt/mirrors/debian.list/", "file:/etc/apt/mirrors/debian.list"),
        ("mirror+https://mirror.example/list", "https://mirror.example/list"),
        ("mirror://mirror.example/list", "http://mirror.example/list"),
        ("http://mirror.example/debian/", None),
        ("file:/srv/mirror/", None),
    ],
)
def test_addresses_that_name_a_list(uri: str, listed: str | None) -> None:
    """As in Debian's cloud images."""
    assert mirror_list(uri) == listed


def test_the_first_mirror_of_a_list() -> None:
    """Without its restrictions."""
    text = "# ours\n\nhttps://mirror.example/debian\tpriority:1\nhttp://b.example/\n"
    assert first_mirror(text) == "https://mirror.example/debian"
    assert first_mirror("# none\n") is None


@pytest.mark.parametrize(
    "url",
    [
        "http://other.example/debian/dists/trixie/InRelease",
        "http://mirror.example/elsewhere/file",
        "http://mirror.example/debian/../../etc/passwd",
        "http://mirror.example/debian/..",
        "/etc/passwd",
    ],
)
def test_urls_of_no_archive(url: str) -> None:
    """The cache is a proxy for the archives alone."""
    assert origin_url(url, archives([MAIN])) is None


def test_source_lines() -> None:
    """One line per suite, checked against the archive's keyring."""
    assert source_lines(archives([MAIN, SECURITY]), "/keyring.gpg") == [
        "deb [signed-by=/keyring.gpg] http://mirror.example/debian/ trixie main",
        "deb [signed-by=/keyring.gpg] http://mirror.example/security/ trixie-security main",
    ]
