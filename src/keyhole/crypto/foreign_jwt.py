"""Signed tokens of others: JWT (RFC 7519) in JWS compact form (RFC 7515), judged as RFC 8725 asks.

Safe here: the key decides which algorithms count, never the token; only asymmetric ones exist; nothing that a header
names is fetched or looked up but the id of a key among those given; ``crit`` is refused, since nothing of it is known.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from keyhole.core import base64url
from keyhole.core.errors import InvalidRequest, KeyholeError
from keyhole.core.strict_json import JsonBounds, parse_object
from keyhole.crypto.unreadable import UNREADABLE

ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA")
LONGEST = 64 * 1024
_BOUNDS = JsonBounds(depth=16, string=LONGEST, items=2000)
_KEYS_BOUNDS = JsonBounds(depth=8, string=LONGEST, items=5000)
_MOST_KEYS = 64
_TRIED = 8  # keys without an id that fit a token are tried one by one
_PART = re.compile(r"[A-Za-z0-9_-]+")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_RSA_BITS = range(2048, 16385)
_SMALL_PRIMES = tuple(n for n in range(3, 168) if all(n % divisor for divisor in range(2, n)))


class Refused(InvalidRequest):
    """The token proves nothing."""


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key: its id, or empty; the algorithms that it can be for; PEM."""

    id: str
    algorithms: frozenset[str]
    pem: bytes = field(repr=False)


def keys_of_jwks(document: bytes) -> tuple[VerifyingKey, ...]:
    """The keys of a JWK set (RFC 7517) that can verify signatures; others, as those for encryption, are left out.

    Raises:
        InvalidRequest: it is no JWK set.
    """
    keys = parse_object(document, _KEYS_BOUNDS).get("keys")
    if not isinstance(keys, list) or len(keys) > _MOST_KEYS:
        raise InvalidRequest("this is not a set of keys (JWKS)", 'it has the form {"keys": [{"kty": …}]}')
    return tuple(key for each in keys if isinstance(each, dict) and (key := _from_jwk(each)) is not None)


def key_of_pem(text: str) -> VerifyingKey:
    """A public key, or that of a certificate, in PEM. Raises ``InvalidRequest``."""
    try:
        data = text.strip().encode("ascii")
        if b"BEGIN CERTIFICATE" in data:
            public: Any = x509.load_pem_x509_certificate(data).public_key()
        else:
            public = serialization.load_pem_public_key(data)
    except UNREADABLE:
        raise InvalidRequest(
            "this is not a public key in PEM form", "send the whole text, with its BEGIN and END"
        ) from None
    return _key("", public)


def unverified_claims(token: str) -> dict[str, Any]:
    """What a token says of itself, before anybody knows whether it is true. Raises ``Refused``."""
    return _object(_parts(token)[1])


def verify(token: str, keys: Iterable[VerifyingKey], algorithms: Sequence[str] = ()) -> dict[str, Any]:
    """The claims of a token that one of these keys has signed.

    Args:
        token: in compact form.
        keys: whoever may have signed it.
        algorithms: those that count; empty for all that a key can be for.

    Raises:
        UnknownKey: it names a key that is not among them.
        Refused: it is no such token, or none of them has signed it.
    """
    head, payload, _ = _parts(token)
    header = _object(head)
    algorithm, key_id = header.get("alg"), header.get("kid", "")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS or (algorithms and algorithm not in algorithms):
        raise Refused("unsupported signing algorithm", f"sign it with {', '.join(algorithms or ALGORITHMS)}")
    if "crit" in header or "b64" in header or not isinstance(key_id, str):
        raise Refused("the token has a header that is not understood")
    keys = [*keys]
    named = [key for key in keys if key.id == key_id] if key_id else keys
    named = named or [key for key in keys if not key.id]
    if not named:
        raise UnknownKey("no known key successfully validated the token signature", "check who has signed it")
    fitting = [key for key in named if algorithm in key.algorithms][:_TRIED]
    if not any(_signed(token, algorithm, key) for key in fitting):
        raise Refused("no known key successfully validated the token signature", "check who has signed it")
    return _object(payload)


class UnknownKey(Refused):
    """The token names a key that is not known; the issuer may have a new one."""


