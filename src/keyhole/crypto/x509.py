"""The broker's own certificate authority (X.509, RFC 5280): one CA an org, short-lived leaves.

Safe here: the CA cannot have CAs below it (path length 0), and a leaf can only be a TLS server for the one host that
it names, for less than seven days, so that neither needs revocation. Serials are 128 random bits. All keys are ECDSA
P-256, which every TLS client knows; OpenSSL's generator, which ECDSA's nonces come from, reseeds itself after a fork.
"""

from __future__ import annotations

import ipaddress
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyhole.core.errors import InvalidRequest
from keyhole.crypto.aead import does_not_open

CA_DAYS = 5 * 365
LEAF_LIFE = timedelta(days=6)
"""From issue to expiry: with ``BACKDATED`` below the seven days that a leaf may live."""
BACKDATED = timedelta(hours=1)
"""How far a client's clock may be behind."""
_COMMON_NAME_MAX = 64  # ub-common-name, RFC 5280, appendix A.1
# An underscore is no host name by RFC 1123, yet container networks use it and clients verify it.
_DNS_NAME = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
)

Key = ec.EllipticCurvePrivateKey


def generate_key() -> Key:
    """A new ECDSA P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def create_ca(common_name: str, days: int = CA_DAYS, *, now: float | None = None) -> tuple[bytes, bytes]:
    """A new certificate authority.

    Args:
        common_name: what people see in their trust stores, 1 to 64 characters.
        days: life in days.
        now: seconds since the epoch; the system's clock by default.

    Returns:
        The certificate in PEM, and its private key in PEM (PKCS #8, in clear: the caller seals it).

    Raises:
        InvalidRequest: the name is empty or too long, or ``days`` is below 1.
    """
    if not 1 <= len(common_name) <= _COMMON_NAME_MAX or days < 1:
        raise InvalidRequest("a CA needs a name of 1 to 64 characters and a life of at least a day")
    key = generate_key()
    public = key.public_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    start = _moment(time.time() if now is None else now)
    certificate = (
        _builder(name, name, public, start, timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key)


def issue_leaf(ca: x509.Certificate, ca_key: Key, host: str, leaf_key: Key, *, now: float | None = None) -> bytes:
    """A server certificate for exactly one host, in PEM.

    The subject is empty and the name stands in the (therefore critical) SAN only, RFC 5280, section 4.2.1.6.

    Args:
        ca: the CA's certificate.
        ca_key: its key.
        host: DNS name in ASCII (A-labels), or an IPv4 or IPv6 address without brackets.
        leaf_key: the server's key; only its public half is used.
        now: seconds since the epoch; the system's clock by default.

    Raises:
        InvalidRequest: the host is neither a DNS name nor an address, or the CA has expired.
    """
    start = _moment(time.time() if now is None else now)
    life = min(LEAF_LIFE, ca.not_valid_after_utc - start)
    if life <= timedelta(0):
        raise InvalidRequest("this certificate authority has expired", "rotate it, and let clients trust the new one")
    public = leaf_key.public_key()
    leaf = (
        _builder(x509.Name([]), ca.subject, public, start, life)
        .add_extension(x509.SubjectAlternativeName([_general_name(host)]), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(_authority_key_identifier(ca), critical=False)
        .sign(ca_key, SHA256())
    )
    return leaf.public_bytes(serialization.Encoding.PEM)


class CertificateAuthority:
    """A loaded CA that issues leaves. All its leaves share one key, which is made here and lives in this process only.

    Args:
        cert_pem: the CA's certificate.
        key_pem: its key as ``create_ca`` gave it.
        clock: seconds since the epoch.

    Raises:
        IntegrityError: certificate and key cannot be read, or do not belong together.
    """

    __slots__ = ("_ca", "_clock", "_key", "_leaf_key", "_leaf_key_pem", "cert_pem")

    def __init__(self, cert_pem: bytes, key_pem: bytes, clock: Callable[[], float] = time.time) -> None:
        try:
            self._ca = x509.load_pem_x509_certificate(cert_pem)
            key = serialization.load_pem_private_key(key_pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise does_not_open() from None
        if not isinstance(key, Key) or key.public_key() != self._ca.public_key():
            raise does_not_open()
        self.cert_pem = cert_pem
        self._key = key
        self._clock = clock
        self._leaf_key = generate_key()
        self._leaf_key_pem = _key_pem(self._leaf_key)

    @property
    def expires(self) -> float:
        """When the CA's certificate ends, seconds since the epoch."""
        return self._ca.not_valid_after_utc.timestamp()

    def issue(self, host: str) -> tuple[bytes, bytes]:
        """A leaf and its private key, both PEM. Good for ``LEAF_LIFE``, less near the CA's end.

        The CA is no part of what a server sends: who trusts the leaf has it (RFC 8446 section 4.4.2), and whoever gets
        it reads it all the same, which takes OpenSSL a fifth of a handshake.

        Raises:
            InvalidRequest: the host is neither a DNS name nor an address, or the CA has expired.
        """
        return issue_leaf(self._ca, self._key, host, self._leaf_key, now=self._clock()), self._leaf_key_pem

    def __repr__(self) -> str:
        return f"CertificateAuthority({self._ca.subject.rfc4514_string()}, ***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a certificate authority is never serialised")


def _moment(now: float) -> datetime:
    return datetime.fromtimestamp(now, UTC).replace(microsecond=0)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, start: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(int.from_bytes(os.urandom(16)) or 1)
        .not_valid_before(start - BACKDATED)
        .not_valid_after(start + life)
    )


def _general_name(host: str) -> x509.GeneralName:
    if "%" not in host:  # a zone id means something on one machine only
        try:
            return x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            pass
    name = host.lower().removesuffix(".")
    # A last label of digits makes it an IPv4 address to some parsers and a name to others.
    if not _DNS_NAME.fullmatch(name) or name.rpartition(".")[2].isdigit():
        raise InvalidRequest("no certificate can be issued for this host: it is neither a DNS name nor an IP address")
    return x509.DNSName(name)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key_identifier(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _key_pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
