"""Time-based one-time passwords (RFC 6238): the code of this moment, from the seed that the secret is."""

from __future__ import annotations

from keyhole.core.errors import InvalidRequest
from keyhole.core.totp import Totp, decode_seed, read_uri

_DIGITS = range(6, 9)
_PERIODS = range(10, 301)
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
    try:
        text = seed.decode("ascii").strip()
        totp = read_uri(text).totp if text.lower().startswith("otpauth://") else Totp(decode_seed(text))
    except ValueError:
        raise _no_seed() from None
    if len(totp.key) < _SHORTEST or totp.digits not in _DIGITS or totp.period not in _PERIODS:
        raise _no_seed()
    return totp.code(totp.step(now)).encode()


def _no_seed() -> InvalidRequest:
    return InvalidRequest(
        "the secret is not the seed of one-time passwords",
        "store what stands beside the QR code, in base32, or the otpauth:// URI: keyhole set NAME",
    )