def _parts(token: str) -> tuple[str, str, str]:
    parts = token.split(".") if len(token) <= LONGEST else []
    if len(parts) != 3 or not all(_PART.fullmatch(part) for part in parts):
        raise Refused("compact JWS format must have three parts", "send the token alone, as it was issued")
    return parts[0], parts[1], parts[2]


def _object(part: str) -> dict[str, Any]:
    try:
        return parse_object(base64url.decode(part), _BOUNDS)
    except (ValueError, KeyholeError):
        raise Refused("the token cannot be read", "send the token alone, as it was issued") from None


def _signed(token: str, algorithm: str, key: VerifyingKey) -> bool:
    from joserfc import jws  # noqa: PLC0415 - slow to load, and few logins need it
    from joserfc.errors import JoseError  # noqa: PLC0415
    from joserfc.jwk import ECKey, OKPKey, RSAKey  # noqa: PLC0415

    kinds: dict[str, Any] = {"RS": RSAKey, "PS": RSAKey, "ES": ECKey, "Ed": OKPKey}
    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    try:
        jws.deserialize_compact(token, kinds[algorithm[:2]].import_key(key.pem), registry=registry)
    except (JoseError, ValueError):
        return False
    return True


def _from_jwk(data: Mapping[str, Any]) -> VerifyingKey | None:
    """A key for signatures; ``None`` for one that is for something else, weak, or of no kind that is known."""
    use, key_id, algorithm = data.get("use", "sig"), data.get("kid", ""), data.get("alg")
    operations = data.get("key_ops", ["verify"])  # RFC 7517, section 4.3
    if use != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    if not isinstance(key_id, str) or "d" in data:
        return None
    try:
        found = _key(key_id, _public(data))
    except InvalidRequest:
        return None
    except UNREADABLE:
        return None
    if algorithm is None or algorithm not in ALGORITHMS:
        return found if algorithm is None else None
    return VerifyingKey(key_id, found.algorithms & {algorithm}, found.pem)


def _public(data: Mapping[str, Any]) -> Any:
    """Raises ``ValueError``, ``KeyError``, ``TypeError`` or ``AttributeError`` for what is none."""
    kind = data["kty"]
    if kind == "RSA":
        return rsa.RSAPublicNumbers(_integer(data["e"]), _integer(data["n"])).public_key()
    if kind == "EC":
        curves: dict[str, ec.EllipticCurve] = {
            "P-256": ec.SECP256R1(),
            "P-384": ec.SECP384R1(),
            "P-521": ec.SECP521R1(),
        }
        return ec.EllipticCurvePublicNumbers(_integer(data["x"]), _integer(data["y"]), curves[data["crv"]]).public_key()
    if kind == "OKP" and data["crv"] == "Ed25519":
        return ed25519.Ed25519PublicKey.from_public_bytes(_octets(data["x"]))
    raise ValueError


def _octets(text: str) -> bytes:
    if len(text) > 4096 or not _PART.fullmatch(text):
        raise ValueError
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))  # keys of others are taken in any spelling


def _integer(text: str) -> int:
    return int.from_bytes(_octets(text), "big")


def _key(key_id: str, public: Any) -> VerifyingKey:
    if isinstance(public, rsa.RSAPublicKey) and public.key_size in _RSA_BITS and not _weak(public):
        algorithms = _RSA
    elif isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in _CURVES:
        algorithms = frozenset({_CURVES[public.curve.name]})
    elif isinstance(public, ed25519.Ed25519PublicKey):
        algorithms = frozenset({"EdDSA"})
    else:
        raise InvalidRequest(
            "this key cannot verify tokens",
            "use RSA of 2,048 to 16,384 bits, P-256, P-384, P-521 or Ed25519; a key that anybody can factor is none",
        )
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return VerifyingKey(key_id, algorithms, pem)


def _weak(public: rsa.RSAPublicKey) -> bool:
    """Whether it has the form of the keys of one library that can be factored (CVE-2017-15361, ROCA).

    Their primes are powers of 65537 modulo many small primes, and so is the modulus; of other keys one in 2**27 is.
    """
    modulus = public.public_numbers().n
    return all(modulus % prime in _powers(prime) for prime in _SMALL_PRIMES)


@functools.cache
def _powers(prime: int) -> frozenset[int]:
    return frozenset(pow(65537, exponent, prime) for exponent in range(prime))
