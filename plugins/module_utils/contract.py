# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The contract between operator and collection: check the cluster's inputs, make the plan of them.

Pure functions on plain data. All take the same three things:

C(inputs)
    The cluster-wide variables by their full names (C(ringmain_domain), ...), defaults filled in.
C(hosts)
    Host name to its own variables (C(ringmain_address), C(ringmain_outside_address),
    C(ringmain_cores), C(ringmain_memory_mb), C(ringmain_limits)), as far as it has them.
C(members)
    Function (C(edge), C(media), C(pbx), C(database), C(storage), C(probes)) to an ordered list of
    names of hosts.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import typing as t
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ansible_collections.ringmain.voip.plugins.module_utils import capacity, dispatcher

Inputs = Mapping[str, t.Any]
Hosts = Mapping[str, Mapping[str, t.Any]]
Members = Mapping[str, Sequence[str]]

FUNCTIONS = ("edge", "media", "pbx", "database", "storage", "probes")
SERVER_FUNCTIONS = ("edge", "media", "pbx", "database", "storage")
ENGINES: dict[str, dict[str, t.Any]] = {
    "galera": {
        "driver": "mariadb",
        "socket": "/run/mysqld/mysqld.sock",
        "health": {
            "port": "database_health",
            "method": "GET",
            "path": "/",
            "tls": False,
            "rise": 3,
        },
        "data": "/var/lib/mysql/grastate.dat",
    },
    "postgresql": {
        "driver": "postgresql",
        "socket": "/run/postgresql",
        # OPTIONS: an answer without a body. HAProxy closes as soon as it has read the status, and
        # Patroni logs each body that it cannot get rid of.
        "health": {
            "port": "patroni_rest",
            "method": "OPTIONS",
            "path": "/primary",
            "tls": True,
            "rise": 1,
        },
        "data": "/var/lib/postgresql/17/ringmain/PG_VERSION",
    },
}
"""What others need to know of a database engine: the language of its clients, where its socket is,
who answers for a member that takes writes, and a file that only a member with data has."""
SERVICE_KINDS = ("echo",)
PORTS = (
    "sip",
    "sip_cluster",
    "sip_check",
    "pbx_sip",
    "pbx_ami",
    "pbx_rtp_first",
    "pbx_rtp_last",
    "relay_rtp_first",
    "relay_rtp_last",
    "relay_control",
    "relay_cli",
    "relay_store",
    "database",
    "database_local",
    "database_health",
    "galera_replication",
    "galera_ist",
    "galera_sst",
    "patroni_rest",
    "etcd_client",
    "etcd_peer",
)
MOST_FLOATING_RELAYS = 100
"""VRRP has 255 numbers, of which the edges' addresses and others have some."""
EPHEMERAL = (32768, 60999)
"""Ports that Linux gives to outgoing connections unless told otherwise."""

VERIFY_TENANT = "verify"
VERIFY_EXTENSIONS = ("901", "902")
VERIFY_ECHO = "*43"

PASSWORDS = (
    "database_asterisk_password",
    "database_edge_password",
    "asterisk_ami_password",
    "edge_secret",
)
FLOATING_RELAYS_PASSWORDS = ("relay_store_password",)
"""Those that only relays with floating addresses need."""

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})+")
_TENANT = re.compile(r"[a-z][a-z0-9]{0,31}")


# --- reading inputs -----------------------------------------------------------


def _list(inputs: Inputs, variable: str) -> list[t.Any]:
    value = inputs.get(variable)
    return value if isinstance(value, list) else []


def tenant_domain(tenant: Mapping[str, t.Any], domain: str) -> str:
    """The SIP domain of a tenant: its own, or its name below the cluster's."""
    return str(tenant.get("domain") or f"{tenant['name']}.{domain}")


def all_tenants(tenants: Iterable[Mapping[str, t.Any]], domain: str) -> list[dict[str, str]]:
    """Name and domain of every tenant, the reserved one of the verification last."""
    return [
        {"name": str(tenant["name"]), "domain": tenant_domain(tenant, domain)}
        for tenant in (*tenants, {"name": VERIFY_TENANT})
    ]


def all_subscribers(subscribers: Iterable[Mapping[str, t.Any]]) -> list[dict[str, t.Any]]:
    """Tenant, extension, name and voicemail (bool) of every subscriber, the reserved ones last."""
    reserved = (
        {"tenant": VERIFY_TENANT, "extension": extension, "name": f"Verification {extension}"}
        for extension in VERIFY_EXTENSIONS
    )
    return [
        {
            "tenant": str(row["tenant"]),
            "extension": str(row["extension"]),
            "name": str(row.get("name") or row["extension"]),
            "voicemail": bool(row.get("voicemail", False)),
        }
        for row in (*subscribers, *reserved)
    ]


def all_services(services: Iterable[Mapping[str, t.Any]]) -> list[dict[str, str]]:
    """Tenant, dialled and kind of every service, the reserved echo last."""
    reserved = {"tenant": VERIFY_TENANT, "dialled": VERIFY_ECHO, "kind": "echo"}
    return [
        {key: str(row[key]) for key in ("tenant", "dialled", "kind")}
        for row in (*services, reserved)
    ]


