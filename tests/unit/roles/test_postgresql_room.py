# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the watch over PostgreSQL's disk does, by the room there is and by what the others are."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import patroni

MEMBERS = [
    {"name": "a", "role": "leader", "state": "running"},
    {"name": "b", "role": "sync_standby", "state": "streaming"},
    {"name": "c", "role": "replica", "state": "streaming"},
]


@pytest.fixture
def room(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The watch's file as the role puts it beside patroni_state.py; it notes its orders."""
    monkeypatch.setitem(sys.modules, "patroni_state", patroni)
    path = root / "roles/postgresql/templates/usr/local/lib/ringmain-postgresql/room.py"
    spec = importlib.util.spec_from_file_location("ringmain_postgresql_room", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.LEFT = tmp_path / "left"
    module.orders = []
    module.order = module.orders.append
    return module


def look(room: Any, free: float, members: list[dict[str, str]] | None = None) -> list[str]:
    """The orders of one look at a disk with so much room."""
    room.room_mb = lambda data: free
    room.ask = lambda settings: MEMBERS if members is None else members
    room.orders.clear()
    room.look({"name": "a", "members": 3, "data": "/", "reserve_mb": 256})
    return list(room.orders)


def test_it_leaves_once_and_comes_back_when_there_is_twice_the_room(room: Any) -> None:
    assert look(room, 256) == []
    assert look(room, 255) == ["stop"]
    # Patroni does not answer any more.
    assert look(room, 255, []) == []
    assert look(room, 511, []) == []
    assert look(room, 512, []) == ["start"]
    assert look(room, 512) == []


def test_it_stays_where_the_others_are_too_few(room: Any) -> None:
    assert look(room, 0, MEMBERS[:2]) == []
    assert not room.LEFT.exists()


def test_who_was_stopped_by_an_operator_stays_down(room: Any) -> None:
    assert look(room, 255, []) == []
    assert look(room, 1000, []) == []


def test_room_is_looked_for_where_the_data_will_be(room: Any, tmp_path: Path) -> None:
    assert room.room_mb(tmp_path / "17" / "ringmain") == pytest.approx(
        room.room_mb(tmp_path), rel=0.1
    )
