"""Certificates of clients, as a login sees them: what they name, and whether an authority vouches for them.

That the client has the key was proved in the TLS handshake, and so was that one of the server's own authorities stands
behind it (RFC 8446 section 4.4.3). Here is judged whether it is one that a role means (RFC 5280 section 6, for chains
of one step: the role names whoever signed the certificate itself).
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyhole.core.errors import InvalidRequest
from keyhole.crypto.unreadable import UNPROVEN, UNREADABLE

_MOST = 64
_Kind = TypeVar("_Kind", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What a certificate names.

    Attributes:
        der: itself.
        common_name: of its subject; may be empty.
        units: organizational units of its subject.
        dns: alternative names that are names of hosts.
        emails: those that are addresses of mail.
        uris: those that are URIs, as SPIFFE ids are.
        serial: its number.
        subject_key_id: hexadecimal pairs with colons, or empty.
        authority_key_id: the same of who signed it.
    """

    der: bytes = field(repr=False)
    common_name: str
    units: tuple[str, ...]
    dns: tuple[str, ...]
    emails: tuple[str, ...]
    uris: tuple[str, ...]
    serial: int
    subject_key_id: str
    authority_key_id: str


def read_client_certificate(der: bytes) -> ClientCertificate:
    """Read one. Raises ``InvalidRequest``."""
    try:
        found = x509.load_der_x509_certificate(der)
        names = _extension(found, x509.SubjectAlternativeName) or ()
        own = _extension(found, x509.SubjectKeyIdentifier)
        above = _extension(found, x509.AuthorityKeyIdentifier)
        subject = [str(each.value) for each in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        units = found.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        return ClientCertificate(
            der,
            subject[0] if len(subject) == 1 else "",
            tuple(str(each.value) for each in units),
            tuple(each.value for each in names if isinstance(each, x509.DNSName)),
            tuple(each.value for each in names if isinstance(each, x509.RFC822Name)),
            tuple(each.value for each in names if isinstance(each, x509.UniformResourceIdentifier)),
            found.serial_number,
            _hex(own.digest if own is not None else b""),
            _hex((above.key_identifier if above is not None else None) or b""),
        )
    except UNREADABLE:
        raise InvalidRequest("the client's certificate cannot be read", "make a new one") from None


def read_authorities(pem: str) -> list[bytes]:
    """The certificates in a PEM bundle, as DER. Raises ``InvalidRequest``."""
    try:
        found = x509.load_pem_x509_certificates(pem.encode("ascii"))
        for each in found:
            _extension(each, x509.BasicConstraints)  # all of them are read for it; one that cannot be would end logins
    except UNREADABLE:
        raise InvalidRequest("failed to parse certificate", "send it in PEM, with its BEGIN and END") from None
    if not 0 < len(found) <= _MOST:
        raise InvalidRequest(f"a bundle has 1 to {_MOST} certificates")
    return [each.public_bytes(Encoding.DER) for each in found]


def is_vouched_for(der: bytes, authorities: Sequence[bytes], now: float) -> bool:
    """Whether the certificate counts now for clients, and is one of these itself or was signed by one that counts too.

    Args:
        der: the client's.
        authorities: those of a role.
        now: seconds since the epoch.
    """
    moment = datetime.fromtimestamp(now, UTC)
    leaf = x509.load_der_x509_certificate(der)
    if not _counts(leaf, moment) or not _is_for_clients(leaf):
        return False
    return any(hmac.compare_digest(each, der) or _has_signed(each, leaf, moment) for each in authorities)


def read_crl(pem: str) -> tuple[str, frozenset[int]]:
    """Who issued a revocation list, and the numbers that it names. Raises ``InvalidRequest``."""
    try:
        found = x509.load_pem_x509_crl(pem.encode("ascii"))
        return _spelt(found.issuer), frozenset(each.serial_number for each in found)
    except UNREADABLE:
        raise InvalidRequest("failed to parse CRL", "send it in PEM, with its BEGIN and END") from None


def issued(der: bytes) -> tuple[str, int]:
    """Who issued a certificate, as ``read_crl`` names it, and its number."""
    found = x509.load_der_x509_certificate(der)
    return _spelt(found.issuer), found.serial_number


def _spelt(name: x509.Name) -> str:
    """A name by what it says: how it is encoded may differ between a list and a certificate (RFC 5280 section 7.1)."""
    return name.rfc4514_string().casefold()


def _counts(certificate: x509.Certificate, moment: datetime) -> bool:
    return certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc


def _is_for_clients(leaf: x509.Certificate) -> bool:
    """RFC 5280 section 4.2.1.12: one that says what it is for is for nothing else."""
    usage = _extension(leaf, x509.ExtendedKeyUsage)
    return usage is None or any(
        each in (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE) for each in usage
    )


def _has_signed(der: bytes, leaf: x509.Certificate, moment: datetime) -> bool:
    authority = x509.load_der_x509_certificate(der)
    constraints = _extension(authority, x509.BasicConstraints)
    usage = _extension(authority, x509.KeyUsage)
    if constraints is None or not constraints.ca or not _counts(authority, moment):
        return False
    if usage is not None and not usage.key_cert_sign:
        return False
    try:
        leaf.verify_directly_issued_by(authority)
    except UNPROVEN:
        return False
    return True


def _extension(certificate: x509.Certificate, kind: type[_Kind]) -> _Kind | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _hex(data: bytes) -> str:
    return data.hex(":")