def outside_address(host: Mapping[str, t.Any]) -> str:
    """A host's address in the outside network; with one network it has only one."""
    return str(host.get("ringmain_outside_address") or host.get("ringmain_address") or "")


# --- secrets ------------------------------------------------------------------


def merge_secrets(parts: Iterable[Mapping[str, t.Any]]) -> dict[str, t.Any]:
    """One dictionary of several; the dictionaries inside are merged, a later value wins."""
    merged: dict[str, t.Any] = {}
    for part in parts:
        for key, value in part.items():
            if isinstance(value, Mapping):
                merged[key] = {**merged.get(key, {}), **value}
            else:
                merged[key] = value
    return merged


def missing_secrets(inputs: Inputs, secrets: Mapping[str, t.Any]) -> list[str]:
    """What C(ringmain_secrets) must hold for these inputs and does not.

    Names are keys, or C(subscribers.1001@acme), C(voicemail_pins.1001@acme) for what is inside one.
    """
    wanted = ["ca_key", "ca_certificate", *PASSWORDS]
    if inputs.get("ringmain_media_addresses"):
        wanted += FLOATING_RELAYS_PASSWORDS
    subscribers = all_subscribers(
        row
        for row in _list(inputs, "ringmain_subscribers")
        if isinstance(row, Mapping) and row.get("tenant") and row.get("extension")
    )
    names = {f"{row['extension']}@{row['tenant']}": row["voicemail"] for row in subscribers}
    wanted += [f"subscribers.{name}" for name in names]
    wanted += [f"voicemail_pins.{name}" for name, voicemail in names.items() if voicemail]
    return [name for name in wanted if not _find(secrets, name)]


def _find(secrets: Mapping[str, t.Any], name: str) -> t.Any:
    outer, _dot, inner = name.partition(".")
    if not inner:
        return secrets.get(outer)
    inside = secrets.get(outer)
    return inside.get(inner) if isinstance(inside, Mapping) else None


# --- checks -------------------------------------------------------------------


def cluster_errors(
    inputs: Inputs,
    hosts: Hosts,
    members: Members,
    secrets: Mapping[str, t.Any] | None,
    secrets_command: str,
) -> list[str]:
    """Everything that is wrong with the inputs; each says where, why and what to do.

    C(secrets) is the merged C(ringmain_secrets), or None where none are needed, C(secrets_command)
    the command that completes it.
    """
    return [
        *_domain_errors(inputs),
        *_network_errors(inputs, hosts),
        *_member_errors(inputs, members),
        *_host_errors(inputs, hosts, members),
        *_media_address_errors(inputs, hosts, members),
        *_figure_errors(inputs),
        *_tenant_errors(inputs),
        *_subscriber_errors(inputs),
        *_number_errors(inputs),
        *_service_errors(inputs),
        *_port_errors(inputs.get("ringmain_ports")),
        *_capacity_errors(inputs, hosts, members),
        *([] if secrets is None else _secret_errors(inputs, secrets, secrets_command)),
    ]


def _domain_errors(inputs: Inputs) -> Iterator[str]:
    domain = inputs.get("ringmain_domain")
    if not domain:
        yield (
            "ringmain_domain is not set: name the SIP domain below which the tenants live, "
            "for example voice.example.com"
        )
    elif not _is_domain(domain):
        yield f"ringmain_domain {domain!r} is no domain name: use one such as voice.example.com"


def _is_domain(value: t.Any) -> bool:
    return isinstance(value, str) and len(value) <= 190 and bool(_DOMAIN.fullmatch(value))


