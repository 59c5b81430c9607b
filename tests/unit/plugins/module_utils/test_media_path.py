# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of the audio, from sessions and channels as the modules return them."""

from __future__ import annotations

from typing import Any

from ansible_collections.ringmain.voip.plugins.module_utils import media_path

IDS = ["call-1", "call-2"]
EXPECTED = media_path.Expected()


def stream(local: str, endpoint: str, before: int = 100, after: int = 200) -> dict[str, Any]:
    return {
        "tag": "t",
        "local": local,
        "endpoint": endpoint,
        "packets_before": before,
        "packets": after,
        "errors": 0,
    }


def first_leg(**change: Any) -> dict[str, Any]:
    streams = [
        stream("198.18.0.11:30000", "198.18.0.101:7000"),
        stream("198.19.0.11:30002", "198.19.0.12:30006") | change,
    ]
    return {"call_id": "call-1", "streams": streams}


def second_leg() -> dict[str, Any]:
    streams = [
        stream("198.19.0.12:30006", "198.19.0.11:30002"),
        stream("198.18.0.12:30008", "198.18.0.101:7002"),
    ]
    return {"call_id": "call-2", "streams": streams}


def channel(name: str, call_id: str, **change: int) -> dict[str, Any]:
    counts = {"received_before": 31, "received": 31, "sent_before": 29, "sent": 29}
    return {"channel": name, "call_id": call_id} | counts | change


def pbx(**change: int) -> list[dict[str, Any]]:
    return [
        channel("PJSIP/verify-901-0000000a", "call-1", **change),
        channel("PJSIP/verify-902-0000000b", "call-2"),
        channel("PJSIP/verify-902-0000000c", "call-7", received=99),
    ]


def good() -> tuple[dict[str, Any], dict[str, Any]]:
    relays = {"srv1": [first_leg()], "srv2": [second_leg()], "srv3": []}
    return relays, {"srv1": [], "srv2": pbx(), "srv3": []}


def judged(
    relays: Any, pbxs: Any, call_ids: list[str] | None = None
) -> dict[str, tuple[bool, str]]:
    ids = IDS if call_ids is None else call_ids
    results = media_path.judge_path(ids, relays, pbxs, EXPECTED)
    return {result.check: (result.ok, result.measured) for result in results}


def test_good_way() -> None:
    assert judged(*good()) == {
        "caller's leg is relayed": (True, "on srv1, 100 and 100 packets"),
        "callee's leg is relayed": (True, "on srv2, 100 and 100 packets"),
        "the two legs are joined at the relay": (True, "198.19.0.11:30002 and 198.19.0.12:30006"),
        "no audio at the PBX": (True, "0 packets on srv2"),
    }


def test_leg_on_no_relay() -> None:
    _relays, pbxs = good()
    found = judged({"srv1": [], "srv2": [second_leg()]}, pbxs)
    assert found["caller's leg is relayed"] == (False, "on no relay")
    assert found["the two legs are joined at the relay"] == (
        False,
        "198.19.0.12:30006 sends to 198.19.0.11:30002; "
        "198.18.0.12:30008 sends to 198.18.0.101:7002",
    )


def test_no_session_at_all() -> None:
    _relays, pbxs = good()
    assert judged({}, pbxs)["the two legs are joined at the relay"] == (False, "no session")


def test_leg_on_two_relays() -> None:
    relays, pbxs = good()
    relays["srv3"] = [first_leg()]
    assert judged(relays, pbxs)["caller's leg is relayed"] == (False, "on srv1 and srv3")


def test_one_way_audio() -> None:
    _relays, pbxs = good()
    found = judged({"srv1": [first_leg(packets=149), second_leg()]}, pbxs)
    assert found["caller's leg is relayed"] == (False, "on srv1, 100 and 49 packets")


def test_session_without_streams() -> None:
    _relays, pbxs = good()
    relays = {"srv1": [{"call_id": "call-1", "streams": []}, second_leg()]}
    assert judged(relays, pbxs)["caller's leg is relayed"] == (False, "on srv1, no packets")


