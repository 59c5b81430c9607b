#!/usr/bin/python
# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: test_calls
short_description: Make real test calls with two phones and judge what they hear
version_added: 0.1.0
author:
  - Ringmain contributors (@ringmain)
description:
  - Runs baresip phones on this host that register at a cluster with their passwords, call each
    other and an echo number, and are refused where they should be. A different tone each way is
    recorded and recognised, packets are counted.
  - Nothing stays on the host. The phones end by themselves, also when this module is cut short.
  - With O(phase=run) all calls are made. While the two phones talk, other tasks can look at the
    cluster. They learn the Call-IDs with O(phase=meet), and O(phase=part) lets the conversation
    end. For this, O(phase=run) needs C(async) and C(poll=0).
  - A check that fails does not fail the task, it stands in RV(results). The task fails when the
    calls cannot be made at all.
requirements:
  - baresip 1.1 with the modules ctrl_tcp, menu, g711 and aufile (Debian package C(baresip-core))
  - ip with JSON output (Debian package C(iproute2))
extends_documentation_fragment:
  - ringmain.voip.attributes
attributes:
  check_mode:
    support: none
    description: Skips in check mode.
  diff_mode:
    support: none
options:
  phase:
    description:
      - V(run) makes the calls.
      - V(meet) waits until the two phones talk, or cannot, and returns their Call-IDs.
      - V(part) lets the conversation end and waits for the other calls.
    type: str
    choices: [run, meet, part]
    default: run
  session:
    description:
      - Directory for this run; it is created and removed. One at a time can use it.
    type: path
    default: /run/ringmain-test-calls
  hold_seconds:
    description:
      - How long the conversation waits for O(phase=part). 0 does not wait.
      - How long O(phase=meet) waits for the conversation, and O(phase=part) for the end.
    type: float
    default: 0.0
  talk_seconds:
    description: Least length of the conversation.
    type: float
    default: 6.0
  proxy:
    description: Where the phones register and send their calls. Required with O(phase=run).
    type: dict
    suboptions:
      address:
        description: IPv4 address.
        type: str
        required: true
      port:
        description: Port.
        type: int
        default: 5060
      transport:
        description: Transport of SIP.
        type: str
        choices: [udp, tcp]
        default: udp
  caller:
    description: Account of the phone that calls. Required with O(phase=run).
    type: dict
    suboptions: &account
      user:
        description: User part of the address of record, which is also the extension.
        type: str
        required: true
      domain:
        description: Domain of the address of record, which is also the realm.
        type: str
        required: true
      password:
        description: Password.
        type: str
        required: true
  callee:
    description: Account of the phone that is called. Required with O(phase=run).
    type: dict
    suboptions: *account
  echo_number:
    description: Number that sends back what it hears.
    type: str
    default: "*43"
  unknown_number:
    description: Number that nobody has.
    type: str
    default: "990099"
  refusals:
    description: SIP codes with which a wrong password may be refused.
    type: list
    elements: int
    default: [401, 403]
  gap_ms:
    description: Longest time a tone may be missing, in milliseconds.
    type: int
    default: 200
  lost_percent:
    description: Share of packets that may be lost, in percent.
    type: float
    default: 1.0
  through:
    description:
      - URI parameters, such as V(;node=192.0.2.11:5080;relay=2011), that name the PBX node and the
        relay which the conversation has to run through. It is the only call then.
    type: str
    default: ""
  keep_calling:
    description:
      - While the conversation waits for O(phase=part), a third phone, with the account of
        O(caller), calls O(echo_number) again and again. Nothing else is checked then.
    type: bool
    default: false
  evidence_lines:
    description: Most lines of each phone in RV(evidence).
    type: int
    default: 100
"""

EXAMPLES = r"""
- name: Two phones call each other
  ringmain.voip.test_calls:
    proxy:
      address: 203.0.113.10
    caller:
      user: "901"
      domain: verify.voice.example.net
      password: "{{ ringmain_secrets.subscribers['901@verify'] }}"
    callee:
      user: "902"
      domain: verify.voice.example.net
      password: "{{ ringmain_secrets.subscribers['902@verify'] }}"
  register: calls
  no_log: true
"""

RETURN = r"""
results:
  description: What was checked, in order.
  type: list
  elements: dict
  returned: O(phase=run)
  contains:
    check:
      description: What was checked.
      type: str
      sample: 901 calls 902
    ok:
      description: The verdict.
      type: bool
      sample: true
    measured:
      description: What happened.
      type: str
      sample: answered after 121 ms
    expected:
      description: What should happen.
      type: str
      sample: answered
    detail:
      description: More about it.
      type: list
      elements: str
      sample: []
passed:
  description: Whether all checks are good.
  type: bool
  returned: O(phase=run)
  sample: true
call_ids:
  description: Call-IDs of the caller's and of the callee's leg; empty when they do not talk.
  type: list
  elements: str
  returned: O(phase=run) and O(phase=meet)
  sample: [9f2149c6b45f7e9e, 0b1e8a9b-5a43-4dd3-a5d8-83e6a8a0b8f5]
evidence:
  description: What each phone said and its SIP messages, one line each, if a check failed.
  type: dict
  returned: O(phase=run)
  sample: {}
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import calls, phones

# Everything but the conversation: start, registrations, echo, refusals, all at their limits.
REST_SECONDS = 60

ACCOUNT = {
    "type": "dict",
    "options": {
        "user": {"type": "str", "required": True},
        "domain": {"type": "str", "required": True},
        "password": {"type": "str", "required": True, "no_log": True},
    },
}


