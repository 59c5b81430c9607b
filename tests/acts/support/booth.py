# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Phones on the lab's probe that stay registered over several acts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .agent import Agent
from .lab import ROOT, Lab

FOLDER = "/usr/local/lib/ringmain-acts"
UTILS_THERE = f"{FOLDER}/ansible_collections/ringmain/voip/plugins/module_utils"
UTILS = ROOT / "plugins" / "module_utils"
HERE = ROOT / "tests" / "acts" / "support"
LIFETIME = 3600
HOLD_SECONDS = 1.5

# A phone is told of the end by then, also by an edge whose PBX node is gone.
END_SECONDS = 4.0

# How long the end of a call takes to the other phone; less than may be missing of what was heard.
TOLD_SECONDS = 0.3


@dataclass(frozen=True)
class Call:
    """What became of one call."""

    answered: bool
    seconds: float
    reason: str
    call_ids: tuple[str, ...]
    ended_everywhere: bool


class Booth(Agent):
    """Two phones of the reserved tenant, registered for an hour."""

    CALLER, CALLEE = "901", "902"
    TWIN = "902-twin"
    CALLER_TONE, CALLEE_TONE, TWIN_TONE = 800, 1200, 1600

    def __init__(
        self, lab: Lab, probe: str, proxy: str, domain: str, passwords: Mapping[str, str]
    ) -> None:
        self._domain = domain
        for name in ("phones.py", "tones.py"):
            lab.put(probe, f"{UTILS_THERE}/{name}", (UTILS / name).read_text(encoding="utf-8"))
        agent = (HERE / "phone_agent.py").read_text(encoding="utf-8")
        lab.put(probe, f"{FOLDER}/phone_agent.py", agent)
        super().__init__(lab, probe, FOLDER, "phone_agent.py")
        self._proxy, self._passwords = proxy, passwords
        self._start(self.CALLER, self.CALLER, self.CALLER_TONE)
        self._start(self.CALLEE, self.CALLEE, self.CALLEE_TONE)

    def _start(self, name: str, user: str, tone: int) -> None:
        self.ask("start", name=name, tone=tone, proxy=self._proxy, lifetime=LIFETIME)
        answer = self.ask(
            "register",
            name=name,
            user=user,
            domain=self._domain,
            password=self._passwords[f"{user}@verify"],
            proxy=self._proxy,
            port=5060,
            expires=3600,
        )
        assert answer["param"].startswith("200"), f"{name} registers: {answer['param']}"

    @contextmanager
    def twin(self) -> Iterator[None]:
        """While the block lasts the phone that is called has a twin with the same account."""
        self._start(self.TWIN, self.CALLEE, self.TWIN_TONE)
        try:
            yield
        finally:
            self.ask("stop", name=self.TWIN)

    @property
    def target(self) -> str:
        """The SIP address of the phone that is called."""
        return f"sip:{self.CALLEE}@{self._domain}"

    def call(self, timeout: float = 10.0, talk: float = 0.2) -> Call:
        """One short call."""
        found = self.ask(
            "call",
            caller=self.CALLER,
            callee=self.CALLEE,
            target=self.target,
            timeout=timeout,
            talk=talk,
        )
        for name in found.get("crashed", ()):
            print(f"test phone {name} crashed; it was started and registered again")
        return Call(
            found["answered"],
            found["seconds"],
            found["reason"],
            tuple(found["call_ids"]),
            bool(found.get("closed") and found.get("callee_closed")),
        )

    def calls(self, count: int, timeout: float = 10.0) -> list[Call]:
        """Short calls, one after another."""
        return [self.call(timeout) for _number in range(count)]

    @contextmanager
    def conversation(
        self, hang_up: Sequence[str] = (CALLER,)
    ) -> Iterator[dict[str, dict[str, Any]]]:
        """A call that both hold until the block ends; then what each heard of the other's tone.

        ``hang_up`` names the phones that hang up: both, where no PBX is left to end the other leg.
        An earlier end raises AssertionError.
        """
        heard: dict[str, dict[str, Any]] = {}
        call = self.ask(
            "dial", caller=self.CALLER, callee=self.CALLEE, target=self.target, timeout=10.0
        )
        assert call["answered"], f"{call['reason']}\n{self.evidence()}"
        yield heard
        legs = dict(zip((self.CALLER, self.CALLEE), call["call_ids"], strict=True))
        for number, name in enumerate(hang_up):
            # The end of the first may reach the second: not every fault takes the PBX node along.
            told = TOLD_SECONDS if number else 0.0
            self.ask("hang_up", name=name, call_id=legs[name], unless_told=told)
        for name, call_id in legs.items():
            end = self.ask("ended", name=name, call_id=call_id, timeout=END_SECONDS)["param"]
            assert end, f"{name} is not told of the end\n{self.evidence()}"
        tones = {self.CALLER: self.CALLEE_TONE, self.CALLEE: self.CALLER_TONE}
        heard |= {name: self.ask("heard", name=name, tone=tone) for name, tone in tones.items()}

    def hold(self, name: str) -> None:
        """Hold a phone's call for a moment, and go on: two offers in the dialog."""
        self.ask("hold", name=name, seconds=HOLD_SECONDS)

    def evidence(self, lines: int = 60) -> str:
        """The last SIP messages of both phones."""
        text = []
        for name in (self.CALLER, self.CALLEE):
            text.append(f"phone {name}:")
            text += [f"  {line}" for line in self.ask("ladder", name=name, lines=lines)["lines"]]
        return "\n".join(text)
