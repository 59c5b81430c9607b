# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What holds for every file of the repository."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
LICENCE = "SPDX-License-Identifier: GPL-3.0-or-later"
MACHINE_PATHS = re.compile(r"(?<![\w.$}])/(?:[w]ork|[h]ome/\w+|root/[.]pyenv)/")


def repository_files() -> list[Path]:
    """All files that git tracks or would."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    paths = (ROOT / name for name in filter(None, listed.split("\0")))
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def text_of(path: Path) -> str:
    """The text of a file; a sound or a picture has none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def archive_hosts() -> set[str]:
    """The hosts from which this machine's apt takes packages."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    hosts = {urlsplit(uri).hostname for uri in listed.split()}
    return {host for host in hosts if host} - {"localhost", "127.0.0.1"}


def mentions(pattern: re.Pattern[str]) -> list[str]:
    """Where the repository says what it should not, as `file:line: text`."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in repository_files()
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_path_of_one_machine() -> None:
    """Nothing leads to a place that only one developer's machine has."""
    assert mentions(MACHINE_PATHS) == []


def test_no_archive_host() -> None:
    """Packages come from where the user's own apt takes them; no archive is written down."""
    hosts = archive_hosts()
    pattern = "|".join(rf"//{re.escape(host)}\b|\b{re.escape(host)}[:/]" for host in sorted(hosts))
    assert hosts, "apt-get indextargets names no archive: is apt configured on this machine?"
    assert mentions(re.compile(pattern)) == []


def test_every_plugin_names_its_licence() -> None:
    """Python below plugins, roles and tests says under which licence it stands."""
    code = [path for path in repository_files() if path.suffix == ".py" and text_of(path)]
    silent = [path for path in code if LICENCE not in "\n".join(text_of(path).splitlines()[:6])]
    assert [str(path.relative_to(ROOT)) for path in silent] == []
