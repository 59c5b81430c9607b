# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What RTPEngine's kernel module shows, and what a host lacks for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils.kernel_forwarding import (
    Host,
    Kernel,
    Target,
    UnreadableTableError,
    bootable,
    flavour,
    has_rule,
    missing_packages,
    parse_list,
    problems,
    table_owner,
    wanted_packages,
)

LIST = """\
local inet4 198.18.7.81:30012
    expect inet4 198.18.7.1:40866
    src mismatch action: drop
    stats:               103200 bytes,                  600 packets,                    2 errors
        RTP payload type   8:               103200 bytes,                  600 packets
    last packet: 1795273652    SSRC in: 7d2a4b10 [seq 599/0]
    options: RTP PT-filter RTP-stats SSRC-tracking
    output #0
       src inet4 198.19.7.81:30036
       dst inet4 198.19.7.81:30058
      stats:               103200 bytes,                  600 packets,                    0 errors
 SSRC out: 7d2a4b10 [seq 0+0/0]
local inet4 198.18.7.81:30013
    stats:                    0 bytes,                    0 packets,                    0 errors
    last packet: 0    SSRC in:
    options: RTP RTCP non-forwarding
local inet6 [2001:db8:0:0:0:0:0:1]:30014
    outputs not fully filled (1 missing)
"""


def test_the_list_of_the_kernels_streams() -> None:
    """Of each port: where from, where to, how much, and whether the kernel passes it on."""
    first, second, third = parse_list(LIST)
    assert first == Target(
        local="198.18.7.81:30012",
        expected="198.18.7.1:40866",
        on_mismatch="drop",
        packets=600,
        errors=2,
        options=("RTP", "PT-filter", "RTP-stats", "SSRC-tracking"),
        outputs=("198.19.7.81:30058",),
    )
    assert (second.expected, second.outputs, second.packets) == ("", (), 0)
    assert (third.local, third.complete) == ("[2001:db8:0:0:0:0:0:1]:30014", False)
    assert [target.forwards for target in (first, second, third)] == [True, False, False]
    assert not replace(first, options=("RTP", "non-forwarding")).forwards
    assert parse_list("") == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("stats: 1", "the list begins with 'stats: 1', not with a local port"),
        ("local ipx 1", "'ipx 1' is no address"),
        ("local inet4 192.0.2.1:2", "no counters stand under 'local 192.0.2.1:2'"),
    ],
)
def test_another_form_is_no_empty_list(text: str, complaint: str) -> None:
    """A parser that finds nothing in what it cannot read would hide a fault."""
    with pytest.raises(UnreadableTableError) as error:
        parse_list(text)
    assert str(error.value) == complaint


def test_whom_a_table_belongs_to() -> None:
    """Nobody, in a table that no daemon has opened."""
    assert table_owner("Refcount:    2\nControl PID: 713\nTargets:     4\n") == 713
    assert table_owner("Refcount:    1\nControl PID: 0\nTargets:     0\n") is None


def test_the_rule_in_nfts_words() -> None:
    """With and without quotes, as versions of nft differ."""
    assert has_rule('ip protocol udp xt target "RTPENGINE" counter packets 0 bytes 0')
    assert has_rule("xt target RTPENGINE")
    assert not has_rule("chain rtpengine {\n}")


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("6.12.48+deb13-amd64", "amd64"),
        ("6.12.117+deb13-cloud-amd64", "cloud-amd64"),
        ("6.12.9+bpo-rt-amd64", "rt-amd64"),
        ("6.1.0-18-arm64", "arm64"),
        ("6.8.12-4-pve", "pve"),
        ("6.18.44", None),
        ("5.15.0_custom", None),
    ],
)
def test_flavours(release: str, name: str | None) -> None:
    """The end of the release names the meta packages."""
    assert flavour(release) == name


def test_a_reboot_chooses_the_running_kernel_or_a_later_one() -> None:
    """Numbers are compared as numbers."""
    installed = ["6.12.9+deb13-amd64", "6.12.48+deb13-amd64", "6.12.107+deb13-amd64"]
    assert bootable(installed[1], installed) == installed[1:]
    assert bootable("6.12.200+deb13-amd64", installed) == ["6.12.200+deb13-amd64"]


