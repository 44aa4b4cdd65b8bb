"""SSH keys and certificates (OpenSSH's PROTOCOL.certkeys, RFC 4253, RFC 8332).

Safe here: a certificate always has an end and, unless the caller says otherwise, principals; RSA signs with SHA-2 only;
RSA keys below 2048 bits, DSA and keys of security tokens (whose certificates are of another type) are refused.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import SSHCertificateBuilder, SSHCertificateType

from keyhole.core.errors import InvalidRequest
from keyhole.crypto.unreadable import UNREADABLE

ED25519 = "ssh-ed25519"
RSA = "ssh-rsa"
CURVES: MappingProxyType[str, type[ec.EllipticCurve]] = MappingProxyType(
    {
        "ecdsa-sha2-nistp256": ec.SECP256R1,
        "ecdsa-sha2-nistp384": ec.SECP384R1,
        "ecdsa-sha2-nistp521": ec.SECP521R1,
    }
)
KINDS = (RSA, ED25519, *CURVES)
RSA_SIZES = (2048, 3072, 4096)
SIGNERS = ("rsa-sha2-256", "rsa-sha2-512")
_PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey
_WRONG: tuple[type[Exception], ...] = (*UNREADABLE, IndexError)


class PublicKey(NamedTuple):
    """A public key that was read.

    Attributes:
        text: one line, type and base64, without a comment.
        kind: one of ``KINDS``.
        bits: of RSA the modulus, of ECDSA the curve; 256 for Ed25519.
        digest: SHA-256 of its bytes in hexadecimal digits.
    """

    text: str
    kind: str
    bits: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a certificate is to say.

    Attributes:
        key: whose it is.
        serial: 64 bits.
        host: of a host, not of a user.
        key_id: what servers write into their logs.
        principals: names for which it counts; none for all of them.
        after: from when it counts, seconds since the epoch.
        before: when it ends.
        critical: options that a server must understand, by name.
        extensions: what it permits, by name.
    """

    key: PublicKey
    serial: int
    host: bool
    key_id: str
    principals: tuple[str, ...]
    after: int
    before: int
    critical: Mapping[str, str] = field(default_factory=dict)
    extensions: Mapping[str, str] = field(default_factory=dict)


def generate(kind: str, bits: int = 0) -> bytes:
    """A new private key in OpenSSH's PEM; the caller seals it. RSA takes up to seconds: use a thread.

    Args:
        kind: one of ``KINDS``.
        bits: of RSA, one of ``RSA_SIZES``; 0 for 4096.
    """
    key: _PrivateKey
    if kind == ED25519:
        key = ed25519.Ed25519PrivateKey.generate()
    elif kind in CURVES:
        key = ec.generate_private_key(CURVES[kind]())
    else:
        key = rsa.generate_private_key(public_exponent=65537, key_size=bits or RSA_SIZES[-1])
    return _to_pem(key)


def normalised(private: bytes) -> bytes:
    """A private key, in PEM of any kind and without a passphrase, as this module writes it.

    Raises:
        InvalidRequest: it is none, or of a kind that is not used here.
    """
    key = _load(private, ours=False)
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < RSA_SIZES[0]:
        raise InvalidRequest(f"the RSA key has fewer than {RSA_SIZES[0]} bits", "use ssh-ed25519")
    return _to_pem(key)


def public_of(private: bytes) -> str:
    """The line of the public key of a private one."""
    return _public_text(_load(private).public_key())


def read_public(text: str) -> PublicKey:
    """A public key as ``ssh-keygen`` writes it, with or without a comment, or its base64 alone.

    Raises:
        InvalidRequest: it is none, or of a kind that cannot be certified here.
    """
    words = text.split()
    try:
        blob = base64.b64decode(words[1] if len(words) > 1 else words[0], validate=True)
        kind = _first_string(blob).decode("ascii")
        if len(words) > 1 and words[0] != kind:
            raise _no_key()
        if kind not in KINDS:
            raise InvalidRequest("keys of this type are not certified", f"use {', '.join(KINDS)}")
        key = serialization.load_ssh_public_key(b" ".join([kind.encode(), base64.b64encode(blob)]))
    except _WRONG:
        raise _no_key() from None
    if not isinstance(key, _PublicKey):
        raise _no_key()
    bits = key.key_size if isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) else 256
    if kind == RSA and bits < RSA_SIZES[0]:
        raise InvalidRequest(f"the RSA key has fewer than {RSA_SIZES[0]} bits", "make one with ssh-keygen -t ed25519")
    line = _public_text(key)
    return PublicKey(line, kind, bits, hashlib.sha256(base64.b64decode(line.split()[1])).hexdigest())


