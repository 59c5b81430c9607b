# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the load of a cluster and its declared hardware to every limit of every host.

Pure functions on plain data, in three steps:

C(needs)
    What one host must hold at the planned peak while C(spare) nodes of each function are missing.
C(limits)
    What is configured: admission limits (calls, sessions, calls per second) are the needs
    themselves; everything beneath them is a quarter larger, so that a full system refuses calls
    instead of running dry.
C(parts)
    What the host's functions take of its memory and its cores, from the limits.

What a tier carries is the same arithmetic backwards: the largest number of calls whose needs fit.
C(FIGURES) says of each figure its unit, its formula in words, and where the formula comes from.
"""

from __future__ import annotations

import dataclasses
import math
import typing as t
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

TIERS = ("edge", "media", "pbx", "database")
"""Functions that carry calls or that calls need, in the order of a call's way."""

FORWARDINGS = ("kernel", "userspace")

CODECS: dict[str, int] = {
    "PCMA": 64000,
    "PCMU": 64000,
    "G722": 64000,
    "OPUS": 64000,
    "G726": 32000,
    "GSM": 13200,
    "ILBC": 15200,
    "SPEEX": 24600,
    "G729": 8000,
}
"""Codecs and the bits per second of their payload (RFC 3551, RFC 3952; Opus as voice is sent)."""

# --- what things cost, and who says so ----------------------------------------

HEADROOM = 1.25
"""What lies beneath an admission limit is this much larger than the limit needs."""
USABLE_CORES = 0.75
"""How much of its cores a host may spend at the planned peak: audio does not wait."""

SESSIONS_PER_CALL = 2
"""A call between phones is two dialogs at the edge, each with a relay session of its own."""
PORTS_PER_SIDE = 2
"""RTP and RTCP. rtpengine 12.5, daemon/media_socket.c: two consecutive ports a side, taken from
one pool for each local address, whatever logical interfaces share it."""
SIDES = 2
PBX_PORTS_PER_CALL = 4
"""Two channels, each with RTP and RTCP, for the whole call: Asterisk keeps them open when direct
media has taken it out of the audio's way (4 sockets counted during such a call)."""

RELAY_SESSIONS_PER_CORE = {"userspace": 400, "kernel": 1000}
"""User space: 3,000 to 4,000 sessions cost 6.5 of 8 cores (rtpengine#128). Kernel: the same
sessions cost little more than one core (#128), but 1,000 filled one core's softirq (#1069)."""
PBX_CALLS_PER_CORE = 400
"""Audio through Asterisk: 1,600 calls on a quad-core Xeon of 2014."""
PBX_SETUP_CORE_SECONDS = 0.02
EDGE_MESSAGE_CORE_SECONDS = 0.0004
"""9 ms of one core for a call of 24 messages (30 calls through the lab's edge)."""
DATABASE_CALL_CORE_SECONDS = 0.005
IDLE_CORES = {"edge": 0.1, "media": 0.05, "pbx": 0.1, "database": 0.15, "storage": 0.1}

MESSAGES_PER_CALL = 24
"""SIP messages that an edge receives for one call between phones: both dialogs, authentication,
the two re-INVITEs of direct media, the end."""
REQUESTS_PER_CALL = 6
"""Requests among them that come from outside: INVITE twice, ACK three times, BYE."""
REGISTRATION_STORM_SECONDS = 60
"""After a power cut at a site all phones register anew within this time, two requests each."""
NAT_PING_SECONDS = 30
"""nathelper's natping_interval: each phone behind NAT answers one OPTIONS in this time."""
MESSAGE_SECONDS = 0.001
MEDIA_COMMANDS_PER_CALL = 10
MEDIA_COMMAND_SECONDS = 0.002
STALL_SECONDS = 1.0
"""How long a receive buffer holds what comes while nobody reads it."""
MEDIA_STALL_SECONDS = 0.25
"""Audio that is older than this is of no use to anyone."""
SIP_TRUESIZE = 4352
"""What the kernel counts for a SIP message of up to 4096 bytes: data and struct sk_buff."""
RTP_TRUESIZE = 2304
"""The same for an RTP packet in a driver's 2048-byte buffer."""

UDP_TIMEOUT = 30
UDP_STREAM_TIMEOUT = 120
"""Seconds that conntrack keeps a UDP flow with one direction, and one with two: the kernel's
defaults, which the plan also sets."""
TCP_TIME_WAIT = 120
CONNTRACK_PER_SESSION = SIDES * PORTS_PER_SIDE
CONNTRACK_PER_CALL_SETUP = 4
"""Audio to the PBX before direct media moves it away: two sessions, RTP and RTCP."""
CONNTRACK_STRANGERS = 4096
"""Flows of SSH, DNS, monitoring, and of scanners that find the SIP port."""
CONNTRACK_BYTES = 320
EPHEMERAL_PORTS = 4096
"""Outgoing connections that a host must be able to have."""
EPHEMERAL_DEFAULT = (32768, 60999)
FIRST_PORT = 1024

KB, MB = 1024, 1024 * 1024
# Measured on Kamailio 6.0 of Debian 13 with this collection's configuration (core.shmmem before and
# after 1,500 to 3,000 of each), and rounded up.
KAMAILIO_BASE_MB = 16
"""5.5 MB after the start."""
KAMAILIO_CONTACT_BYTES = 2 * KB
"""A location: 1.6 KB."""
KAMAILIO_ROW_BYTES = KB // 2
"""An entry of a hash table loaded from the database: 250 bytes."""
KAMAILIO_DIALOG_BYTES = 2 * KB
"""What leads from one dialog of a call to the other, 480 bytes, and its phone's end, which is not
measured: some 350 characters."""
KAMAILIO_REPLICA_BYTES = 8 * KB
"""One message to one other edge, until its transaction ends: 6 KB."""
KAMAILIO_TCP_BYTES = 20 * KB
"""A TCP connection with its read buffer of 16 KB: 19 KB."""
KAMAILIO_PROCESS_MB = 4
"""Private memory of a process: 0.5 MB after the start, 3 MB of its pool in use."""
KAMAILIO_OTHER_PROCESSES = 12
"""28 processes with 4 children, which are 4 for each of three UDP sockets and for TCP."""
KAMAILIO_TRANSACTION_BYTES = 16 * KB
TRANSACTION_SECONDS_PER_CALL = 2 * 25 + 6 * 5
"""Two INVITEs that ring for 20 s and are kept 5 s more, and six short transactions of 5 s."""
REPLICAS_AT_ONCE = 25000
"""An edge that comes back gets 100 locations each 20 ms (dmq_usrloc), each kept for 5 s."""

