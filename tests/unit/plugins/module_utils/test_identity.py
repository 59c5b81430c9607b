# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's key and certificates, made by the real openssl in a real directory."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils.identity import (
    Identity,
    IdentityError,
    keep_identity,
)

UID, GID = os.getuid(), os.getgid()


def openssl(argv: Sequence[str], given: bytes) -> tuple[int, bytes]:
    """Run the real thing."""
    done = subprocess.run(argv, input=given, capture_output=True, check=False)
    return done.returncode, done.stdout


def missing(argv: Sequence[str], given: bytes) -> tuple[int, bytes]:
    """A host without openssl."""
    raise FileNotFoundError(argv[0])


def keep(directory: Path, certificate: str | None = None, **more: bool) -> Identity:
    """Keep the identity of whoever runs the tests."""
    return keep_identity(
        str(directory), GID, "the authority\n", certificate, openssl, uid=UID, **more
    )


def modes(directory: Path) -> dict[str, int]:
    """Permissions of all files."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


def test_first_run_makes_a_key_and_second_changes_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "etc" / "tls"
    first = keep(directory)
    assert first.changed_files == [f"{directory}/key.pem", f"{directory}/ca.pem"]
    assert first.public_key.startswith("-----BEGIN PUBLIC KEY-----\n")
    assert first.certificate == ""
    assert modes(directory) == {"key.pem": 0o640, "ca.pem": 0o644}
    second = keep(directory)
    assert second == Identity([], first.public_key, "")


def test_a_certificate_is_installed_and_kept(tmp_path: Path) -> None:
    first = keep(tmp_path, "certificate 1\n")
    assert first.certificate == "certificate 1\n"
    assert keep(tmp_path).certificate == "certificate 1\n"
    renewed = keep(tmp_path, "certificate 2\n")
    assert renewed.changed_files == [f"{tmp_path}/cert.pem"]
    assert (tmp_path / "cert.pem").read_text() == "certificate 2\n"


def test_drift_is_repaired_without_a_new_key(tmp_path: Path) -> None:
    first = keep(tmp_path, "certificate\n")
    (tmp_path / "key.pem").chmod(0o666)
    (tmp_path / "cert.pem").chmod(0o600)
    (tmp_path / "ca.pem").write_text("another authority\n")
    again = keep(tmp_path)
    assert again.public_key == first.public_key
    assert sorted(again.changed_files) == [f"{tmp_path}/{n}.pem" for n in ("ca", "cert", "key")]
    assert modes(tmp_path) == {"key.pem": 0o640, "ca.pem": 0o644, "cert.pem": 0o644}
    assert (tmp_path / "ca.pem").read_text() == "the authority\n"


def test_a_link_at_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("the authority\n")
    directory = tmp_path / "tls"
    keep(directory)
    (directory / "ca.pem").unlink()
    (directory / "ca.pem").symlink_to(target)
    assert keep(directory).changed_files == [f"{directory}/ca.pem"]
    assert not (directory / "ca.pem").is_symlink()
    assert target.read_text() == "the authority\n"


def test_a_damaged_key_is_replaced(tmp_path: Path) -> None:
    first = keep(tmp_path)
    (tmp_path / "key.pem").write_text("rubbish")
    again = keep(tmp_path)
    assert again.changed_files == [f"{tmp_path}/key.pem"]
    assert again.public_key not in ("", first.public_key)


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "tls"
    would = keep(directory, check_mode=True)
    assert would == Identity([f"{directory}/key.pem", f"{directory}/ca.pem"], "", "")
    assert not directory.exists()
    keep(directory)
    (directory / "key.pem").write_text("rubbish")
    assert keep(directory, check_mode=True).changed_files == [f"{directory}/key.pem"]
    assert (directory / "key.pem").read_text() == "rubbish"


def test_check_mode_does_without_openssl_and_group(tmp_path: Path) -> None:
    keep(tmp_path)
    would = keep_identity(str(tmp_path), None, "the authority\n", None, missing, True, UID)
    assert would.public_key == ""
    assert would.changed_files == [f"{tmp_path}/key.pem"]


@pytest.mark.parametrize("key_there", [False, True])
def test_without_openssl_a_real_run_says_what_to_do(tmp_path: Path, key_there: bool) -> None:
    if key_there:
        keep(tmp_path)
    with pytest.raises(IdentityError) as error:
        keep_identity(str(tmp_path), GID, "the authority\n", None, missing, uid=UID)
    assert str(error.value) == (
        "openssl is not installed on this host: install the package and run again"
    )


def test_when_openssl_fails_the_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(IdentityError) as error:
        keep_identity(str(tmp_path), GID, "x", None, lambda argv, given: (1, b""), uid=UID)
    assert str(error.value) == (
        "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 failed with exit code 1: "
        "run it by hand to see why"
    )
