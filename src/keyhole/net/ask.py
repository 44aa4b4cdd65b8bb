"""Questions to a server that a mount names: one request, one answer, on a connection of its own.

For login methods, which ask an issuer for its keys or a cluster whose token this is. What is dialled was judged by the
guard; no redirect is followed, nothing is cached, and an answer is bounded in size and in time.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from keyhole.config import is_loopback
from keyhole.core.errors import BadRequestFraming, BodyTooLarge, InvalidRequest, UpstreamTimeout, UpstreamUnreachable
from keyhole.core.host import Authority, parse_host
from keyhole.net.dial import Dialer
from keyhole.net.guard import Guard
from keyhole.net.http1.framing import Decoder, answer_decoder
from keyhole.net.http1.grammar import AnswerHead, is_token, parse_answer_head
from keyhole.net.http1.limits import ANSWER_LIMITS
from keyhole.net.resolve import Resolver
from keyhole.net.tls import client_context, upstream_error
from keyhole.net.trust import Trust

_READ = 64 * 1024
_FIELD_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class AskLimits:
    """Bounds on one answer.

    Attributes:
        seconds: for everything together.
        body: bytes of its body.
    """

    seconds: float = 10.0
    body: int = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer: its status, the last value of each header by its name in lower case, and its body."""

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes = field(repr=False)


Heed = Callable[[Heard, bytes], Awaitable[None]]
"""Is given the head of an answer, and each piece of its body as it comes."""


class Asks(Protocol):
    """What an ``Asker`` is to those who ask through it."""

    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        ca_pem: str = "",
        allow: Sequence[str] = (),
    ) -> Heard:
        """As ``Asker.ask``."""

    async def addresses(self, host: str, port: int, *, allow: Sequence[str] = ()) -> list[str]:
        """As ``Asker.addresses``."""


class Heeds(Protocol):
    """What an ``Asker`` is to those who want to hear an answer while it comes."""

    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        allow: Sequence[str] = (),
        heed: Heed | None = None,
    ) -> Heard:
        """As ``Asker.ask``."""


