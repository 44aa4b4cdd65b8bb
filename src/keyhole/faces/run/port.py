"""A port of the command's own, for clients that can use a proxy and cannot show it a token (every JVM, browsers).

1. It listens on loopback in this process, as long as the command runs: on that of the command's own network where it
   has one (see ``inside``), and nobody else can connect.
2. Otherwise a connection is served when a process of the command holds its other end. Linux says whose a socket is: a
   line of ``/proc/net/tcp`` names it, ``/proc/PID/fd`` who has it open, and all that the command started descends from
   its launcher. That it is the same user is necessary and not enough: agents of one user, each in its sandbox, are kept
   apart.
3. The head that comes first gets the token and goes to the broker's proxy. A tunnel is opaque from there on. Any other
   request is the last of its connection, so that each one is looked at here.

Whoever is outside the sandbox and may look into the command could read the token in its environment as well; nobody
else gains anything by this port. Where there is no ``/proc`` there is no port.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from keyhole.net.http1.limits import ListenerLimits
from keyhole.net.tasks import Tasks

_LIMITS = ListenerLimits()
_MOST = 256  # connections at a time
_LOOKS = 4  # searches of /proc at a time
_PIECE = 1 << 16
_PROC = Path("/proc")
_ESTABLISHED = "01"  # include/net/tcp_states.h
_MAPPED = f"{0:016X}{struct.unpack('=I', bytes((0, 0, 255, 255)))[0]:08X}"  # ::ffff:0:0/96 as in net/tcp6
_OWN_CREDENTIAL = re.compile(rb"(?im)^proxy-authorization:[^\n]*\n")

Address = tuple[str, int]


class Beside(Protocol):
    """A port of the same command, whose address a client gave to this one as that of a proxy."""

    def is_meant(self, line: bytes) -> bool:
        """Whether a request line is for it."""

    async def take_over(self, raw: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve the request with this head."""


class SessionPort:
    """The listener.

    Args:
        proxy_url: the broker's proxy, of plain HTTP, with the token.
        on_message: told once when somebody else tried to connect.

    Attributes:
        what: it is, in words.
        refusal: what somebody else is told.
        address: ``127.0.0.1`` and the port.
        root: process id of the launcher; nobody is served before it is known.
        wanted: the port to listen on; 0 for a free one.
        beside: a port of the same command that clients ask for through this one.
    """

    what = "proxy port"
    refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    def __init__(self, proxy_url: str, on_message: Callable[[str], None]) -> None:
        self._there, self._credential = way_to(proxy_url)
        self._on_message = on_message
        self._told = False
        self._open = 0
        self._looking = asyncio.Semaphore(_LOOKS)
        self._listens: asyncio.Server | None = None
        self.root = 0
        self.wanted = 0
        self.beside: Beside | None = None
        self.address: Address = ("127.0.0.1", 0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to the port on this machine's loopback, or turn it away."""
        await self._serve(reader, writer, known=False)

    async def serve_inside(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection from the command's own network, so that nobody has to be asked whose it is."""
        await self._serve(reader, writer, known=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, known: bool) -> None:
        self._open += 1
        try:
            if self._open <= _MOST and (known or await self._is_of_the_command(writer)):
                await self._forward(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # one of the two has gone, or never spoke; the other sees its connection end
        finally:
            self._open -= 1
            writer.close()

    def only_inside(self) -> None:
        """The command has a network of its own: stop listening on this machine's loopback."""
        if self._listens is not None:
            self._listens.close()

    def begin(self, server: asyncio.Server) -> None:
        """Listen on loopback of this machine."""
        self._listens = server
        self.address = server.sockets[0].getsockname()[:2]

    async def _is_of_the_command(self, writer: asyncio.StreamWriter) -> bool:
        async with self._looking:
            if await self._asked_by(writer):
                return True
        writer.write(self.refusal)
        if not self._told:
            self._told = True
            self._on_message(f"a process outside the command tried to use its {self.what}, and was refused")
        return False

    async def _asked_by(self, writer: asyncio.StreamWriter) -> bool:
        """Whether a process of the command is at the other end."""
        peer = writer.get_extra_info("peername")
        return bool(self.root) and await asyncio.to_thread(holds_connection, self.root, peer[:2], self.address)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_LIMITS.head_timeout):
            head = await reader.readuntil(b"\r\n\r\n")
        line, end, fields = head.partition(b"\r\n")
        if self.beside is not None and self.beside.is_meant(line):
            await self.beside.take_over(head, reader, writer)
            return
        more = self._credential if line.startswith(b"CONNECT ") else self._credential + b"Connection: close\r\n"
        try:
            back, forth = await asyncio.open_connection(*self._there)
        except OSError:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        try:
            forth.write(line + end + more + _OWN_CREDENTIAL.sub(b"", fields))
            await self.carry(reader, writer, back, forth)
        finally:
            forth.close()

    @staticmethod
    async def carry(
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamReader,
        forth: asyncio.StreamWriter,
    ) -> None:
        """Carry bytes in both directions until both have ended."""
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, forth))
                both.create_task(_pump(back, writer))
        except* OSError:
            pass  # the other side sees its connection end


