# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one server's commands, files and daemons say of it, as plain data. Pure functions."""

from __future__ import annotations

import typing as t
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ansible_collections.ringmain.voip.plugins.module_utils.dispatcher import SETS, Destination


@dataclass(frozen=True)
class Service:
    """A daemon: its unit, its package, and the name of the digest that its configuration has."""

    unit: str
    package: str = ""
    digest: str = ""


_HAPROXY = Service("haproxy", "haproxy", "haproxy")
SERVICES: dict[str, tuple[Service, ...]] = {
    "edge": (
        Service("kamailio", "kamailio", "kamailio"),
        Service("keepalived", "keepalived", "keepalived"),
        _HAPROXY,
        Service("ringmain-edge"),
    ),
    "media": (Service("rtpengine-daemon", "rtpengine-daemon", "rtpengine"),),
    "pbx": (Service("asterisk", "asterisk", "asterisk"), _HAPROXY),
}
DATABASES: dict[str, tuple[Service, ...]] = {
    "mariadb": (
        Service("mariadb", "mariadb-server", "mariadb"),
        Service("ringmain-galera-health"),
    ),
    "postgresql": (
        Service("patroni", "patroni", "patroni"),
        Service("etcd", "etcd-server", "etcd"),
    ),
}


def services(functions: Iterable[str], driver: str) -> list[Service]:
    """The daemons of a server with these functions, each once."""
    found: dict[str, Service] = {}
    for function in functions:
        several = DATABASES[driver] if function == "database" else SERVICES.get(function, ())
        found.update({service.unit: service for service in several})
    return list(found.values())


def parse_units(text: str) -> dict[str, dict[str, str]]:
    """Properties by unit (without C(.service)), from C(systemctl show -p Id,… UNIT …)."""
    units = {}
    for block in text.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" in values:
            units[values["Id"].removesuffix(".service")] = values
    return units


def parse_versions(text: str) -> dict[str, str]:
    """Versions by package, from lines C(STATUS PACKAGE VERSION) of installed ones."""
    lines = (line.split() for line in text.splitlines())
    return {words[1]: words[2] for words in lines if len(words) == 3 and words[0] == "ii"}


def runs_replaced_code(maps: str) -> bool:
    """Whether a process runs code whose file is gone, from its C(/proc/PID/maps).

    That is what an upgraded package leaves behind until the daemon is restarted.
    """
    for line in maps.splitlines():
        words = line.split(maxsplit=5)
        if len(words) < 6 or "x" not in words[1] or not words[5].endswith(" (deleted)"):
            continue
        # Memory that never had a file looks the same.
        if not words[5].startswith(("/memfd:", "/dev/", "/SYSV")):
            return True
    return False


def describe_services(
    wanted: Iterable[Service],
    units: Mapping[str, Mapping[str, str]],
    versions: Mapping[str, str],
    replaced: Iterable[str],
    pending: Iterable[str],
) -> list[dict[str, t.Any]]:
    """Each daemon as C(name), C(state), C(since), C(restarts), C(version), and what it waits for.

    C(replaced) are units that run code of an older package, C(pending) names of digests whose
    configuration on disk is newer.
    """
    replaced, pending = set(replaced), set(pending)
    described = []
    for service in wanted:
        unit = units.get(service.unit, {})
        absent = unit.get("LoadState", "not-found") == "not-found"
        described.append(
            {
                "name": service.unit,
                "state": "not installed" if absent else unit.get("ActiveState", "unknown"),
                "since": unit.get("ActiveEnterTimestamp", ""),
                "restarts": int(unit.get("NRestarts") or 0),
                "version": versions.get(service.package, ""),
                "waits_for_package": service.unit in replaced,
                "waits_for_configuration": bool(service.digest) and service.digest in pending,
            }
        )
    return described


def process_flags(answer: t.Any) -> dict[tuple[int, str], str]:
    """Set and URI to flags such as C(AP), from a running Kamailio's C(dispatcher.list)."""
    found = {}
    for record in (answer or {}).get("RECORDS") or []:
        for target in record["SET"]["TARGETS"]:
            key = (int(record["SET"]["ID"]), str(target["DEST"]["URI"]))
            found[key] = str(target["DEST"]["FLAGS"])
    return found


AWAY = "away"
"""State of a relay that gives an edge no answer."""


def silent_relays(answer: t.Any) -> set[str]:
    """The numbers of the relays that an edge hears nothing of, from C(htable.dump) of C(away)."""
    return {str(item["name"]) for entry in answer or () for item in entry["slot"]}


def describe_destinations(
    listed: Iterable[Destination],
    flags: Mapping[tuple[int, str], str],
    silent: Collection[str] = (),
) -> list[dict[str, t.Any]]:
    """Each line of an edge's list: C(set), C(name), C(uri), C(state), C(drain).

    C(state) is what the process makes of it, empty when it does not say, and C(away) where the
    destination's number is in C(silent); C(drain) is C(REASON:RUN-ID), empty when nobody says why,
    null when it is not drained.
    """
    return [
        {
            "set": item.set_id,
            "name": dict(item.attrs).get("duid") or item.uri,
            "uri": item.uri,
            "state": AWAY
            if SETS.get(item.set_id) == "media" and dict(item.attrs).get("number") in silent
            else flags.get((item.set_id, item.uri), ""),
            "drain": item.drained,
        }
        for item in listed
    ]
