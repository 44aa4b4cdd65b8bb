"""For clients that know nothing of a proxy: they connect to what they take for a server, and reach the broker.

In the command's network every name has an address of ours, and every address leads here (see ``shut`` and ``names``).
What arrives on port 443, 80 or that of a service becomes a tunnel through the broker's proxy with the command's token,
to the host that the client itself asks for: by the server name of TLS, or by ``Host``. From there on it is judged as
any CONNECT is, and the requests inside as any others: this face decides nothing.

What names no host is closed, and so is every other port. Both are put on record, each once: the broker is asked for a
service that cannot exist.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from keyhole.faces.run.hello import HANDSHAKE, LARGEST, Nameless, NamelessRequest, host_field, server_name
from keyhole.faces.run.names import Names
from keyhole.faces.run.plan import RunPlan
from keyhole.faces.run.port import SessionPort, serving, way_to
from keyhole.net.hello import HelloReader
from keyhole.net.http1.limits import ANSWER_LIMITS, ListenerLimits
from keyhole.net.tasks import Tasks

_LIMITS = ListenerLimits()
_MOST = 512  # connections at a time
_NOTED = 100  # different things that are put on record for a command
_RECORDS = 4  # at a time
_CONNECT = 40.0  # seconds to the answer to CONNECT
_PACKETS = 64  # that are looked at in a row, so that a flood of them gets a share of our time and not all
_PIECE = 1 << 16
_DENIED = b"\x15\x03\x01\x00\x02\x02\x31"  # a fatal alert, access_denied (RFC 8446 section 6)
_UNKNOWN = b"\x15\x03\x01\x00\x02\x02\x70"  # the same, unrecognized_name
_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
_TCP, _UDP = 6, 17
_DNS = 53  # our own answers


class Transparent:
    """What every address of a command's network leads to.

    Args:
        plan: what is run.
        on_message: told at the end what was closed to the command.

    Attributes:
        ports: on which connections are taken.
    """

    def __init__(self, plan: RunPlan, on_message: Callable[[str], None]) -> None:
        self._there, self._credential = way_to(plan.proxy_url)
        self._on_message = on_message
        of_services = (place.rpartition(":")[2] for place in plan.served)
        self.ports = sorted({80, 443, *(int(port) for port in of_services if port.isdecimal())})
        self._names = Names()
        self._open = 0
        self._noted: set[tuple[str, int, str]] = set()
        self._recording = asyncio.Semaphore(_RECORDS)
        self._tasks = Tasks()

    @staticmethod
    def write_resolver(folder: Path) -> str:
        """Write what stands in the place of ``/etc/resolv.conf``; its path."""
        path = folder / "resolv.conf"
        path.write_text("nameserver 127.0.0.1\n", encoding="ascii")
        return str(path)

    @asynccontextmanager
    async def serving(self, sockets: Sequence[socket.socket]) -> AsyncIterator[None]:
        """Serve the sockets that ``shut`` has opened for ``every``."""
        *ports, datagrams, questions, watcher = sockets
        loop = asyncio.get_running_loop()
        async with _all([(self._serve, sock) for sock in ports] + [(self._ask, questions)]):
            transport, _ = await loop.create_datagram_endpoint(lambda: _Answers(self._names), sock=datagrams)
            loop.add_reader(watcher, self._look, watcher)
            try:
                yield
            finally:
                loop.remove_reader(watcher)
                self._look(watcher)  # what came at the very end
                transport.close()
                await self._finish()

    async def _finish(self) -> None:
        await self._tasks.end(_CONNECT)
        if self._noted:
            places = sorted(
                {_place(host, port) + (" (UDP)" if why == "udp" else "") for host, port, why in self._noted}
            )
            self._on_message(f"closed to the command: {', '.join(places)}")

    # Connections.

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address, port = writer.get_extra_info("sockname")[:2]
        self._open += 1
        try:
            if self._open <= _MOST:
                await self._lead(reader, writer, self._names.name(address.removeprefix("::ffff:")), port)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # one of the two has gone, or never spoke; the other sees its connection end
        finally:
            self._open -= 1
            writer.close()

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str, port: int) -> None:
        try:
            host, said = await _named(reader)
        except Nameless as why:
            self._note(where, port, "nameless")
            writer.write(_UNKNOWN if why.of_tls else _refusal(str(why)))
            return
        if not said:
            return
        place = _place(host, port).encode()
        back, forth = await asyncio.open_connection(*self._there, limit=ANSWER_LIMITS.head_bytes)
        try:
            forth.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (place, place) + self._credential + b"\r\n")
            async with asyncio.timeout(_CONNECT):
                answer = await back.readuntil(b"\r\n\r\n")
            status = _STATUS.match(answer)
            if status is not None and status[1] == b"200":
                forth.write(said)
                await SessionPort.carry(reader, writer, back, forth)
            elif said[0] == HANDSHAKE:
                writer.write(_DENIED)
            else:
                writer.write(answer + await back.read(_PIECE))
        finally:
            forth.close()

    # Names.

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Questions for names over TCP, each after its length (RFC 1035 section 4.2.2)."""
        try:
            while True:
                async with asyncio.timeout(_LIMITS.head_timeout):
                    length = int.from_bytes(await reader.readexactly(2))
                    answer = self._names.answer(await reader.readexactly(length))
                if not answer:
                    return
                writer.write(len(answer).to_bytes(2) + answer)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # it has what it wanted
        finally:
            writer.close()

    # What is closed.

    def _look(self, watcher: socket.socket) -> None:
        """Note what was tried on ports on which nobody listens for it."""
        for _ in range(_PACKETS):
            try:
                packet = watcher.recv(128, socket.MSG_DONTWAIT)
            except OSError:
                return
            begun = _destination(packet)
            if begun is None:
                continue
            address, port, protocol = begun
            if not (protocol == _TCP and port in self.ports):
                self._note(self._names.name(address), port, "udp" if protocol == _UDP else "closed")

    def _note(self, host: str, port: int, why: str) -> None:
        if (host, port, why) in self._noted or len(self._noted) >= _NOTED:
            return
        self._noted.add((host, port, why))
        self._tasks.begin(self._record(host, port, why))

    async def _record(self, host: str, port: int, why: str) -> None:
        """Have the broker record it: it is asked for a service that cannot exist."""
        place = _place(host, port).encode("latin-1")
        head = b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n" % (place, place)
        async with self._recording:
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(_CONNECT):
                    back, forth = await asyncio.open_connection(*self._there)
                    forth.write(
                        head + b"X-Keyhole-Service: transparent:%b\r\n" % why.encode() + self._credential + b"\r\n"
                    )
                    try:
                        await back.readuntil(b"\r\n\r\n")
                    finally:
                        forth.close()