@asynccontextmanager
async def session_port(port: SessionPort) -> AsyncIterator[SessionPort]:
    """Listen on loopback, and close it with all its connections at the end."""
    async with serving(port.serve, wanted=port.wanted) as server:
        port.begin(server)
        yield port


def way_to(proxy_url: str) -> tuple[tuple[str, int], bytes]:
    """The address of a proxy, and the line of a request's head with which it is asked."""
    parts = urlsplit(proxy_url)
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    line = b"Proxy-Authorization: Basic " + base64.b64encode(pair.encode()) + b"\r\n"
    return (parts.hostname or "", parts.port or 80), line


@asynccontextmanager
async def serving(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
    *,
    wanted: int = 0,
    sock: socket.socket | None = None,
    path: bool = False,
) -> AsyncIterator[asyncio.Server]:
    """Serve whoever connects, and end with all connections.

    Args:
        serve: serves one connection.
        wanted: the port on loopback; 0 for a free one.
        sock: that is bound already, instead.
        path: it is a Unix socket.
    """
    tasks = Tasks()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.begin(serve(reader, writer))

    limit = _LIMITS.wire.head_bytes
    if sock is not None and path:
        server = await asyncio.start_unix_server(accept, sock=sock, limit=limit)
    elif sock is None:
        server = await asyncio.start_server(accept, "127.0.0.1", wanted, limit=limit)
    else:
        server = await asyncio.start_server(accept, sock=sock, limit=limit)
    try:
        yield server
    finally:
        server.close()
        await tasks.end()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(_PIECE):
        sink.write(data)
        await sink.drain()
    with suppress(OSError):
        sink.write_eof()


def holds_connection(root: int, there: Address, here: Address) -> bool:
    """Does a process that descends from ``root`` hold the end ``there`` of the connection between the two?

    Args:
        root: a process id; the process itself counts.
        there: address and port of the far end, an IPv4 address of this machine.
        here: address and port of our end.
    """
    inode = _inode(there, here)
    if not inode:
        return False
    wanted = f"socket:[{inode}]"
    return any(wanted in _open_files(process) for process in _descendants(root))


def descends(root: int, process: int) -> bool:
    """Is a process, by its id here, ``root`` or one that it started, directly or not?"""
    return process in _descendants(root)


def _inode(there: Address, here: Address) -> str:
    """The number of the socket at the far end; empty when it is not there, or not on this machine."""
    plain = f"{_kernel(there[0])}:{there[1]:04X}", f"{_kernel(here[0])}:{here[1]:04X}"
    mapped = tuple(f"{_MAPPED}{text}" for text in plain)
    for name, pair in (("net/tcp", plain), ("net/tcp6", mapped)):
        with suppress(OSError):
            for line in (_PROC / name).read_text("ascii").splitlines()[1:]:
                fields = line.split()
                if (fields[1], fields[2], fields[3]) == (*pair, _ESTABLISHED):
                    return fields[9] if os.geteuid() in {0, int(fields[7])} else ""  # root may run it as others
    return ""


def _kernel(address: str) -> str:
    """An IPv4 address as the kernel prints it: the word in memory, as a number."""
    return f"{struct.unpack('=I', socket.inet_aton(address))[0]:08X}"


def _descendants(root: int) -> list[int]:
    """The process and all that it started, as far as they are still there."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                # The name of a program may have spaces and parentheses; what follows the last one has none.
                parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def _open_files(process: int) -> set[str]:
    found = set()
    with suppress(OSError):
        for entry in (_PROC / str(process) / "fd").iterdir():
            with suppress(OSError):
                found.add(str(entry.readlink()))
    return found
