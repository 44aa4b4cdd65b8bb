"""Ways for bytes to somebody who collects them: a stream, datagrams, or HTTP. What is dialled was judged by the guard.

Each way opens itself when it first has something to send, and again after a failure. ``send`` raises ``KeyholeError``
or ``OSError`` when what it was given did not leave; nobody reads what the other side says, but for an HTTP status.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from keyhole.core.errors import InvalidRequest, UpstreamUnreachable
from keyhole.core.host import Authority, parse_authority
from keyhole.net.dial import Dialer
from keyhole.net.guard import Guard
from keyhole.net.resolve import Resolver
from keyhole.net.trust import Trust

CONNECT_SECONDS = 5.0
_HEAD = 65536
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: |\r\n)")


@dataclass(slots=True)
class Outgoing:
    """How this process reaches others.

    Attributes:
        dialer: makes the connections.
        context: what a server proves itself by.
    """

    dialer: Dialer = field(default_factory=lambda: Dialer(Resolver()))
    context: Callable[[], ssl.SSLContext] = field(default_factory=lambda: Trust().context)


class Way(Protocol):
    """One destination."""

    async def send(self, lines: Sequence[bytes]) -> None:
        """Hand lines over, each with its end of line."""

    def close(self) -> None:
        """Let the connection go; the next ``send`` makes another."""


class _Socket:
    """What streams and datagrams have in common."""

    def __init__(self, connect: Callable[[], asyncio.Future[socket.socket]]) -> None:
        self._connect = connect
        self._socket: socket.socket | None = None

    def close(self) -> None:
        """Let the socket go."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def opened(self) -> socket.socket:
        """The connection, made if there is none."""
        if self._socket is None:
            self._socket = await self._connect()
        return self._socket


class Stream(_Socket):
    """Lines one after the other, over TCP or to a socket of this machine."""

    async def send(self, lines: Sequence[bytes]) -> None:
        """As ``Way.send``. A peer that has hung up since is noticed, and connected to once more."""
        if self._socket is not None and _is_over(self._socket):
            self.close()
        try:
            await asyncio.get_running_loop().sock_sendall(await self.opened(), b"".join(lines))
        except BaseException:
            # Half a line may be out there, so the next one begins on a new connection.
            self.close()
            raise


class Datagrams(_Socket):
    """A datagram for each line, without its end of line."""

    async def send(self, lines: Sequence[bytes]) -> None:
        """As ``Way.send``."""
        sock = await self.opened()
        try:
            for line in lines:
                await asyncio.get_running_loop().sock_sendall(sock, line.removesuffix(b"\n"))
        except BaseException:
            self.close()
            raise


class Post:
    """``POST`` of lines to an URL, as ``application/x-ndjson``; an answer other than 2xx is a failure."""

    def __init__(self, uri: str, guard: Guard, outgoing: Outgoing) -> None:
        self._secure, self._authority, self._target = parse_uri(uri)
        self._guard = guard
        self._outgoing = outgoing

    def close(self) -> None:
        """Nothing is kept."""

    async def send(self, lines: Sequence[bytes]) -> None:
        """As ``Way.send``."""
        body = b"".join(lines)
        host, port = self._authority.host, self._authority.port
        head = (
            f"POST {self._target} HTTP/1.1\r\nHost: {self._authority}\r\nUser-Agent: keyhole\r\n"
            f"Content-Type: application/x-ndjson\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        sock = await self._outgoing.dialer.dial(host, port, self._guard, timeout=CONNECT_SECONDS)
        context = self._outgoing.context() if self._secure else None
        reader, writer = await asyncio.open_connection(
            sock=sock, ssl=context, server_hostname=host if self._secure else None, limit=_HEAD
        )
        try:
            writer.write(head.encode() + body)
            await writer.drain()
            line = await reader.readuntil(b"\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            raise UpstreamUnreachable("the collector did not answer as HTTP does", "check its address") from None
        finally:
            writer.transport.abort()
        status = _STATUS.match(line)
        if status is None or not status[1].startswith(b"2"):
            said = status[1].decode() if status else "no status"
            raise UpstreamUnreachable(f"the collector answered with {said}", "look at its log")


def stream_to(address: str, guard: Guard, outgoing: Outgoing) -> Stream:
    """A stream to ``HOST:PORT``."""
    host, port = _host_port(address)
    return Stream(lambda: asyncio.ensure_future(outgoing.dialer.dial(host, port, guard, timeout=CONNECT_SECONDS)))


def datagrams_to(address: str, guard: Guard, outgoing: Outgoing) -> Datagrams:
    """Datagrams to ``HOST:PORT``."""
    host, port = _host_port(address)
    return Datagrams(lambda: asyncio.ensure_future(outgoing.dialer.datagrams(host, port, guard)))


def local_to(path: str, *, stream: bool) -> Stream | Datagrams:
    """A Unix socket of this machine."""
    kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
    made = Stream if stream else Datagrams
    return made(lambda: asyncio.ensure_future(_local(path, kind)))


async def _local(path: str, kind: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        sock.settimeout(0)
        await asyncio.get_running_loop().sock_connect(sock, path)
    except BaseException:
        sock.close()
        raise
    return sock


def parse_uri(uri: str) -> tuple[bool, Authority, str]:
    """Whether it is https, whom to connect to, and what to ask for. Raises ``InvalidRequest``."""
    parts = urlsplit(uri)
    if parts.scheme not in {"http", "https"} or not parts.netloc or parts.username is not None or parts.fragment:
        raise InvalidRequest("the address of a collector is a URL without a password", "write https://HOST/PATH")
    secure = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii() or not target.isprintable() or " " in target:
        raise InvalidRequest("the address of a collector is not a URL", "write https://HOST/PATH")
    return secure, parse_authority(parts.netloc, 443 if secure else 80), target


def _host_port(address: str) -> tuple[str, int]:
    authority = parse_authority(address, None)
    return authority.host, authority.port


def _is_over(sock: socket.socket) -> bool:
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
