"""Names in a repo vault: two parts that are files on every system, and lead nowhere else. Pure."""

from __future__ import annotations

import re

from keyhole.core.errors import InvalidRequest

DEFAULT_GROUP = "default"
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_CHARS = "[A-Za-z0-9_-]"
HIDDEN = rf"[gsmh]_{_CHARS}{{4}}(?:{_CHARS}{{64}}|{_CHARS}{{160}}|{_CHARS}{{363}})"
"""An id that stands for a name in a vault with opaque names (``repo.hidden``): of a group, secret, member or host."""
_HIDDEN = re.compile(HIDDEN)
_LONGEST = 166  # of an id that is part of a path
_UNPRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_NEXT = "letters, digits, '.', '_' and '-', without a '.' at either end, at most 100"


def parse_part(text: str, what: str = "name") -> str:
    """A group, an agent, an owner, or the last part of a secret's name. Raises ``InvalidRequest``."""
    if hidden_kind(text) and len(text) <= _LONGEST:
        return text
    if not _PART.fullmatch(text) or text.endswith(".") or _DEVICES.fullmatch(text):
        of = "" if what == "name" else f" of {'an' if what[0] in 'aeiou' else 'a'} {what}"
        raise InvalidRequest(f"{text[:40]!r} is no name{of} that a repo vault takes", f"use {_NEXT}")
    return text


def parse_secret(text: str) -> str:
    """``group/name``; a name without a group is in ``default``.

    Raises:
        InvalidRequest: it has more than two parts, or one of them is not a name.
    """
    group, slash, name = text.partition("/")
    if "/" in name:
        raise InvalidRequest(f"{text[:80]!r} has more than a group and a name", "write GROUP/NAME, with one slash")
    if not slash:
        group, name = DEFAULT_GROUP, group
    return f"{parse_part(group, 'group')}/{parse_part(name)}"


def parse_line(text: str) -> str:
    """A reason in a signed document, shown as it is. Raises ``InvalidRequest`` for more than a printed line."""
    if _UNPRINTED.search(text):
        raise InvalidRequest("a text has line breaks or other characters that are not printed", "write one line")
    return text


def one_line(text: str) -> str:
    """A text as ``parse_line`` takes it."""
    return _UNPRINTED.sub(" ", text)


def group_of(secret: str) -> str:
    """The first part of a secret's name."""
    return secret.partition("/")[0]


def hidden_kind(text: str) -> str:
    """What something that looks like an id is of: ``g``, ``s``, ``m`` or ``h``, its first letter; empty for a name."""
    return text[0] if _HIDDEN.fullmatch(text) else ""


def require_folder(text: str) -> None:
    """Raises ``InvalidRequest`` for an address where the path of a folder is meant; it is not repeated."""
    if "://" in text or "::" in text or not text.isprintable():
        raise InvalidRequest("an address is not the folder of a vault", "git clone it, and name the folder")
