"""Certificates and requests that came from elsewhere, read before anything is believed of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from keyhole.core.errors import InvalidRequest
from keyhole.crypto.pki.keys import KeyInfo, PublicKey, kind_of, public_der
from keyhole.crypto.pki.making import EXTENDED_USAGES, USAGES
from keyhole.crypto.pki.names import AltNames, Subject, read_alt_names, read_subject
from keyhole.crypto.unreadable import UNPROVEN, UNREADABLE

_BEGIN = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,64})-----\s")
_MOST_BLOCKS = 32
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """What is needed of a certificate.

    Attributes:
        pem: itself, once and without anything around it.
        der: the same in bytes.
        serial: its number.
        common_name: of its subject.
        after: from when it counts, seconds since the epoch.
        before: when it ends.
        authority: it may sign certificates.
        path_length: how many authorities may stand below it; ``None`` for any number.
        public: its key, in DER.
        key: type and bits of that.
        subject: in DER.
        issuer: in DER.
        digest: SHA-256 in hexadecimal digits.
    """

    pem: str
    der: bytes = field(repr=False)
    serial: int
    common_name: str
    after: int
    before: int
    authority: bool
    path_length: int | None
    public: bytes = field(repr=False)
    key: KeyInfo
    subject: bytes = field(repr=False)
    issuer: bytes = field(repr=False)
    digest: str

    @property
    def self_issued(self) -> bool:
        """It names itself as its issuer."""
        return self.subject == self.issuer


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What a request asks for; its signature was verified.

    Attributes:
        authority: it asks for an authority.
        usages: names of ``USAGES``.
        extended: names of ``EXTENDED_USAGES``.
        extended_oids: others, as object ids.
    """

    subject: Subject
    names: AltNames
    public: bytes = field(repr=False)
    key: KeyInfo
    authority: bool = False
    usages: tuple[str, ...] = ()
    extended: tuple[str, ...] = ()
    extended_oids: tuple[str, ...] = ()


def read_pem_bundle(text: str) -> tuple[list[str], list[str]]:
    """The certificates and the private keys in a text of PEM blocks. Raises ``InvalidRequest``."""
    certificates, keys = [], []
    position = 0
    while (begin := _BEGIN.search(text, position)) is not None:
        label, end = begin[1], f"-----END {begin[1]}-----"
        found = text.find(end, begin.end())
        if found < 0:  # said at once: to look for the end of each block anew is a way to keep us busy
            raise InvalidRequest("the bundle has a block without an end", "send the whole text")
        position = found + len(end)
        block = f"{text[begin.start() : position]}\n"
        if label == "CERTIFICATE":
            certificates.append(block)
        elif label.endswith("PRIVATE KEY"):
            keys.append(block)
        elif label != "EC PARAMETERS":
            raise InvalidRequest("the bundle has a block that is neither certificate nor private key")
        if len(certificates) + len(keys) > _MOST_BLOCKS:
            raise InvalidRequest(f"the bundle has more than {_MOST_BLOCKS} blocks", "send it in parts")
    return certificates, keys


def read_certificate(pem: str) -> CertificateInfo:
    """What a certificate says. Raises ``InvalidRequest``."""
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        key = certificate.public_key()
        constraints = _extension(certificate.extensions, x509.BasicConstraints)
        usage = _extension(certificate.extensions, x509.KeyUsage)
        names = read_subject(certificate.subject)
    except UNREADABLE:
        raise InvalidRequest("this is not a certificate", "send it in PEM") from None
    if not isinstance(key, PublicKey):
        raise InvalidRequest("the certificate has a kind of key that is not known", "use RSA, ECDSA or Ed25519")
    authority = constraints is not None and constraints.ca
    return CertificateInfo(
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        certificate.public_bytes(serialization.Encoding.DER),
        certificate.serial_number,
        names.common_name,
        int(certificate.not_valid_before_utc.timestamp()),
        int(certificate.not_valid_after_utc.timestamp()),
        authority and (usage is None or usage.key_cert_sign),
        constraints.path_length if constraints is not None else None,
        public_der(key),
        kind_of(key),
        certificate.subject.public_bytes(),
        certificate.issuer.public_bytes(),
        certificate.fingerprint(hashes.SHA256()).hex(),
    )


def read_request(pem: str) -> RequestInfo:
    """What a request asks for. Raises ``InvalidRequest``, also when it is not signed with its own key."""
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        valid = request.is_signature_valid
        key = request.public_key()
        extensions = request.extensions
        subject = read_subject(request.subject)
        alternative = _extension(extensions, x509.SubjectAlternativeName)
        constraints = _extension(extensions, x509.BasicConstraints)
        usage = _extension(extensions, x509.KeyUsage)
        extended = _extension(extensions, x509.ExtendedKeyUsage)
    except UNREADABLE:
        raise InvalidRequest("certificate request could not be parsed", "send it in PEM") from None
    if not valid or not isinstance(key, PublicKey):
        raise InvalidRequest("request signature invalid", "it is signed with the key that it is for")
    known = {oid: name for name, oid in EXTENDED_USAGES.items()}
    return RequestInfo(
        subject,
        AltNames() if alternative is None else read_alt_names(list(alternative)),
        public_der(key),
        kind_of(key),
        constraints is not None and constraints.ca,
        _usages(usage),
        tuple(known[oid] for oid in extended or () if oid in known),
        tuple(oid.dotted_string for oid in extended or () if oid not in known),
    )


def is_signed_by(certificate: str, issuer: str) -> bool:
    """Whether the one names the other as its issuer, and has its signature. Both in PEM."""
    try:
        upper = x509.load_pem_x509_certificate(issuer.encode())
        x509.load_pem_x509_certificate(certificate.encode()).verify_directly_issued_by(upper)
    except UNPROVEN:
        return False
    return True


def _extension(extensions: x509.Extensions, kind: type[_Extension]) -> _Extension | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _usages(usage: x509.KeyUsage | None) -> tuple[str, ...]:
    if usage is None:
        return ()
    agreement = ("encipher_only", "decipher_only")  # these two may be asked only where keys are agreed on
    return tuple(
        name
        for name, attribute in USAGES.items()
        if (attribute not in agreement or usage.key_agreement) and getattr(usage, attribute)
    )
