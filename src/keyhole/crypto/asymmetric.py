"""Key pairs that a vault keeps for applications: Ed25519 (RFC 8032), ECDSA (FIPS 186-5), RSA (RFC 8017).

Safe here: keys are made by OpenSSL with the fixed sizes below; RSA encrypts with OAEP and signs with PSS unless the
caller asks for PKCS #1 v1.5 signatures; PKCS #1 v1.5 encryption and SHA-1 do not exist here.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from types import MappingProxyType

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap_with_padding

from keyhole.core.errors import InvalidRequest
from keyhole.crypto.aead import does_not_open
from keyhole.crypto.kdf import hkdf

CURVES: MappingProxyType[str, tuple[type[ec.EllipticCurve], str]] = MappingProxyType(
    {
        "ecdsa-p256": (ec.SECP256R1, "P-256"),
        "ecdsa-p384": (ec.SECP384R1, "P-384"),
        "ecdsa-p521": (ec.SECP521R1, "P-521"),
    }
)
RSA_BITS = MappingProxyType({"rsa-2048": 2048, "rsa-3072": 3072, "rsa-4096": 4096})
HASHES: MappingProxyType[str, type[hashes.HashAlgorithm]] = MappingProxyType(
    {
        "sha2-224": hashes.SHA224,
        "sha2-256": hashes.SHA256,
        "sha2-384": hashes.SHA384,
        "sha2-512": hashes.SHA512,
        "sha3-224": hashes.SHA3_224,
        "sha3-256": hashes.SHA3_256,
        "sha3-384": hashes.SHA3_384,
        "sha3-512": hashes.SHA3_512,
    }
)
KINDS = ("ed25519", *CURVES, *RSA_BITS)
_SEED = 32
_EPHEMERAL_SIZE = 32
_PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Scheme:
    """How to sign.

    Attributes:
        hash: one of ``HASHES``; Ed25519 has its own and takes the message as it is.
        prehashed: what is signed is a digest already.
        pkcs1v15: RSA without PSS.
        salt: of PSS: ``auto`` (the longest; any when verifying), ``hash``, or bytes as digits.
        raw: ECDSA as r and s in fixed width (RFC 7515), not as DER.
    """

    hash: str = "sha2-256"
    prehashed: bool = False
    pkcs1v15: bool = False
    salt: str = "auto"
    raw: bool = False


def generate(kind: str) -> bytes:
    """A new private key of this kind, PKCS #8 in DER; the caller seals it. RSA takes up to seconds: use a thread."""
    key: _PrivateKey
    if kind == "ed25519":
        key = ed25519.Ed25519PrivateKey.generate()
    elif kind in CURVES:
        key = ec.generate_private_key(CURVES[kind][0]())
    else:
        key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS[kind])
    return _to_der(key)


def derive_ed25519(private: bytes, context: bytes) -> bytes:
    """The Ed25519 key of a context, made from another one by HKDF-SHA256."""
    seed = hkdf(_load_ed25519(private).private_bytes_raw(), context, _SEED)
    return _to_der(ed25519.Ed25519PrivateKey.from_private_bytes(seed))


def check(kind: str, private: bytes) -> None:
    """Raises ``InvalidRequest`` unless the key is one of this kind."""
    key = _load(private, ours=False)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        fits = kind == "ed25519"
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        fits = kind in CURVES and isinstance(key.curve, CURVES[kind][0])
    else:
        fits = RSA_BITS.get(kind) == key.key_size
    if not fits:
        raise InvalidRequest(f"the key is not one of the type {kind}")


def public_text(private: bytes) -> str:
    """The public key: Ed25519 in base64, others as PEM."""
    key = _load(private)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return base64.b64encode(key.public_key().public_bytes_raw()).decode()
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(encoding, form).decode()


def private_text(private: bytes) -> str:
    """The private key as applications read it: Ed25519 as seed and public key in base64, others as their old PEM."""
    key = _load(private)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return base64.b64encode(key.private_bytes_raw() + key.public_key().public_bytes_raw()).decode()
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def sign(private: bytes, message: bytes, scheme: Scheme) -> bytes:
    """The signature of a message or, if it is prehashed, of a digest.

    Raises:
        InvalidRequest: the digest or the salt does not fit.
    """
    key = _load(private)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    try:
        if isinstance(key, ec.EllipticCurvePrivateKey):
            signature = key.sign(message, ec.ECDSA(_hash(scheme)))
            return _to_raw(signature, key.curve) if scheme.raw else signature
        return key.sign(message, _padding(scheme, signing=True), _hash(scheme))
    except ValueError:
        raise InvalidRequest("the input is not a digest of this hash, or the salt is too long for the key") from None


