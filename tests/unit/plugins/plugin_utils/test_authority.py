# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The authority's certificates, judged by openssl as well as by ourselves."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ringmain.voip.plugins.plugin_utils import authority
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

NOW = datetime.datetime(2026, 11, 21, 12, 0, tzinfo=datetime.UTC)
NAMES = ["srv1", "localhost", "10.20.0.11", "127.0.0.1"]
DAY = datetime.timedelta(days=1)


def public_half(key: str) -> str:
    """The public half of a private key, as a host sends it."""
    loaded = serialization.load_pem_private_key(key.encode(), None)
    return (
        loaded.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


class Authority:
    """One authority and one host's key."""

    def __init__(self) -> None:
        self.key = authority.make_key()
        self.certificate = authority.make_authority(self.key, "voice.example.com Ringmain CA", NOW)
        self.host_key = authority.make_key()
        self.public_key = public_half(self.host_key)
        self.signed = authority.sign(self.key, self.certificate, self.public_key, NAMES, 825, NOW)

    def why(
        self,
        names: list[str] | None = None,
        when: datetime.datetime = NOW,
        signed: str | None = None,
    ) -> str:
        """Why the host would need a new certificate."""
        present = self.signed if signed is None else signed
        wanted = NAMES if names is None else names
        return authority.why_new(present, self.certificate, self.public_key, wanted, when)


@pytest.fixture(scope="module")
def ca() -> Authority:
    """One for all tests: nothing changes it."""
    return Authority()


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_openssl_trusts_what_is_signed(tmp_path: Path, ca: Authority, purpose: str) -> None:
    (tmp_path / "ca.pem").write_text(ca.certificate)
    (tmp_path / "cert.pem").write_text(ca.signed)
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-attime"]
    command += [str(int(NOW.timestamp())), "-CAfile", "ca.pem", "-verify_ip", "10.20.0.11"]
    done = subprocess.run(
        [*command, "cert.pem"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("cert.pem: OK\n", "")


def test_the_authority_lives_for_twenty_years_and_signs_no_other(ca: Authority) -> None:
    certificate = x509.load_pem_x509_certificate(ca.certificate.encode())
    assert certificate.not_valid_before_utc == NOW - DAY
    assert certificate.not_valid_after_utc.year == 2046
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert (basic.value.ca, basic.value.path_length) == (True, 0)


def test_a_certificate_ends_with_its_authority_at_the_latest(ca: Authority) -> None:
    late = NOW + 365 * 19 * DAY
    signed = authority.sign(ca.key, ca.certificate, ca.public_key, NAMES, 825, late)
    ends = x509.load_pem_x509_certificate(signed.encode()).not_valid_after_utc
    assert ends == x509.load_pem_x509_certificate(ca.certificate.encode()).not_valid_after_utc


def test_a_long_name_still_makes_a_certificate(ca: Authority) -> None:
    name = "a" * 60 + ".example.com"
    signed = authority.sign(ca.key, ca.certificate, ca.public_key, [name], 10, NOW)
    assert ca.why([name], NOW - 25 * DAY, signed) == ""


def test_reasons_for_a_new_certificate(ca: Authority) -> None:
    assert ca.why() == ""
    assert ca.why(list(reversed(NAMES))) == ""
    assert ca.why([*NAMES, "10.20.0.12"]) == "names or addresses have changed"
    assert ca.why(when=NOW + (825 - 30) * DAY) == ""
    assert ca.why(when=NOW + (825 - 30) * DAY + DAY / 2) == "it ends on 2029-02-23"
    assert ca.why(signed="") == "there is none"
    assert ca.why(signed="rubbish") == "the present one cannot be read"
    assert ca.why(signed=Authority().signed) == "it belongs to another key"


def test_another_authority_is_a_reason(ca: Authority) -> None:
    other = Authority()
    signed = authority.sign(other.key, other.certificate, ca.public_key, NAMES, 825, NOW)
    assert ca.why(signed=signed) == "another authority has signed it"


def test_a_certificate_without_names_is_a_reason(ca: Authority) -> None:
    parent = x509.load_pem_x509_certificate(ca.certificate.encode())
    builder = (
        x509.CertificateBuilder()
        .subject_name(parent.subject)
        .issuer_name(parent.subject)
        .public_key(authority._load_key(ca.host_key).public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + 100 * DAY)
    )
    bare = builder.sign(authority._load_key(ca.key), hashes.SHA256())
    text = bare.public_bytes(serialization.Encoding.PEM).decode()
    assert ca.why(signed=text) == "names or addresses have changed"


def test_what_is_wrong_with_the_authority_is_said(ca: Authority) -> None:
    arguments = (ca.public_key, NAMES, 825, NOW)
    with pytest.raises(authority.AuthorityError) as error:
        authority.sign("rubbish", ca.certificate, *arguments)
    assert str(error.value) == "certificates_ca_key is no private key in PEM form"
    with pytest.raises(authority.AuthorityError) as error:
        authority.sign(ca.key, "rubbish", *arguments)
    assert str(error.value) == "certificates_ca_certificate is no certificate in PEM form"
    with pytest.raises(authority.AuthorityError) as error:
        authority.sign(ca.host_key, ca.certificate, *arguments)
    assert str(error.value) == (
        "certificates_ca_key does not belong to certificates_ca_certificate: "
        "give the two that were made together"
    )
