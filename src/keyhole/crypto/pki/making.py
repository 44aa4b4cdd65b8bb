"""Certificates, requests for them, and lists of those that were revoked (RFC 5280, RFC 2986)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from keyhole.core.errors import InvalidRequest
from keyhole.crypto.pki.keys import PrivateKey, PublicKey, load_private
from keyhole.crypto.pki.names import AltNames, Subject

USAGES: MappingProxyType[str, str] = MappingProxyType(
    {
        "digitalsignature": "digital_signature",
        "contentcommitment": "content_commitment",
        "keyencipherment": "key_encipherment",
        "dataencipherment": "data_encipherment",
        "keyagreement": "key_agreement",
        "certsign": "key_cert_sign",
        "crlsign": "crl_sign",
        "encipheronly": "encipher_only",
        "decipheronly": "decipher_only",
    }
)
EXTENDED_USAGES: MappingProxyType[str, x509.ObjectIdentifier] = MappingProxyType(
    {
        "any": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
        "serverauth": ExtendedKeyUsageOID.SERVER_AUTH,
        "clientauth": ExtendedKeyUsageOID.CLIENT_AUTH,
        "codesigning": ExtendedKeyUsageOID.CODE_SIGNING,
        "emailprotection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
        "ipsecendsystem": x509.ObjectIdentifier("1.3.6.1.5.5.7.3.5"),
        "ipsectunnel": x509.ObjectIdentifier("1.3.6.1.5.5.7.3.6"),
        "ipsecuser": x509.ObjectIdentifier("1.3.6.1.5.5.7.3.7"),
        "timestamping": ExtendedKeyUsageOID.TIME_STAMPING,
        "ocspsigning": ExtendedKeyUsageOID.OCSP_SIGNING,
    }
)
_AUTHORITY = frozenset({"certsign", "crlsign"})
_Hash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
_HASHES: MappingProxyType[int, type[_Hash]] = MappingProxyType(
    {256: hashes.SHA256, 384: hashes.SHA384, 512: hashes.SHA512}
)
_HASH_OF_CURVE: MappingProxyType[str, type[_Hash]] = MappingProxyType(
    {"secp256r1": hashes.SHA256, "secp384r1": hashes.SHA384, "secp521r1": hashes.SHA512}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a certificate is to say.

    Attributes:
        subject: whose it is.
        names: alternative names.
        serial: its number.
        after: from when it counts, seconds since the epoch.
        before: when it ends.
        authority: it may sign others.
        path_length: of an authority: how many more may stand below it; ``None`` for any number.
        usages: names of ``USAGES``.
        extended: names of ``EXTENDED_USAGES``.
        extended_oids: more of them, as object ids.
        policies: object ids.
        constraints: say also of who is no authority that it is none.
        permitted_dns: domains below which an authority may certify names.
        issuing_urls: where the issuer's certificate is.
        crl_urls: where the list of revoked ones is.
        ocsp_urls: who answers for single ones.
    """

    subject: Subject
    names: AltNames = field(default_factory=AltNames)
    serial: int = 0
    after: int = 0
    before: int = 0
    authority: bool = False
    path_length: int | None = None
    usages: tuple[str, ...] = ()
    extended: tuple[str, ...] = ()
    extended_oids: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    constraints: bool = False
    permitted_dns: tuple[str, ...] = ()
    issuing_urls: tuple[str, ...] = ()
    crl_urls: tuple[str, ...] = ()
    ocsp_urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs.

    Attributes:
        private: its key, PKCS #8 in DER.
        certificate: in PEM; empty for one that signs for itself.
        bits: of the hash for RSA: 256, 384 or 512; 0 for 256.
        pss: RSA with PSS.
    """

    private: bytes = field(repr=False)
    certificate: str = ""
    bits: int = 0
    pss: bool = False


def new_serial() -> int:
    """159 random bits (RFC 5280, section 4.1.2.2, has room for so many)."""
    return x509.random_serial_number()


def make_certificate(issuer: Issuer, public: bytes, content: Content) -> str:
    """A certificate in PEM.

    Args:
        issuer: who signs.
        public: whose key, in DER.
        content: what it says.

    Raises:
        InvalidRequest: the values make no certificate, or the issuer may not make such a one.
    """
    key = load_private(issuer.private)
    owner = _public(public)
    signer = x509.load_pem_x509_certificate(issuer.certificate.encode()) if issuer.certificate else None
    if signer is not None and content.authority:
        _check_path_length(signer, content.path_length)
    subject = content.subject.encode()
    try:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(signer.subject if signer is not None else subject)
            .public_key(owner)
            .serial_number(content.serial)
            .not_valid_before(_moment(content.after))
            .not_valid_after(_moment(content.before))
        )
        for extension, critical in _extensions(content, owner, key.public_key(), signer):
            builder = builder.add_extension(extension, critical)
        made = builder.sign(key, signing_hash(key, issuer.bits), rsa_padding=_padding(key, issuer))
    except (ValueError, TypeError, OverflowError):
        raise InvalidRequest("no certificate can be made of these values", "check usages, URLs and times") from None
    return made.public_bytes(serialization.Encoding.PEM).decode()


def sign_again(issuer: Issuer, pem: str) -> str:
    """A certificate that says all that the given one says, with the issuer's name, signature and, if sooner, end. PEM.

    Raises:
        InvalidRequest: the issuer may not make such a one.
    """
    given = x509.load_pem_x509_certificate(pem.encode())
    signer = x509.load_pem_x509_certificate(issuer.certificate.encode())
    key, owner = load_private(issuer.private), given.public_key()
    if not isinstance(owner, PublicKey):
        raise InvalidRequest("this kind of public key is not known")
    constraints = given.extensions.get_extension_for_class(x509.BasicConstraints).value
    _check_path_length(signer, constraints.path_length)
    builder = (
        x509.CertificateBuilder()
        .subject_name(given.subject)
        .issuer_name(signer.subject)
        .public_key(owner)
        .serial_number(given.serial_number)
        .not_valid_before(given.not_valid_before_utc)
        .not_valid_after(min(given.not_valid_after_utc, signer.not_valid_after_utc))
        .add_extension(_issuer_key(signer, key.public_key()), critical=False)
    )
    for extension in given.extensions:
        if not isinstance(extension.value, x509.AuthorityKeyIdentifier):
            builder = builder.add_extension(extension.value, extension.critical)
    made = builder.sign(key, signing_hash(key, issuer.bits), rsa_padding=_padding(key, issuer))
    return made.public_bytes(serialization.Encoding.PEM).decode()


def make_request(private: bytes, content: Content, bits: int = 0) -> str:
    """A request for a certificate, in PEM, of the owner of this key."""
    key = load_private(private)
    try:
        builder = x509.CertificateSigningRequestBuilder().subject_name(content.subject.encode())
        names = content.names.encode()
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if content.authority and content.constraints:
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        if content.usages:
            builder = builder.add_extension(_key_usage(content.usages), critical=True)
        return builder.sign(key, signing_hash(key, bits)).public_bytes(serialization.Encoding.PEM).decode()
    except (ValueError, TypeError):
        raise InvalidRequest("no request can be made of these values") from None


def make_crl(issuer: Issuer, number: int, now: int, end: int, revoked: Iterable[tuple[int, int]]) -> bytes:
    """The list of revoked certificates in DER.

    Args:
        issuer: whose list it is.
        number: greater than that of the list before.
        now: seconds since the epoch.
        end: when the next one is there at the latest.
        revoked: serial and time of each.
    """
    key = load_private(issuer.private)
    signer = x509.load_pem_x509_certificate(issuer.certificate.encode())
    # Handed over at once: each one that is added later is another copy of them all.
    entries = [
        x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_moment(when)).build()
        for serial, when in revoked
    ]
    builder = (
        x509.CertificateRevocationListBuilder(revoked_certificates=entries)
        .issuer_name(signer.subject)
        .last_update(_moment(now))
        .next_update(_moment(end))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_issuer_key(signer, key.public_key()), critical=False)
    )
    crl = builder.sign(key, signing_hash(key, issuer.bits), rsa_padding=_padding(key, issuer))
    return crl.public_bytes(serialization.Encoding.DER)


def _extensions(
    content: Content, owner: PublicKey, signing: PublicKey, signer: x509.Certificate | None
) -> list[tuple[x509.ExtensionType, bool]]:
    if not content.authority and not _AUTHORITY.isdisjoint(content.usages):
        raise InvalidRequest("CertSign and CRLSign are for authorities only", "leave them out of key_usage")
    found: list[tuple[x509.ExtensionType, bool]] = [
        (x509.SubjectKeyIdentifier.from_public_key(owner), False),
        (_issuer_key(signer, signing), False),
    ]
    if content.authority or content.constraints:
        constraints = x509.BasicConstraints(ca=content.authority, path_length=content.path_length)
        found.append((constraints, True))
    if content.usages:
        found.append((_key_usage(content.usages), True))
    extended = [EXTENDED_USAGES[name] for name in content.extended]
    extended += [x509.ObjectIdentifier(oid) for oid in content.extended_oids]
    if extended:
        found.append((x509.ExtendedKeyUsage(extended), False))
    names = content.names.encode()
    if names:
        # A certificate without a subject is known by these names only: RFC 5280, section 4.2.1.6.
        found.append((x509.SubjectAlternativeName(names), content.subject == Subject()))
    if content.policies:
        policies = [x509.PolicyInformation(x509.ObjectIdentifier(oid), None) for oid in content.policies]
        found.append((x509.CertificatePolicies(policies), False))
    if content.permitted_dns:
        permitted = [x509.DNSName(name) for name in content.permitted_dns]
        found.append((x509.NameConstraints(permitted, None), True))
    return [*found, *_addresses(content)]


def _addresses(content: Content) -> list[tuple[x509.ExtensionType, bool]]:
    """Where to look for the issuer's certificate and what it has revoked."""
    found: list[tuple[x509.ExtensionType, bool]] = []
    access = [
        x509.AccessDescription(method, x509.UniformResourceIdentifier(url))
        for method, urls in (
            (AuthorityInformationAccessOID.OCSP, content.ocsp_urls),
            (AuthorityInformationAccessOID.CA_ISSUERS, content.issuing_urls),
        )
        for url in urls
    ]
    if access:
        found.append((x509.AuthorityInformationAccess(access), False))
    if content.crl_urls:
        points = [
            x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None) for url in content.crl_urls
        ]
        found.append((x509.CRLDistributionPoints(points), False))
    return found


