# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Throw-away Debian servers on one Linux machine; `python3 lab.py --help` lists the commands."""

from __future__ import annotations

import sys

from ringmain_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
