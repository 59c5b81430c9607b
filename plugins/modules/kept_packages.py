#!/usr/bin/python
# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kept_packages
short_description: Keep the files of some packages, to come back to them
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Copies the files of Debian packages, in just the versions that are named, into a directory of
    their own, in place of what was there before. Fails, and changes nothing, if one is not found.
extends_documentation_fragment:
  - ringmain.voip.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  packages:
    description: Versions by the names of packages, with the epoch or without.
    type: dict
    required: true
  sources:
    description: Directories to look in, the first that has a file is taken. O(dest) may be one.
    type: list
    elements: path
    required: true
  dest:
    description: Where they are kept. What else is there is removed.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Keep what is installed
  ringmain.voip.kept_packages:
    packages:
      kamailio: 6.0.1-1+deb13u2
    sources: [/var/cache/apt/archives]
    dest: /var/lib/ringmain/previous/archive
"""

RETURN = r"""
files:
  description: Names of the files that are kept.
  returned: success
  type: list
  elements: str
  sample:
    - kamailio_6.0.1-1+deb13u2_amd64.deb
"""

import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringmain.voip.plugins.module_utils.package_files import find_files


def replace(found: list[Path], dest: Path) -> None:
    """Put copies of files into a directory, in place of all that was there."""
    new = dest.with_name(dest.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700, parents=True)
    for path in found:
        shutil.copy2(path, new / path.name)
    shutil.rmtree(dest, ignore_errors=True)
    new.rename(dest)


def main() -> None:
    """Find all, then replace."""
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "dict", "required": True},
            "sources": {"type": "list", "elements": "path", "required": True},
            "dest": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    sources, dest = module.params["sources"], Path(module.params["dest"])
    listed = {source: [path.name for path in Path(source).glob("*.deb")] for source in sources}
    found, missing = find_files(module.params["packages"], listed)
    if missing:
        module.fail_json(
            msg=f"no file of {', '.join(missing)} is in {', '.join(sources)}: there would be no way"
            " back"
        )
    here = sorted(path.name for path in dest.glob("*"))
    changed = here != sorted(path.rpartition("/")[2] for path in found)
    if changed and not module.check_mode:
        replace([Path(path) for path in found], dest)
    module.exit_json(changed=changed, files=[Path(path).name for path in found])


if __name__ == "__main__":
    main()
