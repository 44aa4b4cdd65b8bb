"""A request in the canonical form that is signed. It says what is sent; nothing that is sent is changed by it.

Services read a path or a query, and encode what they read again: unreserved characters stay, everything else becomes
triplets with upper-case digits. S3 does so with the decoded path; all others take the path as it was sent, with slashes
in a row as one, so that what is encoded in it is encoded twice ("Create a canonical request", AWS General Reference).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from urllib.parse import quote_from_bytes, unquote_to_bytes

from keyhole.core.message import Headers

_SLASHES = re.compile(rb"//+")
S3 = frozenset({"s3", "s3express", "s3-object-lambda", "s3-outposts"})


def digest(
    method: str, target: bytes, headers: Headers, names: Iterable[str], payload: str, *, service: str
) -> tuple[str, str]:
    """The digest of the canonical request, and the names of the headers in it.

    Args:
        method: as sent.
        target: path and query as sent, without a signature in it.
        headers: as sent, with the host.
        names: headers to sign, in lower case.
        payload: the digest of the body, or a word in place of it.
        service: as in the scope.
    """
    path, _, query = target.partition(b"?")
    signed = sorted(set(names))
    lines = [
        method.encode(),
        canonical_path(path, service),
        canonical_query(query),
        *(name.encode() + b":" + _folded(headers, name.encode()) for name in signed),
        b"",
        ";".join(signed).encode(),
        payload.encode(),
    ]
    return hashlib.sha256(b"\n".join(lines)).hexdigest(), ";".join(signed)


def canonical_path(path: bytes, service: str) -> bytes:
    """The path, encoded once for S3 and once more for all others."""
    return quote_from_bytes(unquote_to_bytes(path) if service in S3 else _SLASHES.sub(b"/", path), safe="/~").encode()


def canonical_query(query: bytes) -> bytes:
    """The parameters, sorted by name and then by value."""
    pairs = (part.partition(b"=") for part in query.split(b"&") if part)
    return b"&".join(b"%b=%b" % pair for pair in sorted((_encoded(name), _encoded(value)) for name, _, value in pairs))


def decoded(text: bytes) -> bytes:
    """A name or value of a query as a server reads it."""
    return unquote_to_bytes(text.replace(b"+", b"%20"))


def encode(text: bytes) -> bytes:
    """A name or value of a query as it is signed."""
    return quote_from_bytes(text, safe="~").encode()


def _encoded(text: bytes) -> bytes:
    return encode(decoded(text))


def _folded(headers: Headers, name: bytes) -> bytes:
    """All values of a header, with runs of white space as one space."""
    return b",".join(b" ".join(value.split()) for key, value in headers if key == name)
