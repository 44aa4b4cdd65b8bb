"""A placeholder as clients write it in a place, and a secret as it is written there instead of it.

A client's library escapes a placeholder like any other text, so it is looked for in those spellings. Letters and
digits, which none escapes, are looked for as they are.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Callable
from dataclasses import dataclass

from keyhole.core.errors import InvalidRequest
from keyhole.injections.json_text import quoted
from keyhole.injections.parameters import encode

_ALNUM = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_UNRESERVED = frozenset((b"-", b".", b"_", b"~"))  # with the former (RFC 3986, section 2.3)
_XML = {b"&": b"&amp;", b"<": b"&lt;", b">": b"&gt;", b"'": b"&apos;"}
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_NOT_MULTIPART = re.compile(rb"[\x00\r\n\"]")
_MOST = 4 * 1024 * 1024  # bytes that a secret takes in one message


@dataclass(frozen=True, slots=True)
class Syntax:
    """How text is written in a place.

    Attributes:
        spellings: of one byte, the plain one first.
        write: a value as it is to stand there. Raises ``InvalidRequest`` for one that cannot.
    """

    spellings: Callable[[bytes], tuple[bytes, ...]]
    write: Callable[[bytes], bytes]


def _percent(char: bytes) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys((char, b"%%%02X" % char[0], b"%%%02x" % char[0])))


def _json(char: bytes) -> tuple[bytes, ...]:
    if char in _UNRESERVED:
        return (char,)
    slash = (b"\\/",) if char == b"/" else ()
    return tuple(dict.fromkeys((char, *slash, b"\\u%04X" % char[0], b"\\u%04x" % char[0])))


def _xml(char: bytes) -> tuple[bytes, ...]:
    return (char, _XML[char]) if char in _XML else (char,)


def _plain(char: bytes) -> tuple[bytes, ...]:
    return (char,)


def _write_json(value: bytes) -> bytes:
    return quoted(value)[1:-1]


def _write_xml(value: bytes) -> bytes:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the secret is not UTF-8, and cannot stand in XML", "store it again as text") from None
    if _NOT_XML.search(text):
        raise InvalidRequest("the secret has a control character, and cannot stand in XML", "store it again")
    return html.escape(text).replace("&#x27;", "&#39;").encode()


def _write_multipart(value: bytes) -> bytes:
    if _NOT_MULTIPART.search(value):
        raise InvalidRequest(
            "the secret has a line break, a NUL or a double quote, which could end a part of a multipart body",
            "bind it to the field instead: keyhole service add … --form-field FIELD",
        )
    return value


def _write_plain(value: bytes) -> bytes:
    return value


PERCENT = Syntax(_percent, encode)
JSON = Syntax(_json, _write_json)
XML = Syntax(_xml, _write_xml)
MULTIPART = Syntax(_plain, _write_multipart)
PLAIN = Syntax(_plain, _write_plain)


def syntax_of(kind: bytes) -> Syntax | None:
    """The syntax of a body of this content type; ``None`` for those in which no text is replaced."""
    if not kind:
        return PLAIN
    if kind == b"application/x-www-form-urlencoded":
        return PERCENT
    if kind.startswith(b"multipart/"):
        return MULTIPART
    name = kind.partition(b"/")[2]
    if name.endswith((b"json", b"jsonl", b"json-seq")):
        return JSON
    if name.endswith(b"xml") or kind == b"text/html":
        return XML
    if kind.startswith(b"text/") or name in _TEXTS:
        return PLAIN
    return None


_TEXTS = frozenset({b"graphql", b"javascript", b"yaml", b"x-yaml", b"toml", b"sql", b"x-sh"})


@functools.lru_cache(maxsize=1024)
def _tokens(text: bytes, syntax: Syntax) -> tuple[tuple[bytes, ...], ...]:
    return tuple(
        (text[at : at + 1],) if text[at] in _ALNUM else syntax.spellings(text[at : at + 1]) for at in range(len(text))
    )


@functools.lru_cache(maxsize=1024)
def pattern(text: bytes, syntax: Syntax) -> re.Pattern[bytes]:
    """Finds a text in all of its spellings."""
    return re.compile(
        b"".join(
            re.escape(found[0]) if len(found) == 1 else b"(?:" + b"|".join(map(re.escape, found)) + b")"
            for found in _tokens(text, syntax)
        )
    )


def bounded(times: int, written: bytes) -> None:
    """Keep a small message from being made a huge one. Raises ``InvalidRequest``."""
    if times * len(written) > _MOST:
        raise InvalidRequest("the placeholder stands too often in one message", "send less at once")


def _written(syntax: Syntax, value: bytes, times: int) -> bytes:
    if not value:
        raise InvalidRequest("the secret is empty", "look at it: keyhole show NAME")
    written = syntax.write(value)
    bounded(times, written)
    return written


def replaced(content: bytes, text: bytes, syntax: Syntax, value: bytes) -> bytes:
    """The content with every occurrence replaced; the same object when there is none. Raises ``InvalidRequest``."""
    finder = pattern(text, syntax)
    times = sum(1 for _ in finder.finditer(content))
    if not times:
        return content
    written = _written(syntax, value, times)
    return finder.sub(lambda _: written, content)


class Replacer:
    """A ``Recoder`` that replaces a text in a body that streams; what may be its beginning waits for the next chunk.

    Args:
        text: what is replaced.
        syntax: how it is written.
        value: what takes its place.
    """

    def __init__(self, text: bytes, syntax: Syntax, value: bytes) -> None:
        self._finder = pattern(text, syntax)
        self._tokens = _tokens(text, syntax)
        self._reach = sum(max(map(len, found)) for found in self._tokens) - 1
        self._text = text
        self._syntax = syntax
        self._value = value
        self._held = b""
        self._times = 0

    def length(self, declared: int | None) -> int | None:
        """The same where secret and placeholder are equally long in every spelling, else unknown."""
        same = all(len(found) == 1 for found in self._tokens)
        try:
            return declared if same and len(self._syntax.write(self._value)) == len(self._text) else None
        except InvalidRequest:
            return declared  # a body in which the text stands is refused

    def feed(self, chunk: bytes) -> bytes:
        """What can be sent now. Raises ``InvalidRequest`` when the value cannot stand where the text does."""
        content = self._held + chunk if self._held else chunk
        parts: list[bytes] = []
        at = 0
        for match in self._finder.finditer(content):
            parts += (content[at : match.start()], self._next())
            at = match.end()
        end = self._unfinished(content, at)
        self._held = content[end:]
        if not at and end == len(content):
            return content
        return b"".join([*parts, content[at:end]])

    def _next(self) -> bytes:
        self._times += 1
        return _written(self._syntax, self._value, self._times)

    def finish(self) -> bytes:
        """What was held back is no occurrence."""
        held, self._held = self._held, b""
        return held

    def _unfinished(self, content: bytes, done: int) -> int:
        """Where an occurrence may begin that the end of the content cuts off."""
        start = max(done, len(content) - self._reach)
        tail = content[start:]
        places = (place for place in range(len(tail)) if self._may_begin(tail[place:]))
        return start + next(places, len(tail))

    def _may_begin(self, rest: bytes) -> bool:
        for spellings in self._tokens:
            if not rest:
                return True
            found = next((spelling for spelling in spellings if rest.startswith(spelling)), None)
            if found is None:
                return any(spelling.startswith(rest) for spelling in spellings)
            rest = rest[len(found) :]
        return False
