# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many calls at once from the lab's probe, each a whole one with audio."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .agent import Agent
from .lab import Lab

FOLDER = "/usr/local/lib/ringmain-load"
HERE = Path(__file__).parent

Leg = Mapping[str, Any]


class Callers(Agent):
    """Two phones of one tenant that make many calls with each other."""

    def __init__(
        self,
        lab: Lab,
        probe: str,
        proxy: str,
        domain: str,
        users: Sequence[str],
        passwords: Sequence[str],
    ) -> None:
        for name in ("rtp.py", "sip.py"):
            lab.put(probe, f"{FOLDER}/support/{name}", (HERE / name).read_text(encoding="utf-8"))
        agent = (HERE / "load_agent.py").read_text(encoding="utf-8")
        lab.put(probe, f"{FOLDER}/load_agent.py", agent)
        super().__init__(lab, probe, FOLDER, "load_agent.py", proxy, "5060")
        accounts = [
            {"user": user, "domain": domain, "password": password}
            for user, password in zip(users, passwords, strict=True)
        ]
        statuses = self.ask("open", accounts=accounts)
        assert set(statuses.values()) == {200}, f"the phones register: {statuses}"

    @classmethod
    def of_acme(cls, lab: Lab, probe: str, proxy: str, inventory: Mapping[str, Any]) -> Callers:
        """The two phones of the lab's tenant acme."""
        passwords = inventory["ringmain_secrets"]["subscribers"]
        return cls(
            lab,
            probe,
            proxy,
            f"acme.{inventory['ringmain_domain']}",
            ("1001", "1002"),
            (passwords["1001@acme"], passwords["1002@acme"]),
        )

    def calls(self, count: int, per_second: float, hold: float, wait: float = 10.0) -> list[Leg]:
        """Begin calls at an even pace; what became of each so far. `hold` 0 is for ever."""
        found = self.ask("calls", count=count, per_second=per_second, hold=hold, wait=wait)
        return list(found["legs"])

    def report(self) -> dict[str, Any]:
        """All legs of both phones with what each heard since `mark`, and the generator's state."""
        return self.ask("report")

    def mark(self) -> None:
        """Count anew what is heard."""
        self.ask("mark")

    def ring(self, seconds: float) -> None:
        """From now on the phone that is called rings for so long before it answers."""
        self.ask("ring", seconds=seconds)

    def live(self, seconds: float) -> None:
        """Let the calls go on."""
        self.ask("live", seconds=seconds)

    def vanish(self) -> None:
        """Be gone without a word."""
        with contextlib.suppress(AssertionError):
            self.ask("vanish")

    def hang_up(self) -> None:
        """End all calls. Raises AssertionError when one is still up at either end."""
        found = self.ask("hang_up")
        unfinished = found["unfinished"]
        assert found["ended"], f"{len(unfinished)} legs do not end, among them {unfinished[:3]}"


def answered(legs: Iterable[Leg]) -> list[Leg]:
    """Those that were."""
    return [leg for leg in legs if leg["status"] == 200]


def troubles(legs: Iterable[Leg]) -> list[str]:
    """Answered legs that hear nothing, not all, or more than one other; a line for each.

    A packet that is late and comes after all is none: how late depends on the machine.
    """
    found = []
    for leg in answered(legs):
        heard = leg["heard"]
        if not heard or not heard["packets"]:
            found.append(f"leg {leg['number']} of {leg['phone']} hears nothing: {dict(leg)}")
        elif heard["lost"] or len(heard["speakers"]) != 1:
            found.append(f"leg {leg['number']} of {leg['phone']}: {heard}")
    return found


def reasons(legs: Iterable[Leg]) -> dict[str, int]:
    """How often each final answer was given."""
    return dict(Counter(f"{leg['status']} {leg['reason']}" for leg in legs))
