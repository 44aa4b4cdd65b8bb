"""``.netrc`` (ftp(1), curl): ``machine HOST login NAME password WORD``; ``default`` and ``macdef`` are left alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from keyhole.core.value import Secret
from keyhole.importers.collect import Collector, segment
from keyhole.importers.found import Binding, Found, Origin, Report, Spot
from keyhole.importers.text import decoded, first, scan

TITLE = "netrc"
PLACES = ("~/.netrc", "~/_netrc", "$NETRC")

_TOKEN = re.compile(r'[ \t\r\n]*(?:"([^"\\]*(?:\\.[^"\\]*)*)"|([^ \t\r\n]+))', re.DOTALL)
_COMMENT = re.compile(r"[^\r\n]*")
_BLANK_LINE = re.compile(r"\r?\n[ \t]*\r?\n|\Z")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t"}
_WORDS = ("login", "user", "password", "account")


@dataclass(frozen=True, slots=True)
class _Token:
    raw: str
    start: int
    quoted: bool

    def value(self) -> str | None:
        text = decoded(self.raw)
        return text if text is None or not self.quoted else _ESCAPE.sub(lambda m: _ESCAPED.get(m[1], m[1]), text)


@dataclass(slots=True)
class _Machine:
    host: str
    start: int
    words: dict[str, _Token] = field(default_factory=dict)


class _Tokens:
    """The words of the file; a word that begins with ``#`` where a keyword stands is a comment up to the line's end."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = first(text)

    def next(self) -> _Token | None:
        match = _TOKEN.match(self.text, self.position)
        if match is None:
            return None
        self.position = match.end()
        group = 1 if match[1] is not None else 2
        return _Token(match[group], match.start(group), quoted=group == 1)

    def pass_over(self, pattern: re.Pattern[str]) -> None:
        match = pattern.search(self.text, self.position)
        self.position = match.end() if match else len(self.text)


def parse(content: bytes, origin: Origin) -> Report:
    """See the contract of the shelf."""
    text = scan(content)
    found = Collector(origin)
    seen: set[tuple[str, str]] = set()
    for machine in _machines(_Tokens(text), found):
        _take(machine, f"line {1 + text.count(chr(10), 0, machine.start)}", seen, found)
    return found.report()


def _machines(tokens: _Tokens, found: Collector) -> Iterator[_Machine]:
    current: _Machine | None = None
    while token := tokens.next():
        if token.raw == "machine" and not token.quoted:
            if current:
                yield current
            name = tokens.next()
            current = _Machine((decoded(name.raw) or "") if name else "", token.start)
        elif token.raw == "default":
            if current:
                yield current
            current = _Machine("", token.start)
        elif token.raw == "macdef":
            found.skip("macdef", "a macro", "is a macro, which may do anything")
            tokens.pass_over(_BLANK_LINE)
        elif token.raw in _WORDS:
            value = tokens.next()
            if current and value:
                current.words["login" if token.raw == "user" else token.raw] = value
        elif token.raw.startswith("#"):
            tokens.position = token.start
            tokens.pass_over(_COMMENT)
        else:
            found.skip("", f"line {1 + tokens.text.count(chr(10), 0, token.start)}", "is no word of netrc")
    if current:
        yield current


def _take(machine: _Machine, where: str, seen: set[tuple[str, str]], found: Collector) -> None:
    password, login = machine.words.get("password"), machine.words.get("login")
    name = machine.host or "default"
    if not machine.host:
        found.skip(name, where, "is meant for every host, and a service names its hosts")
        return
    if password is None:
        found.skip(name, where, "has no password")
        return
    value, user = password.value(), (login.value() if login else "") or ""
    if found.refused(name, value, where, references=False) or value is None:
        return
    if (machine.host, user) in seen:
        found.skip(name, where, "is a second entry for the host, and programs take the first; it stays in the file")
        return
    others = any(host == machine.host for host, _ in seen)
    seen.add((machine.host, user))
    found.add(
        Found(
            name="/".join(["netrc", segment(machine.host), *([segment(user)] if others else [])]),
            fields={"username": Secret(user), "password": Secret(value)},
            where=where,
            kind="password",
            binding=Binding(machine.host.lower(), {"kind": "basic"}),
            spots=(Spot(password.start, password.start + len(password.raw), "password"),),
        )
    )
