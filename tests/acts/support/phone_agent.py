# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a probe: keeps phones and does what it is told, one JSON object a line.

The two modules of the collection that it needs are on its path. It ends with its standard input,
and the phones with it; should it be killed, they end by themselves after their lifetime.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ansible_collections.ringmain.voip.plugins.module_utils import phones, tones

HOME = Path("/run/ringmain-acts")


class Agent:
    """The phones of this probe, by name."""

    def __init__(self) -> None:
        self.phones: dict[str, phones.Phone] = {}
        self.positions: dict[str, int] = {}
        self.orders: dict[str, list[tuple[Any, dict[str, Any]]]] = {}

    def start(self, name: str, tone: int, proxy: str, lifetime: int) -> dict[str, Any]:
        """Start a phone without an account."""

        def run(words: Any) -> str:
            return subprocess.run(words, capture_output=True, text=True, check=True).stdout

        path = phones.path_to(proxy, run)
        self.phones[name] = phones.launch(name, HOME / name, path, tone, lifetime)
        same = {"name": name, "tone": tone, "proxy": proxy, "lifetime": lifetime}
        self.orders[name] = [(self.start, same)]
        return {}

    def register(
        self, name: str, user: str, domain: str, password: str, proxy: str, port: int, expires: int
    ) -> dict[str, Any]:
        """Give a phone its account; the outcome of its registration."""
        phone = self.phones[name]
        since = len(phone.control.events)
        account = phones.Account(user, domain, password)
        phone.add_account(account, phones.Proxy(proxy, port), expires)
        event = phone.registered(10, since)
        same: dict[str, Any] = {"name": name, "user": user, "domain": domain}
        same |= {"password": password, "proxy": proxy, "port": port, "expires": expires}
        self.orders[name].append((self.register, same))
        return {"param": event.param if event else "no answer in 10 s"}

    def stop(self, name: str) -> dict[str, Any]:
        """End a phone; its registration goes with it."""
        self.phones.pop(name).stop()
        del self.orders[name]
        return {}

    def revive(self, patience: float = 0.0) -> list[str]:
        """Start again whatever phone has crashed, or does so in a moment; their names."""
        crashed = [name for name, phone in self.phones.items() if phone.crashed(patience)]
        for name in crashed:
            self.phones[name].stop()
            for order, arguments in self.orders[name]:
                order(**arguments)
        return crashed

    def call(self, **order: Any) -> dict[str, Any]:
        """One call from beginning to end, as `_call` says; another one if a phone crashed in it.

        baresip 1.1.0 does that now and then when its threads have to wait for a processor, and it
        says nothing of the system that is called.
        """
        try:
            found = self._call(**order)
        except phones.PhoneError:
            # The connection closes before the process is gone.
            crashed = self.revive(1.0)
            if not crashed:
                raise
        else:
            crashed = self.revive()
            if not crashed:
                return found
        return {**self._call(**order), "crashed": crashed}

    def _call(
        self, caller: str, callee: str, target: str, timeout: float, talk: float
    ) -> dict[str, Any]:
        """Was it answered by this callee, and how fast?"""
        one, two = self.phones[caller], self.phones[callee]
        since = len(two.control.events)
        attempt = one.dial(target, timeout)
        found: dict[str, Any] = {
            "answered": attempt.answered,
            "seconds": attempt.seconds,
            "reason": attempt.reason,
            "call_ids": [attempt.call_id],
        }
        if not attempt.answered:
            if one.closed(attempt.call_id, 0) is None:
                one.hang_up(attempt.call_id)
            return found
        incoming = two.incoming(2, since)
        if incoming is None:
            found["answered"] = False
            found["reason"] = "answered, but not by its callee"
        early = one.closed(attempt.call_id, talk)
        if early:
            found["answered"] = False
            found["reason"] = f"ended by itself: {early.param}"
        else:
            one.hang_up(attempt.call_id)
        found["closed"] = one.closed(attempt.call_id, 3) is not None
        if incoming:
            found["call_ids"].append(incoming.call_id)
            found["callee_closed"] = two.closed(incoming.call_id, 3) is not None
        return found

    def dial(
        self, caller: str, callee: str, target: str, timeout: float, twin: str = ""
    ) -> dict[str, Any]:
        """Begin a call that stays up; with the callee, or its twin, whoever has it."""
        one, others = self.phones[caller], [name for name in (callee, twin) if name]
        self.positions = {name: phone.position() for name, phone in self.phones.items()}
        since = {name: len(self.phones[name].control.events) for name in others}
        attempt = one.dial(target, timeout)
        found: dict[str, Any] = {
            "answered": False,
            "reason": attempt.reason,
            "call_ids": [attempt.call_id],
        }
        for name in others if attempt.answered else ():
            incoming = self.phones[name].incoming(2, since[name])
            if incoming is not None:
                found["call_ids"].append(incoming.call_id)
                return found | {"answered": True, "callee": name}
        return found

    def hang_up(self, name: str, call_id: str, unless_told: float = 0.0) -> dict[str, Any]:
        """End a phone's call; not if it is told of the end within so many seconds."""
        phone = self.phones[name]
        if not unless_told or phone.closed(call_id, unless_told) is None:
            phone.hang_up(call_id)
        return {}

    def hold(self, name: str, seconds: float) -> dict[str, Any]:
        """Have a phone hold its call for so long, and go on."""
        control = self.phones[name].control
        control.command("hold")
        time.sleep(seconds)
        # baresip 1.1.0 goes on, and says that it could not.
        with contextlib.suppress(phones.PhoneError):
            control.command("resume")
        return {}

    def ended(self, name: str, call_id: str, timeout: float) -> dict[str, Any]:
        """Whether, and how, a call has ended for a phone."""
        event = self.phones[name].closed(call_id, timeout)
        return {"param": event.param if event else None}

    def heard(self, name: str, tone: int) -> dict[str, Any]:
        """What a phone has heard in its last call, and the packets it counted."""
        phone = self.phones[name]
        found = tones.listen(tones.read_wave(phone.recording()), tone).as_dict()
        packets = phones.packet_counts(phone.log(self.positions.get(name, 0)))
        return {**found, "packets": packets.__dict__ if packets else None}

    def ladder(self, name: str, lines: int) -> dict[str, Any]:
        """The last SIP messages of a phone; none of one that did not start."""
        if name not in self.phones:
            return {"lines": []}
        return {"lines": phones.ladder(self.phones[name].log())[-lines:]}

    def close(self) -> None:
        """End all phones."""
        for phone in self.phones.values():
            phone.stop()


def main() -> None:
    """Serve until the input ends."""
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(mode=0o700)
    agent = Agent()
    try:
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer = getattr(agent, request.pop("do"))(**request)
            except (phones.PhoneError, tones.RecordingError) as error:
                answer = {"error": str(error)}
            print(json.dumps(answer), flush=True)
    finally:
        agent.close()
        shutil.rmtree(HOME)


if __name__ == "__main__":
    main()
