"""URLs in one canonical form. What is judged is byte for byte what is resolved, dialled and sent.

scheme, authority, target = parse_url("HTTPS://API.Example.com/v1/%61?x=1")
# "https", Authority("api.example.com", 443), b"/v1/a?x=1"
"""

from __future__ import annotations

import re

from keyhole.core.errors import InvalidRequest
from keyhole.core.host import DEFAULT_PORTS, Authority, HostPattern, parse_authority, parse_host
from keyhole.core.target import PathGlob, canonical_target, readings

__all__ = [
    "DEFAULT_PORTS",
    "Authority",
    "HostPattern",
    "PathGlob",
    "canonical_target",
    "parse_authority",
    "parse_host",
    "parse_url",
    "readings",
    "split_url",
]

_URL = re.compile(r"(https?)://([^/?#\\]*)(.*)\Z", re.IGNORECASE | re.DOTALL)


def parse_url(text: str | bytes) -> tuple[str, Authority, bytes]:
    """Read an absolute ``http`` or ``https`` URL: its scheme, its authority and its canonical target.

    Raises:
        InvalidRequest: another scheme, a fragment, userinfo, or an authority or path without one clear meaning.
        BadRequestFraming: the target has bytes that no request line may have.
    """
    scheme, authority, target = split_url(text)
    return scheme, authority, canonical_target(target)


def split_url(text: str | bytes) -> tuple[str, Authority, bytes]:
    """As ``parse_url``, with the target as it was written; judge and send ``canonical_target`` of it."""
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            raise InvalidRequest("the URL is not UTF-8", "percent-encode it") from None
    match = _URL.match(text)
    if not match:
        raise InvalidRequest("this is not an absolute http or https URL", "write https://host/path")
    scheme, authority, rest = match[1].lower(), match[2], match[3]
    if "@" in authority:
        raise InvalidRequest("the URL has a user name in it", "leave user:password@ out; bind the secret to a service")
    if "#" in rest:
        raise InvalidRequest("the URL has a fragment", "leave out everything from '#' on")
    if rest.startswith("\\"):
        raise InvalidRequest("the URL has a backslash", "write https://host/path")
    target = rest if rest.startswith("/") else "/" + rest
    try:
        return scheme, parse_authority(authority, DEFAULT_PORTS[scheme]), target.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("the URL is not Unicode text", "percent-encode it") from None
