# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Another build of the Asterisk packages, to upgrade to and to come back from.

The same programs under a higher version: package scripts, replaced files, restart, mixed versions
are those of any upgrade, without compiling for minutes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

CURRENT = Path("/var/cache/ringmain/asterisk/current")
SUFFIX = "+2"


def rebuild(source: Path, version: str, target: Path) -> Path:
    """A copy of a package under a version; packages of the same source are named by it too."""
    root = target / "tree"
    shutil.rmtree(root, ignore_errors=True)
    subprocess.run(["dpkg-deb", "--raw-extract", str(source), str(root)], check=True)
    control = root / "DEBIAN" / "control"
    control.write_text(control.read_text(encoding="utf-8").replace(version, version + SUFFIX))
    name, _version, rest = source.name.split("_", 2)
    made = target / f"{name}_{version.partition(':')[2]}{SUFFIX}_{rest}"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(root), str(made)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    shutil.rmtree(root)
    return made


def make(target: Path, current: Path = CURRENT) -> Path:
    """A directory that role asterisk takes packages from (asterisk_packages_dir); made once."""
    manifest = json.loads((current / "manifest.json").read_text(encoding="utf-8"))
    done = target / "manifest.json"
    if done.exists() and json.loads(done.read_text(encoding="utf-8"))["of"] == manifest["packages"]:
        return target
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    packages = []
    for package in manifest["packages"]:
        made = rebuild(current / package["file"], package["version"], target)
        packages.append(
            {
                **package,
                "version": package["version"] + SUFFIX,
                "file": made.name,
                "sha256": hashlib.sha256(made.read_bytes()).hexdigest(),
            }
        )
    new = {**manifest, "packages": packages, "of": manifest["packages"]}
    done.write_text(json.dumps(new), encoding="utf-8")
    return target


if __name__ == "__main__":
    print(make(Path(sys.argv[1])))
