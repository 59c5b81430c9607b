# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who tries names and passwords hears nothing any more, on the edge that has the address."""

from __future__ import annotations

import json
from typing import Any

from support.booth import Booth
from support.cluster import Cluster
from support.kamailio import forget
from support.lab import Lab

PROBE = "probe1"

# Role kamailio's kamailio_ban_refusals: with so many the address is banned.
REFUSALS = 30

# Sends so many registrations to a domain that nobody has, then asks whether anybody is there;
# prints the status of each answer, 0 where there is none.
ASK = """
import os, socket, sys
proxy, count = sys.argv[1], int(sys.argv[2])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
    phone.settimeout(1)
    phone.connect((proxy, 5060))
    here = "%s:%d" % phone.getsockname()
    for method in ["REGISTER"] * count + ["OPTIONS"]:
        token = os.urandom(8).hex()
        phone.send("\\r\\n".join((
            f"{method} sip:nobody.invalid SIP/2.0",
            f"Via: SIP/2.0/UDP {here};rport;branch=z9hG4bK{token}",
            f"From: <sip:1@nobody.invalid>;tag={token}",
            "To: <sip:1@nobody.invalid>",
            f"Call-ID: {token}",
            f"CSeq: 1 {method}",
            f"Contact: <sip:1@{here}>",
            "Max-Forwards: 70",
            "Content-Length: 0",
            "",
            "",
        )).encode())
        try:
            print(phone.recv(4096).split()[1].decode())
        except socket.timeout:
            print(0)
"""

# Registers a name that nobody has with the answer of an account whose hash is known: all zeros.
FORGE = """
import hashlib, os, re, socket, sys
proxy, domain = sys.argv[1:]
def md5(*words):
    return hashlib.md5(":".join(words).encode()).hexdigest()
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
    phone.settimeout(2)
    phone.connect((proxy, 5060))
    here, uri, proof = "%s:%d" % phone.getsockname(), f"sip:{domain}", ""
    for number in (1, 2):
        token = os.urandom(8).hex()
        phone.send("\\r\\n".join((
            f"REGISTER {uri} SIP/2.0",
            f"Via: SIP/2.0/UDP {here};rport;branch=z9hG4bK{token}",
            f"From: <sip:nobody@{domain}>;tag={token}",
            f"To: <sip:nobody@{domain}>",
            f"Call-ID: {token}",
            f"CSeq: {number} REGISTER",
            f"Contact: <sip:nobody@{here}>",
            *([proof] if proof else []),
            "Max-Forwards: 70",
            "Content-Length: 0",
            "",
            "",
        )).encode())
        answer = phone.recv(4096).decode()
        print(answer.split()[1])
        if number == 1:
            nonce = re.search('nonce="([^"]+)"', answer)[1]
            words = (nonce, "00000001", token, "auth", md5("REGISTER", uri))
            response = md5("0" * 32, *words)
            proof = (
                f'Authorization: Digest username="nobody", realm="{domain}", nonce="{nonce}",'
                f' uri="{uri}", response="{response}", qop=auth, nc=00000001, cnonce="{token}"'
            )
"""

# What the edge notes of an address.
NOTED = ("banned", "refused", "served")


def test_too_many_refusals_are_a_ban(lab: Lab, whole: Cluster, booth: Booth) -> None:
    """One refusal less than the limit is answered, one more ends in silence; others are served.

    Not where phones have registered from the same address: there it takes ten times as many. A
    conversation that was up before can be ended from there: both phones are told.
    """
    assert booth.call().answered
    proxy, holder = whole.addresses.outside_ip, whole.holder()
    probe = json.loads(lab.shell(PROBE, "ip -json -4 address show dev outside"))
    address = probe[0]["addr_info"][0]["local"]
    try:
        office = lab.python(PROBE, ASK, proxy, str(REFUSALS + 1)).split()
        assert office == ["403"] * (REFUSALS + 1) + ["200"]
        forget(lab, holder, NOTED, address)
        before = lab.python(PROBE, ASK, proxy, str(REFUSALS - 1)).split()
        assert before == ["403"] * (REFUSALS - 1) + ["200"]
        with booth.conversation():
            after = lab.python(PROBE, ASK, proxy, "2").split()
            assert after == ["403", "0", "0"]
        neighbour = whole.bystander()
        assert lab.python(neighbour, ASK, proxy, "0").split() == ["200"]
    finally:
        forget(lab, holder, NOTED, address)
    assert lab.python(PROBE, ASK, proxy, "0").split() == ["200"]


def test_nobody_is_let_in_by_a_name_that_nobody_has(
    lab: Lab, whole: Cluster, inventory: Any
) -> None:
    """What the edge compares with for an unknown user is no password that anybody could know."""
    domain = f"acme.{inventory['ringmain_domain']}"
    assert lab.python(PROBE, FORGE, whole.addresses.outside_ip, domain).split() == ["401", "403"]