class Asker:
    """Asks servers.

    Args:
        dialer: makes the connections.
        context: what a server proves itself by, unless it has CAs of its own.
        limits: bounds on answers.
        programs: whether programs of this machine may be run to be asked, by whoever runs them.
    """

    def __init__(
        self,
        dialer: Dialer | None = None,
        context: Callable[[], ssl.SSLContext] | None = None,
        limits: AskLimits | None = None,
        *,
        programs: bool = True,
    ) -> None:
        self.programs = programs
        self._dialer = dialer or Dialer(Resolver())
        self._context = context or Trust().context
        self._limits = limits or AskLimits()

    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        ca_pem: str = "",
        allow: Sequence[str] = (),
        heed: Heed | None = None,
    ) -> Heard:
        """Send one request, and read the answer.

        Args:
            method: in upper case.
            url: ``https://…``; ``http://`` only for a host of this machine that ``allow`` names.
            headers: besides those that say host, length and end.
            body: sent as it is.
            ca_pem: certificates that alone prove the server, instead of those of the system.
            allow: exceptions of the guard, as of services.
            heed: is given what comes, before all of it is there.

        Raises:
            InvalidRequest: the URL is none that can be asked.
            AddressDenied: the guard refuses the address.
            UpstreamTls: the server does not prove who it is.
            UpstreamTimeout: it took too long.
            UpstreamUnreachable: it cannot be reached, or what it answers is no answer.
        """
        parts = parse_https(url, plain=allow)
        context = None
        if parts.scheme == "https":
            context = client_context(only=ca_pem) if ca_pem else self._context()
        head = _request_head(method, parts, headers, body)
        try:
            async with asyncio.timeout(self._limits.seconds):
                sock = await self._dialer.dial(parts.host, parts.port, Guard(allow), timeout=self._limits.seconds)
                reader, writer = await asyncio.open_connection(
                    sock=sock, ssl=context, server_hostname=parts.host if context else None, limit=_READ
                )
                try:
                    writer.write(head + body)
                    await writer.drain()
                    return await self._answer(reader, method, heed)
                finally:
                    writer.transport.abort()
        except TimeoutError:
            raise UpstreamTimeout(f"{parts.host} did not answer in time", "try again later") from None
        except (ssl.SSLError, ssl.CertificateError) as error:
            raise upstream_error(error) from None
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            raise UpstreamUnreachable(f"{parts.host} closed the connection without an answer") from None
        except (BadRequestFraming, BodyTooLarge) as error:
            raise UpstreamUnreachable(f"the answer of {parts.host} cannot be read: {error.reason}") from None

    async def addresses(self, host: str, port: int, *, allow: Sequence[str] = ()) -> list[str]:
        """The addresses of a canonical host that a driver with a wire of its own may dial.

        Args:
            host: canonical host.
            port: to be dialled.
            allow: exceptions of the guard, as of services.

        Raises:
            AddressDenied: the guard refuses one of them.
            LoopDetected: it is a listener of this process.
            UpstreamUnreachable: it does not resolve.
        """
        return await self._dialer.judged(host, port, Guard(allow))

    async def _answer(self, reader: asyncio.StreamReader, method: str, heed: Heed | None) -> Heard:
        for _ in range(ANSWER_LIMITS.informational):
            head = parse_answer_head(await reader.readuntil(b"\r\n\r\n"), ANSWER_LIMITS)
            if head.status >= 200:
                return Heard(head.status, head.fields, await self._body(reader, head, method, heed))
        raise BadRequestFraming("too many informational answers")

    async def _body(self, reader: asyncio.StreamReader, head: AnswerHead, method: str, heed: Heed | None) -> bytes:
        decoder: Decoder | None = answer_decoder(head, method, ANSWER_LIMITS)
        if head.fields.get(b"content-encoding", b"identity").lower() != b"identity":
            raise BadRequestFraming("it is encoded without having been asked to")
        content = bytearray()
        while decoder is not None and not decoder.done:
            data = await reader.read(_READ)
            if data:
                piece = decoder.feed(data)
                content += piece
                if heed is not None and len(content) <= self._limits.body:
                    await heed(Heard(head.status, head.fields, b""), piece)
            else:
                decoder.feed_eof()
            if len(content) > self._limits.body:
                raise BodyTooLarge(f"it is longer than {self._limits.body} bytes")
        return bytes(content)


@dataclass(frozen=True, slots=True)
class Place:
    """What of a URL matters: scheme, canonical host, port, and the target of the request line."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def header(self) -> str:
        """The value of ``Host``."""
        return Authority(self.host, self.port).header(self.scheme).decode()


def parse_https(url: str, *, plain: Sequence[str] = ()) -> Place:
    """Read the URL of a server that is to be asked.

    Args:
        url: ``https://HOST[:PORT][/PATH][?QUERY]``.
        plain: hosts for which ``http`` will do, if they are this machine.

    Raises:
        InvalidRequest: it is none.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parse_host(parts.hostname or "")
    except ValueError:
        raise _no_url() from None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    secure = parts.scheme == "https"
    if parts.username is not None or parts.password is not None or parts.fragment or port == 0:
        raise _no_url()
    if not secure and not (parts.scheme == "http" and host in plain and is_loopback(host)):
        raise _no_url()
    if len(url) > ANSWER_LIMITS.target_bytes or not all("!" <= each <= "~" for each in target):
        raise _no_url()
    return Place(parts.scheme, host, port or (443 if secure else 80), target)


def _request_head(method: str, place: Place, headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
    lines = [f"{method} {place.target} HTTP/1.1"]
    fields = [
        ("Host", place.header),
        *headers,
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]
    if body or method not in {"GET", "HEAD"}:
        fields.append(("Content-Length", str(len(body))))
    for name, value in fields:
        if not is_token(name.encode("latin-1", "replace")) or not _is_value(value):
            raise InvalidRequest("a header of the question cannot be sent", "check what it is made of")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def _is_value(value: str) -> bool:
    return len(value) <= _FIELD_BYTES and all(" " <= each <= "~" for each in value)


def _no_url() -> InvalidRequest:
    return InvalidRequest("this is not the https:// URL of a server", "for example https://host.example.com/path")
