# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Galera's health agent says of a server by when it answered, and of a disk."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import galera

STATUS = {"wsrep_local_state_comment": "Synced", "wsrep_cluster_status": "Primary"}


@pytest.fixture
def agent(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The agent's file as the role puts it beside galera.py, with a clock that stands."""
    monkeypatch.setitem(sys.modules, "galera", galera)
    # Only servers have it; here a Connection of ours is asked.
    driver = ModuleType("pymysql")
    driver.__dict__.update(MySQLError=RuntimeError, Connection=Connection)
    monkeypatch.setitem(sys.modules, "pymysql", driver)
    path = root / "roles/galera/templates/usr/local/lib/ringmain-galera/health.py"
    # The start helper lies beside it.
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.delitem(sys.modules, "start", raising=False)
    spec = importlib.util.spec_from_file_location("ringmain_galera_health", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.start.START_FILE = tmp_path / "start.json"
    module.LEAVE_FILE = tmp_path / "leave"
    return module


class Connection:
    """Answers every question with the same status."""

    def cursor(self) -> Connection:
        return self

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def execute(self, _statement: str) -> None:
        pass

    def fetchall(self) -> list[tuple[str, str]]:
        return list(STATUS.items())


def answer_at(agent: Any, moments: list[float]) -> Any:
    """A poller whose server answered at these moments and never between."""
    poller = agent.Poller("/nowhere", "nobody")
    poller.connection = Connection()
    for moment in moments:
        agent.time = Clock(moment)
        poller.ask()
    return poller


class Clock:
    """Stands at a moment, and notes who sleeps."""

    def __init__(self, now: float) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("moments", "now", "words"),
    [
        ([100.0], 100.5, ""),
        ([100.0, 102.0], 102.5, ""),
        ([100.0], 102.0, "has not answered for 2.0 s"),
        ([100.0, 104.0], 104.5, "stood still"),
        ([100.0, 104.0, 106.9], 106.95, "stood still"),
        ([100.0, 104.0, 106.0, 107.1], 107.2, ""),
    ],
)
def test_answers_count_while_they_are_fresh_and_the_server_has_settled(
    agent: Any, moments: list[float], now: float, words: str
) -> None:
    poller = answer_at(agent, moments)
    agent.time = Clock(now)
    status, trouble, runs = poller.status()
    assert runs
    assert words in trouble
    assert bool(status) is not bool(words)


def told(phase: str = galera.PRIMARY, room: bool = True) -> galera.Member:
    """What another member says of itself."""
    return galera.Member(phase=phase, synced=phase == galera.PRIMARY, running=True, room=room)


@pytest.mark.parametrize(
    ("others", "leaves"),
    [
        ({"b": told(), "c": told()}, True),
        ({"b": told(), "c": None}, False),
        ({"b": told(), "c": told(room=False)}, False),
    ],
)
def test_without_room_it_leaves_if_the_others_go_on(
    agent: Any, others: dict[str, galera.Member | None], leaves: bool
) -> None:
    members = [{"name": name, "address": name} for name in "abc"]
    cluster = {"name": "a", "members": members, "reserve_mb": 1, "health_port": 0}
    watcher = agent.Watcher(cluster, answer_at(agent, [100.0]))
    agent.start.ask = lambda address, port: others[address]
    watcher.look_around()
    assert agent.LEAVE_FILE.exists() is leaves


def test_its_state_says_that_it_has_no_room(agent: Any) -> None:
    said = json.loads(json.dumps(agent.state(STATUS, True, False)))
    assert galera.member_from_dict(said).room is False