OS_MB = 384
EDGE_BASE_MB = 96
HAPROXY_BASE_MB = 32
MEDIA_BASE_MB = 64
"""40 MB after the start."""
MEDIA_SESSION_KB = 128
"""56 KB of private memory for each session of rtpengine 12.5 before any packet."""
PBX_BASE_MB = 128
"""61 MB after the start."""
PBX_CALL_KB = 1024
"""Two channels with their threads, bridge and buffers: an upper bound, not measured."""
DATABASE_BASE_MB = 256
"""170 MB after the start with a buffer pool of 128."""
DATABASE_CONNECTION_MB = {"galera": 1, "postgresql": 4}
STORAGE_MB = 256
SOCKET_BYTES = 2 * KB

RELAY_FILES_PER_SESSION = SIDES * PORTS_PER_SIDE
PBX_FILES_PER_CALL = 10
"""18 open files without a call, 28 with one bridged call."""
RECORD_CONNECTIONS = 4
"""Connections of Asterisk's pool for call records (res_odbc.conf)."""
AGENT_CONNECTIONS = 4
ADMIN_CONNECTIONS = 32
LOOKUP_SECONDS = 0.02
LOOKUPS_PER_CALL = 4


@dataclasses.dataclass(frozen=True)
class Load:
    """What a cluster must carry. C(nodes): function to number of hosts."""

    calls: int
    cps: float
    registrations: int
    nodes: Mapping[str, int]
    ports: Mapping[str, int]
    spare: int = 1
    hold_seconds: int = 180
    packet_ms: int = 20
    codecs: tuple[str, ...] = ("PCMA", "PCMU")
    forwarding: str = "kernel"
    untracked: bool = True
    engine: str = "galera"

    def at(self, calls: int) -> Load:
        """The same with another number of calls, which come and go at the same pace."""
        return dataclasses.replace(self, calls=calls, cps=self.cps * calls / self.calls)


@dataclasses.dataclass(frozen=True)
class Host:
    """Declared hardware. C(addresses) is 1 where outside and inside share one, or else 2."""

    cores: int
    memory_mb: int
    functions: tuple[str, ...]
    addresses: int = 2


PORTS = {
    "pbx_rtp_first": 10000,
    "pbx_rtp_last": 19999,
    "relay_rtp_first": 30000,
    "relay_rtp_last": 39999,
}
"""The ranges, where nothing else is said; the same as in the table of role C(ringmain)."""


def single(
    calls: int,
    functions: Sequence[str] = TIERS,
    *,
    addresses: int = 2,
    cores: int = 4,
    ports: Mapping[str, int] | None = None,
    cps: float | None = None,
    **more: t.Any,
) -> tuple[Load, Host]:
    """One host of each function that carries all calls, for whoever sizes one server.

    Without C(cps), calls come as often as it takes to have C(calls) at once. Raises ValueError.
    """
    unknown = [function for function in functions if function not in IDLE_CORES]
    if unknown or not functions:
        raise ValueError(f"functions has {unknown}: choose of {', '.join(IDLE_CORES)}")
    if calls < 1 or addresses not in (1, 2):
        raise ValueError("calls must be 1 or more, and addresses 1 or 2")
    load = Load(
        calls=calls,
        cps=1,
        registrations=int(more.pop("registrations", 0)),
        nodes=dict.fromkeys(functions, 1),
        ports={**PORTS, **(ports or {})},
        spare=0,
        **more,
    )
    pace = calls / load.hold_seconds if cps is None else cps
    host = Host(cores, 0, tuple(functions), addresses)
    return dataclasses.replace(load, cps=pace), host


def rtp_range(
    calls: int, daemon: str = "rtpengine", first: int | None = None, addresses: int = 2
) -> dict[str, int]:
    """C(first), C(last) and C(ports) that calls need on each address, without any reserve.

    Raises ValueError when no range holds them, and says how many servers would.
    """
    starts = {"rtpengine": PORTS["relay_rtp_first"], "asterisk": PORTS["pbx_rtp_first"]}
    if daemon not in starts:
        raise ValueError(f"daemon {daemon!r}: choose of {', '.join(starts)}")
    if calls < 1 or addresses not in (1, 2):
        raise ValueError("calls must be 1 or more, and addresses 1 or 2")
    start = starts[daemon] if first is None else first
    start += start % 2  # RTP has the even port
    each = PBX_PORTS_PER_CALL
    if daemon == "rtpengine":
        each = SESSIONS_PER_CALL * ports_per_session(addresses)
    if start + calls * each - 1 > 65535:
        fits = (65536 - start) // each
        raise ValueError(
            f"{calls} calls take {calls * each} ports on each address, and from {start} there are "
            f"{65536 - start}, for {fits} calls: use "
            + (f"{math.ceil(calls / fits)} servers" if fits > 0 else "a lower first port")
        )
    return {"first": start, "last": start + calls * each - 1, "ports": calls * each}


# --- small arithmetic ---------------------------------------------------------


def burst(mean: float) -> int:
    """The most of something that comes at random C(mean) times, three standard deviations up."""
    return math.ceil(mean + 3 * math.sqrt(mean))


def share(total: int, nodes: int, spare: int) -> int:
    """What one node gets of C(total) things spread at random while C(spare) nodes are missing."""
    carriers = max(1, nodes - spare)
    return total if carriers == 1 else min(total, burst(total / carriers))


def round_up(value: float, step: int) -> int:
    """The next multiple of C(step)."""
    return math.ceil(value / step) * step


def ranges(ports: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same ports as the fewest ranges in ascending order."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ports):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def range_text(pairs: Iterable[tuple[int, int]]) -> str:
    """Ranges as the kernel writes C(ip_local_reserved_ports)."""
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in pairs)


# --- ports --------------------------------------------------------------------


def reserved_ports(ports: Mapping[str, int]) -> list[tuple[int, int]]:
    """All ports of the table, C(X_first) and C(X_last) as a range."""
    found = []
    for name, number in ports.items():
        if name.endswith("_last"):
            continue
        last = ports[name.removesuffix("_first") + "_last"] if name.endswith("_first") else number
        found.append((number, last))
    return ranges(found)