class _Answers(asyncio.DatagramProtocol):
    """Answers the questions for names that come as datagrams."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment]  # one of datagrams

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Answer one."""
        answer = self._names.answer(data)
        if answer and self._transport is not None:
            self._transport.sendto(answer, addr)


_Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@asynccontextmanager
async def _all(pairs: Sequence[tuple[_Handler, socket.socket]]) -> AsyncIterator[None]:
    """Serve them all."""
    if not pairs:
        yield
        return
    (serve, sock), *rest = pairs
    async with serving(serve, sock=sock), _all(rest):
        yield


async def _named(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """The host that is asked for and the bytes that say so; empty when the client went before it said anything.

    Raises:
        Nameless: it asks for none.
    """
    data, hello = b"", HelloReader()
    with suppress(TimeoutError):
        async with asyncio.timeout(_LIMITS.head_timeout):
            while piece := await reader.read(_PIECE):
                behind = max(len(data) - 3, 0)
                data += piece
                if data[0] == HANDSHAKE:
                    if (name := server_name(hello, data)) is not None:
                        return name, data
                elif (end := data.find(b"\r\n\r\n", behind)) >= 0:
                    return host_field(data[: end + 4]), data
                if len(data) > LARGEST:
                    break
    if data[:1] == bytes((HANDSHAKE,)):
        raise Nameless("the first message of TLS did not come to its end")
    if data:
        raise NamelessRequest("what was sent is neither TLS nor HTTP")
    return "", b""


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _refusal(why: str) -> bytes:
    """For whoever speaks HTTP."""
    body = f"{why}: it cannot be served without a name\n".encode()
    return b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def _destination(packet: bytes) -> tuple[str, int, int] | None:
    """Address, port and protocol to which a packet goes; ``None`` for what stays within the command."""
    if len(packet) < 20:
        return None
    if packet[0] >> 4 == 4:
        start, protocol, address = (packet[0] & 15) * 4, packet[9], socket.inet_ntop(socket.AF_INET, packet[16:20])
    elif len(packet) >= 40:
        start, protocol, address = 40, packet[6], socket.inet_ntop(socket.AF_INET6, packet[24:40])
    else:
        return None
    if len(packet) < start + 4 or address == "::1" or address.startswith("127."):
        return None
    source, port = struct.unpack(">HH", packet[start : start + 4])
    return (address, port, protocol) if source != _DNS else None
