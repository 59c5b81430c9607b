# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The package cache, with an archive that is a directory, over real HTTP."""

from __future__ import annotations

import os
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from ringmain_lab.archives import Archive
from ringmain_lab.package_cache import FRESH_SECONDS, CacheServer, FetchError, PackageCache

URI = "http://mirror.example/debian/"
PACKAGE = URI + "pool/main/a/a_1.deb"
INDEX = URI + "dists/trixie/InRelease"


class Site:
    """An archive, the cache in front of it, and what was fetched from where."""

    def __init__(self, path: Path) -> None:
        self.archive = path / "archive"
        self.root = path / "cache"
        self.fetched: list[str] = []
        self.log: list[str] = []
        self.away = False
        self.delay = 0.0
        entries = [Archive(URI, f"file:{self.archive}/", "trixie")]
        self.cache = PackageCache(self.root, entries, self.fetch, self.log.append)

    def put(self, name: str, content: bytes) -> None:
        """Publish a file."""
        path = self.archive / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def fetch(self, url: str, target: Path) -> None:
        """Fetch as apt does for file: addresses."""
        self.fetched.append(url)
        time.sleep(self.delay)
        if self.away:
            raise FetchError("archive is away", False)
        try:
            shutil.copyfile(url.removeprefix("file:"), target)
        except FileNotFoundError as error:
            raise FetchError("404  Not Found", True) from error

    def age(self) -> None:
        """Let an hour pass."""
        for state in (self.root / ".state").iterdir():
            old = time.time() - FRESH_SECONDS - 1
            os.utime(state, (old, old))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An archive with a package and an index."""
    made = Site(tmp_path)
    made.put("pool/main/a/a_1.deb", b"package")
    made.put("dists/trixie/InRelease", b"first")
    return made


@pytest.fixture
def server(site: Site) -> Iterator[str]:
    """Address of a cache that listens."""
    listening = CacheServer(("127.0.0.1", 0), site.cache)
    yield f"127.0.0.1:{listening.start()}"
    listening.shutdown()
    listening.server_close()


def ask(server: str, url: str, **headers: str) -> tuple[int, bytes]:
    """Status and body of what a proxy's client gets."""
    request = urllib.request.Request(url, headers=headers)
    request.set_proxy(server, "http")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_package_is_fetched_once(site: Site) -> None:
    """For ever: its name says its version."""
    assert site.cache.get(PACKAGE).read_bytes() == b"package"
    site.age()
    assert site.cache.get(PACKAGE).read_bytes() == b"package"
    assert site.fetched == [f"file:{site.archive}/pool/main/a/a_1.deb"]
    assert site.log == [f"fetched {PACKAGE}"]


def test_an_index_is_fetched_again_after_an_hour(site: Site) -> None:
    """And not before."""
    site.cache.get(INDEX)
    site.put("dists/trixie/InRelease", b"second")
    assert site.cache.get(INDEX).read_bytes() == b"first"
    site.age()
    assert site.cache.get(INDEX).read_bytes() == b"second"
    assert site.cache.get(INDEX).read_bytes() == b"second"
    assert len(site.fetched) == 2


def test_the_last_index_serves_while_the_archive_is_away(site: Site) -> None:
    """So that a second lab can be built without network."""
    site.cache.get(INDEX)
    site.age()
    site.away = True
    assert site.cache.get(INDEX).read_bytes() == b"first"
    assert site.log[-1] == f"kept {INDEX}: archive is away"


def test_an_index_that_is_gone_is_gone(site: Site) -> None:
    """An archive that answers is believed."""
    site.cache.get(INDEX)
    site.age()
    (site.archive / "dists/trixie/InRelease").unlink()
    with pytest.raises(FetchError) as error:
        site.cache.get(INDEX)
    assert error.value.missing


def test_a_broken_download_leaves_nothing(site: Site) -> None:
    """The next one begins anew."""
    site.away = True
    with pytest.raises(FetchError):
        site.cache.get(PACKAGE)
    site.away = False
    assert site.cache.get(PACKAGE).read_bytes() == b"package"


def test_several_servers_at_once_cause_one_download(site: Site) -> None:
    """Three servers install the same packages at the same time."""
    site.delay = 0.2
    threads = [threading.Thread(target=site.cache.get, args=(PACKAGE,)) for count in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(site.fetched) == 1


def test_http_answers(site: Site, server: str) -> None:
    """What apt relies on: the body, 304 for what it has, 404 and 502 told apart."""
    assert ask(server, PACKAGE) == (200, b"package")
    modified = "Fri, 01 Jan 2100 00:00:00 GMT"
    assert ask(server, PACKAGE, **{"If-Modified-Since": modified}) == (304, b"")
    old = "Thu, 01 Jan 1970 00:00:00 GMT"
    assert ask(server, PACKAGE, **{"If-Modified-Since": old}) == (200, b"package")
    assert ask(server, URI + "pool/none.deb") == (404, b"404  Not Found\n")
    site.away = True
    assert ask(server, URI + "pool/b.deb") == (502, b"archive is away\n")


def test_http_refuses_what_is_no_archive(site: Site, server: str) -> None:
    """Without asking anybody."""
    assert ask(server, "http://other.example/x") == (
        404,
        b"http://other.example/x belongs to none of the machine's Debian archives\n",
    )
    assert site.fetched == []
