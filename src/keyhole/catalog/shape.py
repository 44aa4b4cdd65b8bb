"""The shape of a key, and placeholders in that shape."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from keyhole.catalog.reader import Reader

MARK = "keyhole"
LONGEST = 16 * 1024  # characters of a text that is compared with a pattern
_FILL = "*"
_LENGTHS = range(16, 257)
_RANDOM = 8  # characters of a placeholder that differ from secret to secret, at least
_LONGEST_PATTERN = 400


@dataclass(frozen=True, slots=True)
class KeyShape:
    """What a key, or one field of a credential, looks like.

    Attributes:
        title: what people call it; empty for the only one.
        pattern: matches the whole key.
        placeholder: how our placeholders begin, or with ``*`` where letters are put; contains the word that marks them,
            in upper case where the letters are to be.
        length: characters of a placeholder, as many as a key usually has.
        optional: a credential does without it.
        token: the placeholder stands for a token that is made with the key, and need not look like the key.
    """

    title: str
    pattern: re.Pattern[str]
    placeholder: str
    length: int
    optional: bool = False
    token: bool = False

    def fill(self, seed: bytes) -> str:
        """A text in the shape of a key that is visibly none, always the same for one seed."""
        upper = MARK.upper() in self.placeholder
        letters = _letters(seed, self.length)
        shape = self.placeholder if _FILL in self.placeholder else self.placeholder.ljust(self.length, _FILL)
        return "".join((next(letters).upper() if upper else next(letters)) if c == _FILL else c for c in shape)

    def matches(self, text: str) -> bool:
        """Whether a text has the shape of a key and is none of our placeholders."""
        return len(text) <= LONGEST and bool(self.pattern.fullmatch(text)) and MARK not in text.lower()


def read_shape(part: Reader) -> KeyShape:
    """Read a ``[key]`` table. Raises ``InvalidRequest``."""
    part.only("title", "pattern", "placeholder", "length", "optional", "token")
    source = part.text("pattern")
    try:
        pattern = re.compile(source)
    except re.error as error:
        raise part.wrong("pattern", f"is not a regular expression ({error})") from error
    if len(source) > _LONGEST_PATTERN or repeats_repetition(source):
        raise part.wrong("pattern", "repeats a group that repeats something itself, and could take for ever")
    placeholder = part.text("placeholder")
    if MARK not in placeholder.lower():
        raise part.wrong("placeholder", f"must contain {MARK!r}, so that nobody takes it for a key")
    stars = placeholder.count(_FILL)
    length = part.data.get("length", len(placeholder) if stars else None)
    if type(length) is not int or length not in _LENGTHS:
        raise part.wrong("length", f"must be a number from {_LENGTHS.start} to {_LENGTHS.stop - 1}")
    if length != len(placeholder) if stars else length < len(placeholder) + _RANDOM:
        raise part.wrong("length", "must be that of the placeholder, or at least 8 more than its beginning")
    if 0 < stars < _RANDOM:
        raise part.wrong("placeholder", f"must have at least {_RANDOM} characters to fill in")
    flags = (part.flag("optional"), part.flag("token"))
    shape = KeyShape(part.text("title", ""), pattern, placeholder, length, *flags)
    if not shape.token and not pattern.fullmatch(shape.fill(b"")):
        raise part.wrong("placeholder", "does not lead to a text that the pattern matches")
    return shape


def repeats_repetition(pattern: str) -> bool:
    """Is a group that holds a ``*``, ``+`` or ``{n,}`` repeated itself? Such a pattern can take exponential time."""
    plain = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", pattern)
    groups = [False]
    for index, char in enumerate(plain):
        if char == "(":
            groups.append(False)
        elif char == ")" and len(groups) > 1:
            inner = groups.pop()
            if inner and plain[index + 1 : index + 2] in {"*", "+", "{"}:
                return True
            groups[-1] |= inner
        elif char in "*+" or re.match(r"\{\d*,\}", plain[index:]):
            groups[-1] = True
    return False


def _letters(seed: bytes, count: int) -> Iterator[str]:
    """Lower case letters and digits, which every known shape allows, drawn from a hash."""
    made = 0
    for counter in range(count):
        digest = hashlib.sha256(b"keyhole placeholder\0" + bytes([counter]) + seed).digest()
        for letter in base64.b32encode(digest).decode().lower().rstrip("="):
            if made == count:
                return
            made += 1
            yield letter
