# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which secrets can be changed on a cluster that carries calls, and which not, and why.

Pure functions on plain data: the cluster's inputs, and its secrets as C(ringmain_secrets).

A database password has two values while it is being changed. The new one takes its place, and the
one before stands in C(previous) until every client has the new one; the database takes both. So a
run can end anywhere: C(previous) says that it has, and with which values the next one goes on.
"""

from __future__ import annotations

import typing as t
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.ringmain.voip.plugins.module_utils.contract import (
    VERIFY_EXTENSIONS,
    VERIFY_TENANT,
    missing_secrets,
)

PREVIOUS = "previous"
ALL = "all"

DATABASE = ("database_asterisk_password", "database_edge_password")
WITHOUT_LOSS = (
    *DATABASE,
    "asterisk_ami_password",
    *(f"subscribers.{extension}@{VERIFY_TENANT}" for extension in VERIFY_EXTENSIONS),
)
"""What C(all) means."""

_AUTHORITY = (
    "servers that trust another authority than the others would be cut off from the database"
)
NEVER = {
    "edge_secret": (
        "phones could not end their calls any more: the edges hide addresses in calls with it, and "
        "only the same secret finds them again. With no calls up, give another value and restart "
        "all edges"
    ),
    "relay_store_password": (
        "relays that run know the present one, and would not store their sessions until they are "
        "restarted. Give another value, run site.yml, and restart each relay when it has no calls"
    ),
    "ca_key": _AUTHORITY,
    "ca_certificate": _AUTHORITY,
}
ONE_PASSWORD = (
    "PostgreSQL keeps one password for an account: until the last client has the new one, call "
    "records would only be written to /var/log/asterisk/cdr.log. Say that this may be with "
    "-e rotate_gap=true"
)


class RotationError(Exception):
    """Everything that speaks against what was asked for."""


@dataclass(frozen=True)
class Rotation:
    """What is to be done: C(names) get new values, the others keep theirs.

    C(unfinished) are names of an earlier run that did not end; then nothing new is made. C(left)
    is what C(all) leaves out, with the reason.
    """

    names: tuple[str, ...]
    unfinished: tuple[str, ...]
    left: Mapping[str, str]


def unfinished(secrets: Mapping[str, t.Any]) -> tuple[str, ...]:
    """Names whose previous values are still good."""
    previous = secrets.get(PREVIOUS)
    if not isinstance(previous, Mapping):
        return ()
    return tuple(sorted(str(name) for name, value in previous.items() if value))


def plan(
    wanted: Sequence[str], inputs: Mapping[str, t.Any], secrets: Mapping[str, t.Any], gap: bool
) -> Rotation:
    """What to do for these names (or C(all)). Raises RotationError, with all reasons at once.

    C(gap) says that call records may miss the database for a while.
    """
    known = missing_secrets(inputs, {})
    one_password = inputs.get("ringmain_database_engine") == "postgresql" and not gap
    refused = dict(NEVER)
    if one_password:
        refused |= dict.fromkeys(DATABASE, ONE_PASSWORD)
    if list(wanted) == [ALL]:
        names = [name for name in WITHOUT_LOSS if name not in refused]
        shown = [name for name in known if not name.startswith("ca_")]
        left = {name: reason for name, reason in refused.items() if name in shown}
    else:
        names, left = list(dict.fromkeys(wanted)), {}
    complaints = [] if names else ["name what to change, or all of it: -e rotate=all"]
    for name in names:
        if name not in known:
            complaints.append(
                f"{name} is no secret of this cluster: there are {', '.join(WITHOUT_LOSS[:3])}, "
                "subscribers.EXTENSION@TENANT and voicemail_pins.EXTENSION@TENANT"
            )
        elif name in refused:
            complaints.append(f"{name} stays as it is: {refused[name]}")
    if complaints:
        raise RotationError("\n".join(complaints))
    begun = unfinished(secrets)
    return Rotation(() if begun else tuple(names), begun, left)


def previous_values(names: Sequence[str], secrets: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What to remember of the present values, in the shape of C(ringmain_secrets)."""
    kept = {name: secrets[name] for name in names if name in DATABASE}
    return {PREVIOUS: kept} if kept else {}


def forgotten(secrets: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What ends the change: no previous values."""
    names = unfinished(secrets)
    return {PREVIOUS: dict.fromkeys(names, "")} if names else {}
