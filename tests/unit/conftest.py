# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What every unit test needs: the collection under its full name, and the path of the checkout.

`pytest tests/unit` works from a plain checkout: Ansible's own collection loader is installed, so
that a test imports `ansible_collections.ringmain.voip.plugins...` exactly as Ansible does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.plugins.loader import init_plugin_loader

ROOT = Path(__file__).resolve().parents[2]


def _link_checkout() -> Path:
    """Return a collections path below which this checkout stands as ringmain.voip."""
    collections = ROOT / ".cache" / "collections"
    link = collections / "ansible_collections" / "ringmain" / "voip"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(Path("../../../.."), target_is_directory=True)
    return collections


init_plugin_loader([str(_link_checkout())])


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the checkout, which is the root of the collection."""
    return ROOT


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """Begin every test with the usual umask: modules set their own, and it would stay set."""
    before = os.umask(0o022)
    yield
    os.umask(before)
