"""Signatures of SSH: those of a login, and those by which hosts prove their keys (RFC 4252, 4253, 5656, 8332, 8709).

SHA-1 (``ssh-rsa``) and DSA are neither made nor believed.
"""

from __future__ import annotations

import base64
import struct
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import SSHCertificate, SSHCertificateType, load_ssh_public_identity

from keyhole.core.errors import InvalidRequest
from keyhole.crypto.ssh import CURVES, RSA_SIZES, _load, _string
from keyhole.crypto.unreadable import UNREADABLE

_HASHES: dict[str, hashes.HashAlgorithm] = {"rsa-sha2-256": hashes.SHA256(), "rsa-sha2-512": hashes.SHA512()}
_CURVE_HASHES: dict[str, hashes.HashAlgorithm] = {
    "ecdsa-sha2-nistp256": hashes.SHA256(),
    "ecdsa-sha2-nistp384": hashes.SHA384(),
    "ecdsa-sha2-nistp521": hashes.SHA512(),
}
_WRONG: tuple[type[Exception], ...] = (*UNREADABLE, IndexError, struct.error)
_CERTIFIED = "-cert-v01@openssh.com"
_FIELDS = {"ssh-rsa": 2, "ssh-ed25519": 1, **dict.fromkeys(CURVES, 2)}  # of the key in a certificate


class Proof(NamedTuple):
    """What a host key says besides itself.

    Attributes:
        line: type and base64 of the key, or of the authority that certified it.
        certified: whether it is the authority's.
    """

    line: str
    certified: bool


def sign(private: bytes, data: bytes, algorithm: str) -> bytes:
    """A signature as a string of type and bytes (RFC 4253 section 6.6).

    Args:
        private: PEM without a passphrase.
        data: what is signed.
        algorithm: as the login names it, such as ``ssh-ed25519`` or ``rsa-sha2-512-cert-v01@openssh.com``.

    Raises:
        InvalidRequest: the key cannot sign so.
    """
    key = _load(private)
    name = algorithm.removesuffix(_CERTIFIED)
    if isinstance(key, ed25519.Ed25519PrivateKey) and name == "ssh-ed25519":
        return _string(name.encode()) + _string(key.sign(data))
    if isinstance(key, rsa.RSAPrivateKey) and name in _HASHES:
        return _string(name.encode()) + _string(key.sign(data, padding.PKCS1v15(), _HASHES[name]))
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, CURVES.get(name, ())):
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(_CURVE_HASHES[name])))
        return _string(name.encode()) + _string(_mpint(r) + _mpint(s))
    raise InvalidRequest("the key cannot sign as the client asks", "SHA-1 signatures are not made")


def verify(host_key: bytes, signature: bytes, data: bytes) -> bool:
    """Whether a host's key, as it stands on the wire, has signed these bytes."""
    try:
        identity = load_ssh_public_identity(_line(host_key))
        key = identity.public_key() if isinstance(identity, SSHCertificate) else identity
        name, rest = _take(signature)
        content, rest = _take(rest)
        if rest:
            return False
        return _verify(key, name.decode("ascii"), content, data)
    except _WRONG:
        return False


def proof(host_key: bytes, host: str, now: float) -> Proof | None:
    """What has to be known of a host's key: itself, or of a certificate for this host its authority.

    Returns:
        ``None`` for a certificate that does not count, and for what is no key.
    """
    try:
        identity = load_ssh_public_identity(_line(host_key))
        if not isinstance(identity, SSHCertificate):
            return Proof(_line(host_key).decode(), certified=False)
        if not _is_signed(host_key, identity.signature_key()):
            return None
        if identity.type is not SSHCertificateType.HOST or identity.critical_options:
            return None
        if not identity.valid_after <= now < identity.valid_before or host.encode() not in identity.valid_principals:
            return None
        authority = identity.signature_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        return Proof(authority.decode(), certified=True)
    except _WRONG:
        return None


def _is_signed(certificate: bytes, authority: object) -> bool:
    """Whether an authority has signed a certificate, by what is believed here (``PROTOCOL.certkeys``, OpenSSH)."""
    kind, rest = _take(certificate)
    for _ in range(1 + _FIELDS[kind.decode("ascii").removesuffix(_CERTIFIED)]):  # nonce, and the key
        _, rest = _take(rest)
    rest = rest[8 + 4 :]  # serial, type
    for _ in range(2):  # key id, principals
        _, rest = _take(rest)
    rest = rest[8 + 8 :]  # from when it counts, until when
    for _ in range(4):  # critical options, extensions, nothing, key of the authority
        _, rest = _take(rest)
    signed = certificate[: len(certificate) - len(rest)]
    signature, rest = _take(rest)
    name, left = _take(signature)
    content, left = _take(left)
    return not (rest or left) and _verify(authority, name.decode("ascii"), content, signed)


def public_blob(private: bytes) -> bytes:
    """The public key on the wire. Raises ``InvalidRequest`` for what is no private key without a passphrase."""
    key = _load(private)
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < RSA_SIZES[0]:
        raise InvalidRequest(f"the RSA key has fewer than {RSA_SIZES[0]} bits", "make one with ssh-keygen -t ed25519")
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return base64.b64decode(line.split()[1])


def certificate_blob(line: bytes, private: bytes) -> bytes:
    """A certificate on the wire. Raises ``InvalidRequest`` for one that is none of this key."""
    try:
        blob = base64.b64decode(line.split()[1], validate=True)
        identity = load_ssh_public_identity(_line(blob))
        if isinstance(identity, SSHCertificate) and identity.public_key() == _load(private).public_key():
            return blob
    except _WRONG:
        pass
    raise InvalidRequest("signed_key is no certificate of the private key", "look at the secret, or at the role")


def _verify(key: object, name: str, signature: bytes, data: bytes) -> bool:
    try:
        if isinstance(key, ed25519.Ed25519PublicKey) and name == "ssh-ed25519":
            key.verify(signature, data)
        elif isinstance(key, rsa.RSAPublicKey) and name in _HASHES and key.key_size >= RSA_SIZES[0]:
            key.verify(signature, data, padding.PKCS1v15(), _HASHES[name])
        elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, CURVES.get(name, ())):
            r, rest = _take(signature)
            s, rest = _take(rest)
            key.verify(encode_dss_signature(int.from_bytes(r), int.from_bytes(s)), data, ec.ECDSA(_CURVE_HASHES[name]))
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _line(blob: bytes) -> bytes:
    kind, _ = _take(blob)
    return kind + b" " + base64.b64encode(blob)


def _take(data: bytes) -> tuple[bytes, bytes]:
    """A string (RFC 4251 section 5), and what follows it."""
    size: int = struct.unpack_from(">I", data)[0]
    if 4 + size > len(data):
        raise ValueError
    return data[4 : 4 + size], data[4 + size :]


def _mpint(number: int) -> bytes:
    """RFC 4251 section 5, of a positive number."""
    return _string(number.to_bytes(number.bit_length() // 8 + 1, "big"))