def verify(private: bytes, message: bytes, signature: bytes, scheme: Scheme) -> bool:
    """Whether this is the signature of the message by this key pair; a malformed one is none."""
    key = _load(private)
    try:
        if isinstance(key, ed25519.Ed25519PrivateKey):
            key.public_key().verify(signature, message)
        elif isinstance(key, ec.EllipticCurvePrivateKey):
            given = _from_raw(signature, key.curve) if scheme.raw else signature
            key.public_key().verify(given, message, ec.ECDSA(_hash(scheme)))
        else:
            key.public_key().verify(signature, message, _padding(scheme, signing=False), _hash(scheme))
    except (InvalidSignature, ValueError):
        return False
    return True


def encrypt(private: bytes, plaintext: bytes) -> bytes:
    """The plaintext under RSA-OAEP with SHA-256. Raises ``InvalidRequest`` when it is too long for the key."""
    try:
        return _load_rsa(private).public_key().encrypt(plaintext, _OAEP)
    except ValueError:
        raise InvalidRequest("the plaintext is too long for this key", "encrypt a data key instead") from None


def decrypt(private: bytes, ciphertext: bytes) -> bytes:
    """What ``encrypt`` encrypted. Raises ``IntegrityError`` for anything else."""
    try:
        return _load_rsa(private).decrypt(ciphertext, _OAEP)
    except ValueError:
        raise does_not_open() from None


def unwrap(private: bytes, blob: bytes, hash_name: str) -> bytes:
    """A key that came under an ephemeral one: that one under RSA-OAEP, then the key under AES-KWP (RFC 5649).

    Args:
        private: RSA, PKCS #8 in DER.
        blob: what came.
        hash_name: of OAEP, one of ``HASHES``.

    Raises:
        IntegrityError: it does not unwrap; why is not said.
    """
    key = _load_rsa(private)
    size, algorithm = key.key_size // 8, HASHES[hash_name]()
    try:
        ephemeral = key.decrypt(blob[:size], padding.OAEP(padding.MGF1(algorithm), algorithm, None))
        if len(ephemeral) != _EPHEMERAL_SIZE:
            raise does_not_open()
        return aes_key_unwrap_with_padding(ephemeral, blob[size:])
    except (ValueError, InvalidUnwrap):
        raise does_not_open() from None


def normalised(private: bytes) -> bytes:
    """A private key in PKCS #8 as this module writes it. Raises ``InvalidRequest`` when it is none."""
    return _to_der(_load(private, ours=False))


_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def _load(private: bytes, *, ours: bool = True) -> _PrivateKey:
    """Whether the numbers of an RSA key fit together takes up to a second: asked of what others bring, once."""
    try:
        key = serialization.load_der_private_key(private, None, unsafe_skip_rsa_key_validation=ours)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidRequest("this is not a private key in PKCS #8") from None
    if not isinstance(key, _PrivateKey):
        raise InvalidRequest("this kind of private key is not known")
    return key


def _load_ed25519(private: bytes) -> ed25519.Ed25519PrivateKey:
    key = _load(private)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise InvalidRequest("this is not an Ed25519 key")
    return key


def _load_rsa(private: bytes) -> rsa.RSAPrivateKey:
    key = _load(private)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise InvalidRequest("this is not an RSA key")
    return key


def _to_der(key: _PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _hash(scheme: Scheme) -> Prehashed | hashes.HashAlgorithm:
    algorithm = HASHES[scheme.hash]()
    return Prehashed(algorithm) if scheme.prehashed else algorithm


def _padding(scheme: Scheme, *, signing: bool) -> padding.AsymmetricPadding:
    if scheme.pkcs1v15:
        return padding.PKCS1v15()
    generator = padding.MGF1(HASHES[scheme.hash]())
    if scheme.salt == "auto":
        return padding.PSS(generator, padding.PSS.MAX_LENGTH if signing else padding.PSS.AUTO)
    if scheme.salt == "hash":
        return padding.PSS(generator, padding.PSS.DIGEST_LENGTH)
    return padding.PSS(generator, int(scheme.salt))


def _to_raw(signature: bytes, curve: ec.EllipticCurve) -> bytes:
    width = (curve.key_size + 7) // 8
    r, s = decode_dss_signature(signature)
    return r.to_bytes(width, "big") + s.to_bytes(width, "big")


def _from_raw(signature: bytes, curve: ec.EllipticCurve) -> bytes:
    width = (curve.key_size + 7) // 8
    if len(signature) != 2 * width:
        raise InvalidSignature
    return encode_dss_signature(int.from_bytes(signature[:width], "big"), int.from_bytes(signature[width:], "big"))
