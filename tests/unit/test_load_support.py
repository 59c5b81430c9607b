# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the load acts and the benchmark conclude from what they see."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def loaded(path: Path, name: str) -> ModuleType:
    """A program that is no part of any package."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rtp(root: Path) -> Any:
    """RTP in groups."""
    return loaded(root / "tests" / "acts" / "support" / "rtp.py", "load_rtp")


@pytest.fixture(scope="module")
def sip(root: Path) -> Any:
    """SIP without I/O."""
    return loaded(root / "tests" / "acts" / "support" / "sip.py", "load_sip")


@pytest.fixture(scope="module")
def report(root: Path) -> Any:
    """The collector on a server."""
    return loaded(root / "tests" / "acts" / "support" / "pressure_report.py", "load_report")


@pytest.fixture(scope="module")
def bench(root: Path) -> Any:
    """The benchmark."""
    return loaded(root / "benchmarks" / "media" / "bench.py", "load_bench")


def heard(rtp: Any, *numbers: int) -> Any:
    found = rtp.Heard()
    for number in numbers:
        found.take(7, number, 1.0, 5.0)
    return found


def test_all_packets_are_no_gap(rtp: Any) -> None:
    """A stream may begin anywhere: what was sent before it was heard is not lost."""
    assert heard(rtp, 3, 4, 5).as_dict() == {
        "packets": 3,
        "lost": 0,
        "longest_gap_ms": 0,
        "slowest_ms": 1.0,
        "speakers": [7],
    }


def test_missing_packets_are_a_gap_of_their_length(rtp: Any) -> None:
    """Twenty milliseconds each."""
    found = heard(rtp, 0, 1, 5, 7)
    assert (found.lost, found.longest_gap_ms) == (4, 60)


def test_late_packet_is_not_lost(rtp: Any) -> None:
    """It is counted when it comes, in whatever order."""
    assert heard(rtp, 0, 2, 1, 3).lost == 0
    assert heard(rtp, 1, 0, 2).lost == 0
    assert heard(rtp, 0, 1, 1, 3, 3).lost == 1


def test_late_packet_of_an_earlier_counting_changes_nothing(rtp: Any) -> None:
    """It was missed, if at all, in the other one."""
    found = heard(rtp, 0, 2)
    found.reset()
    found.take(7, 1, 1.0, 5.0)
    assert (found.packets, found.lost) == (1, 0)


def test_gap_across_a_reset_is_still_found(rtp: Any) -> None:
    """What is missing between two countings belongs to the second."""
    found = heard(rtp, 0, 1)
    found.reset()
    found.take(7, 4, 1.0, 5.0)
    assert (found.packets, found.lost) == (1, 2)


def test_streams_hear_each_other_over_loopback(rtp: Any) -> None:
    """Two sides, three streams each way, with the real system calls."""
    sides = rtp.Side("127.0.0.1"), rtp.Side("127.0.0.2")
    one = rtp.Stream(1, ("127.0.0.2", sides[1].port))
    two = rtp.Stream(2, ("127.0.0.1", sides[0].port))
    sides[0].add(one)
    sides[1].add(two)
    for _round in range(2):
        for index in range(rtp.GROUPS):
            for side in sides:
                side.send(index)
    for side in sides:
        side.receive(True)
    assert (one.sent, one.heard.packets, one.heard.speakers) == (2, 2, {2})
    assert (two.sent, two.heard.packets, two.heard.speakers) == (2, 2, {1})
    assert [side.strangers for side in sides] == [0, 0]
    for side in sides:
        side.socket.close()


MESSAGE = (
    b"SIP/2.0 200 OK\r\nv: SIP/2.0/UDP 192.0.2.1;branch=z9\r\n"
    b"Record-Route: <sip:a;lr>,<sip:b;lr>\r\nRecord-Route: <sip:c;lr>\r\n"
    b"t: <sip:x@example>;tag=77\r\nContact: Ada <sip:x@192.0.2.9:5;q=1>\r\n"
    b"CSeq: 2 INVITE\r\n\r\nv=0\r\nc=IN IP4 192.0.2.8\r\nm=audio 30002 RTP/AVP 8\r\n"
)


def test_message_is_read_with_compact_and_joined_headers(sip: Any) -> None:
    """As phones and proxies write them."""
    found = sip.parse(MESSAGE)
    assert (found.status, found.method, found.number) == (200, "INVITE", 2)
    assert found.all("record-route") == ["<sip:a;lr>", "<sip:b;lr>", "<sip:c;lr>"]
    assert sip.uri(found.get("contact")) == "sip:x@192.0.2.9:5;q=1"
    assert sip.tag(found.get("to")) == "77"
    assert sip.endpoint(found.body) == ("192.0.2.8", 30002)


def test_credentials_are_those_of_rfc_2617(sip: Any) -> None:
    """The example of RFC 2617, section 3.5."""
    asked = sip.challenge(
        'Digest realm="testrealm@host.com", qop="auth,auth-int",'
        ' nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093"'
    )
    words = sip.credentials(asked, "Mufasa", "Circle Of Life", "GET", "/dir/index.html", "0a4f113b")
    assert 'response="6629fae49393a05397450978507c4ef1"' in words


def test_kernel_counters_are_read(report: Any) -> None:
    """The formats of /proc, hexadecimal where the kernel writes so."""
    udp = (
        "Udp: InDatagrams NoPorts InErrors RcvbufErrors SndbufErrors MemErrors\nUdp: 9 1 4 3 2 1\n"
    )
    assert report.snmp(udp) == {
        "udp InErrors": 4,
        "udp RcvbufErrors": 3,
        "udp SndbufErrors": 2,
        "udp MemErrors": 1,
    }
    assert report.softnet("0000aa 0000000a 01\n0000bb 00000001 02\n") == {"softnet dropped": 11}
    flows = "entries insert_failed drop early_drop\n10 01 02 0f\n10 00 01 00\n"
    assert report.conntrack(flows) == {
        "conntrack drop": 3,
        "conntrack early_drop": 15,
        "conntrack insert_failed": 1,
    }


def test_relay_and_journal_are_read(report: Any) -> None:
    """Words of the daemons."""
    totals = (
        " Total rejected sessions        :24\n Total relayed packet errors :0\n Total bytes :5\n"
    )
    assert report.totals(totals) == {"relay rejected sessions": 24, "relay packet errors": 0}
    found = report.journal("bind: Too many open files\nRan out of ports\nran out of ports\n")
    assert {name: count for name, count in found.items() if count} == {
        "too many open files": 1,
        "relay ports run out": 2,
    }


def measured(
    sessions: int, busy: float, lost: float = 0.0, pace: float = 100.0, kernel: float = 0.0
) -> dict[str, Any]:
    return {
        "sessions": sessions,
        "packets_per_second": sessions * pace,
        "busy": busy,
        "lost_share": lost,
        "silent_streams": 0,
        "kernel_share": kernel,
    }


def test_model_of_two_sizes_foretells_the_third(bench: Any) -> None:
    """A fixed part and a part for each packet."""
    found = bench.model(measured(10, 0.03), measured(30, 0.05))
    assert found == pytest.approx({"fixed": 0.02, "per_packet": 1e-5})
    assert bench.foretell(found, 6000.0) == pytest.approx(0.08)


def test_two_measurements_of_one_size_are_refused(bench: Any) -> None:
    """They make no line."""
    with pytest.raises(ValueError, match="one size"):
        bench.model(measured(10, 0.03), measured(10, 0.05))


def test_lost_packets_and_a_wrong_model_are_complained_of(bench: Any) -> None:
    """A result that cannot be believed is not one."""
    assert bench.complaints("userspace", [measured(10, 0.1)], 0.2) == []
    lost, wrong = bench.complaints("userspace", [measured(10, 0.1, 0.01)], -0.3)
    assert "10 sessions: 1.00% of the packets lost" in lost
    assert "-30% off" in wrong


def test_talkers_that_do_not_keep_up_are_complained_of(bench: Any) -> None:
    """Packets that come late and at once cost less: that would flatter the relay."""
    (slow,) = bench.complaints("userspace", [measured(10, 0.1, pace=90.0)], 0.0)
    assert "10 sessions: 900 packets a second instead of 1000" in slow


def test_packets_that_went_another_way_are_complained_of(bench: Any) -> None:
    """One stream of twenty that the kernel does not take is measured in user space."""
    assert bench.complaints("kernel", [measured(10, 0.1, kernel=0.995)], 0.0) == []
    (strayed,) = bench.complaints("kernel", [measured(10, 0.1, kernel=0.95)], 0.0)
    assert "10 sessions: 95.0% of the packets were forwarded in the kernel" in strayed
    assert len(bench.complaints("userspace", [measured(10, 0.1, kernel=1.0)], 0.0)) == 1
