"""What is said of a kind of injection, and the checks of its options. Pure. The table is in ``core.inject``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keyhole.core.errors import InvalidRequest

PLACES = ("header", "query", "path", "body", "frame")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
# Headers that frame or route a message: a secret in one of them would change what is judged.
_FRAMING = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "expect", "via"}
)


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a kind.

    Attributes:
        name: in the ``inject`` object.
        check: makes the normal form, or raises ``InvalidRequest``; gets ``None`` for an option that was not given and
            has no default.
        default: taken when it was not given.
        help: for the command line and the documentation.
    """

    name: str
    check: Callable[[Any], Any]
    default: Any = None
    help: str = ""

    def read(self, value: Any) -> Any:
        """The normal form of a given value, or the default."""
        return self.default if value is None and self.default is not None else self.check(value)


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of a kind of injection.

    Attributes:
        help: what it does, in a line.
        describe: says it of an ``Inject`` of this kind, without a value.
        options: what can be said of it.
        fields: sets of named fields that it works with where the reference to the secret names no field, the first
            that is there is taken; empty for a kind that takes one value.
        sole: it can do with the one value that the reference names as well; tried first.
        keeps: something made with the secret outlives a call, such as a token with its end.
        secretless: it works without a secret, and its service names none.
        answers: it answers by itself, and nothing is sent.
        public: fields that are no secrets, such as the id of a key; answers are not searched for them.
        signs: only signatures made with the secret go on the wire, and the client's own signature says what is meant.
        longest: bytes of a body that it can work on, where it needs the whole of it.
        named: the fields that the options name; where there are any, it is these that a loan opens.
        check: raises ``InvalidRequest`` where options contradict each other.
    """

    help: str
    describe: Callable[[Any], str]
    options: tuple[Option, ...] = ()
    fields: tuple[tuple[str, ...], ...] = ()
    sole: bool = True
    keeps: bool = False
    secretless: bool = False
    answers: bool = False
    public: tuple[str, ...] = ()
    signs: bool = False
    longest: int = 1024 * 1024
    named: Callable[[Any], tuple[str, ...]] = lambda _: ()
    check: Callable[[Any], object] = lambda _: None


def header_name(value: Any) -> str:
    """A header that can carry a secret, in lower case."""
    text = str(value or "").lower()
    if not _HEADER.fullmatch(text) or text in _FRAMING or text.startswith("proxy-"):
        raise InvalidRequest("the header name is not one that can carry a secret", "for example X-Api-Key")
    return text


def template(value: Any) -> str:
    """A text with one ``{}`` where the secret is put."""
    text = str(value)
    if text.count("{}") != 1 or not text.isprintable() or not text.isascii():
        raise InvalidRequest("a header template has exactly one {} and only ASCII", "for example 'Token {}'")
    return text


def placeholder_text(value: Any) -> str:
    """What a client sends in place of a secret."""
    text = str(value or "")
    if not 8 <= len(text) <= 256 or not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidRequest("a placeholder is 8 to 256 visible ASCII characters", "for example sk-placeholder-1")
    return text


def places(value: Any) -> tuple[str, ...]:
    """Where a placeholder is replaced."""
    found = [place.strip() for place in value.split(",")] if isinstance(value, str) else value or ("header",)
    if not isinstance(found, list | tuple) or not all(place in PLACES for place in found):
        raise InvalidRequest(f"a placeholder is replaced in {', '.join(PLACES)}", "name one of them, or several")
    return tuple(dict.fromkeys(found))


def user_name(value: Any) -> str:
    """The user name of Basic credentials (RFC 7617, section 2)."""
    text = str(value or "")
    if ":" in text or not text.isprintable():
        raise InvalidRequest("the user name of basic cannot have a colon or a control character")
    return text
