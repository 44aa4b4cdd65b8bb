"""Time-based one-time passwords (RFC 6238) and the two forms in which their seeds are handed around. Pure."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import struct
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import parse_qs, quote, unquote, urlsplit

ALGORITHMS = MappingProxyType({"SHA1": "sha1", "SHA256": "sha256", "SHA512": "sha512"})


@dataclass(frozen=True, slots=True)
class Totp:
    """A seed and how codes are made of it.

    Attributes:
        key: the seed.
        digits: of a code.
        period: seconds for which a code is the right one.
        algorithm: one of ``ALGORITHMS``.
    """

    key: bytes = field(repr=False)
    digits: int = 6
    period: int = 30
    algorithm: str = "SHA1"

    def step(self, now: float) -> int:
        """The number of the period in which a moment lies, in seconds since the epoch."""
        return int(now) // self.period

    def code(self, step: int) -> str:
        """The code of a period."""
        digest = hmac.digest(self.key, struct.pack(">Q", step), ALGORITHMS[self.algorithm])
        offset = digest[-1] & 0x0F  # dynamic truncation, RFC 4226 section 5.3
        number: int = struct.unpack_from(">I", digest, offset)[0] & 0x7FFFFFFF
        return f"{number % 10**self.digits:0{self.digits}d}"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What an ``otpauth://`` URI says: the seed, and whose it is."""

    totp: Totp
    issuer: str = ""
    account: str = ""


def decode_seed(text: str) -> bytes:
    """Bytes of a seed in base32, in either case, with or without spaces, hyphens and padding.

    Raises:
        ValueError: it is none. The text says nothing of what was given.
    """
    plain = re.sub(r"[\s=-]", "", text).upper()
    try:
        key = base64.b32decode(plain + "=" * (-len(plain) % 8))
    except binascii.Error:
        raise ValueError("not base32") from None
    if not key:
        raise ValueError("empty")
    return key


def read_uri(text: str) -> Enrolment:
    """The seed in an ``otpauth://totp/`` URI, as QR codes carry it. What it does not say is as usual.

    Raises:
        ValueError: it is no such URI. The text says nothing of what was given.
    """
    try:
        parts = urlsplit(text)
        fields = {name: values[0] for name, values in parse_qs(parts.query, strict_parsing=True).items()}
        if parts.scheme.lower() != "otpauth" or parts.netloc.lower() != "totp":
            raise _no_uri()
        algorithm = fields.get("algorithm", "SHA1").upper()
        totp = Totp(
            decode_seed(fields["secret"]), _number(fields, "digits", 6), _number(fields, "period", 30), algorithm
        )
    except (ValueError, KeyError):
        raise _no_uri() from None
    if algorithm not in ALGORITHMS or totp.digits not in range(1, 11) or not totp.period:
        raise _no_uri()
    # The label is "issuer:account" or "account"; the parameter is newer than the prefix, and counts.
    prefix, colon, rest = unquote(parts.path.lstrip("/")).partition(":")
    issuer, account = (prefix, rest.lstrip()) if colon else ("", prefix)
    return Enrolment(totp, fields.get("issuer", issuer), account)


def write_uri(enrolment: Enrolment) -> str:
    """The ``otpauth://`` URI that authenticator programs read. It has the seed in it."""
    totp = enrolment.totp
    seed = base64.b32encode(totp.key).decode().rstrip("=")
    label = f"{quote(enrolment.issuer, safe='')}:{quote(enrolment.account, safe='@')}"
    return (
        f"otpauth://totp/{label}?algorithm={totp.algorithm}&digits={totp.digits}"
        f"&issuer={quote(enrolment.issuer, safe='')}&period={totp.period}&secret={seed}"
    )


def _number(fields: dict[str, str], name: str, default: int) -> int:
    text = fields.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise ValueError(name)
    return int(text)


def _no_uri() -> ValueError:
    return ValueError("not an otpauth URI")