def _check_path_length(signer: x509.Certificate, wanted: int | None) -> None:
    limit = signer.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    if limit is None:
        return
    if limit == 0:
        raise InvalidRequest("the issuer has a max path length of zero, cannot issue further CA certificates")
    if wanted is None or wanted >= limit:
        raise InvalidRequest(f"max_path_length is at most {limit - 1} below this issuer", "send a smaller one")


def _issuer_key(signer: x509.Certificate | None, signing: PublicKey) -> x509.AuthorityKeyIdentifier:
    if signer is not None:
        try:
            identifier = signer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            pass
        else:
            return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(signing)


def _key_usage(names: Iterable[str]) -> x509.KeyUsage:
    wanted = {USAGES[name] for name in names}
    return x509.KeyUsage(**{usage: usage in wanted for usage in USAGES.values()})


def signing_hash(key: PrivateKey, bits: int) -> _Hash | None:
    """The hash with which a key signs; Ed25519 has its own."""
    if isinstance(key, rsa.RSAPrivateKey):
        return _HASHES[bits or 256]()
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return _HASH_OF_CURVE[key.curve.name]()
    return None


def _padding(key: PrivateKey, issuer: Issuer) -> padding.PSS | None:
    if not issuer.pss or not isinstance(key, rsa.RSAPrivateKey):
        return None
    return padding.PSS(padding.MGF1(_HASHES[issuer.bits or 256]()), padding.PSS.DIGEST_LENGTH)


def _public(der: bytes) -> PublicKey:
    key = serialization.load_der_public_key(der)
    if not isinstance(key, PublicKey):
        raise InvalidRequest("this kind of public key is not known")
    return key


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=0)
