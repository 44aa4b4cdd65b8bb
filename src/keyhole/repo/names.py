"""Names in a repo vault: two parts that are files on every system, and lead nowhere else. Pure."""

from __future__ import annotations

import re

from keyhole.core.errors import InvalidRequest

DEFAULT_GROUP = "default"
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_NEXT = "letters, digits, '.', '_' and '-', without a '.' at either end, at most 100"


def parse_part(text: str, what: str = "name") -> str:
    """A group, an agent, an owner, or the last part of a secret's name. Raises ``InvalidRequest``."""
    if not _PART.fullmatch(text) or text.endswith(".") or _DEVICES.fullmatch(text):
        raise InvalidRequest(f"{text[:40]!r} is not the {what} of anything in a repo vault", f"use {_NEXT}")
    return text


def parse_secret(text: str) -> str:
    """``group/name``; a name without a group is in ``default``.

    Raises:
        InvalidRequest: it has more than two parts, or one of them is not a name.
    """
    group, slash, name = text.partition("/")
    if not slash:
        group, name = DEFAULT_GROUP, group
    return f"{parse_part(group, 'group')}/{parse_part(name)}"


def group_of(secret: str) -> str:
    """The first part of a secret's name."""
    return secret.partition("/")[0]
