# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The package cache: a caching HTTP proxy for apt that fetches with the machine's own apt."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from .archives import Archive, origin_url

FRESH_SECONDS = 3600
APT_HELPER = "/usr/lib/apt/apt-helper"
Fetch = Callable[[str, Path], None]


class FetchError(Exception):
    """The archive did not deliver; `missing` says that it answered, but has no such file."""

    def __init__(self, text: str, missing: bool) -> None:
        super().__init__(text)
        self.missing = missing


def fetch_with_apt(url: str, target: Path, enter: Iterable[str] = ()) -> None:
    """Download with apt's own downloader, so that its proxies, keys and mirrors all apply.

    Parameters:
        enter: command words put before it, to run it in another network namespace.
    """
    done = subprocess.run(
        [*enter, APT_HELPER, "download-file", url, str(target)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not target.is_file():
        output = done.stdout + done.stderr
        raise FetchError(output.strip() or f"exit status {done.returncode}", "404 " in output)


def lasts(path: str) -> bool:
    """Whether the file at this path of an archive can never change."""
    return "/by-hash/" in path or "/pool/" in path


class PackageCache:
    """Files of the archives in one directory, shared by all processes that use it.

    Parameters:
        root: the directory; below it files lie as host/path.
        entries: the archives that may be asked for.
        fetch: downloads a URL to a path; FetchError when it cannot.
        log: takes one line per request that left the machine.
    """

    def __init__(
        self, root: Path, entries: Iterable[Archive], fetch: Fetch, log: Callable[[str], None]
    ) -> None:
        self.root = root
        self.entries = list(entries)
        self.fetch = fetch
        self.log = log

    def get(self, url: str) -> Path:
        """Return the file for a URL, from the cache where possible.

        FetchError when the URL belongs to no archive or cannot be had. A changed index is looked
        for once an hour; while the archive is away, the last copy serves.
        """
        origin = origin_url(url, self.entries)
        if origin is None:
            raise FetchError(f"{url} belongs to none of the machine's Debian archives", True)
        parts = urlsplit(url)
        path = self.root / parts.netloc / parts.path.lstrip("/")
        if lasts(parts.path) and path.is_file():
            return path
        name = hashlib.sha256(url.encode()).hexdigest()
        state = self.root / ".state"
        state.mkdir(parents=True, exist_ok=True)
        # Several servers ask for the same file at once: one download serves them all.
        with open(state / name, "a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.is_file():
                if lasts(parts.path):
                    return path
                if 0 <= time.time() - os.fstat(lock.fileno()).st_mtime < FRESH_SECONDS:
                    return path
            # One that its process did not live to finish may still be written to by a helper.
            for leftover in state.glob(f"{name}.*"):
                leftover.unlink()
            partial = state / f"{name}.{os.getpid()}"
            try:
                self.fetch(origin, partial)
            except FetchError as error:
                if path.is_file() and not error.missing:
                    self.log(f"kept {url}: {error}")
                    return path
                self.log(f"failed {url}: {error}")
                raise
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.chmod(0o644)
            partial.rename(path)
            os.utime(lock.fileno())
            self.log(f"fetched {url}")
        return path


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for absolute URLs, as a proxy is asked."""

    protocol_version = "HTTP/1.1"
    server: CacheServer

    def do_GET(self) -> None:
        """Send the file, or 304 when the client has it already."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Send the headers of the file."""
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Requests that are answered from the cache are not worth a line."""

    def _answer(self, body: bool) -> None:
        try:
            path = self.server.cache.get(self.path)
        except FetchError as error:
            self._refuse(404 if error.missing else 502, str(error))
            return
        with open(path, "rb") as source:
            status = os.fstat(source.fileno())
            modified = int(status.st_mtime)
            if self._has(modified):
                self.send_response(304)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(status.st_size))
            self.send_header("Last-Modified", formatdate(modified, usegmt=True))
            self.end_headers()
            if body:
                self.wfile.flush()
                self.connection.sendfile(source)

    def _has(self, modified: int) -> bool:
        since = self.headers.get("If-Modified-Since")
        if not since:
            return False
        try:
            return parsedate_to_datetime(since).timestamp() >= modified
        except ValueError:
            return False

    def _refuse(self, status: int, text: str) -> None:
        data = (text + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


class CacheServer(ThreadingHTTPServer):
    """One listening address of the cache."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], cache: PackageCache) -> None:
        self.cache = cache
        super().__init__(address, Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no fault of the cache; anything else is reported."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def start(self) -> int:
        """Serve from a thread of its own; returns the port."""
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return int(self.server_address[1])
