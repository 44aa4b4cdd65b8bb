r"""Recipes for signing with HMAC (RFC 2104), as data: what is signed, with what, and where the signature goes. Pure.

A template is text with parts in braces: ``{timestamp}.{body}``. A part is one of ``NAMES``; a name with an argument,
``{header:x-date}`` or ``{form:nonce}``; or a function of another template, ``{sha256:{body}}``. ``\n``, ``\t``, ``\\``,
``\{`` and ``\}`` stand for themselves. There is nothing else in it: no loops, no lookups, no code.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.kind import Kind, Option, header_name

NAMES = {
    "method": "as sent",
    "host": "with the port, where it is not the usual one",
    "path": "as sent, encoded",
    "query": "as sent, without the question mark",
    "sorted_query": "its parameters in the order of their bytes",
    "target": "path and query as sent",
    "body": "all of it",
    "timestamp": "seconds since 1970",
    "timestamp_ms": "milliseconds since 1970",
    "timestamp_iso": "2026-01-31T12:00:00.000Z",
    "date": "Sat, 31 Jan 2026 12:00:00 GMT",
    "nonce": "32 random hexadecimal digits",
    "key_id": "the field of the secret",
    "passphrase": "the field of the secret",
    "signature": "in templates of headers only",
}
WITH_ARGUMENT = ("header", "form", "query")
FUNCTIONS = (
    *(f"{name}{suffix}" for name in ("md5", "sha1", "sha256", "sha512") for suffix in ("", "_hex", "_base64")),
    "base64",
    "hex",
    "lower",
    "upper",
    "percent",
)
ALGORITHMS = ("sha256", "sha512", "sha384", "sha1")
KEY_ENCODINGS = ("plain", "base64", "hex")
ENCODINGS = ("hex", "base64", "base64url")
FIELDS = ("key", "key_id", "passphrase")

RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "github-webhook": {"message": "{body}", "header": "x-hub-signature-256", "template": "sha256={signature}"},
        "slack-webhook": {
            "message": "v0:{timestamp}:{body}",
            "header": "x-slack-signature",
            "template": "v0={signature}",
            "headers": ("x-slack-request-timestamp={timestamp}",),
        },
        "standard-webhook": {
            "message": "msg_{nonce}.{timestamp}.{body}",
            "key_encoding": "base64",
            "encoding": "base64",
            "header": "webhook-signature",
            "template": "v1,{signature}",
            "headers": ("webhook-id=msg_{nonce}", "webhook-timestamp={timestamp}"),
        },
        "stripe-webhook": {
            "message": "{timestamp}.{body}",
            "header": "stripe-signature",
            "template": "t={timestamp},v1={signature}",
        },
        "binance": {"message": "{query}{body}", "query": "signature", "headers": ("x-mbx-apikey={key_id}",)},
        "bybit": {
            "message": "{timestamp_ms}{key_id}5000{query}{body}",
            "header": "x-bapi-sign",
            "headers": (
                "x-bapi-api-key={key_id}",
                "x-bapi-timestamp={timestamp_ms}",
                "x-bapi-recv-window=5000",
            ),
        },
        "coinbase-exchange": {
            "message": "{timestamp}{method}{target}{body}",
            "key_encoding": "base64",
            "encoding": "base64",
            "header": "cb-access-sign",
            "headers": (
                "cb-access-key={key_id}",
                "cb-access-timestamp={timestamp}",
                "cb-access-passphrase={passphrase}",
            ),
        },
        "kraken": {
            "message": "{path}{sha256:{form:nonce}{body}}",
            "algorithm": "sha512",
            "key_encoding": "base64",
            "encoding": "base64",
            "header": "api-sign",
            "headers": ("api-key={key_id}",),
        },
        "okx": {
            "message": "{timestamp_iso}{method}{target}{body}",
            "encoding": "base64",
            "header": "ok-access-sign",
            "headers": (
                "ok-access-key={key_id}",
                "ok-access-timestamp={timestamp_iso}",
                "ok-access-passphrase={passphrase}",
            ),
        },
    }
)
_DEFAULTS = {
    "algorithm": "sha256",
    "key_encoding": "plain",
    "encoding": "hex",
    "message": "",
    "header": "",
    "template": "{signature}",
    "query": "",
    "headers": (),
}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_ARGUMENT = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_PARAMETER = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\", "{": "{", "}": "}"}
_LONGEST = 1024
_DEPTH = 4
_HEADERS = 16


@dataclass(frozen=True, slots=True)
class Named:
    """A part that stands for something of the request, the secret or the moment."""

    name: str
    argument: str = ""


@dataclass(frozen=True, slots=True)
class Applied:
    """A function of another template."""

    function: str
    template: Template


Template = tuple[str | Named | Applied, ...]


@functools.lru_cache(maxsize=1024)
def parse(text: str) -> Template:
    """Read a template. Raises ``InvalidRequest`` that says what is wrong with it."""
    if len(text) > _LONGEST:
        raise InvalidRequest(f"a template has at most {_LONGEST} characters")
    template, _ = _parse(text, 0, 0)
    return template


def mentions(template: Template, *names: str) -> bool:
    """Whether one of these parts is anywhere in a template."""
    return any(
        part.name in names if isinstance(part, Named) else isinstance(part, Applied) and mentions(part.template, *names)
        for part in template
    )


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an ``Inject`` of the kind ``hmac`` says, with what its named recipe says.

    Attributes:
        algorithm: of the hash.
        key_encoding: in which the key is stored.
        encoding: of the signature.
        message: what is signed.
        headers: name and template of each header.
        query: the parameter of the query that is the signature; empty for none.
    """

    algorithm: str
    key_encoding: str
    encoding: str
    message: Template
    headers: tuple[tuple[str, Template], ...]
    query: str

    @classmethod
    def of(cls, how: Any) -> Recipe:
        """Read an ``Inject``. Raises ``InvalidRequest`` when nothing is signed, or it goes nowhere."""
        said = {name: how.get(name) for name in _DEFAULTS}
        named = RECIPES.get(how.get("recipe", ""), {})
        value = {name: said[name] or named.get(name, default) for name, default in _DEFAULTS.items()}
        if not value["message"]:
            raise InvalidRequest("the recipe does not say what is signed", "give message, such as '{timestamp}.{body}'")
        if not (value["header"] or value["query"] or value["headers"]):
            raise InvalidRequest("the recipe does not say where the signature goes", "give header, headers or query")
        pairs = [(value["header"], value["template"])] if value["header"] else []
        pairs += [_header(text) for text in value["headers"]]
        headers = tuple((name, parse(text)) for name, text in pairs)
        if not value["query"] and not any(mentions(template, "signature") for _, template in headers):
            raise InvalidRequest("no header of the recipe has {signature} in it", "X-Signature={signature}")
        message = parse(value["message"])
        if mentions(message, "signature"):
            raise InvalidRequest("a signature cannot be part of what is signed")
        return cls(value["algorithm"], value["key_encoding"], value["encoding"], message, headers, value["query"])


