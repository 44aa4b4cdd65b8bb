"""Passwords in addresses and connection strings (RFC 3986 section 3.2.1; ADO, ODBC and JDBC)."""

from __future__ import annotations

import re

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from .assignments import is_common, is_secret
from .shape import Shape

_NEAR = 300  # bytes of a connection string before or after its password
_NAMES = (b"server", b"data source", b"host", b"endpoint", b"catalog", b"database", b"uid", b"user id", b"driver")
_PARTS = BytesAhoCorasick(list(_NAMES), MatchKind.Standard, Implementation.DFA).find_matches_as_indexes
_SHORT = 6


def _is_password(match: re.Match[bytes]) -> bool:
    """Something that is neither an example nor filled in later."""
    value = match["v"].decode("latin-1")
    user = match["user"].decode("latin-1")
    if len(value) < _SHORT or value == user or is_common(value):
        return False
    return value[0] not in "$%{[<*(" and not value.isupper()


def _is_connection(match: re.Match[bytes]) -> bool:
    value = match["v"].decode("latin-1")
    if not is_secret(value, typed=True, quoted=False):
        return False
    near = match.string[max(match.start() - _NEAR, 0) : match.end() + _NEAR].lower()
    return bool(_PARTS(near))


ADDRESSES = (
    Shape(
        "url-password",
        "password in an address",
        ("://",),
        r"://(?P<user>(?>[^\s/?#@:\"'<>\\{}]{0,100})):(?P<v>(?>[^\s/?#@\"'<>\\]{3,200}))@[A-Za-z0-9.\[-]",
        (
            "postgres://app:<m12>@db.example.net:5432/app",
            "https://:<m16>@cache.example.net/",
            "http://cafebabe:d3adb33f@gems.example.net/",
        ),
        (
            "https://user:password@example.com/",
            "postgres://app:app@localhost/app",
            "postgres://app:${PASSWORD}@db/app",
            "https://example.com:8443/@scope/package",
            "https://user:<password>@host",
        ),
        edge=False,
        bits=1.5,
        check=_is_password,
    ),
    Shape(
        "connection-password",
        "password in a connection string",
        ("password=", "pwd="),
        r"(?i:password|pwd)=(?P<v>(?>[^;\"'\s&\\,]{6,128}))(?=[;\"'\s&\\]|\Z)",
        ("Server=db;Database=app;User Id=app;Password=<m9>!;", "jdbc:postgresql://db/app?host=a&password=<m12>"),
        ("Server=db;Password=${DB_PASSWORD};", "Server=db;Password=changeme;", "go to ?password=<m12>"),
        edge=False,
        bits=0,
        check=_is_connection,
    ),
    Shape(
        "otpauth-secret",
        "seed of one-time passwords",
        ("otpauth://",),
        r"(?i:otpauth)://[ht]otp/[^\s\"'<>]{0,200}?[?&]secret=(?P<v>[A-Za-z2-7]{16,128})",
        ("otpauth://totp/a:b?issuer=a&secret=<K32>",),
        ("otpauth://totp/a:b?issuer=a",),
    ),
)
