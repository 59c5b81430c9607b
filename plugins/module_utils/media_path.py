# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the audio of one call really goes, judged from two looks at relays and PBXs.

Pure functions on plain data: what the modules rtpengine_info and asterisk_channels return on every
host, by host name; None stands for a host that could not be asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from .calls import Result

Looks: TypeAlias = Mapping[str, Sequence[Mapping[str, Any]] | None]

# Why a host could not be asked, by kind ("relay" or "PBX") and host.
Reasons: TypeAlias = Mapping[tuple[str, str], str]

# G.711 in frames of 20 ms.
PACKETS_PER_SECOND = 50


@dataclass(frozen=True)
class Expected:
    """How the legs of the call are called, in the order of their Call-IDs."""

    legs: tuple[str, str] = ("caller's leg", "callee's leg")
    watch_seconds: float = 2.0

    @property
    def least_packets(self) -> int:
        """Packets that each side has to send in the time between two looks: half of all."""
        return int(self.watch_seconds * PACKETS_PER_SECOND / 2)


def all_results(
    calls: Mapping[str, Any],
    relays: Mapping[str, Mapping[str, Any]],
    pbxs: Mapping[str, Mapping[str, Any]],
    expected: Expected,
) -> list[dict[str, object]]:
    """What phones, relays and PBXs returned, as one list of plain results.

    `calls`, and each value of `relays` and `pbxs`, is what a task registered: without `results`,
    `sessions` or `channels` it has failed, and `msg` says why.
    """
    if "results" not in calls:
        reason = str(calls.get("msg") or "the probe did not report")
        return [Result("the test calls are made", False, reason, "they are").as_dict()]
    way = judge_path(
        [str(call_id) for call_id in calls["call_ids"]],
        {host: found.get("sessions") for host, found in relays.items()},
        {host: found.get("channels") for host, found in pbxs.items()},
        expected,
        {
            (kind, host): str(found.get("msg", ""))
            for kind, hosts in (("relay", relays), ("PBX", pbxs))
            for host, found in hosts.items()
        },
    )
    return [*calls["results"], *(result.as_dict() for result in way)]


def judge_path(
    call_ids: Sequence[str],
    relays: Looks,
    pbxs: Looks,
    expected: Expected,
    reasons: Reasons | None = None,
) -> list[Result]:
    """All lines of the report about the way of the audio.

    `relays`: sessions, each with `call_id` and `streams` (`local`, `endpoint`, `packets`,
    `packets_before`, `in_kernel`). `pbxs`: channels, each with `channel`, `call_id`, `received`,
    `received_before`, `sent`, `sent_before`. `reasons`: why a host could not be asked.
    """
    why = reasons or {}
    results = [*_silent_hosts("relay", relays, why), *_silent_hosts("PBX", pbxs, why)]
    if len(call_ids) != 2:
        return [*results, Result("way of the audio", False, "no call to look at", "a call")]
    sessions = [_holders(call_id, relays) for call_id in call_ids]
    for leg, call_id, holders in zip(expected.legs, call_ids, sessions, strict=True):
        results.append(_relayed(leg, call_id, holders, expected))
    results.append(_chained(sessions))
    results.extend(_in_kernel(sessions))
    results.extend(_left(call_ids, pbxs, expected))
    return results


def _silent_hosts(kind: str, looks: Looks, reasons: Reasons) -> Iterator[Result]:
    for host, found in sorted(looks.items()):
        if found is None:
            reason = reasons.get((kind, host)) or "it could not be asked"
            yield Result(f"{kind} on {host} answers", False, reason, "an answer")


def _holders(call_id: str, relays: Looks) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (host, session)
        for host, sessions in sorted(relays.items())
        for session in sessions or ()
        if session["call_id"] == call_id
    ]


def _relayed(
    leg: str,
    call_id: str,
    holders: Sequence[tuple[str, Mapping[str, Any]]],
    expected: Expected,
) -> Result:
    check = f"{leg} is relayed"
    wanted = (
        f"on one relay, {expected.least_packets} packets each way in {expected.watch_seconds:g} s"
    )
    if len(holders) != 1:
        where = " and ".join(host for host, _session in holders) or "no relay"
        return Result(check, False, f"on {where}", wanted, (f"Call-ID {call_id}",))
    host, session = holders[0]
    streams = session["streams"]
    grown = [stream["packets"] - stream["packets_before"] for stream in streams]
    ok = len(grown) == 2 and min(grown) >= expected.least_packets
    measured = f"on {host}, {' and '.join(str(count) for count in grown) or 'no'} packets"
    lines = tuple(
        f"{host} {stream['local']} from {stream['endpoint'] or 'nobody yet'}: "
        f"{stream['packets_before']} then {stream['packets']} packets"
        for stream in streams
    )
    return Result(check, ok, measured, wanted, (f"Call-ID {call_id}", *lines))


