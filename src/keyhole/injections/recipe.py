"""A request signed with HMAC as a recipe says: the message is put together from the request, signed, and sent along.

A signature is no secret to whoever may have requests signed, and is not looked for in answers; the key is, in the form
in which it is stored and in the one that signs.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import quote_from_bytes

from keyhole.core.errors import InvalidRequest
from keyhole.core.host import Authority
from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.core.recipe import Named, Recipe, Template, mentions
from keyhole.injections import Steps, Terms, header_value, nonce_of
from keyhole.injections.parameters import decoded, is_form

_WHSEC = b"whsec_"  # before the base64 of keys of Standard Webhooks
_recipe = functools.lru_cache(maxsize=1024)(Recipe.of)


def needs_content(_message: Message, how: Inject) -> bool:
    """Whether the body is part of what is signed."""
    recipe = _recipe(how)
    return any(mentions(template, "body", "form") for template in (recipe.message, *(t for _, t in recipe.headers)))


def inject(message: Message, how: Inject, terms: Terms) -> Steps:
    """Sign; whatever the client sent in the same headers and parameters is gone."""
    recipe = _recipe(how)
    values = terms.values
    stored = values["key"] if "key" in values else next(iter(values.values()))
    key = _key(stored, recipe.key_encoding)
    for name, _ in recipe.headers:
        message.remove(name.encode())
    if recipe.query:
        _remove_parameter(message, recipe.query.encode())
    parts = _Parts(message, terms)
    raw = hmac.digest(key, parts.text(recipe.message), recipe.algorithm)
    signature = _encode(raw, recipe.encoding)
    parts.signature = signature
    ready = [(name.encode(), header_value(parts.text(template))) for name, template in recipe.headers]
    message.headers += ready
    if recipe.query:
        mark = b"&" if b"?" in message.target and not message.target.endswith((b"?", b"&")) else b""
        mark = mark if b"?" in message.target else b"?"
        value = quote_from_bytes(signature, safe="~").encode()
        message.target += mark + recipe.query.encode() + b"=" + value
    if key != stored:
        message.forms.append(key)
    yield message


def _key(stored: bytes, encoding: str) -> bytes:
    if not stored:
        raise InvalidRequest("the key is empty", "look at it: keyhole show NAME")
    if encoding == "plain":
        return stored
    try:
        text = stored.strip()
        if encoding == "hex":
            return bytes.fromhex(text.decode())
        return base64.b64decode(text.removeprefix(_WHSEC).translate(bytes.maketrans(b"-_", b"+/")), validate=True)
    except (ValueError, binascii.Error):
        raise InvalidRequest(f"the key is not {encoding}, as the recipe says", "keyhole service show NAME") from None


def _encode(raw: bytes, encoding: str) -> bytes:
    if encoding == "hex":
        return raw.hex().encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=") if encoding == "base64url" else base64.b64encode(raw)


def _remove_parameter(message: Message, name: bytes) -> None:
    """Take a parameter out of the query, and out of a form."""
    path, mark, query = message.target.partition(b"?")
    if mark:
        kept = _without(query, name)
        message.target = path + mark + kept if kept else path
    if message.content and is_form(message):
        message.content = _without(message.content, name)


def _without(text: bytes, name: bytes) -> bytes:
    return b"&".join(part for part in text.split(b"&") if decoded(part.partition(b"=")[0]) != name)


def _parameter(text: bytes, name: str) -> bytes:
    for part in text.split(b"&"):
        key, _, value = part.partition(b"=")
        if decoded(key) == name.encode():
            return decoded(value)
    return b""


class _Parts:
    """What the parts of a template stand for."""

    def __init__(self, message: Message, terms: Terms) -> None:
        self._message = message
        self._values: Mapping[str, bytes] = terms.values
        self._milliseconds = round(terms.now * 1000)
        self._nonce = nonce_of(terms).hex().encode()
        self.signature = b""

    def text(self, template: Template) -> bytes:
        """A template with everything in its place."""
        return b"".join(
            part.encode()
            if isinstance(part, str)
            else self._named(part)
            if isinstance(part, Named)
            else _apply(part.function, self.text(part.template))
            for part in template
        )

    def _named(self, part: Named) -> bytes:
        if part.argument:
            return self._with_argument(part.name, part.argument)
        if part.name in {"key_id", "passphrase"}:
            value = self._values.get(part.name)
            if value is None:
                raise InvalidRequest(
                    f"the recipe needs the field {part.name}, and the secret has none",
                    'keyhole set NAME --json-in < {"key": …, "key_id": …, "passphrase": …}',
                )
            return value
        if part.name == "nonce" and not self._nonce:
            raise InvalidRequest("there is no nonce here")
        return _NAMED[part.name](self)

    def _with_argument(self, name: str, argument: str) -> bytes:
        message = self._message
        if name == "header":
            return message.get(argument.lower().encode()) or b""
        query = message.target.partition(b"?")[2]
        return _parameter((message.content or b"") if name == "form" else query, argument)

    def _moment(self) -> datetime:
        return datetime.fromtimestamp(self._milliseconds / 1000, UTC)

    def method(self) -> bytes:
        return self._message.method.encode()

    def host(self) -> bytes:
        return Authority(self._message.host, self._message.port).header(self._message.scheme)

    def path(self) -> bytes:
        return self._message.target.partition(b"?")[0]

    def query(self) -> bytes:
        return self._message.target.partition(b"?")[2]

    def sorted_query(self) -> bytes:
        return b"&".join(sorted(part for part in self.query().split(b"&") if part))

    def target(self) -> bytes:
        return self._message.target

    def body(self) -> bytes:
        return self._message.content or b""

    def timestamp(self) -> bytes:
        return b"%d" % (self._milliseconds // 1000)

    def timestamp_ms(self) -> bytes:
        return b"%d" % self._milliseconds

    def timestamp_iso(self) -> bytes:
        return (self._moment().strftime("%Y-%m-%dT%H:%M:%S") + f".{self._milliseconds % 1000:03}Z").encode()

    def date(self) -> bytes:
        return format_datetime(self._moment().replace(microsecond=0), usegmt=True).encode()

    def nonce(self) -> bytes:
        return self._nonce


_NAMED: dict[str, Callable[[_Parts], bytes]] = {
    "method": _Parts.method,
    "host": _Parts.host,
    "path": _Parts.path,
    "query": _Parts.query,
    "sorted_query": _Parts.sorted_query,
    "target": _Parts.target,
    "body": _Parts.body,
    "timestamp": _Parts.timestamp,
    "timestamp_ms": _Parts.timestamp_ms,
    "timestamp_iso": _Parts.timestamp_iso,
    "date": _Parts.date,
    "nonce": _Parts.nonce,
    "signature": lambda parts: parts.signature,
}
_TEXT: dict[str, Callable[[bytes], bytes]] = {
    "lower": bytes.lower,
    "upper": bytes.upper,
    "hex": lambda text: text.hex().encode(),
    "base64": base64.b64encode,
    "percent": lambda text: quote_from_bytes(text, safe="~").encode(),
}
_HASH = re.compile(r"(md5|sha1|sha256|sha512)(?:_(hex|base64))?")


def _apply(function: str, text: bytes) -> bytes:
    if function in _TEXT:
        return _TEXT[function](text)
    found = _HASH.fullmatch(function)
    if found is None:
        raise InvalidRequest("a template has a function that is not known")
    raw = hashlib.new(found[1], text, usedforsecurity=False).digest()
    return _TEXT[found[2]](raw) if found[2] else raw