def test_audio_through_the_pbx() -> None:
    relays, _pbxs = good()
    relays["srv1"] = [first_leg(endpoint="198.19.0.12:10000")]
    found = judged(relays, {"srv2": pbx(received=131, sent=128)})
    assert found["the two legs are joined at the relay"][0] is False
    assert found["no audio at the PBX"] == (False, "199 packets on srv2")


def test_channels_that_are_not_found() -> None:
    relays, _pbxs = good()
    assert judged(relays, {"srv2": []})["no audio at the PBX"] == (False, "channels found: none")
    assert judged(relays, {"srv2": pbx()[:1]})["no audio at the PBX"] == (
        False,
        "channels found: PJSIP/verify-901-0000000a on srv2",
    )


def test_hosts_that_do_not_answer() -> None:
    relays, pbxs = good()
    results = media_path.judge_path(
        IDS,
        relays | {"srv4": None},
        pbxs | {"srv4": None},
        EXPECTED,
        {("relay", "srv4"): "refused"},
    )
    assert [(result.check, result.measured) for result in results[:2]] == [
        ("relay on srv4 answers", "refused"),
        ("PBX on srv4 answers", "it could not be asked"),
    ]
    assert not results[0].ok


def test_without_a_call_there_is_nothing_to_look_at() -> None:
    assert judged(*good(), call_ids=[]) == {"way of the audio": (False, "no call to look at")}


def test_all_results_put_phones_first() -> None:
    relays, pbxs = good()
    phones = {"check": "901 registers", "ok": True, "measured": "200", "expected": "200"}
    results = media_path.all_results(
        {"results": [phones], "call_ids": IDS},
        {host: {"sessions": sessions} for host, sessions in relays.items()}
        | {"srv4": {"unreachable": True, "msg": "no route"}},
        {host: {"channels": channels} for host, channels in pbxs.items()},
        EXPECTED,
    )
    assert [(result["check"], result["ok"]) for result in results] == [
        ("901 registers", True),
        ("relay on srv4 answers", False),
        ("caller's leg is relayed", True),
        ("callee's leg is relayed", True),
        ("the two legs are joined at the relay", True),
        ("no audio at the PBX", True),
    ]
    assert results[1]["measured"] == "no route"


def test_calls_that_were_not_made_are_a_failure() -> None:
    for calls, reason in (
        ({"failed": True, "msg": "cannot start baresip"}, "cannot start baresip"),
        ({}, "the probe did not report"),
    ):
        results = media_path.all_results(calls, {}, {}, EXPECTED)
        assert [(result["ok"], result["measured"]) for result in results] == [(False, reason)]


RESULTS = [
    {"check": "a", "ok": True, "measured": "200 OK", "expected": "200", "detail": []},
    {"check": "long", "ok": False, "measured": "480", "expected": "200", "detail": ["because"]},
]


def test_table() -> None:
    assert media_path.table(RESULTS) == [
        "ok      a     200 OK",
        "FAILED  long  480  (expected: 200)",
        "2 checks, 1 failed",
    ]
    assert media_path.table(RESULTS[:1])[-1] == "1 checks, all good"
    assert media_path.table([]) == ["nothing was checked"]


def test_evidence() -> None:
    assert media_path.evidence(RESULTS[1:], {"901": ["INVITE", "480"]}) == [
        "long:",
        "    measured: 480",
        "    expected: 200",
        "    because",
        "phone 901:",
        "    INVITE",
        "    480",
    ]


def test_streams_have_to_be_in_the_kernel_where_the_kernel_was_asked() -> None:
    relays, pbxs = good()
    check = "the relays forward in the kernel"
    assert check not in judged(relays, pbxs)
    for host in ("srv1", "srv2"):
        for each in relays[host][0]["streams"]:
            each["in_kernel"] = True
    assert judged(relays, pbxs)[check] == (True, "4 of 4 streams")
    relays["srv2"][0]["streams"][0]["in_kernel"] = False
    results = media_path.judge_path(IDS, relays, pbxs, EXPECTED)
    (found,) = [result for result in results if result.check == check]
    assert (found.ok, found.measured) == (False, "3 of 4 streams")
    assert found.detail == ("srv2 198.19.0.12:30006 is forwarded in user space",)