def _chained(sessions: Sequence[Sequence[tuple[str, Mapping[str, Any]]]]) -> Result:
    """One stream of each session has the other's port at its far end: nobody is in between."""
    check = "the two legs are joined at the relay"
    wanted = "each leg's inner port sends to the other's"
    pairs = [
        (first["local"], second["local"])
        for _host, one in sessions[0]
        for _other, two in sessions[1]
        for first in one["streams"]
        for second in two["streams"]
        if first["endpoint"] == second["local"] and second["endpoint"] == first["local"]
    ]
    if len(pairs) == 1:
        return Result(check, True, " and ".join(pairs[0]), wanted)
    ends = [
        f"{stream['local']} sends to {stream['endpoint'] or 'nobody'}"
        for holders in sessions
        for _host, session in holders
        for stream in session["streams"]
    ]
    return Result(check, False, "; ".join(ends) or "no session", wanted)


def _in_kernel(sessions: Sequence[Sequence[tuple[str, Mapping[str, Any]]]]) -> Iterator[Result]:
    """Each stream on a relay that was asked for its kernel's table is forwarded there."""
    streams = [
        (host, stream)
        for holders in sessions
        for host, session in holders
        for stream in session["streams"]
        if stream.get("in_kernel") is not None
    ]
    if not streams:
        return
    check = "the relays forward in the kernel"
    outside = [f"{host} {each['local']}" for host, each in streams if not each["in_kernel"]]
    measured = f"{len(streams) - len(outside)} of {len(streams)} streams"
    lines = tuple(f"{port} is forwarded in user space" for port in outside)
    yield Result(check, not outside, measured, "all of them", lines)


def _left(call_ids: Sequence[str], pbxs: Looks, expected: Expected) -> Iterator[Result]:
    check = "no audio at the PBX"
    wanted = f"0 packets in {expected.watch_seconds:g} s on both legs"
    channels = [
        (host, channel)
        for host, found in sorted(pbxs.items())
        for channel in found or ()
        if channel["call_id"] in call_ids
    ]
    if sorted(channel["call_id"] for _host, channel in channels) != sorted(call_ids):
        found = ", ".join(f"{channel['channel']} on {host}" for host, channel in channels)
        yield Result(check, False, f"channels found: {found or 'none'}", wanted)
        return
    grown = [
        channel["received"] - channel["received_before"] + channel["sent"] - channel["sent_before"]
        for _host, channel in channels
    ]
    hosts = " and ".join(sorted({host for host, _channel in channels}))
    lines = tuple(
        f"{host} {channel['channel']}: received {channel['received_before']} then "
        f"{channel['received']}, sent {channel['sent_before']} then {channel['sent']}"
        for host, channel in channels
    )
    measured = f"{sum(grown)} packets on {hosts}"
    yield Result(check, not any(grown), measured, wanted, lines)


def table(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The results as lines of text: verdict, check, measured, and what was expected if not ok."""
    if not results:
        return ["nothing was checked"]
    width = max(len(str(result["check"])) for result in results)
    lines = []
    for result in results:
        verdict = "ok    " if result["ok"] else "FAILED"
        line = f"{verdict}  {result['check']:<{width}}  {result['measured']}"
        if not result["ok"]:
            line += f"  (expected: {result['expected']})"
        lines.append(line)
    failed = sum(not result["ok"] for result in results)
    lines.append(f"{len(results)} checks, {f'{failed} failed' if failed else 'all good'}")
    return lines


def evidence(failed: Sequence[Mapping[str, Any]], phones: Mapping[str, Sequence[str]]) -> list[str]:
    """What stands behind failed results, as lines of text: their details, then each phone's log."""
    lines = []
    for result in failed:
        lines += [f"{result['check']}:", f"    measured: {result['measured']}"]
        lines += [f"    expected: {result['expected']}"]
        lines += [f"    {line}" for line in result["detail"]]
    for phone, said in phones.items():
        lines += [f"phone {phone}:", *(f"    {line}" for line in said)]
    return lines
