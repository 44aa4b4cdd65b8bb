"""What a server asks for in ``WWW-Authenticate`` (RFC 9110, section 11.6.1), as far as bearer tokens are concerned."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LONGEST = 8192
_MOST_SCOPES = 50
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  # the grammar's own word: RFC 9110, section 5.6.2
# An authentication parameter, or the scheme that begins the next challenge.
_PART = re.compile(rf'[\s,]*(?:({_TOKEN})\s*=\s*("(?:[^"\\]|\\.)*"|{_TOKEN})|({_TOKEN})(?=\s|,|\Z))')
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}\Z")  # RFC 6749, section 3.3
_PLAIN = re.compile(r"[A-Za-z0-9._:/*+@-]{1,128}\Z")


@dataclass(frozen=True, slots=True)
class Challenge:
    """The part that is said of bearer tokens (RFC 6750, section 3; RFC 9728, section 5.1).

    Attributes:
        error: such as ``invalid_token`` or ``insufficient_scope``; empty for none.
        scopes: that the request needs.
        resource_metadata: where the server says who gives tokens for it; empty for nowhere.
    """

    error: str = ""
    scopes: tuple[str, ...] = ()
    resource_metadata: str = ""


def parse_challenge(text: str) -> Challenge:
    """Read a header. What cannot be read says nothing."""
    found, scheme, at = dict[str, str](), "", 0
    while at < len(text) <= _LONGEST and (match := _PART.match(text, at)) is not None:
        at = match.end()
        name, value, begins = match.groups()
        if begins is not None:
            scheme = begins.lower()
        elif scheme == "bearer":
            found.setdefault(name.lower(), _unquoted(value))
    return Challenge(found.get("error", "")[:64], parse_scopes(found.get("scope")), found.get("resource_metadata", ""))


def parse_scopes(value: object) -> tuple[str, ...]:
    """Scopes of a text with spaces between, or of a list, each once; those that are none are left out."""
    items = value.split(" ") if isinstance(value, str) else value if isinstance(value, list) else ()
    return tuple(dict.fromkeys(each for each in items if isinstance(each, str) and _SCOPE.match(each)))[:_MOST_SCOPES]


def plain_scopes(scopes: tuple[str, ...]) -> list[str]:
    """Those that can stand in a command that somebody copies: a server chose them."""
    return [scope for scope in scopes if _PLAIN.match(scope) and not scope.startswith("-")]


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
