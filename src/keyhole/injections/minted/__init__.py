"""What kinds have in common that send a short-lived token instead of the secret it was made with.

A token is kept until shortly before its end. An upstream that refuses a kept token with 401 gets one made anew, where
sending the request again means what sending it once means; a token made for this very request is not tried twice.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

from keyhole.core.errors import InvalidRequest, UpstreamUnreachable
from keyhole.core.message import Heard, Message
from keyhole.core.url import parse_url
from keyhole.injections import Steps, Terms, header_value

_KEPT = "token"
_MOST = 64  # tokens of one service and its values
_MARGIN = 60.0  # seconds before its end from which a token is not used any more
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # RFC 9110 section 9.2.2
_ERROR = re.compile(r"[a-z_]{1,40}")
_DEFAULT_LIFE = 300.0  # RFC 6749 section 5.1 lets an endpoint say nothing of it


class Token(NamedTuple):
    """A token.

    Attributes:
        value: as it stands in a header.
        until: seconds since the epoch from which it is not used any more.
    """

    value: bytes
    until: float

    def __repr__(self) -> str:
        return f"Token(***, until={self.until})"


Minting = Generator[Message, Heard, Token]


def token_until(value: bytes, now: float, lifetime: float) -> Token:
    """A token that is used for most of its life."""
    return Token(header_value(value), now + lifetime - min(_MARGIN, lifetime / 5))


def with_token(
    message: Message, terms: Terms, mint: Callable[[], Minting], attach: Callable[[bytes], None], audience: str = ""
) -> Steps:
    """Send a message with a token that is kept, or made now.

    Args:
        message: to send.
        terms: keep the token.
        mint: makes one; yields errands.
        attach: puts it into the message.
        audience: of the token, where not all of a service's hosts have the same.
    """
    name = f"{_KEPT} {audience}"
    if len(terms.kept) >= _MOST:
        terms.kept.clear()
    token = _kept(terms, name)
    known = token is not None
    if token is None:
        token = terms.kept[name] = yield from mint()
    _attach(message, token, attach)
    heard = yield message
    if heard.status == 401 and known and not message.streams and message.method in _REPEATABLE:
        if terms.kept.get(name) is token:
            del terms.kept[name]
        again = _kept(terms, name)  # perhaps made by another call meanwhile
        if again is None:
            again = terms.kept[name] = yield from mint()
        _attach(message, again, attach)
        yield message


def _kept(terms: Terms, name: str) -> Token | None:
    token = terms.kept.get(name)
    return token if isinstance(token, Token) and token.until > terms.now else None


def _attach(message: Message, token: Token, attach: Callable[[bytes], None]) -> None:
    attach(token.value)
    message.forms.append(token.value)


def in_header(message: Message, name: str, template: str) -> Callable[[bytes], None]:
    """Attach as a header; whatever the client sent under this name is gone."""
    before, _, after = template.encode().partition(b"{}")
    return lambda token: message.set(name.encode(), before + token + after)


def as_basic(message: Message, user: bytes) -> Callable[[bytes], None]:
    """Attach as the password of HTTP Basic (RFC 7617)."""

    def attach(token: bytes) -> None:
        encoded = base64.b64encode(user + b":" + token)
        message.set(b"authorization", b"Basic " + encoded)
        message.forms.append(encoded)

    return attach


def errand(method: str, url: str, content: bytes, kind: str, **headers: str) -> Message:
    """A request to a token endpoint. ``kind`` is its content type; underscores in names of headers are hyphens."""
    scheme, authority, target = parse_url(url)
    lines = [(b"content-type", kind.encode()), (b"accept", b"application/json"), (b"user-agent", b"keyhole")]
    lines += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Message(
        method, scheme, authority.host, authority.port, target, lines, content=content, errand=True, streams=False
    )


def answered(heard: Heard, *expected: int) -> Mapping[str, Any]:
    """The JSON object that a token endpoint answered with.

    Raises:
        UpstreamUnreachable: it refused, with its error code when that is one (RFC 6749 section 5.2), or said something
            else.
    """
    try:
        data = json.loads(heard.content)
    except (ValueError, RecursionError):
        data = None
    if heard.status not in (expected or (200,)):
        code = data.get("error") if isinstance(data, dict) else None
        said = f": {code}" if isinstance(code, str) and _ERROR.fullmatch(code) else ""
        raise UpstreamUnreachable(
            f"the token endpoint refused with status {heard.status}{said}",
            "check the secret and the options of the service's injection: keyhole service show NAME",
        )
    if not isinstance(data, dict):
        raise UpstreamUnreachable("the token endpoint's answer is not a JSON object", "check the service's token_url")
    return data


def bearer_of(data: Mapping[str, Any], now: float, *, name: str = "access_token") -> Token:
    """The bearer token of a token endpoint's answer (RFC 6749 section 5.1)."""
    value, kind, lifetime = data.get(name), data.get("token_type", "bearer"), data.get("expires_in", _DEFAULT_LIFE)
    if not isinstance(value, str) or not value:
        raise UpstreamUnreachable(f"the token endpoint's answer has no {name}", "check the options of the injection")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise UpstreamUnreachable("the token endpoint gave a token of another type than bearer")
    if isinstance(lifetime, str) and re.fullmatch(r"[0-9]{1,10}", lifetime):
        lifetime = int(lifetime)
    if isinstance(lifetime, bool) or not isinstance(lifetime, int | float) or not 0 < lifetime <= 10**9:
        lifetime = _DEFAULT_LIFE
    try:
        return token_until(value.encode(), now, float(lifetime))
    except (InvalidRequest, UnicodeEncodeError):
        raise UpstreamUnreachable("the token endpoint gave a token that no header can carry") from None
