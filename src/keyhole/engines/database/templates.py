"""Templates of user names, in the small part of Go's template language that Vault documents for them.

    {{ printf "v-%s-%s" (.DisplayName | truncate 8) (random 20) | lowercase }}

What looks like chance here derives from the lease, so that the same lease always has the same name.
"""

from __future__ import annotations

import base64
import hashlib
import re
import string
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from keyhole.core.errors import InvalidRequest

_ALPHABET = string.ascii_letters + string.digits
_LONGEST = 2000
_DEEPEST = 20
_MOST = 255
_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|`[^`]*`|\.[A-Za-z]+|[A-Za-z_]\w*|\d+|[()|])')
_HASH = 8


@dataclass(slots=True)
class Source:
    """What a name is made of.

    Attributes:
        seed: of what looks like chance.
        time: seconds since the epoch.
        display: of whom it is for.
        role: by which it is made.
    """

    seed: str
    time: int
    display: str
    role: str
    _block: int = field(default=0, repr=False)

    def random(self, count: int) -> str:
        """So many letters and digits, each as likely as the other; others at each call."""
        found: list[str] = []
        while len(found) < count:
            block = hashlib.sha256(f"{self._block} {self.seed}".encode()).digest()
            self._block += 1
            found += [_ALPHABET[byte % len(_ALPHABET)] for byte in block if byte < 256 - 256 % len(_ALPHABET)]
        return "".join(found[:count])

    def uuid(self) -> str:
        """A UUID (RFC 9562, version 4 in form)."""
        self._block += 1
        return str(uuid.UUID(bytes=hashlib.sha256(f"{self._block - 1} {self.seed}".encode()).digest()[:16], version=4))


Value = str | int
_Maker = Callable[[Source], str]


@dataclass(frozen=True, slots=True)
class Template:
    """A template that was read; ``render`` makes a name of it."""

    parts: tuple[_Maker, ...]

    def render(self, source: Source) -> str:
        """The name. Raises ``InvalidRequest`` for one that is too long."""
        text = "".join(part(source) for part in self.parts)
        if len(text) > _MOST:
            raise InvalidRequest(f"the username_template makes names of more than {_MOST} characters", "truncate them")
        return text


def read_template(text: str) -> Template:
    """Read a template. Raises ``InvalidRequest`` that says what is not understood."""
    if len(text) > _LONGEST:
        raise InvalidRequest(f"username_template has at most {_LONGEST:,} characters")
    parts: list[_Maker] = []
    for number, piece in enumerate(re.split(r"\{\{-?(.*?)-?\}\}", text, flags=re.DOTALL)):
        parts.append(_expression(piece) if number % 2 else _fixed(piece))
    return Template(tuple(parts))


def _fixed(text: str) -> _Maker:
    return lambda _source: text


class _Reader:
    """Reads one expression."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None:
                raise _wrong(text[position:].strip())
            self.tokens.append(match[1])
            position = match.end()
        self.depth = 0

    def pipeline(self) -> Callable[[Source], Value]:
        """One command, and those after it that each take what the one before gave as their last argument."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise InvalidRequest("username_template has too many brackets")
        command = self.command(None)
        while self.tokens and self.tokens[0] == "|":
            self.tokens.pop(0)
            command = self.command(command)
        self.depth -= 1
        return command

    def command(self, piped: Callable[[Source], Value] | None) -> Callable[[Source], Value]:
        if not self.tokens or self.tokens[0] in {"|", ")"}:
            raise _wrong(self.tokens[0] if self.tokens else "")
        if self.tokens[0] not in _FUNCTIONS:
            if piped is not None:
                raise _wrong(self.tokens[0])
            return self.operand()
        name = self.tokens.pop(0)
        arguments = []
        while self.tokens and self.tokens[0] not in {"|", ")"}:
            arguments.append(self.operand())
        if piped is not None:
            arguments.append(piped)
        function, count = _FUNCTIONS[name]
        if count >= 0 and len(arguments) != count:
            raise _wrong(name)

        def call(source: Source) -> Value:
            try:
                return function(source, *(argument(source) for argument in arguments))
            except (TypeError, ValueError, AttributeError):
                raise _wrong(name) from None

        return call

    def operand(self) -> Callable[[Source], Value]:
        word = self.tokens.pop(0)
        if word == "(":
            inner = self.pipeline()
            if not self.tokens or self.tokens.pop(0) != ")":
                raise _wrong("(")
            return inner
        if word[0] in '"`':
            text = re.sub(r"\\(.)", r"\1", word[1:-1]) if word[0] == '"' else word[1:-1]
            return lambda _source: text
        if word.isdecimal():
            number = int(word[:6])
            return lambda _source: number
        if word == ".DisplayName":
            return lambda source: source.display
        if word == ".RoleName":
            return lambda source: source.role
        if word in _FUNCTIONS and _FUNCTIONS[word][1] == 0:
            return _FUNCTIONS[word][0]
        raise _wrong(word)


def _expression(text: str) -> _Maker:
    reader = _Reader(text)
    made = reader.pipeline()
    if reader.tokens:
        raise _wrong(reader.tokens[0])
    return lambda source: str(made(source))


def _printf(_source: Source, form: Value, *values: Value) -> str:
    parts = re.split(r"%[sdv]", str(form))
    if len(parts) != len(values) + 1:
        raise _wrong("printf")
    return parts[0] + "".join(f"{value}{part}" for value, part in zip(values, parts[1:], strict=True))


def _truncate(_source: Source, length: Value, text: Value) -> str:
    return str(text)[: _whole(length)]


def _truncate_sha256(_source: Source, length: Value, text: Value) -> str:
    whole, most = str(text), _whole(length)
    if most <= _HASH:
        raise _wrong("truncate_sha256")
    digest = hashlib.sha256(whole.encode()).hexdigest()
    return whole if len(whole) <= most else whole[: most - _HASH] + digest[:_HASH]


def _random(source: Source, count: Value) -> str:
    return source.random(min(_whole(count), _MOST))


def _whole(value: Value) -> int:
    if type(value) is not int or value < 1:
        raise TypeError
    return value


# What a template may call, and with how many arguments; -1 for any.
_FUNCTIONS: dict[str, tuple[Callable[..., Value], int]] = {
    "printf": (_printf, -1),
    "truncate": (_truncate, 2),
    "truncate_sha256": (_truncate_sha256, 2),
    "random": (_random, 1),
    "uuid": (lambda source: source.uuid(), 0),
    "unix_time": (lambda source: source.time, 0),
    "unix_time_millis": (lambda source: source.time * 1000, 0),
    "lowercase": (lambda _source, text: text.lower(), 1),
    "uppercase": (lambda _source, text: text.upper(), 1),
    "replace": (lambda _source, old, new, text: text.replace(old, new), 3),
    "sha256": (lambda _source, text: hashlib.sha256(text.encode()).hexdigest(), 1),
    "base64": (lambda _source, text: base64.b64encode(text.encode()).decode(), 1),
}


def _wrong(what: str) -> InvalidRequest:
    return InvalidRequest(
        f"username_template is not understood at {what[:40]!r}", "see the functions that docs/database.md lists"
    )
