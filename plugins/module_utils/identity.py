# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's private key and certificates on its own disk. The key never leaves the host.

C(openssl) makes the key and gives its public half; it runs through a callable, and the key passes
through pipes and files alone, never through its arguments.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ansible_collections.ringmain.voip.plugins.module_utils.config_tree import (
    read_file,
    replace_file,
)

KEY, CERTIFICATE, AUTHORITY = "key.pem", "cert.pem", "ca.pem"

Runner = Callable[[Sequence[str], bytes], "tuple[int, bytes]"]
"""Runs argv with standard input; gives exit code and standard output; OSError: it is not there."""

_MAKE_KEY = ("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
_PUBLIC_HALF = ("openssl", "pkey", "-pubout")


class IdentityError(Exception):
    """What is wrong, and what to do next."""


@dataclass
class Identity:
    """What a host has. C(public_key) is empty when check mode finds no key yet."""

    changed_files: list[str] = field(default_factory=list)
    public_key: str = ""
    certificate: str = ""


def keep_identity(
    directory: str,
    gid: int | None,
    authority: str,
    certificate: str | None,
    run: Runner,
    check_mode: bool = False,
    uid: int = 0,
) -> Identity:
    """Make the key if there is none, keep files and permissions, and say what is there.

    C(certificate) replaces the present one; None leaves it. C(gid), the group that may read the
    key, is None when it does not exist yet (check mode). Raises IdentityError.
    """
    identity = Identity()
    if not check_mode:
        os.makedirs(directory, 0o755, exist_ok=True)

    def keep(name: str, content: bytes | None, mode: int, group: int | None) -> None:
        path = os.path.join(directory, name)
        present = _read(path)
        wanted = present if content is None else content
        if wanted is None:
            return
        if present != wanted or _drifted(path, mode, uid, group):
            identity.changed_files.append(path)
            if not check_mode:
                replace_file(path, wanted, mode, uid, group)

    key = _read(os.path.join(directory, KEY))
    public_key = _public_half(run, key, check_mode) if key else ""
    if not public_key:
        # A damaged key is of no use to anyone: it is replaced like one that is missing.
        key = b"" if check_mode else _openssl(run, _MAKE_KEY, b"")
        public_key = "" if check_mode else _public_half(run, key, check_mode)
    keep(KEY, key, 0o640, gid)
    keep(AUTHORITY, authority.encode(), 0o644, 0 if uid == 0 else None)
    new = None if certificate is None else certificate.encode()
    keep(CERTIFICATE, new, 0o644, 0 if uid == 0 else None)
    identity.public_key = public_key
    identity.certificate = (_read(os.path.join(directory, CERTIFICATE)) or b"").decode(
        "utf-8", "replace"
    )
    return identity


def _read(path: str) -> bytes | None:
    """Content of a regular file; None for anything else, which is then replaced."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
    except FileNotFoundError:
        return None
    return read_file(path)


def _drifted(path: str, mode: int, uid: int, gid: int | None) -> bool:
    status = os.lstat(path)
    return (
        stat.S_IMODE(status.st_mode) != mode
        or status.st_uid != uid
        or gid not in (None, status.st_gid)
    )


def _public_half(run: Runner, key: bytes | None, check_mode: bool) -> str:
    try:
        code, output = run(_PUBLIC_HALF, key or b"")
    except OSError:
        if check_mode:
            return ""
        raise IdentityError(
            "openssl is not installed on this host: install the package and run again"
        ) from None
    return output.decode("ascii", "replace").strip() if code == 0 else ""


def _openssl(run: Runner, argv: Sequence[str], given: bytes) -> bytes:
    try:
        code, output = run(argv, given)
    except OSError:
        raise IdentityError(
            "openssl is not installed on this host: install the package and run again"
        ) from None
    if code:
        raise IdentityError(
            f"{' '.join(argv)} failed with exit code {code}: run it by hand to see why"
        )
    return output
