# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: ulimit_sizing
short_description: Size the open files of a voice server's daemons
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Limits of open files (systemd's C(LimitNOFILE)) for one server that carries the given calls
    alone.
positional: _input
extends_documentation_fragment:
  - ringmain.voip.sizing
"""

EXAMPLES = r"""
- name: Let RTPEngine open what 800 calls need
  ansible.builtin.copy:
    dest: /etc/systemd/system/rtpengine-daemon.service.d/files.conf
    content: |
      [Service]
      LimitNOFILE={{ (800 | ringmain.voip.ulimit_sizing(functions=['media'])).rtpengine_open_files
      }}
    mode: "0644"
"""

RETURN = r"""
_value:
  description: >-
    C(kamailio_open_files), C(rtpengine_open_files), C(asterisk_open_files), C(galera_open_files)
    and C(haproxy_open_files), as far as the functions have them.
  type: dict
  sample: {"rtpengine_open_files": 9216}
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.ringmain.voip.plugins.module_utils import capacity
from ansible_collections.ringmain.voip.plugins.plugin_utils.plain import to_plain


def ulimit_sizing(calls: t.Any, **options: t.Any) -> dict[str, t.Any]:
    """Convert to plain data and ask the core."""
    try:
        found = capacity.limits(*capacity.single(int(calls), **to_plain(options)))
        return {name: value for name, value in found.items() if name.endswith("_open_files")}
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"ulimit_sizing: {error}") from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Any]:
        """By name."""
        return {"ulimit_sizing": ulimit_sizing}