def certify(private: bytes, certificate: Certificate, signer: str = "") -> str:
    """The certificate as one line, type and base64.

    Args:
        private: the key of the authority.
        certificate: what it says.
        signer: of an RSA authority, one of ``SIGNERS``; the second when it is empty.

    Raises:
        InvalidRequest: it says something that no certificate can say.
    """
    key = _load(private)
    public = serialization.load_ssh_public_key(certificate.key.text.encode())
    if not isinstance(public, _PublicKey):
        raise _no_key()
    builder = (
        SSHCertificateBuilder()
        .public_key(public)
        .serial(certificate.serial)
        .type(SSHCertificateType.HOST if certificate.host else SSHCertificateType.USER)
        .key_id(certificate.key_id.encode())
        .valid_after(certificate.after)
        .valid_before(certificate.before)
    )
    try:
        if certificate.principals:
            builder = builder.valid_principals([name.encode() for name in certificate.principals])
        else:
            builder = builder.valid_for_all_principals()  # type: ignore[no-untyped-call]  # the library's own gap
        for name, value in certificate.critical.items():
            builder = builder.add_critical_option(name.encode(), value.encode())
        for name, value in certificate.extensions.items():
            builder = builder.add_extension(name.encode(), value.encode())
        line = builder.sign(key).public_bytes().decode()
    except ValueError:
        raise InvalidRequest("no certificate can be made of these values", "shorten the lists, or the time") from None
    if isinstance(key, rsa.RSAPrivateKey) and signer == SIGNERS[0]:
        return _signed_again(key, line)
    return line


def _signed_again(key: rsa.RSAPrivateKey, line: str) -> str:
    """The same certificate with a signature by SHA-256; the library signs with SHA-512 only."""
    kind, text = line.split()[:2]
    blob = base64.b64decode(text)
    size = (key.key_size + 7) // 8
    tail = _string(b"rsa-sha2-512") + struct.pack(">I", size)
    body = blob[: -(4 + len(tail) + size)]
    if blob[len(body) + 4 : len(body) + 4 + len(tail)] != tail:
        raise ValueError("the certificate does not end in the signature that it should have")
    signature = key.sign(body, padding.PKCS1v15(), hashes.SHA256())
    blob = body + _string(_string(b"rsa-sha2-256") + _string(signature))
    return f"{kind} {base64.b64encode(blob).decode()}"


def _string(data: bytes) -> bytes:
    """RFC 4251, section 5."""
    return struct.pack(">I", len(data)) + data


def _first_string(blob: bytes) -> bytes:
    if len(blob) < 4:
        raise _no_key()
    size: int = struct.unpack_from(">I", blob)[0]
    return blob[4 : 4 + size]


def _load(private: bytes, *, ours: bool = True) -> _PrivateKey:
    """Whether the numbers of an RSA key fit together takes up to a second: asked of what others bring, once."""
    load = (
        serialization.load_ssh_private_key
        if b"BEGIN OPENSSH PRIVATE KEY" in private
        else serialization.load_pem_private_key
    )
    try:
        key = load(private, None, unsafe_skip_rsa_key_validation=ours)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidRequest(
            "this is not a private key in PEM without a passphrase", "write it with ssh-keygen -p -N ''"
        ) from None
    if not isinstance(key, _PrivateKey):
        raise InvalidRequest("this kind of private key is not used here", f"use {', '.join(KINDS)}")
    if isinstance(key, ec.EllipticCurvePrivateKey) and not isinstance(key.curve, tuple(CURVES.values())):
        raise InvalidRequest("this curve is not used for SSH", f"use {', '.join(CURVES)}")
    return key


def _to_pem(key: _PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def _public_text(key: _PublicKey) -> str:
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def _no_key() -> InvalidRequest:
    return InvalidRequest("failed to parse public_key as SSH key", "send the line of the .pub file")