def _address(value: t.Any) -> ipaddress.IPv4Address | None:
    try:
        return ipaddress.IPv4Address(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _network(inputs: Inputs, side: str) -> ipaddress.IPv4Network | None:
    value = inputs.get(f"ringmain_{side}_network")
    try:
        return ipaddress.IPv4Network(value) if isinstance(value, str) and value else None
    except ValueError:
        return None


def _network_errors(inputs: Inputs, hosts: Hosts) -> Iterator[str]:
    networks = {side: _network(inputs, side) for side in ("outside", "inside")}
    for side, network in networks.items():
        value = inputs.get(f"ringmain_{side}_network")
        if not value:
            yield (
                f"ringmain_{side}_network is not set: give the {side} network in CIDR notation, "
                "for example 203.0.113.0/24"
            )
        elif network is None:
            yield (
                f"ringmain_{side}_network {value!r} is no IPv4 network in CIDR notation without "
                "host bits, such as 203.0.113.0/24"
            )
    outside, inside = networks["outside"], networks["inside"]
    if outside and inside and outside != inside and outside.overlaps(inside):
        yield (
            f"ringmain_outside_network {outside} and ringmain_inside_network {inside} overlap: "
            "make them two separate networks, or one and the same"
        )
    owners: dict[ipaddress.IPv4Address, str] = {}
    for name, host in hosts.items():
        for value in (host.get("ringmain_address"), host.get("ringmain_outside_address")):
            address = _address(value)
            if address:
                owners.setdefault(address, name)
    for side, network in networks.items():
        yield from _floating_errors(inputs, side, network, owners)
    floating = inputs.get("ringmain_outside_ip")
    if floating and floating == inputs.get("ringmain_inside_ip"):
        yield (
            f"ringmain_outside_ip and ringmain_inside_ip are both {floating}: choose two free "
            "addresses, also when both networks are one"
        )


def _floating_errors(
    inputs: Inputs,
    side: str,
    network: ipaddress.IPv4Network | None,
    owners: Mapping[ipaddress.IPv4Address, str],
) -> Iterator[str]:
    variable, value = f"ringmain_{side}_ip", inputs.get(f"ringmain_{side}_ip")
    where = f"ringmain_{side}_network {network}" if network else f"ringmain_{side}_network"
    if not value:
        yield (
            f"{variable} is not set: choose a free address of {where}; it floats between the edges"
        )
        return
    address = _address(value)
    if address is None:
        yield f"{variable} {value!r} is no IPv4 address: choose a free address of {where}"
        return
    if network and address not in network:
        yield f"{variable} {value} lies outside {where}: choose a free address of that network"
    elif network and address in (network.network_address, network.broadcast_address):
        yield (
            f"{variable} {value} is the network or broadcast address of {where}: "
            "choose a free address between them"
        )
    if address in owners:
        yield (
            f"{variable} {value} is the address of host {owners[address]}: "
            "choose a free address, it floats between the edges"
        )


def _counted(names: Sequence[str]) -> str:
    if not names:
        return "no hosts"
    return f"{len(names)} host{'s' if len(names) > 1 else ''} ({', '.join(names)})"


def _member_errors(inputs: Inputs, members: Members) -> Iterator[str]:
    edges, databases = members.get("edge", ()), members.get("database", ())
    spare = inputs.get("ringmain_spare_nodes")
    losable = int(spare) if _is_count(spare) else 0
    if not edges or (len(edges) < 2 and not losable):
        yield (
            f"group edge has {_counted(edges)}: the floating addresses need at least 2 to move "
            "between; add hosts to the group"
        )
    for function, purpose in (("media", "relay audio"), ("pbx", "serve calls")):
        if not members.get(function):
            yield (
                f"group {function} has no hosts: nothing would {purpose}; "
                "add hosts to the group, two or more to survive the loss of one"
            )
    if len(databases) < 3:
        yield (
            f"group database has {_counted(databases)}: it takes 3 to lose one and keep a "
            "majority; use 3 or 5"
        )
    elif len(databases) % 2 == 0:
        yield (
            f"group database has {_counted(databases)}: an even number has no majority when it "
            "splits in half; use 3 or 5"
        )
    judged = {f: names for f, names in members.items() if f != "database" or len(names) >= 3}
    yield from capacity.node_errors(judged, losable)


def _functions_of(name: str, members: Members) -> list[str]:
    return [function for function in SERVER_FUNCTIONS if name in members.get(function, ())]


def _host_errors(inputs: Inputs, hosts: Hosts, members: Members) -> Iterator[str]:
    networks = {side: _network(inputs, side) for side in ("outside", "inside")}
    owners: dict[ipaddress.IPv4Address, list[str]] = {}
    for name, host in hosts.items():
        functions = _functions_of(name, members)
        if functions:
            yield from _server_errors(name, host, functions, networks)
        for value in (host.get("ringmain_address"), host.get("ringmain_outside_address")):
            address = _address(value)
            if address and name not in owners.setdefault(address, []):
                owners[address].append(name)
    for address, names in owners.items():
        if len(names) > 1:
            yield (
                f"hosts {' and '.join(names)} have the same address {address}: correct "
                "ringmain_address or ringmain_outside_address of all but one"
            )


def _server_errors(
    name: str,
    host: Mapping[str, t.Any],
    functions: Sequence[str],
    networks: Mapping[str, ipaddress.IPv4Network | None],
) -> Iterator[str]:
    faces_outside = [function for function in functions if function in ("edge", "media")]
    for side, variable in (("inside", "ringmain_address"), ("outside", "ringmain_outside_address")):
        value, network = host.get(variable), networks[side]
        where = f"ringmain_{side}_network {network}" if network else f"ringmain_{side}_network"
        if not value and side == "inside":
            yield f"host {name} has no {variable}: set its address in {where}"
        elif not value:
            if faces_outside and networks["inside"] != network:
                yield (
                    f"host {name} has no {variable}: it is in group {faces_outside[0]}, "
                    f"so set its address in {where}"
                )
        elif _address(value) is None:
            yield f"host {name}: {variable} {value!r} is no IPv4 address: set one in {where}"
        elif network and _address(value) not in network:
            yield f"host {name}: {variable} {value} lies outside {where}: correct one of them"
    yield from _hardware_errors(name, host)


def _hardware_errors(name: str, host: Mapping[str, t.Any]) -> Iterator[str]:
    for variable, purpose in (
        ("ringmain_cores", "how many processor cores it has"),
        ("ringmain_memory_mb", "how much memory it has in megabytes"),
    ):
        value = host.get(variable)
        if value in (None, ""):
            yield f"host {name} has no {variable}: say {purpose}"
        elif not _is_count(value):
            yield f"host {name}: {variable} is {value!r}: say {purpose}, as a positive whole number"


def _is_count(value: t.Any) -> t.TypeGuard[int | str]:
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _media_address_errors(inputs: Inputs, hosts: Hosts, members: Members) -> Iterator[str]:
    """What is wrong with the relays' floating addresses, where they have some."""
    value = inputs.get("ringmain_media_addresses")
    if not value:
        return
    rows, errors = _rows(inputs, "ringmain_media_addresses", ("outside", "inside"))
    yield from errors
    names = members.get("media", ())
    if isinstance(value, list) and len(value) != len(names):
        yield (
            f"ringmain_media_addresses has {len(value)} pairs, and group media has "
            f"{_counted(names)}: give each relay one pair, or none to any"
        )
    if len(names) < 2:
        yield (
            f"ringmain_media_addresses is set, and group media has {_counted(names)}: addresses "
            "need 2 hosts to move between; add hosts to the group or leave the addresses out"
        )
    if len(names) > MOST_FLOATING_RELAYS:
        yield (
            f"ringmain_media_addresses has {len(names)} pairs: VRRP has numbers for "
            f"{MOST_FLOATING_RELAYS}; use fewer and larger relays, or leave the addresses out"
        )
    one_network = _network(inputs, "outside") == _network(inputs, "inside")
    owners = {
        str(host[key]): f"the address of host {name}"
        for name, host in hosts.items()
        for key in ("ringmain_address", "ringmain_outside_address")
        if host.get(key)
    }
    for variable in ("ringmain_outside_ip", "ringmain_inside_ip"):
        if inputs.get(variable):
            owners[str(inputs[variable])] = variable
    for place, row in rows:
        for side in ("outside", "inside"):
            address, network = _address(row[side]), _network(inputs, side)
            where = f"ringmain_{side}_network {network}" if network else f"ringmain_{side}_network"
            if address is None:
                yield (
                    f"{place}: {side} {row[side]!r} is no IPv4 address: "
                    f"choose a free one of {where}"
                )
                continue
            if network and address not in network:
                yield f"{place}: {side} {address} lies outside {where}: choose a free address of it"
            elif network and address in (network.network_address, network.broadcast_address):
                yield (
                    f"{place}: {side} {address} is the network or broadcast address of {where}: "
                    "choose a free address between them"
                )
            if one_network and side == "inside" and row[side] == row["outside"]:
                continue
            owner = owners.setdefault(str(address), f"{place}, {side}")
            if owner != f"{place}, {side}":
                yield f"{place}: {side} {address} is {owner} already: choose a free address"


def _figure_errors(inputs: Inputs) -> Iterator[str]:
    for variable, purpose in (
        ("ringmain_peak_calls", "how many calls at once the cluster must carry at its busiest"),
        ("ringmain_peak_cps", "how many new calls per second come at the busiest"),
        ("ringmain_registrations", "how many phones are registered at most"),
    ):
        value = inputs.get(variable)
        if not _is_count(value):
            shown = "is not set" if value is None else f"is {value!r}"
            yield f"{variable} {shown}: say {purpose}, as a positive whole number"
    spare = inputs.get("ringmain_spare_nodes")
    if not _is_count(spare) and spare not in (0, "0"):
        yield (
            f"ringmain_spare_nodes is {spare!r}: say how many nodes of each function may be "
            "missing at the busiest, as a whole number from 0"
        )
    hold = inputs.get("ringmain_hold_seconds")
    if not _is_count(hold):
        yield (
            f"ringmain_hold_seconds is {hold!r}: say how long a call lasts on average, "
            "in whole seconds"
        )
    elif all(_is_count(inputs.get(name)) for name in ("ringmain_peak_calls", "ringmain_peak_cps")):
        yield from capacity.pace_errors(
            int(inputs["ringmain_peak_calls"]), int(inputs["ringmain_peak_cps"]), int(hold)
        )
    packet = inputs.get("ringmain_packet_ms")
    if not (_is_count(packet) and 10 <= int(packet) <= 60):
        yield (
            f"ringmain_packet_ms is {packet!r}: say how many milliseconds of audio are in one "
            "packet, from 10 to 60"
        )
    yield from _codec_errors(inputs.get("ringmain_codecs"))
    forwarding = inputs.get("ringmain_media_forwarding")
    if forwarding not in capacity.FORWARDINGS:
        yield (
            f"ringmain_media_forwarding is {forwarding!r}: "
            f"choose one of {', '.join(capacity.FORWARDINGS)}"
        )
    if not isinstance(inputs.get("ringmain_firewall"), bool):
        yield f"ringmain_firewall is {inputs.get('ringmain_firewall')!r}: write true or false"
    yield from _ssh_errors(inputs.get("ringmain_ssh_from"))
    engine = inputs.get("ringmain_database_engine")
    if engine not in ENGINES:
        yield f"ringmain_database_engine is {engine!r}: choose one of {', '.join(ENGINES)}"


def _codec_errors(codecs: t.Any) -> Iterator[str]:
    known = ", ".join(capacity.CODECS)
    if not isinstance(codecs, list) or not codecs:
        yield f"ringmain_codecs is {codecs!r}: list what phones and trunks may use, of {known}"
        return
    for codec in codecs:
        if str(codec).upper() not in capacity.CODECS:
            yield f"ringmain_codecs has {codec!r}, of which nothing is known: choose of {known}"


def _ssh_errors(networks: t.Any) -> Iterator[str]:
    if not isinstance(networks, list) or not networks:
        yield (
            f"ringmain_ssh_from is {networks!r}: list the networks from which administrators come, "
            "such as 192.0.2.0/24; 0.0.0.0/0 is everywhere"
        )
        return
    for value in networks:
        try:
            ipaddress.ip_network(value if isinstance(value, str) else "")
        except ValueError:
            yield (
                f"ringmain_ssh_from has {value!r}, which is no network in CIDR notation without "
                "host bits: write one such as 192.0.2.0/24"
            )


def _rows(
    inputs: Inputs, variable: str, required: Sequence[str], optional: Sequence[str] = ()
) -> tuple[list[tuple[str, Mapping[str, t.Any]]], list[str]]:
    """Rows of a list variable that have what they need, each with its place, and the errors."""
    rows: list[tuple[str, Mapping[str, t.Any]]] = []
    errors: list[str] = []
    known = (*required, *optional)
    if not isinstance(inputs.get(variable) or [], list):
        errors.append(f"{variable} is {inputs[variable]!r}: write a list of dictionaries")
    for number, row in enumerate(_list(inputs, variable)):
        place = f"{variable}[{number}]"
        if not isinstance(row, Mapping):
            errors.append(f"{place} is {row!r}: write a dictionary with {', '.join(required)}")
            continue
        for key in row:
            if key not in known:
                errors.append(
                    f"{place} has the unknown key {key!r}: it may have {', '.join(known)}"
                )
        missing = [key for key in required if row.get(key) in (None, "")]
        if missing:
            errors.append(f"{place} has no {', '.join(missing)}: add what is missing")
        unquoted = [
            key
            for key in ("extension", "number", "dialled")
            if key in row and isinstance(row[key], (int, float))
        ]
        for key in unquoted:
            errors.append(
                f"{place}: {key} {row[key]} is not in quotes: write "
                f'{key}: "{row[key]}", or leading zeros are lost'
            )
        if not missing and not unquoted:
            rows.append((place, row))
    return rows, errors


def _tenant_names(inputs: Inputs) -> set[str]:
    return {
        str(row["name"])
        for row in _list(inputs, "ringmain_tenants")
        if isinstance(row, Mapping) and row.get("name")
    }


def _extensions(inputs: Inputs) -> set[tuple[str, str]]:
    """Tenant and extension of every subscriber."""
    return {
        (str(row.get("tenant")), str(row.get("extension")))
        for row in _list(inputs, "ringmain_subscribers")
        if isinstance(row, Mapping)
    }


def _tenant_errors(inputs: Inputs) -> Iterator[str]:
    rows, errors = _rows(inputs, "ringmain_tenants", ("name",), ("domain",))
    yield from errors
    domain = str(inputs.get("ringmain_domain") or "")
    domains = {f"{VERIFY_TENANT}.{domain}": VERIFY_TENANT}
    names: set[str] = set()
    for place, row in rows:
        name = str(row["name"])
        if name == VERIFY_TENANT:
            yield (
                f"{place}: the tenant name {name} is reserved for the verification: choose another"
            )
            continue
        if not _TENANT.fullmatch(name):
            yield (
                f"{place}: the tenant name {name!r} must begin with a letter a-z and go on with at "
                "most 31 letters a-z and digits: choose another"
            )
        if name in names:
            yield f"{place}: there are two tenants {name}: remove or rename one"
            continue
        names.add(name)
        own = row.get("domain")
        if own and not _is_domain(own):
            yield f"{place}: domain {own!r} of tenant {name} is no domain name: correct it"
            continue
        other = domains.setdefault(tenant_domain(row, domain), name)
        if other != name:
            yield (
                f"{place}: tenants {other} and {name} have the same domain "
                f"{tenant_domain(row, domain)}: give each its own"
            )


def _unknown_tenant(tenants: set[str], place: str, row: Mapping[str, t.Any]) -> Iterator[str]:
    name = row["tenant"]
    if name == VERIFY_TENANT:
        yield f"{place}: tenant {name} is reserved for the verification: use a tenant of your own"
    elif name not in tenants:
        yield f"{place}: there is no tenant {name}: add it to ringmain_tenants or correct the name"


def _subscriber_errors(inputs: Inputs) -> Iterator[str]:
    optional = ("name", "voicemail")
    rows, errors = _rows(inputs, "ringmain_subscribers", ("tenant", "extension"), optional)
    yield from errors
    tenants = _tenant_names(inputs)
    seen: dict[tuple[str, str], str] = {}
    for place, row in rows:
        yield from _unknown_tenant(tenants, place, row)
        extension = str(row["extension"])
        if not re.fullmatch(r"[0-9]{1,15}", extension):
            yield f"{place}: extension {extension!r} must be 1 to 15 digits: correct it"
        first = seen.setdefault((row["tenant"], extension), place)
        if first != place:
            yield (
                f"{place}: tenant {row['tenant']} has the extension {extension} already "
                f"({first}): remove or renumber one"
            )
        name = str(row.get("name") or "")
        if len(name) > 80 or re.search(r'[\x00-\x1f\x7f"<>\\]', name):
            yield (
                f"{place}: the name of extension {extension} must be at most 80 characters without "
                'quotes ("), angle brackets and backslashes: correct it'
            )
        if not isinstance(row.get("voicemail", False), bool):
            yield f"{place}: voicemail is {row['voicemail']!r}: write true or false"


def _number_errors(inputs: Inputs) -> Iterator[str]:
    rows, errors = _rows(inputs, "ringmain_numbers", ("number", "tenant", "extension"))
    yield from errors
    tenants, extensions = _tenant_names(inputs), _extensions(inputs)
    seen: dict[str, str] = {}
    for place, row in rows:
        unknown = list(_unknown_tenant(tenants, place, row))
        yield from unknown
        number = str(row["number"])
        if not re.fullmatch(r"[1-9][0-9]{2,14}", number):
            yield (
                f"{place}: number {number!r} must be 3 to 15 digits in international form without "
                "the plus sign, such as 4930123456: correct it"
            )
        first = seen.setdefault(number, place)
        if first != place:
            yield f"{place}: number {number} is there already ({first}): remove one"
        if not unknown and (row["tenant"], row["extension"]) not in extensions:
            yield (
                f"{place}: number {number} leads to extension {row['extension']}, which tenant "
                f"{row['tenant']} does not have: add it to ringmain_subscribers or correct it"
            )


def _service_errors(inputs: Inputs) -> Iterator[str]:
    rows, errors = _rows(inputs, "ringmain_services", ("tenant", "dialled", "kind"))
    yield from errors
    tenants, extensions = _tenant_names(inputs), _extensions(inputs)
    seen: dict[tuple[str, str], str] = {}
    for place, row in rows:
        yield from _unknown_tenant(tenants, place, row)
        dialled = str(row["dialled"])
        if not re.fullmatch(r"[0-9*#]{1,15}", dialled):
            yield f"{place}: dialled {dialled!r} must be 1 to 15 digits, * and #: correct it"
        if row["kind"] not in SERVICE_KINDS:
            yield f"{place}: kind is {row['kind']!r}: choose one of {', '.join(SERVICE_KINDS)}"
        first = seen.setdefault((row["tenant"], dialled), place)
        if first != place:
            yield (
                f"{place}: tenant {row['tenant']} has a service {dialled} already ({first}): "
                "remove one"
            )
        if (row["tenant"], dialled) in extensions:
            yield (
                f"{place}: {dialled} is also an extension of tenant {row['tenant']}: "
                "renumber one of them"
            )


def _port_errors(ports: t.Any) -> Iterator[str]:
    if not isinstance(ports, Mapping):
        ports = {}
    missing = [name for name in PORTS if name not in ports]
    if missing:
        yield (
            f"ringmain_ports lacks {', '.join(missing)}: copy the whole table from the defaults of "
            "role ringmain and change what you need"
        )
    unknown = [name for name in ports if name not in PORTS]
    if unknown:
        yield f"ringmain_ports has unknown names: {', '.join(unknown)}; remove them"
    numbers: dict[str, int] = {}
    for name in PORTS:
        value = ports.get(name)
        if value is not None and (not _is_count(value) or int(value) > 65535):
            yield f"ringmain_ports.{name} is {value!r}: choose a number from 1 to 65535"
        elif value is not None:
            numbers[name] = int(value)
    taken: list[tuple[int, int, str]] = []
    for name, number in numbers.items():
        stem = name.removesuffix("_first").removesuffix("_last")
        if stem == name:
            taken.append((number, number, f"{name} {number}"))
            if EPHEMERAL[0] <= number <= EPHEMERAL[1]:
                yield (
                    f"ringmain_ports.{name} {number} lies in {EPHEMERAL[0]}-{EPHEMERAL[1]}, from "
                    "which the kernel serves outgoing connections: choose one outside"
                )
        elif name == f"{stem}_first" and f"{stem}_last" in numbers:
            last = numbers[f"{stem}_last"]
            if last < number + 3:
                yield (
                    f"ringmain_ports: {stem}_first {number} to {stem}_last {last} holds no call: "
                    "a call needs 4 ports; make the range wider"
                )
            else:
                taken.append((number, last, f"{stem} {number}-{last}"))
    taken.sort()
    highest: tuple[int, str] = (0, "")
    for low, high, name in taken:
        if low <= highest[0]:
            yield (
                f"ringmain_ports: {highest[1]} and {name} overlap, and every function must be able "
                "to live on one host: change one"
            )
        highest = max(highest, (high, name))


def _secret_errors(
    inputs: Inputs, secrets: Mapping[str, t.Any], secrets_command: str
) -> Iterator[str]:
    if not secrets:
        yield f"ringmain_secrets is not there: make the passwords and keys with  {secrets_command}"
        return
    missing = missing_secrets(inputs, secrets)
    if missing:
        yield (
            f"ringmain_secrets lacks {', '.join(missing)}: add them, without changing the others, "
            f"with  {secrets_command}"
        )


# --- capacity -----------------------------------------------------------------


def _can_be_sized(inputs: Inputs, hosts: Hosts, members: Members) -> bool:
    """Whether everything that the sizes depend on is right, so that they can be judged."""
    wrong = [
        *_figure_errors(inputs),
        *_port_errors(inputs.get("ringmain_ports")),
        *(
            error
            for name in _server_names(members)
            for error in _hardware_errors(name, hosts.get(name, {}))
        ),
    ]
    return not wrong and all(members.get(function) for function in capacity.TIERS)


def _server_names(members: Members) -> list[str]:
    names = (name for function in SERVER_FUNCTIONS for name in members.get(function, ()))
    return list(dict.fromkeys(names))


def _load(inputs: Inputs, members: Members) -> capacity.Load:
    return capacity.Load(
        calls=int(inputs["ringmain_peak_calls"]),
        cps=int(inputs["ringmain_peak_cps"]),
        registrations=max(
            int(inputs["ringmain_registrations"]), len(_list(inputs, "ringmain_subscribers"))
        ),
        nodes={function: len(members[function]) for function in members if members[function]},
        ports={name: int(inputs["ringmain_ports"][name]) for name in PORTS},
        spare=int(inputs["ringmain_spare_nodes"]),
        hold_seconds=int(inputs["ringmain_hold_seconds"]),
        packet_ms=int(inputs["ringmain_packet_ms"]),
        codecs=tuple(map(str, inputs["ringmain_codecs"])),
        forwarding=str(inputs["ringmain_media_forwarding"]),
        untracked=bool(inputs["ringmain_firewall"]),
        engine=str(inputs["ringmain_database_engine"]),
    )


def _sized(inputs: Inputs, hosts: Hosts, members: Members) -> capacity.Plan:
    declared = {
        name: capacity.Host(
            cores=int(hosts[name]["ringmain_cores"]),
            memory_mb=int(hosts[name]["ringmain_memory_mb"]),
            functions=tuple(_functions_of(name, members)),
            addresses=len({hosts[name].get("ringmain_address"), outside_address(hosts[name])}),
        )
        for name in _server_names(members)
    }
    own = {name: hosts[name].get("ringmain_limits") or {} for name in declared}
    return capacity.make_plan(_load(inputs, members), declared, members, own)


def _capacity_errors(inputs: Inputs, hosts: Hosts, members: Members) -> Iterator[str]:
    wrong = [
        error
        for name in _server_names(members)
        for error in capacity.own_errors(name, hosts.get(name, {}).get("ringmain_limits"))
    ]
    yield from wrong
    if not wrong and _can_be_sized(inputs, hosts, members):
        yield from _sized(inputs, hosts, members).errors


# --- the plan -----------------------------------------------------------------


def make_plan(inputs: Inputs, hosts: Hosts, members: Members) -> dict[str, t.Any]:
    """The plan of inputs without errors. Plain data, no secrets:

    C(domain), C(outside_ip), C(inside_ip), C(outside_network), C(inside_network) (str),
    C(one_network) (bool), C(database_engine), C(database) (what its clients need to know:
    C(driver), C(socket), C(health) with C(port), C(path), C(tls) and C(rise), and C(others), the
    engines that it is not, name to a file of theirs), C(peak_calls), C(peak_cps),
    C(registrations) (int),
    C(ports) (name to int), C(members) (function to list of C(name), C(address)),
    C(relays) (in order: C(name) of the host that is its home, C(number) from 1, C(address) for
    control and inside media, C(outside_address)), C(relays_float) (bool: whether these addresses
    move to another media host when theirs is gone),
    C(hosts) (name to C(address), C(outside_address), C(cores), C(memory_mb), C(functions),
    C(through) (parameters of a URI with which edges lead a test call through its PBX node and its
    relay)),
    C(tenants) (list of C(name), C(domain)), C(verify) (C(tenant), C(domain), C(caller),
    C(callee), C(echo)), C(tiers) (function to what it carries), C(remarks) (list of str).
    Each host also has C(limits), C(expected), and C(own_limits) (names of limits that
    C(ringmain_limits) replaced); M(ringmain.voip.plan) describes them.
    """
    domain = str(inputs["ringmain_domain"])
    caller, callee = VERIFY_EXTENSIONS
    sized = _sized(inputs, hosts, members)

    def address(name: str) -> str:
        return str(hosts[name].get("ringmain_address") or "")

    relays = _relays(inputs, hosts, members)
    return {
        "domain": domain,
        "outside_ip": str(inputs["ringmain_outside_ip"]),
        "inside_ip": str(inputs["ringmain_inside_ip"]),
        "outside_network": str(inputs["ringmain_outside_network"]),
        "inside_network": str(inputs["ringmain_inside_network"]),
        "one_network": _network(inputs, "outside") == _network(inputs, "inside"),
        "database_engine": str(inputs["ringmain_database_engine"]),
        "database": _database(inputs),
        "peak_calls": int(inputs["ringmain_peak_calls"]),
        "peak_cps": int(inputs["ringmain_peak_cps"]),
        "registrations": int(inputs["ringmain_registrations"]),
        "spare_nodes": int(inputs["ringmain_spare_nodes"]),
        "hold_seconds": int(inputs["ringmain_hold_seconds"]),
        "packet_ms": int(inputs["ringmain_packet_ms"]),
        "codecs": [str(codec) for codec in inputs["ringmain_codecs"]],
        "media_forwarding": str(inputs["ringmain_media_forwarding"]),
        "firewall": bool(inputs["ringmain_firewall"]),
        "ssh_from": [str(network) for network in inputs["ringmain_ssh_from"]],
        "ports": {name: int(inputs["ringmain_ports"][name]) for name in PORTS},
        "members": {
            function: [
                {"name": name, "address": address(name)} for name in members.get(function, ())
            ]
            for function in FUNCTIONS
        },
        "hosts": {
            name: {
                "address": address(name),
                "outside_address": outside_address(hosts[name]),
                "cores": int(hosts[name]["ringmain_cores"]),
                "memory_mb": int(hosts[name]["ringmain_memory_mb"]),
                "functions": _functions_of(name, members),
                "through": _through(name, inputs, hosts, members, relays),
                "limits": sized.limits[name],
                "own_limits": sized.own[name],
                "expected": sized.expected[name],
            }
            for name in _server_names(members)
        },
        "relays": relays,
        "relays_float": bool(inputs.get("ringmain_media_addresses")),
        "tiers": sized.tiers,
        "remarks": sized.remarks,
        "tenants": all_tenants(inputs.get("ringmain_tenants") or [], domain),
        "verify": {
            "tenant": VERIFY_TENANT,
            "domain": f"{VERIFY_TENANT}.{domain}",
            "caller": caller,
            "callee": callee,
            "echo": VERIFY_ECHO,
        },
    }


def _through(
    name: str, inputs: Inputs, hosts: Hosts, members: Members, relays: list[dict[str, t.Any]]
) -> str:
    """Parameters of a URI that name a host's PBX node and relay; empty where it has neither."""
    node = hosts[name].get("ringmain_address")
    parts = [f";node={node}:{inputs['ringmain_ports']['pbx_sip']}"] * (
        name in members.get("pbx", ())
    )
    parts += [f";relay={dispatcher.number(r['address'])}" for r in relays if r["name"] == name]
    return "".join(parts)


def _relays(inputs: Inputs, hosts: Hosts, members: Members) -> list[dict[str, t.Any]]:
    names = list(members.get("media", ()))
    own = [
        {
            "inside": str(hosts[name].get("ringmain_address") or ""),
            "outside": outside_address(hosts[name]),
        }
        for name in names
    ]
    pairs = _list(inputs, "ringmain_media_addresses") or own
    return [
        {
            "name": name,
            "number": number,
            "address": str(pair["inside"]),
            "outside_address": str(pair["outside"]),
        }
        for number, (name, pair) in enumerate(zip(names, pairs, strict=True), 1)
    ]


def _database(inputs: Inputs) -> dict[str, t.Any]:
    chosen = str(inputs["ringmain_database_engine"])
    engine = ENGINES[chosen]
    health = engine["health"]
    return {
        "driver": engine["driver"],
        "socket": engine["socket"],
        "health": {**health, "port": int(inputs["ringmain_ports"][health["port"]])},
        "others": {name: other["data"] for name, other in ENGINES.items() if name != chosen},
    }


# --- rows of the database -----------------------------------------------------


def ha1(user: str, realm: str, password: str) -> str:
    """The hash of RFC 7616 digest authentication (MD5) that stands in for a password."""
    text = f"{user}:{realm}:{password}".encode()
    return hashlib.md5(text, usedforsecurity=False).hexdigest()


def directory_rows(
    domain: str,
    tenants: Iterable[Mapping[str, t.Any]],
    subscribers: Iterable[Mapping[str, t.Any]],
    numbers: Iterable[Mapping[str, t.Any]],
    services: Iterable[Mapping[str, t.Any]],
    passwords: Mapping[str, str],
) -> dict[str, list[dict[str, str]]]:
    """Rows of the tables tenants, subscribers, numbers and services, the reserved tenant's too.

    C(passwords) maps C(extension@tenant) to a password. Raises ValueError naming a subscriber
    without one.
    """
    tenant_rows = all_tenants(tenants, domain)
    realms = {row["name"]: row["domain"] for row in tenant_rows}
    subscriber_rows = []
    for row in all_subscribers(subscribers):
        name = f"{row['extension']}@{row['tenant']}"
        if not passwords.get(name):
            raise ValueError(f"subscriber {name} has no password: run the playbook secrets again")
        subscriber_rows.append(
            {
                "tenant": row["tenant"],
                "extension": row["extension"],
                "display_name": row["name"],
                "ha1": ha1(row["extension"], realms[row["tenant"]], str(passwords[name])),
            }
        )
    return {
        "tenants": tenant_rows,
        "subscribers": subscriber_rows,
        "numbers": [
            {key: str(row[key]) for key in ("number", "tenant", "extension")} for row in numbers
        ],
        "services": all_services(services),
    }
