"""Addresses with a name and a password in them (RFC 3986, section 3.2.1), with the offsets of both."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from keyhole.importers.found import URL, Spot
from keyhole.importers.text import decoded

_ADDRESS = re.compile(r"(?i)(https?)://(?:([^\s/?#:@\"']*)(?::([^\s/?#\"']*))?@)?([^\s/?#@,\"'\\]+)")


@dataclass(frozen=True, slots=True)
class Address:
    """One address.

    Attributes:
        scheme: in lower case.
        user: percent-decoded; ``None`` where it is not UTF-8.
        password: percent-decoded; ``None`` where it is not UTF-8; empty where there is none.
        host: with its port where it has one, in lower case.
        spot: of the password, or of the user name where it stands alone.
        has_secret: there is a user name.
    """

    scheme: str
    user: str | None
    password: str | None
    host: str
    spot: Spot
    has_secret: bool

    @property
    def secret(self) -> str | None:
        """The password; the user name where it stands alone."""
        return self.user if self.password == "" else self.password


def addresses(text: str, offset: int) -> Iterator[Address]:
    """Every web address in a scanned text that begins at ``offset`` of the file."""
    for found in _ADDRESS.finditer(text):
        group, name = (3, "password") if found[3] else (2, "username")
        start, end = found.span(group)
        yield Address(
            scheme=found[1].lower(),
            user=_plain(found[2] or ""),
            password=_plain(found[3] or ""),
            host=found[4].lower(),
            spot=Spot(offset + start, offset + end, name, URL),
            has_secret=bool(found[2] or found[3]),
        )


def _plain(raw: str) -> str | None:
    return decoded(unquote_to_bytes(raw.encode("latin-1")).decode("latin-1"))
