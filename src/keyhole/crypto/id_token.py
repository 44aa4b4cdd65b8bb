"""Tokens that the vault signs with key pairs of its own: JWS in compact form (RFC 7515), keys as JWK (RFC 7517).

Safe here: the algorithm is that of the key, which was made for it, and the header of a token has to say the same, so
nothing that a peer sent chooses an algorithm. EdDSA is Ed25519 (RFC 8037); ``none`` and ``HS…`` do not exist here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from keyhole.core import base64url
from keyhole.core.errors import IntegrityError
from keyhole.crypto import asymmetric
from keyhole.crypto.asymmetric import CURVES, Scheme

_LONGEST = 64 * 1024
_RSA_PAIR = "rsa-2048"

ALGORITHMS: MappingProxyType[str, tuple[str, Scheme]] = MappingProxyType(
    {
        "RS256": (_RSA_PAIR, Scheme("sha2-256", pkcs1v15=True)),
        "RS384": (_RSA_PAIR, Scheme("sha2-384", pkcs1v15=True)),
        "RS512": (_RSA_PAIR, Scheme("sha2-512", pkcs1v15=True)),
        "ES256": ("ecdsa-p256", Scheme("sha2-256", raw=True)),
        "ES384": ("ecdsa-p384", Scheme("sha2-384", raw=True)),
        "ES512": ("ecdsa-p521", Scheme("sha2-512", raw=True)),
        "EdDSA": ("ed25519", Scheme()),
    }
)
"""Algorithms (RFC 7518 section 3.1, RFC 8037), each with its kind of key pair and how that signs."""


def generate(algorithm: str) -> bytes:
    """A new private key for an algorithm, PKCS #8 in DER. RSA takes up to seconds: use a thread."""
    return asymmetric.generate(ALGORITHMS[algorithm][0])


def sign(private: bytes, algorithm: str, key_id: str, claims: Mapping[str, Any]) -> str:
    """A signed token with these claims."""
    header = {"alg": algorithm, "kid": key_id, "typ": "JWT"}
    signed = b".".join(_encode(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
    signature = asymmetric.sign(private, signed, ALGORITHMS[algorithm][1])
    return (signed + b"." + _encode(signature)).decode()


def read_header(token: str) -> dict[str, Any]:
    """The header of a token, of which nothing is proved. Raises ``IntegrityError`` when it is none."""
    return _part(token, 0)


def verify(private: bytes, algorithm: str, token: str) -> dict[str, Any]:
    """The claims of a token that this key pair signed. Raises ``IntegrityError`` for anything else."""
    if read_header(token).get("alg") != algorithm:
        raise _not_ours()
    signed, _, signature = token.rpartition(".")
    if not asymmetric.verify(private, signed.encode(), _decode(signature), ALGORITHMS[algorithm][1]):
        raise _not_ours()
    return _part(token, 1)


def public_jwk(private: bytes, algorithm: str, key_id: str) -> dict[str, str]:
    """The public half of a key pair, as verifiers read it (RFC 7517, RFC 7518 section 6, RFC 8037)."""
    key = serialization.load_der_private_key(private, None, unsafe_skip_rsa_key_validation=True).public_key()
    common = {"use": "sig", "kid": key_id, "alg": algorithm}
    if isinstance(key, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": _encode(key.public_bytes_raw()).decode(), **common}
    if isinstance(key, ec.EllipticCurvePublicKey):
        name = next(name for kind, name in CURVES.values() if isinstance(key.curve, kind))
        numbers, width = key.public_numbers(), (key.curve.key_size + 7) // 8
        x, y = (_encode(number.to_bytes(width, "big")).decode() for number in (numbers.x, numbers.y))
        return {"kty": "EC", "crv": name, "x": x, "y": y, **common}
    if not isinstance(key, rsa.RSAPublicKey):
        raise _not_ours()
    of_rsa = key.public_numbers()
    n, e = (_encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).decode() for number in (of_rsa.n, of_rsa.e))
    return {"kty": "RSA", "n": n, "e": e, **common}


def _part(token: str, number: int) -> dict[str, Any]:
    parts = token.split(".") if len(token) <= _LONGEST and token.isascii() else []
    if len(parts) != 3:  # header, claims, signature
        raise _not_ours()
    try:
        read = json.loads(_decode(parts[number]))
    except (ValueError, RecursionError):
        raise _not_ours() from None
    if not isinstance(read, dict):
        raise _not_ours()
    return read


def _encode(data: bytes) -> bytes:
    return base64url.encode(data).encode()


def _decode(text: str) -> bytes:
    try:
        return base64url.decode(text)
    except ValueError:
        raise _not_ours() from None


def _not_ours() -> IntegrityError:
    return IntegrityError("the token was not signed by this key")
