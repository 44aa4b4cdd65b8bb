"""Envelopes of AgenticMail's SecureVault: AES-256-GCM under a key that PBKDF2-HMAC-SHA512 stretches for each secret.

The envelope says nothing of where it belongs (there is no associated data), nor how often the password was stretched.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.core.value import Secret

FALLBACK = b"dev-insecure-vault-key-do-not-use-in-prod"
"""What it takes for a password where none is set: everybody knows it."""
ITERATIONS = 600_000
_ALGORITHM = "aes-256-gcm"
_SIZES = {"salt": 16, "iv": 12, "tag": 16}
_PARTS = ("salt", "iv", "tag", "data")


def is_envelope(data: Any) -> bool:
    """Whether a JSON object is an envelope of the version that is known."""
    return isinstance(data, dict) and data.get("v") == 1 and data.get("alg") == _ALGORITHM


def open_envelope(envelope: dict[str, Any], password: bytes) -> Secret:
    """What an envelope has. Takes a third of a second.

    Raises:
        InvalidRequest: it is no envelope.
        IntegrityError: the password is another, or it was changed.
    """
    if not is_envelope(envelope):
        raise InvalidRequest("it is no envelope of version 1 with aes-256-gcm", "only these are known")
    parts = {name: _bytes(envelope.get(name)) for name in _PARTS}
    if any(len(parts[name]) != size for name, size in _SIZES.items()):
        raise InvalidRequest("the salt, the iv or the tag of an envelope has another size", "see what made it")
    try:
        key = _stretched(password, parts["salt"])
        return Secret(AESGCM(key).decrypt(parts["iv"], parts["data"] + parts["tag"], None))
    except InvalidTag:
        raise IntegrityError(
            "an envelope does not open: the password is another, or it was changed",
            "use the AGENTICMAIL_VAULT_KEY that it was written with",
        ) from None


def seal_envelope(value: bytes, password: bytes) -> str:
    """A new envelope, as text."""
    salt, iv = os.urandom(_SIZES["salt"]), os.urandom(_SIZES["iv"])
    sealed = AESGCM(_stretched(password, salt)).encrypt(iv, value, None)
    parts = dict(zip(_PARTS, (salt, iv, sealed[-16:], sealed[:-16]), strict=True))
    encoded = {name: base64.b64encode(part).decode() for name, part in parts.items()}
    return json.dumps({"v": 1, "alg": _ALGORITHM, **encoded}, separators=(",", ":"))


def _stretched(password: bytes, salt: bytes) -> bytes:
    return PBKDF2HMAC(algorithm=SHA512(), length=32, salt=salt, iterations=ITERATIONS).derive(password)


def _bytes(value: Any) -> bytes:
    """Bytes in base64, or as JavaScript writes a buffer into JSON."""
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
        if isinstance(value, dict) and value.get("type") == "Buffer" and isinstance(value.get("data"), list):
            return bytes(value["data"])
    except (binascii.Error, ValueError, TypeError):
        pass
    raise InvalidRequest("a part of an envelope is not base64", "see what made it")