def ephemeral_range(reserved: Sequence[tuple[int, int]]) -> tuple[int, int, int]:
    """First and last port for outgoing connections, and how many are left between the reserved.

    The kernel's own range when enough of it is left, or else the widest gap.
    """

    def left(first: int, last: int) -> int:
        taken = sum(max(0, min(b, last) - max(a, first) + 1) for a, b in reserved)
        return last - first + 1 - taken

    first, last = EPHEMERAL_DEFAULT
    if left(first, last) >= EPHEMERAL_PORTS:
        return first, last, left(first, last)
    edges = [FIRST_PORT - 1, *(port for pair in reserved for port in pair), 65536]
    gaps = [(b - a - 1, a + 1, b - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    size, first, last = max(gaps)
    return first, last, max(0, size)


def ports_per_session(addresses: int) -> int:
    """Ports that a relay session takes on each address of its relay."""
    return PORTS_PER_SIDE * SIDES // addresses


def packet_bits(codecs: Iterable[str], packet_ms: int) -> int:
    """Bits on the wire of one RTP packet: payload, RTP 12, UDP 8, IP 20 and Ethernet 38 bytes."""
    payload = max(CODECS[codec.upper()] for codec in codecs) * packet_ms // 8000
    return (payload + 78) * 8


# --- what a host needs --------------------------------------------------------


def messages_per_second(load: Load) -> float:
    """SIP messages that the edge with the addresses receives in a bad second."""
    return burst(load.cps) * MESSAGES_PER_CALL + load.registrations * (
        2 / REGISTRATION_STORM_SECONDS + 1 / NAT_PING_SECONDS
    )


def relay_sessions(load: Load) -> int:
    """Sessions of one relay."""
    return share(SESSIONS_PER_CALL * load.calls, load.nodes["media"], load.spare)


def pbx_calls(load: Load) -> int:
    """Calls of one PBX node."""
    return share(load.calls, load.nodes["pbx"], load.spare)


def pbx_cps(load: Load) -> float:
    """New calls per second of one PBX node."""
    return burst(load.cps) / max(1, load.nodes["pbx"] - load.spare)


def packets_per_second(load: Load, function: str) -> float:
    """RTP packets per second that one host of a function receives, and as many that it sends."""
    streams = {
        "media": 2 * relay_sessions(load) if "media" in load.nodes else 0,
        "pbx": 2 * pbx_calls(load) if "pbx" in load.nodes else 0,
    }[function]
    return streams * 1000 / load.packet_ms


def conntrack_entries(load: Load, host: Host) -> float:
    """Flows that conntrack holds at the peak."""
    entries = float(CONNTRACK_STRANGERS)
    if "edge" in host.functions:
        entries += load.registrations + TCP_TIME_WAIT * load.nodes.get("edge", 1)
    if {"edge", "pbx"} & set(host.functions):
        entries += TCP_TIME_WAIT * load.nodes.get("database", 0)
    if "database" in host.functions:
        clients = load.nodes.get("edge", 0) + load.nodes.get("pbx", 0)
        entries += TCP_TIME_WAIT * clients + database_connections(load)
    if not load.untracked:
        if "media" in host.functions:
            ended = burst(load.cps) * UDP_STREAM_TIMEOUT
            sessions = share(
                SESSIONS_PER_CALL * (load.calls + ended), load.nodes["media"], load.spare
            )
            begun = ended * CONNTRACK_PER_CALL_SETUP
            entries += sessions * CONNTRACK_PER_SESSION + begun
        if "pbx" in host.functions:
            entries += (pbx_calls(load) + pbx_cps(load) * UDP_STREAM_TIMEOUT) * PBX_PORTS_PER_CALL
    return entries


def pool_connections(load: Load) -> int:
    """Connections of one PBX node for looking up subscribers."""
    return max(4, math.ceil(HEADROOM * pbx_cps(load) * LOOKUPS_PER_CALL * LOOKUP_SECONDS))


def database_connections(load: Load) -> int:
    """Connections to the server that all clients use, all nodes being there."""
    return (
        load.nodes.get("pbx", 0) * (pool_connections(load) + RECORD_CONNECTIONS)
        + load.nodes.get("edge", 0) * AGENT_CONNECTIONS
        + ADMIN_CONNECTIONS
    )


def shared_memory_mb(load: Load) -> float:
    """Kamailio's shared memory with all phones registered and all calls up."""
    rows = 2 * load.registrations * KAMAILIO_ROW_BYTES
    locations = load.registrations * KAMAILIO_CONTACT_BYTES
    others = max(0, load.nodes.get("edge", 1) - 1)
    replicas = min(load.registrations, REPLICAS_AT_ONCE) * KAMAILIO_REPLICA_BYTES * others
    transactions = burst(load.cps) * TRANSACTION_SECONDS_PER_CALL * KAMAILIO_TRANSACTION_BYTES
    dialogs = 2 * load.calls * KAMAILIO_DIALOG_BYTES
    connections = load.registrations * KAMAILIO_TCP_BYTES
    parts = (rows, locations, replicas, transactions, dialogs, connections)
    return KAMAILIO_BASE_MB + sum(parts) / MB


def needs(load: Load, host: Host) -> dict[str, float]:
    """What the host must hold at the peak, by the name of the limit that holds it."""
    found: dict[str, float] = {"conntrack_max": conntrack_entries(load, host)}
    functions = set(host.functions)
    if "edge" in functions:
        found["kamailio_calls_per_second"] = burst(load.cps)
        found["kamailio_shared_memory"] = shared_memory_mb(load)
        found["kamailio_receive_buffer"] = messages_per_second(load) * STALL_SECONDS * SIP_TRUESIZE
        found["kamailio_flood_requests_per_second"] = burst(load.cps) * REQUESTS_PER_CALL
        found["kamailio_children"] = 2 * (
            messages_per_second(load) * MESSAGE_SECONDS
            + burst(load.cps) * MEDIA_COMMANDS_PER_CALL * MEDIA_COMMAND_SECONDS
        )
    if "media" in functions:
        sessions = relay_sessions(load)
        ports = sessions * ports_per_session(host.addresses)
        found["rtpengine_max_sessions"] = sessions
        found["rtpengine_port_last"] = load.ports["relay_rtp_first"] + ports - 1
        found["rtpengine_open_files"] = sessions * RELAY_FILES_PER_SESSION + 512
    if "pbx" in functions:
        calls = pbx_calls(load)
        found["asterisk_max_calls"] = calls
        found["asterisk_rtp_last"] = load.ports["pbx_rtp_first"] + calls * PBX_PORTS_PER_CALL - 1
        found["asterisk_open_files"] = calls * PBX_FILES_PER_CALL + 512
    if "database" in functions:
        found[f"{load.engine}_max_connections"] = database_connections(load)
    return found


# --- what is configured -------------------------------------------------------


def limits(load: Load, host: Host) -> dict[str, t.Any]:
    """Every limit of the host, as FIGURES describes them."""
    need = needs(load, host)
    functions = set(host.functions)
    found: dict[str, t.Any] = {}
    if "edge" in functions:
        connections = math.ceil(HEADROOM * load.registrations) + 256
        found |= {
            "kamailio_calls_per_second": int(need["kamailio_calls_per_second"]),
            "kamailio_children": max(4, math.ceil(need["kamailio_children"])),
            "kamailio_shared_memory": round_up(HEADROOM * need["kamailio_shared_memory"], 16),
            "kamailio_private_memory": 16 + math.ceil(connections * 64 / MB),
            "kamailio_receive_buffer": max(
                256 * KB, round_up(need["kamailio_receive_buffer"], 64 * KB)
            ),
            "kamailio_tcp_connections": connections,
            "kamailio_open_files": round_up(connections + 1024, 1024),
            "kamailio_flood_requests_per_second": max(
                500, round_up(HEADROOM * need["kamailio_flood_requests_per_second"], 100)
            ),
        }
    if "media" in functions:
        first, ports = load.ports["relay_rtp_first"], need["rtpengine_port_last"]
        found |= {
            "rtpengine_max_sessions": int(need["rtpengine_max_sessions"]),
            "rtpengine_port_first": first,
            "rtpengine_port_last": _last_port(load, "relay_rtp", int(ports)),
            "rtpengine_threads": max(4, host.cores),
            "rtpengine_open_files": round_up(HEADROOM * need["rtpengine_open_files"], 1024),
        }
    if "pbx" in functions:
        first, ports = load.ports["pbx_rtp_first"], need["asterisk_rtp_last"]
        found |= {
            "asterisk_max_calls": int(need["asterisk_max_calls"]),
            "asterisk_rtp_first": first,
            "asterisk_rtp_last": _last_port(load, "pbx_rtp", int(ports)),
            "asterisk_open_files": round_up(HEADROOM * need["asterisk_open_files"], 1024),
            "asterisk_database_connections": pool_connections(load),
        }
    if "database" in functions:
        found |= _database_limits(load, host, need)
    if {"edge", "pbx"} & functions:
        clients = AGENT_CONNECTIONS if "edge" in functions else 0
        if "pbx" in functions:
            clients += pool_connections(load) + RECORD_CONNECTIONS
        connections = 2 * clients + 64
        found |= {
            "haproxy_max_connections": connections,
            "haproxy_open_files": round_up(2 * connections + 256, 1024),
        }
    entries = max(16384, round_up(HEADROOM * need["conntrack_max"], 1024))
    found |= {
        "conntrack_max": entries,
        "conntrack_buckets": 2 * entries,
        "notrack": _untracked_ranges(load, found),
        "sysctl": _sysctl(load, host, found),
    }
    return found


def _last_port(load: Load, name: str, needed_last: int) -> int:
    """A port rests before it is used again: twice the need, a thousand at least, if there are."""
    first, last = load.ports[f"{name}_first"], load.ports[f"{name}_last"]
    return min(last, first + max(1000, 2 * (needed_last - first + 1)) - 1)


def _database_limits(load: Load, host: Host, need: Mapping[str, float]) -> dict[str, t.Any]:
    per_hour = load.calls / load.hold_seconds * 3600
    pool = max(128, round_up((load.registrations * 16 + per_hour * 2 * 2) / KB, 64))
    connections = max(64, round_up(HEADROOM * need[f"{load.engine}_max_connections"], 10))
    if load.engine == "postgresql":
        return {
            "postgresql_shared_buffers_mb": pool,
            "postgresql_wal_keep_mb": max(512, round_up(per_hour * 2 * 4 / KB, 64)),
            "postgresql_max_connections": connections,
            "postgresql_open_files": round_up(2 * 1000 + 5 * connections + 1024, 1024),
        }
    return {
        "galera_buffer_pool_mb": pool,
        "galera_redo_log_mb": max(96, round_up(pool / 4, 32)),
        "galera_gcache_mb": max(128, round_up(per_hour * 2 * 4 / KB, 64)),
        "galera_appliers": max(4, host.cores),
        "galera_max_connections": connections,
        "galera_open_files": round_up(2 * 2000 + 5 * connections + 1024, 1024),
    }


def _untracked_ranges(load: Load, found: Mapping[str, t.Any]) -> list[list[int]]:
    if not load.untracked:
        return []
    pairs = [
        (found[f"{daemon}_first"], found[f"{daemon}_last"])
        for daemon in ("asterisk_rtp", "rtpengine_port")
        if f"{daemon}_first" in found
    ]
    return [list(pair) for pair in ranges(pairs)]


def _sysctl(load: Load, host: Host, found: Mapping[str, t.Any]) -> dict[str, t.Any]:
    functions = set(host.functions)
    packets = sum(packets_per_second(load, f) for f in ("media", "pbx") if f in functions)
    signalling = 0.0
    if "edge" in functions:
        signalling += messages_per_second(load)
    if "pbx" in functions:
        signalling += pbx_cps(load) * MESSAGES_PER_CALL
    # The busiest socket that takes the default: Asterisk's SIP, or a relay's control port.
    busiest = 0.0
    if "pbx" in functions:
        busiest = pbx_cps(load) * MESSAGES_PER_CALL
    if "media" in functions:
        carriers = max(1, load.nodes["media"] - load.spare)
        busiest = max(busiest, burst(load.cps) * MEDIA_COMMANDS_PER_CALL / carriers)
    default = max(212992, round_up(busiest * STALL_SECONDS * SIP_TRUESIZE, 4 * KB))
    send = max(212992, round_up(signalling * MEDIA_STALL_SECONDS * SIP_TRUESIZE, 4 * KB))
    buffered = packets * MEDIA_STALL_SECONDS * RTP_TRUESIZE + signalling * SIP_TRUESIZE
    pages = max(16384, round_up(2 * buffered / 4096, 1024))
    reserved = reserved_ports(load.ports)
    first, last, _left = ephemeral_range(reserved)
    files = [number for name, number in found.items() if name.endswith("_open_files")]
    backlog = max(1000, round_up((packets + signalling) * 0.1, 100))
    return {
        "net.core.rmem_default": default,
        "net.core.rmem_max": max(default, found.get("kamailio_receive_buffer", 0)),
        "net.core.wmem_default": send,
        "net.core.wmem_max": send,
        "net.core.netdev_max_backlog": backlog,
        "net.core.somaxconn": max(4096, found.get(f"{load.engine}_max_connections", 0)),
        "net.ipv4.udp_mem": f"{pages // 2} {pages * 3 // 4} {pages}",
        "net.ipv4.ip_local_port_range": f"{first} {last}",
        "net.ipv4.ip_local_reserved_ports": range_text(reserved),
        "net.netfilter.nf_conntrack_udp_timeout": UDP_TIMEOUT,
        "net.netfilter.nf_conntrack_udp_timeout_stream": UDP_STREAM_TIMEOUT,
        "fs.nr_open": max([1048576, *files]),
    }


def override(planned: Mapping[str, t.Any], own: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Limits with the operator's own in place of the planned ones, as far as the host has them."""
    changed = {name: own.get(name, value) for name, value in planned.items()}
    changed["sysctl"] = {**planned["sysctl"], **own.get("sysctl", {})}
    return changed


def _own_names(planned: Mapping[str, t.Any], found: Mapping[str, t.Any]) -> list[str]:
    """Names of limits that are not as planned, those inside C(sysctl) by their own."""
    names = [name for name in planned if name != "sysctl" and planned[name] != found[name]]
    inner = found["sysctl"]
    return names + [key for key in inner if inner[key] != planned["sysctl"].get(key)]


# --- what it takes of the host ------------------------------------------------


def memory_parts(load: Load, host: Host, found: Mapping[str, t.Any]) -> dict[str, int]:
    """Megabytes that each part of the host takes, from its limits."""
    functions = set(host.functions)
    parts: dict[str, float] = {"system": OS_MB}
    sockets = 0.0
    if "edge" in functions:
        processes = 4 * found["kamailio_children"] + KAMAILIO_OTHER_PROCESSES
        parts["edge"] = (
            EDGE_BASE_MB + found["kamailio_shared_memory"] + processes * KAMAILIO_PROCESS_MB
        )
    if "media" in functions:
        sessions = found["rtpengine_max_sessions"]
        parts["media"] = MEDIA_BASE_MB + sessions * MEDIA_SESSION_KB / KB
        sockets += sessions * RELAY_FILES_PER_SESSION
    if "pbx" in functions:
        calls = found["asterisk_max_calls"]
        parts["pbx"] = PBX_BASE_MB + calls * PBX_CALL_KB / KB
        sockets += calls * PBX_PORTS_PER_CALL
    if {"edge", "pbx"} & functions:
        parts["haproxy"] = HAPROXY_BASE_MB + found["haproxy_max_connections"] * 34 / KB
    if "database" in functions:
        connections = found[f"{load.engine}_max_connections"]
        buffers = {"galera": "galera_buffer_pool_mb", "postgresql": "postgresql_shared_buffers_mb"}
        parts["database"] = (
            DATABASE_BASE_MB
            + found[buffers[load.engine]] * 1.1
            + connections * DATABASE_CONNECTION_MB[load.engine]
        )
    if "storage" in functions:
        parts["storage"] = STORAGE_MB
    tracking = found["conntrack_max"] * CONNTRACK_BYTES + found["conntrack_buckets"] * 8
    packets = int(str(found["sysctl"]["net.ipv4.udp_mem"]).split()[-1]) * 4096
    parts["kernel"] = (tracking + packets + sockets * SOCKET_BYTES) / MB
    return {name: math.ceil(value) for name, value in parts.items()}


def core_parts(load: Load, host: Host) -> dict[str, float]:
    """Cores that each function keeps busy at the peak."""
    parts: dict[str, float] = {}
    for function in host.functions:
        busy = IDLE_CORES[function]
        if function == "edge":
            busy += messages_per_second(load) * EDGE_MESSAGE_CORE_SECONDS
        elif function == "media":
            busy += (
                relay_sessions(load)
                / RELAY_SESSIONS_PER_CORE[load.forwarding]
                * (20 / load.packet_ms)
            )
        elif function == "pbx":
            busy += pbx_calls(load) / PBX_CALLS_PER_CORE * (20 / load.packet_ms)
            busy += pbx_cps(load) * PBX_SETUP_CORE_SECONDS
        elif function == "database":
            busy += burst(load.cps) * DATABASE_CALL_CORE_SECONDS
        parts[function] = round(busy, 3)
    return parts


def expected(load: Load, host: Host, found: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What the host will see at the peak: cores, memory_mb (by part), packets, Mbit/s."""
    seen: dict[str, t.Any] = {
        "cores": core_parts(load, host),
        "memory_mb": memory_parts(load, host, found),
    }
    if "media" in host.functions:
        packets = packets_per_second(load, "media")
        seen["relay_packets_per_second"] = math.ceil(packets)
        seen["relay_mbit_per_second"] = math.ceil(
            packets * packet_bits(load.codecs, load.packet_ms) / 1e6
        )
    return seen


# --- what a tier carries ------------------------------------------------------

LIMITING: dict[str, tuple[str, ...]] = {
    "edge": ("kamailio_calls_per_second", "kamailio_shared_memory"),
    "media": ("rtpengine_max_sessions", "rtpengine_port_last", "rtpengine_open_files"),
    "pbx": ("asterisk_max_calls", "asterisk_rtp_last", "asterisk_open_files"),
}
"""Limits that end what a tier carries, besides cores, memory_mb and conntrack_max of its hosts."""
CARRIES_AT_MOST = 100
"""A limit that carries this many times the planned calls limits nothing."""


def limiting(load: Load, function: str) -> tuple[str, ...]:
    """LIMITING of a function; of the database by its engine."""
    if function == "database":
        return (f"{load.engine}_max_connections",)
    return LIMITING[function]


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to C(most) that fits, 0 when none does."""
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def carried(load: Load, host: Host, found: Mapping[str, t.Any], name: str) -> int:
    """Calls of the whole cluster that one limit of this host lets through."""

    def fits(calls: int) -> bool:
        other = load.at(calls)
        if name == "cores":
            return sum(core_parts(other, host).values()) <= host.cores * USABLE_CORES
        if name == "memory_mb":
            return sum(memory_parts(other, host, limits(other, host)).values()) <= host.memory_mb
        return needs(other, host)[name] <= float(found[name])

    return largest(fits, CARRIES_AT_MOST * load.calls)


def needed_nodes(load: Load, function: str, host: Host) -> int:
    """Nodes like this host that the function needs to carry the load with the spare missing."""
    if function == "edge":
        return 1 + load.spare
    if function == "database":
        return 2 * load.spare + 1
    if function not in ("media", "pbx"):
        return max(1, load.nodes.get(function, 0))

    def carries(nodes: int) -> bool:
        other = dataclasses.replace(load, nodes={**load.nodes, function: nodes})
        return not any(_shortages(other, host, (function,)))

    # More nodes never carry less, so the smallest number is found by halving.
    # Nodes with one session and one new call a second each would do.
    low, high = load.spare, load.spare + 2 * load.calls + burst(load.cps) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if carries(middle) else (middle, high)
    return high


def _shortages(load: Load, host: Host, functions: Iterable[str]) -> Iterator[str]:
    """Ports and cores that are too few for these functions of the host alone."""
    alone = dataclasses.replace(host, functions=tuple(functions))
    need = needs(load, alone)
    for name, last in (("rtpengine_port_last", "relay_rtp"), ("asterisk_rtp_last", "pbx_rtp")):
        if name in need and need[name] > load.ports[f"{last}_last"]:
            yield last
    if sum(core_parts(load, alone).values()) > host.cores * USABLE_CORES:
        yield "cores"


# --- the plan of a cluster ----------------------------------------------------


@dataclasses.dataclass
class Plan:
    """Limits, the operator's own among them, and expectations by host; what the tiers carry; what
    is wrong; what is worth saying."""

    limits: dict[str, dict[str, t.Any]]
    own: dict[str, list[str]]
    expected: dict[str, dict[str, t.Any]]
    tiers: dict[str, dict[str, t.Any]]
    errors: list[str]
    remarks: list[str]


class Model(t.NamedTuple):
    """Hosts that are alike, and their limits."""

    host: Host
    limits: dict[str, t.Any]
    names: list[str]

    def has(self, name: str) -> int:
        """What there is of a limit, or of cores and memory."""
        size = {"cores": self.host.cores, "memory_mb": self.host.memory_mb}.get(name)
        return int(self.limits[name]) if size is None else size


def make_plan(
    load: Load,
    hosts: Mapping[str, Host],
    members: Mapping[str, Sequence[str]],
    own: Mapping[str, Mapping[str, t.Any]] | None = None,
) -> Plan:
    """Plan all hosts. C(own): host to the operator's own limits, in which own_errors finds none."""
    own = own or {}
    groups: dict[t.Any, list[str]] = {}
    for name, host in hosts.items():
        groups.setdefault((host, _frozen(own.get(name) or {})), []).append(name)
    plan = Plan({}, {}, {}, {}, [], [])
    models: list[Model] = []
    for (host, _own), names in groups.items():
        planned = limits(load, host)
        found = override(planned, own.get(names[0]) or {})
        seen = expected(load, host, found)
        models.append(Model(host, found, names))
        plan.limits |= dict.fromkeys(names, found)
        plan.own |= dict.fromkeys(names, _own_names(planned, found))
        plan.expected |= dict.fromkeys(names, seen)
        plan.errors += _host_errors(host, seen, names)
    plan.errors[:0] = [
        *_port_errors(load, hosts, members),
        *_ephemeral_errors(load),
    ]
    plan.remarks += _remarks(load)
    plan.tiers = {
        function: _tier(
            load, function, [model for model in models if function in model.host.functions]
        )
        for function in TIERS
        if members.get(function)
    }
    for function, tier in plan.tiers.items():
        if not plan.errors and tier["carries"] < load.calls:
            plan.remarks.append(
                f"{function} carries {tier['carries']} calls, fewer than ringmain_peak_calls "
                f"{load.calls}: ringmain_limits sets {tier['first_limit']} lower than planned"
            )
    return plan


def plan_of(hosts: Mapping[str, Mapping[str, t.Any]], **options: t.Any) -> Plan:
    """The plan of hosts given as plain dictionaries and of Load's fields, C(nodes) left out."""
    declared = {
        name: Host(
            int(host["cores"]),
            int(host["memory_mb"]),
            tuple(host["functions"]),
            int(host.get("addresses", 2)),
        )
        for name, host in hosts.items()
    }
    members = {
        function: [name for name, host in declared.items() if function in host.functions]
        for function in IDLE_CORES
    }
    options["codecs"] = tuple(options.get("codecs", ("PCMA", "PCMU")))
    options["ports"] = {**PORTS, **options.get("ports", {})}
    load = Load(nodes={f: len(names) for f, names in members.items() if names}, **options)
    plan = make_plan(load, declared, members)
    plan.errors[:0] = node_errors(members, load.spare)
    return plan


def _frozen(value: t.Any) -> t.Any:
    if isinstance(value, Mapping):
        return tuple(sorted((key, _frozen(inner)) for key, inner in value.items()))
    if isinstance(value, list):
        return tuple(_frozen(inner) for inner in value)
    return value


def _tier(load: Load, function: str, models: Sequence[Model]) -> dict[str, t.Any]:
    """What one tier carries: its weakest host decides, for all get equal shares."""
    carries: dict[str, int] = {}
    for name in (*limiting(load, function), "cores", "memory_mb", "conntrack_max"):
        carries[name] = min(
            carried(load, model.host, model.limits, name) for model in _weakest(models, name)
        )
    order = sorted(carries, key=lambda name: carries[name])
    least = min(models, key=lambda model: (model.host.cores, model.host.memory_mb)).host
    busy = sum(core_parts(load, model.host)[function] * len(model.names) for model in models)
    return {
        "nodes": load.nodes[function],
        "needed": needed_nodes(load, function, least),
        "spare": load.spare,
        "cores": round(busy, 2),
        "carries": carries[order[0]],
        "first_limit": order[0],
        "limits": [
            {"name": name, "carries": carries[name]}
            for name in order
            if carries[name] < CARRIES_AT_MOST * load.calls
        ],
    }


def _weakest(models: Iterable[Model], name: str) -> Iterable[Model]:
    """Of each kind of host the one that has the least of something: the others carry no less."""
    found: dict[t.Any, Model] = {}
    for model in models:
        kind = (model.host.functions, model.host.addresses)
        if kind not in found or model.has(name) < found[kind].has(name):
            found[kind] = model
    return found.values()


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"host {shown} has" if len(names) == 1 else f"hosts {shown} each have"


def _missing(load: Load, function: str) -> str:
    nodes, spare = load.nodes[function], load.spare
    if nodes <= spare:
        return f"on {nodes} host{'s' if nodes > 1 else ''}"
    return f"with {spare} of {nodes} hosts missing" if spare else f"on {nodes} hosts"


def _port_errors(
    load: Load, hosts: Mapping[str, Host], members: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """A range of ports that the load outgrows: how many hosts, or addresses, would hold it."""
    if members.get("media"):
        addresses = min(hosts[name].addresses for name in members["media"])
        sessions = relay_sessions(load)
        each = ports_per_session(addresses)
        first, last = load.ports["relay_rtp_first"], load.ports["relay_rtp_last"]
        if sessions * each > last - first + 1:
            sides = (
                "its one address" if addresses == 1 else "its outside and its inside address alike"
            )
            more = _relays_for(load, addresses, last - first + 1)
            widest = _relays_for(load, addresses, 65535 - first + 1)
            yield (
                f"group media: {load.calls} calls {_missing(load, 'media')} are {sessions} relay "
                f"sessions on one relay ({SESSIONS_PER_CALL} for each call), which take "
                f"{sessions * each} ports on {sides}; relay_rtp {first}-{last} has "
                f"{last - first + 1}. It takes {more} relays with addresses of their own, the "
                f"spare among them (or {widest} with ringmain_ports.relay_rtp_last 65535): add "
                "relays, or lower ringmain_peak_calls"
            )
    if members.get("pbx"):
        calls = pbx_calls(load)
        first, last = load.ports["pbx_rtp_first"], load.ports["pbx_rtp_last"]
        if calls * PBX_PORTS_PER_CALL > last - first + 1:
            fits = (last - first + 1) // PBX_PORTS_PER_CALL
            more = load.spare + _carriers(load.calls, fits)
            yield (
                f"group pbx: {load.calls} calls {_missing(load, 'pbx')} are {calls} calls on one "
                f"node, which take {calls * PBX_PORTS_PER_CALL} ports; pbx_rtp {first}-{last} has "
                f"{last - first + 1}. It takes {more} nodes, the spare among them: add nodes, "
                "widen the range in ringmain_ports, or lower ringmain_peak_calls"
            )


def _carriers(total: int, fits: int) -> int:
    """The fewest nodes of which each gets no more than C(fits) of C(total) things."""
    if total <= fits:
        return 1
    low, high = 1, total + 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if share(total, middle, 0) <= fits else (middle, high)
    return high


def _relays_for(load: Load, addresses: int, ports: int) -> int:
    fits = ports // ports_per_session(addresses)
    return load.spare + _carriers(SESSIONS_PER_CALL * load.calls, fits)


def node_errors(members: Mapping[str, Sequence[str]], spare: int) -> Iterator[str]:
    """Functions that have nodes, and too few of them to lose the spare ones."""
    for function in TIERS:
        nodes = len(members.get(function, ()))
        carriers = spare + 1 if function == "database" else 1
        if 0 < nodes < carriers + spare:
            why = f"{carriers} are a majority" if function == "database" else "1 carries all calls"
            yield (
                f"group {function} has {nodes} host{'s' if nodes > 1 else ''} "
                f"({', '.join(members[function])}), and ringmain_spare_nodes {spare} may be "
                f"missing: {why}, so it takes {carriers + spare}; add {carriers + spare - nodes}"
                # Addresses do not float between fewer than two edges.
                + ("" if function == "edge" and spare == 1 else ", or lower ringmain_spare_nodes")
            )


def _ephemeral_errors(load: Load) -> Iterator[str]:
    _first, _last, left = ephemeral_range(reserved_ports(load.ports))
    if left < EPHEMERAL_PORTS:
        yield (
            f"ringmain_ports leaves {left} ports in a row for outgoing connections, and a host "
            f"needs {EPHEMERAL_PORTS}: make relay_rtp or pbx_rtp narrower"
        )


def _host_errors(host: Host, seen: Mapping[str, t.Any], names: Sequence[str]) -> Iterator[str]:
    """Parts that are more than the whole."""
    memory, cores = seen["memory_mb"], seen["cores"]
    if sum(memory.values()) > host.memory_mb:
        listed = ", ".join(f"{part} {size}" for part, size in memory.items())
        yield (
            f"{_named(names)} {host.memory_mb} MB of memory, and the plan needs "
            f"{sum(memory.values())} ({listed}): add memory, give functions to other hosts, or "
            "lower ringmain_peak_calls or ringmain_registrations"
        )
    busy = sum(cores.values())
    if busy > host.cores * USABLE_CORES:
        listed = ", ".join(f"{part} {size:.1f}" for part, size in cores.items())
        yield (
            f"{_named(names)} {host.cores} cores, of which {host.cores * USABLE_CORES:g} may be "
            f"busy, and the plan needs {busy:.1f} ({listed}): add "
            f"{math.ceil(busy / USABLE_CORES) - host.cores} cores, add hosts, or lower "
            "ringmain_peak_calls"
        )


def _remarks(load: Load) -> Iterator[str]:
    if load.cps * load.hold_seconds > load.calls:
        yield (
            f"ringmain_peak_cps {load.cps:g} for ringmain_hold_seconds {load.hold_seconds} would "
            f"be {load.cps * load.hold_seconds:g} calls: it is taken for a burst, of "
            f"{load.calls / load.cps:.0f} s at most, after which ringmain_peak_calls {load.calls} "
            "is reached"
        )


def pace_errors(calls: int, cps: float, hold_seconds: int) -> Iterator[str]:
    """Little's law: calls at once are new calls per second times seconds that a call lasts."""
    needed = math.ceil(calls / hold_seconds)
    if cps < needed and cps * hold_seconds < calls:
        yield (
            f"ringmain_peak_calls {calls} of ringmain_hold_seconds {hold_seconds} take "
            f"{calls / hold_seconds:.1f} new calls per second, and ringmain_peak_cps is {cps:g}: "
            f"raise it to {needed} or correct one of the others"
        )


# --- the catalogue ------------------------------------------------------------


class Figure(t.NamedTuple):
    """Unit, formula in words, and where the formula comes from."""

    unit: str
    formula: str
    source: str


FIGURES: dict[str, Figure] = {
    # edge
    "kamailio_calls_per_second": Figure(
        "calls/s",
        "ringmain_peak_cps and three standard deviations; one edge holds the addresses and takes "
        "all of them. More get 503",
        "calls come at random (Poisson)",
    ),
    "kamailio_children": Figure(
        "processes",
        "for each UDP socket, and for TCP: twice the messages per second × 1 ms plus calls per "
        "second × 10 relay commands × 2 ms; at least 4",
        "half busy on average; a command waits for the relay's answer (rtpengine module)",
    ),
    "kamailio_shared_memory": Figure(
        "MB",
        "16 MB; for each registration 2 KB of location, two rows of 0.5 KB, 20 KB of TCP "
        "connection and (25,000 at most) 8 KB for a message to each other edge; for each call per "
        "second 80 transaction-seconds × 16 KB; for each call two dialogs of 2 KB; a quarter more",
        "measured with core.shmmem; transactions: 20 s of ringing and 5 s of memory (tm)",
    ),
    "kamailio_private_memory": Figure(
        "MB",
        "for each process: 16 MB and 64 bytes for each TCP connection",
        "configuration and message buffers; the TCP main process keeps a table of connections",
    ),
    "kamailio_receive_buffer": Figure(
        "bytes",
        "for each UDP socket: messages per second × 1 s × 4352 bytes; at least 256 KB",
        "what comes while all processes wait for a relay that died; struct sk_buff counts too",
    ),
    "kamailio_tcp_connections": Figure(
        "connections",
        "a quarter more than registrations, and 256",
        "every phone may use TCP",
    ),
    "kamailio_open_files": Figure(
        "files", "TCP connections and 1024", "one file for each connection, in the TCP main process"
    ),
    "kamailio_flood_requests_per_second": Figure(
        "requests/s",
        "from one address: calls per second × 6 requests and a quarter more; at least 500",
        "one trunk may bring all calls",
    ),
    # media
    "rtpengine_max_sessions": Figure(
        "sessions",
        "2 × ringmain_peak_calls ÷ relays that are left, and three standard deviations. More get "
        "503",
        "a call between phones is two dialogs, each with its own session, on relays chosen at "
        "random",
    ),
    "rtpengine_port_first": Figure("port", "ringmain_ports.relay_rtp_first", "the table of ports"),
    "rtpengine_port_last": Figure(
        "port",
        "first + sessions × 2 ports on each of two addresses, or × 4 on one; twice that (a port "
        "rests before it is used again) and at least 1000, as far as relay_rtp_last",
        "rtpengine 12.5 daemon/media_socket.c: RTP and RTCP for each side, from one pool for each "
        "local address",
    ),
    "rtpengine_threads": Figure("threads", "one for each core, at least 4", "rtpengine's own rule"),
    "rtpengine_open_files": Figure(
        "files",
        "sessions × 4 sockets and 512; a quarter more",
        "one socket for each port",
    ),
    # pbx
    "asterisk_max_calls": Figure(
        "calls",
        "ringmain_peak_calls ÷ nodes that are left, and three standard deviations. More get 503",
        "the edge deals calls out evenly; their lengths are random",
    ),
    "asterisk_rtp_first": Figure("port", "ringmain_ports.pbx_rtp_first", "the table of ports"),
    "asterisk_rtp_last": Figure(
        "port",
        "first + calls × 4; twice that and at least 1000, as far as pbx_rtp_last",
        "two channels, RTP and RTCP each, held for the whole call also with direct media",
    ),
    "asterisk_open_files": Figure(
        "files", "calls × 10 and 512; a quarter more", "10 counted for each bridged call"
    ),
    "asterisk_database_connections": Figure(
        "connections",
        "calls per second of one node × 4 look-ups × 20 ms and a quarter more; at least 4",
        "subscribers that are not in memory are looked up while a caller waits",
    ),
    # database
    "galera_buffer_pool_mb": Figure(
        "MB",
        "16 KB for each registration and one hour of call records (2 × 2 KB for each call); at "
        "least 128",
        "what is read again should be in memory",
    ),
    "galera_redo_log_mb": Figure(
        "MB", "a quarter of the buffer pool; at least 96", "MariaDB: innodb_log_file_size"
    ),
    "galera_gcache_mb": Figure(
        "MB",
        "one hour of writes, 2 × 4 KB for each call; at least 128",
        "a member that was away for less comes back without a full copy (IST)",
    ),
    "galera_appliers": Figure(
        "threads", "one for each core, at least 4", "MariaDB: wsrep_slave_threads"
    ),
    "galera_max_connections": Figure(
        "connections",
        "PBX nodes × (their pool + 4 for records) + edges × 4 + 32 for schema, health and "
        "administrators; a quarter more, at least 64",
        "all clients use one server at a time",
    ),
    "galera_open_files": Figure(
        "files",
        "2 × 2000 tables, 5 for each connection and 1024",
        "MariaDB: open_files_limit and table_open_cache",
    ),
    "postgresql_shared_buffers_mb": Figure(
        "MB",
        "16 KB for each registration and one hour of call records (2 × 2 KB for each call); at "
        "least 128",
        "what is read again should be in memory",
    ),
    "postgresql_wal_keep_mb": Figure(
        "MB",
        "one hour of writes, 2 × 4 KB for each call; at least 512",
        "a member that was away for less comes back without a full copy",
    ),
    "postgresql_max_connections": Figure(
        "connections",
        "PBX nodes × (their pool + 4 for records) + edges × 4 + 32 for schema, health and "
        "administrators; a quarter more, at least 64",
        "all clients use one server at a time; each connection is a process",
    ),
    "postgresql_open_files": Figure(
        "files",
        "1000 for a process and as much for all others, 5 for each connection and 1024",
        "PostgreSQL: max_files_per_process",
    ),
    # clients of the database
    "haproxy_max_connections": Figure(
        "connections",
        "twice the connections of this host's clients, and 64",
        "pools reconnect while the old connections still close",
    ),
    "haproxy_open_files": Figure(
        "files", "two for each connection, and 256", "HAProxy: one towards each side"
    ),
    # kernel
    "conntrack_max": Figure(
        "flows",
        "4096 for strangers, one for each registration, health checks × 120 s; where audio is "
        "tracked, 4 for each session and 4 for each call set up, those of calls that ended in the "
        "last 120 s too, and 4 for each call of a PBX; a quarter more, at least 16384",
        "a flow with two directions is forgotten after 120 s (nf_conntrack_udp_timeout_stream)",
    ),
    "conntrack_buckets": Figure(
        "buckets",
        "2 × conntrack_max",
        "each flow stands in the table twice, once for each direction (Linux commit d532bcd0)",
    ),
    "notrack": Figure(
        "UDP ports",
        "the port ranges of this host's RTPEngine and Asterisk, with ringmain_firewall",
        "audio that is not tracked cannot fill the table",
    ),
    "net.core.rmem_default": Figure(
        "bytes",
        "messages per second on the busiest socket that takes the default × 1 s × 4352 bytes; at "
        "least 212992",
        "neither Asterisk nor RTPEngine sets SO_RCVBUF",
    ),
    "net.core.rmem_max": Figure(
        "bytes",
        "the larger of rmem_default and kamailio_receive_buffer",
        "Kamailio asks for its buffer (maxbuffer)",
    ),
    "net.core.wmem_default": Figure(
        "bytes",
        "messages per second × 0.25 s × 4352 bytes; at least 212992",
        "what is sent while the network card is busy",
    ),
    "net.core.wmem_max": Figure("bytes", "as wmem_default", "nothing asks for more"),
    "net.core.netdev_max_backlog": Figure(
        "packets",
        "packets per second × 0.1 s; at least 1000",
        "all of them may come through one core (one queue of the card, or loopback)",
    ),
    "net.core.somaxconn": Figure(
        "connections",
        "the larger of 4096 and the database's connections",
        "all pools may come at once",
    ),
    "net.ipv4.udp_mem": Figure(
        "pages",
        "high: twice the audio of 0.25 s (2304 bytes a packet) and signalling of 1 s (4352 bytes a "
        "message); at least 16384 pages; low is half of it, pressure three quarters",
        "a ceiling for all UDP sockets together",
    ),
    "net.ipv4.ip_local_port_range": Figure(
        "ports",
        "32768 to 60999 where 4096 of it are not reserved, or else the widest gap in the table",
        "the kernel's default",
    ),
    "net.ipv4.ip_local_reserved_ports": Figure(
        "ports",
        "every port and range of ringmain_ports",
        "or an outgoing connection takes one before its daemon does",
    ),
    "net.netfilter.nf_conntrack_udp_timeout": Figure(
        "s", "30", "the kernel's default, on which conntrack_max rests"
    ),
    "net.netfilter.nf_conntrack_udp_timeout_stream": Figure(
        "s", "120", "the kernel's default, on which conntrack_max rests"
    ),
    "fs.nr_open": Figure(
        "files",
        "the larger of 1048576 and the host's limits of open files",
        "systemd's upper bound",
    ),
    # the hardware
    "cores": Figure(
        "cores",
        "three quarters of ringmain_cores hold what all functions of the host keep busy",
        "audio does not wait for a core",
    ),
    "memory_mb": Figure(
        "MB",
        "ringmain_memory_mb holds 384 MB for the system, all daemons of the host and the "
        "kernel's buffers",
        "the parts add up",
    ),
}
"""All limits by name; the keys of C(sysctl) by their own."""

TEXTS = ("net.ipv4.udp_mem", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports")
"""Keys of C(sysctl) that hold more than one number."""


def own_errors(host: str, own: t.Any) -> Iterator[str]:
    """What is wrong with the operator's own limits of one host."""
    if own in (None, ""):
        return
    if not isinstance(own, Mapping):
        yield f"host {host}: ringmain_limits is {own!r}: write a dictionary of limits and numbers"
        return
    for name, value in own.items():
        if name == "sysctl" and isinstance(value, Mapping):
            for key, inner in value.items():
                if key not in FIGURES or "." not in key:
                    yield (
                        f"host {host}: ringmain_limits.sysctl has {key}, which is not planned: "
                        + _KNOWN
                    )
                elif not (isinstance(inner, str) if key in TEXTS else _is_number(inner)):
                    yield f"host {host}: ringmain_limits.sysctl.{key} is {inner!r}: " + _WHOLE
        elif (
            name == "notrack"
            or name not in FIGURES
            or "." in name
            or name in ("cores", "memory_mb")
        ):
            yield f"host {host}: ringmain_limits has {name}, which is no limit: " + _KNOWN
        elif not _is_number(value):
            yield f"host {host}: ringmain_limits.{name} is {value!r}: " + _WHOLE


_KNOWN = "playbooks/plan.yml lists those there are"
_WHOLE = "write a positive whole number"


def _is_number(value: t.Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
