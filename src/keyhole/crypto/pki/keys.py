"""Key pairs of certificates: Ed25519, ECDSA on the curves of NIST, RSA. Private keys are PKCS #8 in DER."""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from keyhole.core.errors import InvalidRequest
from keyhole.crypto import asymmetric

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey
KINDS: MappingProxyType[tuple[str, int], str] = MappingProxyType(
    {
        ("rsa", 2048): "rsa-2048",
        ("rsa", 3072): "rsa-3072",
        ("rsa", 4096): "rsa-4096",
        ("ec", 256): "ecdsa-p256",
        ("ec", 384): "ecdsa-p384",
        ("ec", 521): "ecdsa-p521",
        ("ed25519", 0): "ed25519",
    }
)
"""Type and bits of keys that can be made, and their names in ``crypto.asymmetric``."""
_LEAST_RSA = 2048
_MOST_RSA = 16384  # what takes longer to check is a way to keep us busy
_CURVES = {"secp256r1": 256, "secp384r1": 384, "secp521r1": 521}


class KeyInfo(NamedTuple):
    """Type (``rsa``, ``ec`` or ``ed25519``) and bits (0 for Ed25519) of a key."""

    type: str
    bits: int


def generate(info: KeyInfo) -> bytes:
    """A new private key; the caller seals it. RSA takes up to seconds: use a thread."""
    return asymmetric.generate(KINDS[info])


def kind_of(key: PublicKey) -> KeyInfo:
    """Type and bits. Raises ``InvalidRequest`` for a key that is too weak or not known."""
    if isinstance(key, rsa.RSAPublicKey):
        if not _LEAST_RSA <= key.key_size <= _MOST_RSA:
            raise InvalidRequest("RSA keys < 2048 bits are unsafe and not supported", "make a new key")
        return KeyInfo("rsa", key.key_size)
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in _CURVES:
            raise InvalidRequest("this curve is not used here", "use P-256, P-384 or P-521")
        return KeyInfo("ec", _CURVES[key.curve.name])
    return KeyInfo("ed25519", 0)


def load_private(private: bytes, *, ours: bool = True) -> PrivateKey:
    """A private key in DER, or in PEM without a passphrase. Raises ``InvalidRequest``.

    Args:
        private: the key.
        ours: it was made or looked at here, and sealed. Whether the numbers of an RSA key fit together, which takes up
            to a second, is asked of others only: whoever asks by OCSP would keep us busy with it.
    """
    load = serialization.load_pem_private_key if b"-----BEGIN" in private else serialization.load_der_private_key
    try:
        key = load(private, None, unsafe_skip_rsa_key_validation=ours)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidRequest("this is not a private key without a passphrase", "send it in PEM") from None
    if not isinstance(key, PrivateKey):
        raise InvalidRequest("this kind of private key is not known", "use RSA, ECDSA or Ed25519")
    kind_of(key.public_key())
    return key


def read_private(pem: str) -> tuple[bytes, KeyInfo]:
    """A private key that was made elsewhere, in DER, and what it is."""
    key = load_private(pem.encode(), ours=False)
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return der, kind_of(key.public_key())


def private_text(private: bytes, *, pkcs8: bool = False) -> str:
    """The private key in PEM: as older programs read it, or in PKCS #8. Ed25519 has the latter only."""
    key = load_private(private)
    old = not pkcs8 and not isinstance(key, ed25519.Ed25519PrivateKey)
    form = serialization.PrivateFormat.TraditionalOpenSSL if old else serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def public_der(key: PublicKey) -> bytes:
    """The public key as it stands in a certificate."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def public_of(private: bytes) -> bytes:
    """The public key of a private one, both in DER."""
    return public_der(load_private(private).public_key())
