# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster's own certificate authority, on the controller. Keys and certificates are PEM texts.

Hosts send their public key over the connection that Ansible trusts anyway, so there is no need for
a signing request to prove who owns it.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import typing as t
from collections.abc import Sequence

# ansible-core itself needs it; only where plugins are merely imported may it be missing.
with contextlib.suppress(ImportError):
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_YEARS = 20
RENEW_DAYS = 30

_BEFORE = datetime.timedelta(days=1)
"""Certificates begin in the past: clocks of hosts differ."""


class AuthorityError(Exception):
    """What is wrong with the authority's key or certificate, and what to do next."""


def make_key() -> str:
    """A new private key."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def make_authority(key_pem: str, name: str, now: datetime.datetime) -> str:
    """The self-signed certificate of an authority, good for 20 years."""
    key = _load_key(key_pem)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + datetime.timedelta(days=365 * AUTHORITY_YEARS + 5))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _text(certificate)


def sign(
    ca_key: str,
    ca_certificate: str,
    public_key: str,
    names: Sequence[str],
    days: int,
    now: datetime.datetime,
) -> str:
    """A certificate for server and client use; the first of C(names) is its common name.

    Names that are IP addresses become address entries. Raises AuthorityError.
    """
    key = _load_key(ca_key)
    authority = _load_certificate(ca_certificate, "certificates_ca_certificate")
    if _public(key.public_key()) != _public(authority.public_key()):
        raise AuthorityError(
            "certificates_ca_key does not belong to certificates_ca_certificate: "
            "give the two that were made together"
        )
    end = min(now + datetime.timedelta(days=days), authority.not_valid_after_utc)
    owner = serialization.load_pem_public_key(public_key.encode())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]))
        .issuer_name(authority.subject)
        .public_key(t.cast(ec.EllipticCurvePublicKey, owner))
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),  # type: ignore[arg-type]
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return _text(certificate)


def why_new(
    certificate: str,
    ca_certificate: str,
    public_key: str,
    names: Sequence[str],
    now: datetime.datetime,
) -> str:
    """Why a host needs a new certificate; empty when the one it has will do."""
    if not certificate.strip():
        return "there is none"
    authority = _load_certificate(ca_certificate, "certificates_ca_certificate")
    try:
        present = x509.load_pem_x509_certificate(certificate.encode())
    except ValueError:
        return "the present one cannot be read"
    if _public(present.public_key()) != public_key.strip():
        return "it belongs to another key"
    try:
        present.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return "another authority has signed it"
    try:
        has = set(present.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        has = set()
    if has != {_general_name(name) for name in names}:
        return "names or addresses have changed"
    if present.not_valid_after_utc - now < datetime.timedelta(days=RENEW_DAYS):
        return f"it ends on {present.not_valid_after_utc:%Y-%m-%d}"
    return ""


def _load_key(pem: str) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        # The reason may show parts of the key.
        raise AuthorityError("certificates_ca_key is no private key in PEM form") from exc
    return t.cast(ec.EllipticCurvePrivateKey, key)


def _load_certificate(pem: str, variable: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError as exc:
        raise AuthorityError(f"{variable} is no certificate in PEM form") from exc


def _public(key: t.Any) -> str:
    encoded: bytes = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded.decode().strip()


def _text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
