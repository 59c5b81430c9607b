# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian package files and what of them a host still lacks. Pure functions on plain data."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import unquote, urlsplit

_FILE_NAME = re.compile(r"(?P<name>[a-z0-9][a-z0-9.+-]+)_(?P<version>[^_/]+)_[a-z0-9-]+\.deb")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def parse_installed(lines: Iterable[str]) -> dict[str, str]:
    """Versions of the installed packages by name, without epochs.

    C(lines) is what C(dpkg-query) prints as C(${Package} ${Version} ${db:Status-Status}).
    Packages of which only configuration is left do not count.
    """
    installed = {}
    for line in lines:
        name, _space, rest = line.partition(" ")
        version, _space, status = rest.partition(" ")
        if status == "installed":
            installed[name] = re.sub(r"^[0-9]+:", "", version)
    return installed


def missing_files(
    files: Iterable[Mapping[str, t.Any]], installed: Mapping[str, str], directory: str = ""
) -> list[dict[str, str]]:
    """The package files whose package is not installed in just this version, in the order given.

    Each of C(files) has C(sha256) and one of C(path), C(url), C(file) (a name below C(directory)).
    The result has C(name), C(version), C(basename), C(sha256) and either C(path) or C(url).
    Raises ValueError with what is wrong about an entry.
    """
    missing = []
    for entry in files:
        given = {key: str(entry[key]) for key in ("path", "url", "file") if entry.get(key)}
        if len(given) != 1:
            raise ValueError(
                f"a package file needs either path or url, not {sorted(given) or 'none'}"
            )
        [(kind, source)] = given.items()
        basename = unquote(urlsplit(source).path if kind == "url" else source).rpartition("/")[2]
        match = _FILE_NAME.fullmatch(basename)
        if not match:
            raise ValueError(
                f"{source} is not named like a Debian package (NAME_VERSION_ARCHITECTURE.deb)"
            )
        if not _SHA256.fullmatch(str(entry.get("sha256", ""))):
            raise ValueError(f"{source} needs sha256, 64 hexadecimal digits in lower case")
        # Some archives write the epoch into the file name, as %3a.
        version = re.sub(r"^[0-9]+:", "", match["version"])
        if installed.get(match["name"]) == version:
            continue
        missing.append(
            {
                "name": match["name"],
                "version": version,
                "basename": basename,
                "sha256": str(entry["sha256"]),
                **({"path": f"{directory}/{source}"} if kind == "file" else {kind: source}),
            }
        )
    return missing


_NEWER = re.compile(r"Inst (?P<name>\S+) \[(?P<installed>\S+)\] \((?P<candidate>\S+) ")


def newer_packages(lines: Iterable[str]) -> list[dict[str, t.Any]]:
    """What C(apt-get --simulate install) would bring in place of what is installed.

    Each has C(name), C(installed), C(candidate), and C(jump): whether the first number of the
    upstream version differs.
    """
    found = []
    for line in lines:
        match = _NEWER.match(line)
        if match:
            majors = {
                re.match(r"(?:[0-9]+:)?([0-9]*)", match[which])[1]  # type: ignore[index]
                for which in ("installed", "candidate")
            }
            found.append({**match.groupdict(), "jump": len(majors) > 1})
    return found


def find_files(
    packages: Mapping[str, str], listed: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[str]]:
    """The paths of package files, and the packages (C(NAME VERSION)) of which there is none.

    C(packages) are versions by name, with the epoch or without; C(listed) are the names of the
    files in each directory, in the order to look. A file's name has no epoch, or as C(%3a).
    """
    found, missing = [], []
    for package, version in packages.items():
        plain = re.escape(re.sub(r"^[0-9]+:", "", str(version)))
        wanted = re.compile(rf"{re.escape(package)}_(?:[0-9]+%3a)?{plain}_[a-z0-9-]+\.deb")
        path = next(
            (
                f"{directory}/{name}"
                for directory, names in listed.items()
                for name in names
                if wanted.fullmatch(name)
            ),
            None,
        )
        if path:
            found.append(path)
        else:
            missing.append(f"{package} {version}")
    return found, missing
