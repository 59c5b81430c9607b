# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which accelerator a virtual machine gets, and the words with QEMU."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from ringmain_lab import image, machine, virtual
from ringmain_lab.names import LabError

PANIC = "echo '[    1.2] VFS: Unable to mount root fs on unknown-block(0,0)'"


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in QEMU's place, which tests fill in, and a runtime directory of its own."""
    program = tmp_path / "qemu"
    monkeypatch.setattr(virtual, "PROGRAM", str(program))
    monkeypatch.setattr(virtual, "TRIAL_SECONDS", 2.0)
    monkeypatch.setattr(machine, "RUNTIME", tmp_path)
    return program


def become(program: Path, script: str) -> None:
    """Have the program do this from now on."""
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("script", "runs"),
    [
        (PANIC, True),
        # Began to boot, and QEMU gave up; or did not come that far; or hangs.
        (f"{PANIC}; exit 134", False),
        ("echo 'KVM internal error'", False),
        ("exec sleep 60", False),
    ],
)
def test_an_accelerator_is_tried_with_the_kernel_itself(
    qemu: Path, script: str, runs: bool
) -> None:
    """That the kernel misses its root file system proves that it runs; a device proves nothing."""
    become(qemu, script)
    assert virtual.runs_kernel("key", "kvm") is runs


def test_what_was_found_is_kept_for_this_boot_and_image(
    qemu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second machine need not wait; another image is tried anew."""
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    become(qemu, PANIC)
    assert virtual.accelerator("one") == "kvm"
    become(qemu, "exit 1")
    assert virtual.accelerator("one") == "kvm"
    assert virtual.accelerator("two") == "tcg"


def test_without_the_device_nothing_is_tried(qemu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no program here, either."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert virtual.accelerator("one") == "tcg"


def test_events_are_no_answers() -> None:
    """QEMU tells of a reset or a shutdown whenever it likes."""
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rw") as stream:
        theirs.sendall(b'{"event": "RESET"}\n{"return": {}}\n')
        assert virtual.ask(stream, "system_powerdown") == {"return": {}}
        assert theirs.recv(100) == b'{"execute": "system_powerdown"}\n'


def test_a_machine_without_qemu_says_what_to_do(tmp_path: Path) -> None:
    """Nobody listens."""

    class Nowhere:
        def directory(self, name: str) -> Path:
            return tmp_path

    with pytest.raises(LabError) as error:
        virtual.press_power_button(Nowhere(), "vm1")  # type: ignore[arg-type]
    assert str(error.value).endswith("cut its power with 'kill vm1'")


def test_the_image_depends_on_all_that_goes_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an old image would be taken for a new one."""
    first = image.recipe([], {})
    assert json.loads(first)["packages"] == list(image.PACKAGES)
    monkeypatch.setattr(image, "FILES", {**image.FILES, "etc/more": ""})
    assert image.recipe([], {}) != first
