"""Public keys of Curve25519 that are of no use: with a point of low order, anybody comes to the same secret.

What is sealed for such an X25519 key opens without a private one, and signatures of such an Ed25519 key can be made by
anybody (RFC 7748, section 6.1; RFC 8032 does not ask for the check). A point of Ed25519 and its X25519 form have low
order together (RFC 7748, section 4.1).
"""

from __future__ import annotations

import functools

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

_P = 2**255 - 19
_ANY = bytes([1]) * 32
_KNOWN = 4096  # the members of a vault are read in each version of their list


@functools.lru_cache(_KNOWN)
def has_low_order(x25519: bytes) -> bool:
    """Whether an X25519 key (32 bytes) gives everybody the secret of zeros."""
    try:
        X25519PrivateKey.from_private_bytes(_ANY).exchange(X25519PublicKey.from_public_bytes(x25519))
    except ValueError:
        return True
    return False


@functools.lru_cache(_KNOWN)
def is_sound_ed25519(public: bytes) -> bool:
    """Whether an Ed25519 key (32 bytes) is in its one canonical form, and of no low order."""
    y = int.from_bytes(public, "little") & ((1 << 255) - 1)
    if y >= _P or y == 1:
        return False
    u = (1 + y) * pow(1 - y, -1, _P) % _P
    return not has_low_order(u.to_bytes(32, "little"))
