"""Signed tokens: JWT (RFC 7519) in JWS compact form (RFC 7515), by ``joserfc``.

Safe here: only tokens of our own are made, each with an algorithm that the binding names and the key must fit; nothing
that a peer sent chooses either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest

_OCTETS = {"HS256": 32, "HS512": 64}  # a key shorter than the hash weakens it (RFC 7518 section 3.2)


def sign_jwt(key: bytes, algorithm: str, claims: Mapping[str, Any], *, key_id: str = "") -> bytes:
    """A signed token.

    Args:
        key: PEM of a private key (PKCS#8 or the older forms), or the bytes of a shared key for ``HS…``.
        algorithm: one of ``core.minted.SIGNATURES``.
        claims: JSON-ready.
        key_id: the header ``kid``, when it is not empty.

    Raises:
        InvalidRequest: the key is not one for this algorithm.
    """
    from joserfc import jwt  # noqa: PLC0415 - slow to load, and few services need it
    from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey  # noqa: PLC0415

    kinds: dict[str, Any] = {"RS": RSAKey, "PS": RSAKey, "ES": ECKey, "Ed": OKPKey, "HS": OctKey}
    header = {"alg": algorithm, "typ": "JWT", **({"kid": key_id} if key_id else {})}
    try:
        if len(key) < _OCTETS.get(algorithm, 0):
            raise ValueError  # noqa: TRY301 - one answer for every key that does not fit
        private = kinds[algorithm[:2]].import_key(key)
        return jwt.encode(header, dict(claims), private, algorithms=[algorithm]).encode()
    except Exception:  # noqa: BLE001 - whatever the library says may quote the key
        raise InvalidRequest(
            f"the secret is not a private key for {algorithm}",
            "store the whole PEM file, with its first and last line: keyhole set NAME --from-file key.pem",
        ) from None
