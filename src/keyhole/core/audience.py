"""For which URL a token is good: the resource that it was asked for (RFC 8707), and what lies below."""

from __future__ import annotations

from keyhole.core.errors import KeyholeError
from keyhole.core.url import parse_url


def covers(resource: str, url: str) -> bool:
    """Whether a URL is the resource, or lies below it: the same scheme, host and port, and whole segments of its path.

    What cannot be read covers nothing. Text is compared in the one canonical form of URLs.
    """
    try:
        scheme, authority, target = parse_url(resource)
        there = parse_url(url)
    except KeyholeError:
        return False
    path, mark, query = target.partition(b"?")
    if (scheme, authority) != there[:2]:
        return False
    if mark:
        return target == there[2] and bool(query)
    base, asked = path.rstrip(b"/"), there[2].partition(b"?")[0]
    return asked in {base, path} or asked.startswith(base + b"/")


def host_of(resource: str) -> str:
    """``host:port`` of a resource. Raises ``InvalidRequest``."""
    return str(parse_url(resource)[1])
