# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generated secrets, and the files beside the inventory that keep them."""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets as randomness
import stat
import tempfile
import typing as t
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml
from ansible_collections.ringmain.voip.plugins.module_utils.contract import merge_secrets
from ansible_collections.ringmain.voip.plugins.plugin_utils import authority

ALPHABET = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Letters and digits that nobody mistakes for each other; safe in URLs, shells and templates."""

PASSWORD_LENGTH = 32
PIN_LENGTH = 6

HEADER = """\
# The secrets of this telephone system. The playbook `secrets` makes what is missing and leaves the
# rest alone. Keep this file to yourself; `ansible-vault encrypt` it before it leaves this machine.
"""


class SecretsError(Exception):
    """What is in the way, and what to do next."""


def make_password() -> str:
    """A new password of 32 characters (186 bits)."""
    return "".join(randomness.choice(ALPHABET) for _character in range(PASSWORD_LENGTH))


def make_pin() -> str:
    """A new PIN of 6 digits."""
    return "".join(randomness.choice("0123456789") for _digit in range(PIN_LENGTH))


def generate(
    missing: Iterable[str], known: Mapping[str, t.Any], domain: str, now: datetime.datetime
) -> dict[str, t.Any]:
    """Values for the names that C(missing_secrets) gives, in the shape of C(ringmain_secrets).

    Raises SecretsError when the authority's certificate is there without its key.
    """
    made: dict[str, t.Any] = {}
    for name in missing:
        outer, _dot, inner = name.partition(".")
        if outer == "ca_key":
            if known.get("ca_certificate"):
                raise SecretsError(
                    "ringmain_secrets has ca_certificate without its ca_key: bring the key back, "
                    "or remove ca_certificate and have every host certified anew"
                )
            made[outer] = authority.make_key()
        elif outer == "ca_certificate":
            key = str(known.get("ca_key") or made["ca_key"])
            made[outer] = authority.make_authority(key, f"{domain} Ringmain CA", now)
        elif inner:
            value = make_pin() if outer == "voicemail_pins" else make_password()
            made.setdefault(outer, {})[inner] = value
        else:
            made[outer] = make_password()
    return made


def find_directory(task_vars: dict[str, t.Any], cluster: str) -> Path:
    """Where the cluster's variables are, beside its inventory. Raises SecretsError."""
    if cluster not in task_vars["groups"]:
        raise SecretsError(
            f"ringmain_cluster is {cluster!r}, which is no group of this inventory: "
            "name the group that holds all hosts of the cluster"
        )
    found = set()
    for name in task_vars["groups"][cluster]:
        variables = task_vars["hostvars"][name]
        # A list of hosts on the command line has a directory too, but no variables are read there.
        if Path(str(variables.get("inventory_file"))).exists():
            found.add(str(variables["inventory_dir"]))
    if len(found) != 1:
        where = (
            f"in {len(found)} directories ({', '.join(sorted(found))})" if found else "in no file"
        )
        raise SecretsError(
            f"the hosts of the cluster are {where}, so there is no one place for its secrets: "
            "describe all of them in one inventory directory and give it with -i"
        )
    return Path(found.pop(), "group_vars", cluster)


def choose_file(directory: Path) -> tuple[Path, str, dict[str, t.Any]]:
    """The file that takes new secrets, the variable it defines, and what it has now.

    A file that is encrypted, or that holds anything but its one variable, is never rewritten: then
    it is the next of C(ringmain_secrets_2.yml), C(ringmain_secrets_3.yml), ... Raises SecretsError.
    """
    group = directory.name
    for suffix in (".yml", ".yaml", ".json"):
        beside = directory.with_name(group + suffix)
        if beside.exists() and not directory.exists():
            raise SecretsError(
                f"{beside} would be ignored beside a directory {directory}: "
                f"move it to {directory}/main{suffix} and run again"
            )
    return _first_writable(directory, 1)


def choose_last_file(directory: Path) -> tuple[Path, str, dict[str, t.Any]]:
    """The same for values that must win over those in all other files. Raises SecretsError."""
    numbers = [number for number in range(1, 100) if _path(directory, number)[0].exists()]
    if not numbers:
        raise SecretsError(
            f"there is no {_path(directory, 1)[0]}, so the secrets come from somewhere else: give "
            "them their new values there, and run site.yml"
        )
    return _first_writable(directory, numbers[-1])


def _path(directory: Path, number: int) -> tuple[Path, str]:
    """A file's path and the variable it defines."""
    variable = "ringmain_secrets" if number == 1 else f"ringmain_secrets_{number}"
    return directory / f"{variable}.yml", variable


def _first_writable(directory: Path, number: int) -> tuple[Path, str, dict[str, t.Any]]:
    """The first file from this number on that may be written."""
    while True:
        path, variable = _path(directory, number)
        if not path.exists():
            return path, variable, {}
        with contextlib.suppress(yaml.YAMLError, UnicodeDecodeError):
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and set(content) == {variable}:
                return path, variable, dict(content[variable] or {})
        number += 1


def write_file(
    path: Path, variable: str, present: Mapping[str, t.Any], added: Mapping[str, t.Any]
) -> None:
    """Write the whole file anew, in one step and readable to its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = HEADER + yaml.dump(
        {variable: merge_secrets([present, added])}, Dumper=_Dumper, width=1000, sort_keys=True
    )
    # A hidden name: Ansible does not read it as variables if it is left behind.
    descriptor, staged = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(staged, path)
    except BaseException:
        os.unlink(staged)
        raise


def loose_files(directory: Path) -> list[Path]:
    """Files of secrets that others than their owner may read."""
    return [
        path
        for path in sorted(directory.glob("ringmain_secrets*.yml"))
        if stat.S_IMODE(path.stat().st_mode) & 0o077
    ]


class _Dumper(yaml.SafeDumper):
    """Shows keys and certificates as blocks."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Quotes around digits: not every reader of YAML would leave them a text.
    style = "|" if "\n" in text else '"' if text.isdecimal() else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