class Session:
    """The directory in which the phones live and the tasks of one run meet."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._talking = self.path / "talking.json"
        self._part = self.path / "part"

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Have the directory for oneself; PhoneError when another run has it."""
        with open(f"{self.path}.lock", "w", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                message = f"another run makes test calls on this host (it holds {self.path}.lock)"
                raise phones.PhoneError(message) from error
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir(mode=0o700)
            try:
                yield
            finally:
                shutil.rmtree(self.path)

    def hold(self, call_ids: list[str], seconds: float, meanwhile: Any = None) -> None:
        """Tell who talks and wait for `part`, at most so many seconds.

        `meanwhile(over)` is called instead of waiting, until `over()` holds.
        """
        draft = self.path / "talking.new"
        draft.write_text(json.dumps(call_ids), encoding="utf-8")
        draft.rename(self._talking)
        if not call_ids:
            return
        if meanwhile:
            deadline = time.monotonic() + seconds
            meanwhile(lambda: self._part.exists() or time.monotonic() > deadline)
        else:
            wait(self._part.exists, seconds)

    def meet(self, seconds: float) -> list[str]:
        """The Call-IDs of the conversation. Raises PhoneError when nobody talks in time."""
        if not wait(self._talking.exists, seconds):
            raise phones.PhoneError(f"no test calls are made in {self.path} within {seconds:g} s")
        return [str(call_id) for call_id in json.loads(self._talking.read_text("utf-8"))]

    def part(self, seconds: float) -> None:
        """Let the conversation end and wait, at most so many seconds, for the end of the run."""
        with contextlib.suppress(FileNotFoundError):
            self._part.touch()
        wait(lambda: not self._taken(), seconds)

    def _taken(self) -> bool:
        with open(f"{self.path}.lock", "w", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


def wait(condition: Any, seconds: float) -> bool:
    """Wait until `condition()` holds; False when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


def limits(params: dict[str, Any]) -> calls.Limits:
    """As the task has them. Where something is broken on purpose, one gap is not heard."""
    found = calls.Limits(gap_ms=params["gap_ms"], lost_percent=params["lost_percent"])
    if params["keep_calling"]:
        return dataclasses.replace(found, start_ms=found.start_ms + found.gap_ms)
    return found


def run(params: dict[str, Any], session: Session, path: tuple[str, str]) -> dict[str, Any]:
    """Make the calls with fresh phones."""
    hold_seconds = params["hold_seconds"]
    lifetime = int(params["talk_seconds"] + hold_seconds) + REST_SECONDS
    accounts = phones.Account(**params["caller"]), phones.Account(**params["callee"])
    with contextlib.ExitStack() as stack:
        devices = [
            stack.enter_context(
                phones.launch(name, session.path / directory, path, frequency, lifetime)
            )
            for name, directory, frequency in (
                (accounts[0].user, "caller", calls.CALLER_TONE),
                (accounts[1].user, "callee", calls.CALLEE_TONE),
                ("stranger", "stranger", calls.CALLER_TONE),
            )
        ]
        rehearsal = calls.Rehearsal(
            phones.Proxy(**params["proxy"]),
            devices[0],
            devices[1],
            devices[2],
            limits(params),
        )
        services = calls.Services(params["echo_number"], params["unknown_number"])

        def keep_calling(over: Callable[[], bool]) -> None:
            rehearsal.call_until(over, accounts[0], services)

        meanwhile = keep_calling if params["keep_calling"] else None
        report = rehearsal.run(
            accounts,
            services,
            params["talk_seconds"],
            lambda call_ids: session.hold(call_ids, hold_seconds, meanwhile),
            params["refusals"],
            params["through"],
            params["keep_calling"],
        )
        evidence = {}
        if not report.ok:
            evidence = {
                phone.name: phones.ladder(phone.log())[-params["evidence_lines"] :]
                for phone in devices
            }
    return {
        "results": [result.as_dict() for result in report.results],
        "passed": report.ok,
        "call_ids": report.call_ids,
        "evidence": evidence,
    }


def main() -> None:
    """Dispatch to the phase."""
    module = AnsibleModule(
        argument_spec={
            "phase": {"type": "str", "choices": ["run", "meet", "part"], "default": "run"},
            "session": {"type": "path", "default": "/run/ringmain-test-calls"},
            "hold_seconds": {"type": "float", "default": 0.0},
            "talk_seconds": {"type": "float", "default": 6.0},
            "proxy": {
                "type": "dict",
                "options": {
                    "address": {"type": "str", "required": True},
                    "port": {"type": "int", "default": 5060},
                    "transport": {"type": "str", "choices": ["udp", "tcp"], "default": "udp"},
                },
            },
            "caller": ACCOUNT,
            "callee": ACCOUNT,
            "echo_number": {"type": "str", "default": "*43"},
            "unknown_number": {"type": "str", "default": "990099"},
            "refusals": {"type": "list", "elements": "int", "default": [401, 403]},
            "gap_ms": {"type": "int", "default": 200},
            "lost_percent": {"type": "float", "default": 1.0},
            "through": {"type": "str", "default": ""},
            "keep_calling": {"type": "bool", "default": False},
            "evidence_lines": {"type": "int", "default": 100},
        },
        required_if=[("phase", "run", ["proxy", "caller", "callee"])],
        supports_check_mode=False,
    )
    params = module.params
    session = Session(params["session"])
    os.umask(0o077)

    def command(words: Any) -> str:
        return str(module.run_command(list(words), check_rc=True)[1])

    try:
        if params["phase"] == "meet":
            module.exit_json(changed=False, call_ids=session.meet(params["hold_seconds"]))
        if params["phase"] == "part":
            session.part(params["hold_seconds"])
            module.exit_json(changed=False)
        path = phones.path_to(params["proxy"]["address"], command)
        with session.open():
            found = run(params, session, path)
    except phones.PhoneError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