def _parse(text: str, at: int, depth: int) -> tuple[Template, int]:
    parts: list[str | Named | Applied] = []
    literal = ""
    while at < len(text) and text[at] != "}":
        char = text[at]
        if char == "\\":
            if text[at + 1 : at + 2] not in _ESCAPES:
                raise InvalidRequest("a template has an unknown escape", r"there are \n, \t, \\, \{ and \}")
            literal += _ESCAPES[text[at + 1]]
            at += 2
        elif char == "{":
            parts += [literal] if literal else []
            literal = ""
            part, at = _part(text, at + 1, depth)
            parts.append(part)
        else:
            literal += char
            at += 1
    if (at < len(text)) != (depth > 0):
        raise InvalidRequest("a template has a brace without its partner", r"write \{ or \} for the character")
    return (*parts, literal) if literal else tuple(parts), at


def _part(text: str, at: int, depth: int) -> tuple[Named | Applied, int]:
    found = _NAME.match(text, at)
    name = found[0] if found else ""
    at += len(name)
    mark = text[at : at + 1]
    if mark == "}" and name in NAMES:
        return Named(name), at + 1
    if mark == ":" and name in FUNCTIONS and depth < _DEPTH:
        template, at = _parse(text, at + 1, depth + 1)
        return Applied(name, template), at + 1
    argument = _ARGUMENT.match(text, at + 1)
    if mark == ":" and name in WITH_ARGUMENT and argument and text[argument.end() : argument.end() + 1] == "}":
        return Named(name, argument[0]), argument.end() + 1
    names = ", ".join(NAMES)
    raise InvalidRequest(
        f"a template has a part {{{name[:32]}…}} that is not known",
        f"there are {names}; {', '.join(WITH_ARGUMENT)} with an argument; {', '.join(FUNCTIONS)} of a template",
    )


def _header(text: str) -> tuple[str, str]:
    name, mark, template = text.partition("=")
    if not mark:
        raise InvalidRequest(f"{text[:64]!r} is not NAME=TEMPLATE", "for example X-Timestamp={timestamp}")
    parse(template)
    return header_name(name.strip()), template


def _one_of(*values: str) -> Any:
    def check(value: Any) -> str:
        if value and str(value) not in values:
            raise InvalidRequest(f"{str(value)[:40]!r} is none of {', '.join(values)}")
        return str(value or "")

    return check


def _template(value: Any) -> str:
    text = str(value or "")
    parse(text)
    return text


def _parameter(value: Any) -> str:
    text = str(value or "")
    if text and not _PARAMETER.fullmatch(text):
        raise InvalidRequest(f"{text[:40]!r} is not the name of a parameter")
    return text


def _headers(value: Any) -> tuple[str, ...]:
    lines = value.splitlines() if isinstance(value, str) else value or ()
    if not isinstance(lines, list | tuple) or len(lines) > _HEADERS or not all(isinstance(line, str) for line in lines):
        raise InvalidRequest(f"headers are at most {_HEADERS} texts NAME=TEMPLATE")
    return tuple(f"{name}={template}" for name, template in map(_header, filter(None, lines)))


def _describe(how: Any) -> str:
    recipe = Recipe.of(how)
    places = [*(name for name, template in recipe.headers if mentions(template, "signature"))]
    places += [f"?{recipe.query}="] if recipe.query else []
    return f"signed with HMAC-{recipe.algorithm.upper()} in {', '.join(places)}"


HMAC = Kind(
    "signed with HMAC by a recipe",
    _describe,
    (
        Option("recipe", _one_of(*RECIPES), "", f"one that is known: {', '.join(RECIPES)}"),
        Option("algorithm", _one_of(*ALGORITHMS), "", "sha256 unless said"),
        Option("key_encoding", _one_of(*KEY_ENCODINGS), "", "how the key is stored: plain unless said"),
        Option("message", _template, "", "what is signed, such as '{timestamp}.{body}'"),
        Option("encoding", _one_of(*ENCODINGS), "", "of the signature: hex unless said"),
        Option("header", lambda value: header_name(value) if value else "", "", "the header with the signature"),
        Option("template", _template, "", "of that header: {signature} unless said"),
        Option("query", _parameter, "", "the parameter with the signature"),
        Option("headers", _headers, (), "further headers NAME=TEMPLATE, one a line"),
    ),
    fields=(FIELDS, FIELDS[:2], FIELDS[:1]),
    public=("key_id",),
    check=Recipe.of,
)
