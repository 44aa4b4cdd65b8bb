"""Time-based one-time passwords (RFC 6238): the code of this moment, from the seed that the secret is."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import struct
from urllib.parse import parse_qs, unquote_to_bytes, urlsplit

from keyhole.core.errors import InvalidRequest

_DIGITS = range(6, 9)
_PERIODS = range(10, 301)
_ALGORITHMS = {"SHA1": "sha1", "SHA256": "sha256", "SHA512": "sha512"}
_SHORTEST = 10  # bytes of a seed: 80 bits, which is what most services give


def code(seed: bytes, now: float) -> bytes:
    """The code that is right now.

    Args:
        seed: in base32, with or without spaces and padding, or an ``otpauth://totp/`` URI (as QR codes carry it) that
            also says digits, period and algorithm; else six digits, 30 seconds and SHA-1.
        now: seconds since the epoch.

    Raises:
        InvalidRequest: it is no such seed.
    """
    key, digits, period, algorithm = _read(seed)
    digest = hmac.digest(key, struct.pack(">Q", int(now) // period), algorithm)
    offset = digest[-1] & 0x0F  # dynamic truncation, RFC 4226 section 5.3
    number = struct.unpack_from(">I", digest, offset)[0] & 0x7FFFFFFF
    return b"%0*d" % (digits, number % 10**digits)


def _read(seed: bytes) -> tuple[bytes, int, int, str]:
    digits, period, algorithm = 6, 30, "sha1"
    text = seed.strip()
    if text.lower().startswith(b"otpauth://"):
        try:
            parts = urlsplit(text.decode("ascii"))
            fields = {name: values[0] for name, values in parse_qs(parts.query, strict_parsing=True).items()}
            digits, period = int(fields.get("digits", digits)), int(fields.get("period", period))
            algorithm = _ALGORITHMS[fields.get("algorithm", "SHA1").upper()]
            text = unquote_to_bytes(fields["secret"])
        except (ValueError, KeyError):
            raise _no_seed() from None
        if parts.netloc.lower() != "totp" or digits not in _DIGITS or period not in _PERIODS:
            raise _no_seed()
    plain = re.sub(rb"[\s=-]", b"", text).upper()
    try:
        key = base64.b32decode(plain + b"=" * (-len(plain) % 8))
    except binascii.Error:
        raise _no_seed() from None
    if len(key) < _SHORTEST:
        raise _no_seed()
    return key, digits, period, algorithm


def _no_seed() -> InvalidRequest:
    return InvalidRequest(
        "the secret is not the seed of one-time passwords",
        "store what stands beside the QR code, in base32, or the otpauth:// URI: keyhole set NAME",
    )