OLD, NEW = "6.12.48+deb13-amd64", "6.12.107+deb13-amd64"
HEADERS = {f"linux-headers-{each}": "6.12" for each in ("amd64", OLD, NEW)}
GOOD = Host(
    release=OLD,
    kernels=(Kernel(OLD, True, "12.5.1.31"), Kernel(NEW, True, "12.5.1.31")),
    packages={
        **HEADERS,
        "rtpengine-daemon": "12.5.1.31-1+b2",
        "rtpengine-kernel-dkms": "12.5.1.31-1",
    },
    available=frozenset({*HEADERS, "rtpengine-kernel-dkms"}),
)


def without(*names: str) -> dict[str, str]:
    """The packages of a good host but these."""
    return {name: version for name, version in GOOD.packages.items() if name not in names}


def test_a_host_that_has_all() -> None:
    """Nothing to install, nothing to say; binary rebuilds are no other version."""
    assert missing_packages(GOOD) == []
    assert problems(GOOD, after_install=True) == []


def test_an_empty_host_gets_headers_of_this_kernel_the_next_and_all_later_ones() -> None:
    """The meta package stands for kernels that do not exist yet."""
    empty = replace(GOOD, packages={}, kernels=(Kernel(OLD, False, ""), Kernel(NEW, False, "")))
    wanted = [*sorted(HEADERS), "rtpengine-kernel-dkms"]
    assert wanted_packages(OLD, [OLD, NEW]) == wanted
    assert missing_packages(empty) == wanted
    assert problems(empty, after_install=False) == []


@pytest.mark.parametrize("release", ["6.18.44", "6.8.12-4-pve"])
def test_the_kernel_of_somebody_else(release: str) -> None:
    """Nothing can be installed for it, whether or not its release looks like one of Debian's."""
    foreign = replace(GOOD, release=release, kernels=(Kernel(release, False, ""),))
    assert missing_packages(replace(foreign, packages={})) == []
    assert problems(foreign, after_install=True) == [
        f"it runs the kernel {release}, which is none of Debian's, so nothing can build the module "
        "xt_RTPENGINE for it: boot one of Debian's kernels (apt-get install linux-image-amd64, "
        "then reboot), or forward in user space"
    ]


@pytest.mark.parametrize(
    ("host", "complaint"),
    [
        (
            replace(
                GOOD,
                kernels=(Kernel(OLD, False, ""), GOOD.kernels[1]),
                packages=without(f"linux-headers-{OLD}"),
                available=GOOD.available - {f"linux-headers-{OLD}"},
            ),
            f"the headers of the running kernel {OLD} cannot be had any more: apt-get install "
            "linux-image-amd64 linux-headers-amd64, reboot, and run this again",
        ),
        (
            replace(
                GOOD,
                kernels=(GOOD.kernels[0], Kernel(NEW, False, "")),
                packages=without(f"linux-headers-{NEW}"),
                available=GOOD.available - {f"linux-headers-{NEW}"},
            ),
            f"the headers of the installed kernel {NEW} cannot be had any more: remove it (apt-get "
            f"purge linux-image-{NEW})",
        ),
        (
            replace(GOOD, kernels=(GOOD.kernels[0], Kernel(NEW, True, ""))),
            f"the module xt_RTPENGINE is not built for the installed kernel {NEW}: dkms "
            f"autoinstall -k {NEW}, and if that fails read "
            "/var/lib/dkms/rtpengine/*/build/make.log",
        ),
        (
            replace(GOOD, kernels=(Kernel(OLD, True, "12.5.1.9"), GOOD.kernels[1])),
            "the module xt_RTPENGINE is only in version 12.5.1.9 built for the running kernel "
            f"{OLD}: dkms autoinstall -k {OLD}, and if that fails read "
            "/var/lib/dkms/rtpengine/*/build/make.log",
        ),
        (
            replace(GOOD, packages=without("linux-headers-amd64")),
            "the package linux-headers-amd64 is not installed: apt-get install linux-headers-amd64",
        ),
        (
            replace(GOOD, packages={**GOOD.packages, "rtpengine-daemon": "14.1.1.4-1"}),
            "rtpengine-daemon is 14.1.1.4-1 and rtpengine-kernel-dkms is 12.5.1.31-1; they "
            "understand each other only in one version: apt-get install rtpengine-daemon "
            "rtpengine-kernel-dkms",
        ),
    ],
)
def test_each_fault_says_what_to_do(host: Host, complaint: str) -> None:
    """One sentence each, and only the one."""
    assert problems(host, after_install=True) == [complaint]
