"""Authenticated encryption of messages under keys that a vault keeps for applications: AES-GCM and ChaCha20-Poly1305.

Safe here: the nonce is random (SP 800-38D, section 8.2.2), or a keyed hash of everything that is encrypted, so that one
nonce never serves two messages under one key. Tags are 16 bytes. Nothing tries several keys on one ciphertext.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from types import MappingProxyType

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from keyhole.core.errors import InvalidRequest
from keyhole.crypto.aead import NONCE_SIZE, OVERHEAD, does_not_open
from keyhole.crypto.kdf import hkdf

_Cipher = AESGCM | ChaCha20Poly1305
CIPHERS: MappingProxyType[str, tuple[int, Callable[[bytes], _Cipher]]] = MappingProxyType(
    {
        "aes128-gcm96": (16, AESGCM),
        "aes256-gcm96": (32, AESGCM),
        "chacha20-poly1305": (32, ChaCha20Poly1305),
    }
)
"""Bytes of a key, and what encrypts with it, by name."""
_NONCE_KEY_SIZE = 32
_WITH_ASSOCIATED = b"keyhole nonce with associated data\0"


def seal(name: str, key: bytes, plaintext: bytes, associated: bytes = b"") -> bytes:
    """Nonce (12 bytes), ciphertext and tag (16 bytes) under a fresh random nonce."""
    return _seal(name, key, os.urandom(NONCE_SIZE), plaintext, associated)


def seal_derived(name: str, key: bytes, context: bytes, plaintext: bytes, associated: bytes, *, same: bool) -> bytes:
    """``seal`` under a key made for this context.

    Args:
        name: one of ``CIPHERS``.
        key: what the context's key is made from.
        context: names the purpose; another one gives an unrelated key.
        plaintext: the message.
        associated: authenticated besides.
        same: the same message gives the same ciphertext (convergent encryption). Its nonce is a keyed hash of the
            plaintext. Associated data goes into the key of that hash: one nonce for two tags would give GCM's
            authentication key away.
    """
    size = CIPHERS[name][0]
    if not same:
        return seal(name, derive(key, context, size), plaintext, associated)
    both = derive(key, context, size + _NONCE_KEY_SIZE)
    nonce_key = both[size:]
    if associated:
        nonce_key = hkdf(nonce_key, _WITH_ASSOCIATED + associated, _NONCE_KEY_SIZE)
    nonce = hmac.digest(nonce_key, plaintext, hashlib.sha256)[:NONCE_SIZE]
    return _seal(name, both[:size], nonce, plaintext, associated)


def open_derived(name: str, key: bytes, context: bytes, blob: bytes, associated: bytes) -> bytes:
    """The plaintext of what ``seal_derived`` made. Raises ``IntegrityError`` when it does not open."""
    return open_message(name, derive(key, context, CIPHERS[name][0]), blob, associated)


def open_message(name: str, key: bytes, blob: bytes, associated: bytes = b"") -> bytes:
    """The plaintext of what ``seal`` made.

    Raises:
        IntegrityError: wrong key or associated data, or the blob was changed.
    """
    if len(blob) < OVERHEAD:
        raise does_not_open()
    try:
        return _cipher(name, key).decrypt(blob[:NONCE_SIZE], blob[NONCE_SIZE:], associated)
    except InvalidTag:
        raise does_not_open() from None


def derive(key: bytes, context: bytes, size: int) -> bytes:
    """A key for a context: HKDF-SHA256 (RFC 5869) without a salt."""
    return hkdf(key, context, size)


def _seal(name: str, key: bytes, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
    return nonce + _cipher(name, key).encrypt(nonce, plaintext, associated)


def _cipher(name: str, key: bytes) -> _Cipher:
    size, make = CIPHERS[name]
    if len(key) != size:
        raise InvalidRequest(f"a key of {name} has {size} bytes")
    return make(key)
