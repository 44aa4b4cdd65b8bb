"""A request to ``/proxy``: where the call goes, which secrets it names, and what is handed on. Pure.

Names in the headers ``X-AS-Inject-*`` are taken as they were written, because parameters of URLs and fields of bodies
have case. All headers of AgentSecrets, of the connection and of ours are left out; the others go on as they came.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from keyhole.core.errors import KeyholeError
from keyhole.core.host import Authority
from keyhole.core.url import parse_url
from keyhole.faces.run.agentsecrets.said import malformed
from keyhole.net.http1.grammar import RequestHead, list_tokens, spelled_names
from keyhole.net.http1.serialise import HOP_BY_HOP

_INJECT = b"x-as-inject-"
_ONCE = (b"x-as-target-url", b"x-as-method")
_WHOLE = (b"bearer", b"basic")
_NAMED = (b"header", b"query", b"body", b"form")
_LEFT_OUT = HOP_BY_HOP | {b"host", b"content-length", b"expect"}
_LEFT_OUT_PREFIXES = (b"x-as-", b"x-keyhole-", b"proxy-")
_METHOD = re.compile(r"[A-Z][A-Z-]{0,31}")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_MOST = 16  # secrets that a request may name
_TYPES = {"body": b"application/json", "form": b"application/x-www-form-urlencoded"}


@dataclass(frozen=True, slots=True)
class Place:
    """A secret and where it should go.

    Attributes:
        style: ``bearer``, ``basic``, ``header``, ``query``, ``body`` or ``form``.
        name: of the header, parameter or field, as it was written; empty for the first two.
        key: the secret's name in the words of the caller.
    """

    style: str
    name: str
    key: str

    def __str__(self) -> str:
        return f"{self.style} {self.name}" if self.name else self.style


@dataclass(frozen=True, slots=True)
class Asked:
    """A call as it is to be made.

    Attributes:
        method: HTTP method.
        scheme, authority, target: of the URL, in canonical form.
        places: the secrets.
        headers: that are handed on, with their names as written.
        framing: complete lines about the body.
    """

    method: str
    scheme: str
    authority: Authority
    target: bytes
    places: tuple[Place, ...]
    headers: tuple[tuple[bytes, bytes], ...]
    framing: bytes

    @property
    def path(self) -> str:
        """The path of the target, without parameters."""
        return self.target.partition(b"?")[0].decode("latin-1")

    def head(self, more: bytes, *, absolute: bool) -> bytes:
        """The request's head for the broker, with ``more`` complete lines; ``absolute`` outside of a tunnel."""
        host = self.authority.header(self.scheme)
        start = b"http://" + host if absolute else b""
        lines = [b"%b %b%b HTTP/1.1" % (self.method.encode(), start, self.target), b"Host: " + host]
        lines += [b"%b: %b" % pair for pair in self.headers]
        return b"\r\n".join([*lines, more + self.framing + b"Connection: close\r\n\r\n"])

    def put_on_record(self, word: str) -> bytes:
        """The head of the same call through a service that cannot exist: the broker refuses it, and records that.

        Args:
            word: why it is not made; part of that service's name.
        """
        empty = replace(self, headers=(), framing=b"Content-Length: 0\r\n" if self.method in _WITH_BODY else b"")
        return empty.head(b"X-Keyhole-Service: agentsecrets:%b\r\n" % word.encode(), absolute=self.scheme == "http")


def read(head: RequestHead, raw: bytes) -> Asked:
    """Read a request to ``/proxy``.

    Args:
        head: of it.
        raw: the bytes that it was read from.

    Raises:
        Refused: it lacks what the contract demands, or says it in no clear way.
    """
    fields = head.fields
    for name in _ONCE:
        if sum(low == name for low, _ in head.headers) > 1:
            raise malformed(f"{name.decode().upper()} stands twice")
    url = fields.get(b"x-as-target-url", b"")
    if not url:
        raise malformed("X-AS-Target-URL header is required")
    names = spelled_names(raw)
    places = tuple(_place(name, value) for name, (low, value) in _paired(names, head) if low.startswith(_INJECT))
    if not places:
        raise malformed("At least one X-AS-Inject-* header is required")
    if len(places) > _MOST:
        raise malformed(f"a request names at most {_MOST} secrets")
    method = (fields.get(b"x-as-method") or head.method.encode()).decode("latin-1").strip().upper()
    if not _METHOD.fullmatch(method):
        raise malformed("X-AS-Method is not a method")
    try:
        scheme, authority, target = parse_url(url)
    except KeyholeError as error:
        raise malformed(f"X-AS-Target-URL: {error.reason}") from None
    kind = next((_TYPES[place.style] for place in places if place.style in _TYPES), b"")
    kept = tuple(_handed_on(names, head, forced=kind == _TYPES["body"]))
    if kind and (b"content-type" not in fields or kind == _TYPES["body"]):
        kept += ((b"Content-Type", kind),)
    return Asked(method, scheme, authority, target, places, kept, _framing(head, method))


def _paired(names: list[bytes], head: RequestHead) -> list[tuple[bytes, tuple[bytes, bytes]]]:
    return list(zip(names, head.headers, strict=True))


def _place(name: bytes, value: bytes) -> Place:
    style, mark, rest = name[len(_INJECT) :].partition(b"-")
    style = style.lower()
    key = value.decode("latin-1")
    if not key or not key.isprintable():
        raise malformed("an X-AS-Inject-* header names no secret")
    if style in _WHOLE and not mark:
        return Place(style.decode(), "", key)
    if style in _NAMED and rest:
        text = rest.decode("latin-1")
        return Place(style.decode(), text.replace("-", ".") if style == b"body" else text, key)
    raise malformed("X-AS-Inject-* is Bearer, Basic, Header-NAME, Query-PARAM, Body-PATH or Form-FIELD")


def _handed_on(names: list[bytes], head: RequestHead, *, forced: bool) -> list[tuple[bytes, bytes]]:
    """The caller's own headers. Those that ``Connection`` names are of the connection (RFC 9110 section 7.6.1)."""
    left_out = _LEFT_OUT | set(list_tokens(head.headers, b"connection"))
    if forced:
        left_out = left_out | {b"content-type"}
    return [
        (name, value)
        for name, (low, value) in _paired(names, head)
        if low not in left_out and not low.startswith(_LEFT_OUT_PREFIXES)
    ]


def _framing(head: RequestHead, method: str) -> bytes:
    """The lines about the body, whose bytes are carried as they are."""
    fields = head.fields
    lines = b"".join(
        b"%b: %b\r\n" % (name, fields[name.lower()])
        for name in (b"Content-Length", b"Transfer-Encoding", b"Expect")
        if name.lower() in fields
    )
    return lines or (b"Content-Length: 0\r\n" if method in _WITH_BODY else b"")
