# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where packages come from: what the machine's own apt configuration says. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from .names import LabError

SUITE = "trixie"
INDEX_FORMAT = "$(REPO_URI)|$(ORIGIN)|$(LABEL)|$(CODENAME)|$(COMPONENT)"
# Label and end of the code name, as Debian's archives call themselves in their Release files.
KINDS = (("Debian", ""), ("Debian", "-updates"), ("Debian-Security", "-security"))
NEXT_STEP = (
    "check the Debian entries in /etc/apt/sources.list.d, run 'apt-get update', and try again"
)


@dataclass(frozen=True)
class Archive:
    """One source line of the servers: `uri` as they write it, `origin` as the machine does."""

    uri: str
    origin: str
    suite: str


def parse_index_targets(output: str) -> list[tuple[str, str, str]]:
    """Read `apt-get indextargets` in INDEX_FORMAT: (uri, label, code name) of Debian archives."""
    found: list[tuple[str, str, str]] = []
    for line in output.splitlines():
        fields = line.strip().split("|")
        if len(fields) != 5:
            continue
        uri, origin, label, codename, component = fields
        entry = (uri, label, codename)
        if origin == "Debian" and component == "main" and entry not in found:
            found.append(entry)
    return found


def mirror_list(uri: str) -> str | None:
    """The address of the list that a mirror: or mirror+method: address names, None for others.

    Debian's cloud images write their archives like this, and only apt-get itself can read it.
    """
    scheme, colon, rest = uri.partition(":")
    if not colon or scheme.split("+")[0] != "mirror":
        return None
    return f"{scheme.partition('+')[2] or 'http'}:{rest.rstrip('/')}"


def first_mirror(text: str) -> str | None:
    """The first address in a mirror list; its lines may go on with restrictions after a blank."""
    for line in text.splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            return words[0]
    return None


def archives(targets: Iterable[tuple[str, str, str]], suite: str = SUITE) -> list[Archive]:
    """The servers' archives: of each kind that the machine has, the first, for `suite`.

    The machine may run another release: its archives carry the servers' release as well.
    """
    listed = list(targets)
    found: list[Archive] = []
    for label, ending in KINDS:
        for uri, target_label, codename in listed:
            if target_label == label and "-" + codename.partition("-")[2] == (ending or "-"):
                found.append(Archive(server_uri(uri, len(found)), uri, suite + ending))
                break
    if not found or found[0].suite != suite:
        raise LabError(
            "apt on this machine knows no Debian archive, so there is nothing to build servers "
            f"from: {NEXT_STEP}"
        )
    return found


def server_uri(uri: str, number: int) -> str:
    """What servers write for an archive: plain http, for the package cache to answer.

    The cache fetches from the machine's own address, whatever method that names.
    """
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and parts.hostname:
        port = f":{parts.port}" if parts.port else ""
        return f"http://{parts.hostname}{port}{parts.path.rstrip('/')}/"
    return f"http://archive{number}.invalid/"


def source_lines(entries: Iterable[Archive], keyring: str) -> list[str]:
    """Lines for sources.list."""
    return [f"deb [signed-by={keyring}] {a.uri} {a.suite} main" for a in entries]


def origin_url(url: str, entries: Iterable[Archive]) -> str | None:
    """Translate a URL that a server asked for; None when it belongs to none of the archives."""
    if "/../" in url or url.endswith("/.."):
        return None
    for entry in entries:
        if url.startswith(entry.uri):
            return entry.origin.rstrip("/") + "/" + url[len(entry.uri) :]
    return None
