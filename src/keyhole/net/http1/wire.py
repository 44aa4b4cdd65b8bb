"""One connection: buffered reading with back-pressure, writing, TLS, and time limits; nothing about HTTP.

A ``Wire`` is read by pulling. While nobody pulls, it buffers up to a high-water mark and then stops reading from the
socket, so that a slow consumer holds back the sender. There is no task and no timer per read: a waiting reader is one
future, and a ``WireGroup`` has one timer for all connections. Writing is put off to the end of the event loop's step
and done for all connections of the group together: small writes between longer computations would wake the peers once
for each.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from typing import cast

from keyhole.net.http1.tls import PIECE, TlsChannel

HIGH_WATER = 128 * 1024  # bytes buffered for a consumer that is not waiting; one read of the socket may come on top
NEVER = float("inf")
_FLUSH_AT = 32 * 1024  # bytes that are not put off
_NO_LINGER = struct.pack("ii", 1, 0)


class Wire(asyncio.Protocol):
    """Base of both sides of a connection.

    Attributes:
        buffer: bytes received and not consumed; consumers take from it directly.
        eof: no further bytes will come (the peer ended its side, or the connection is lost).
        lost: the connection is gone in both directions.
        failure: why it was lost, when the transport or TLS said so.
        read_deadline: loop time after which a waiting reader gets ``TimeoutError``.
        write_deadline: the same for a waiting writer.
        taker: called when bytes were added to ``buffer`` for a waiting reader; where it says that they were dealt with,
            the reader goes on waiting.
    """

    __slots__ = (
        "_drain_waiter",
        "_ended",
        "_paused",
        "_read_waiter",
        "_unsent",
        "_write_paused",
        "buffer",
        "eof",
        "failure",
        "group",
        "loop",
        "lost",
        "read_deadline",
        "taker",
        "tls",
        "transport",
        "write_deadline",
    )

    transport: asyncio.Transport

    def __init__(self, group: WireGroup) -> None:
        self.group = group
        self.loop = group.loop
        self.buffer = b""
        self.eof = False
        self.lost = False
        self.failure: Exception | None = None
        self.tls: TlsChannel | None = None
        self.taker: Callable[[], bool] | None = None
        self.read_deadline = NEVER
        self.write_deadline = NEVER
        self._ended = False
        self._paused = False
        self._write_paused = False
        self._unsent: list[bytes] = []
        self._read_waiter: asyncio.Future[None] | None = None
        self._drain_waiter: asyncio.Future[None] | None = None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport and bound its write buffer."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        """Buffer (and decrypt), and wake the reader or stop reading."""
        if self.tls is not None:
            data = self._decrypt(data)
            if not data:
                return
        self.buffer = self.buffer + data if self.buffer else data
        waiter = self._read_waiter
        if waiter is not None and not waiter.done():
            if self.taker is not None and self.taker():
                return
            self._read_waiter = None
            waiter.set_result(None)
            if len(self.buffer) >= HIGH_WATER:  # the reader comes first: joining much to much costs more than it saves
                self._hold_back()
                self.loop.call_soon(self._let_go)
        else:
            self.unawaited()

    def unawaited(self) -> None:
        """Bytes came while nobody was waiting for them: hold back the sender once there are enough."""
        if len(self.buffer) >= HIGH_WATER:
            self._hold_back()

    def _hold_back(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def _let_go(self) -> None:
        """The reader has run: a peer that ends its side is noticed also while nobody reads."""
        if len(self.buffer) < HIGH_WATER:
            self._resume_reading()

    def _resume_reading(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        """The peer ended its side; ours stays open until it is closed, unless it is TLS of the event loop."""
        self.input_ended()
        return self.transport.get_extra_info("sslcontext") is None

    def input_ended(self) -> None:
        """No further bytes will come: FIN, or close_notify under TLS."""
        self.eof = True
        self._wake_reader(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Everything is over; whoever waits is woken."""
        self.lost = True
        self.eof = True
        if self.failure is None:
            self.failure = exc
        self._wake_reader(None)
        self._wake_writer(None)

    def pause_writing(self) -> None:
        """The peer reads too slowly."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._write_paused = False
        self._wake_writer(None)

    # Reading.

    def wait(self) -> asyncio.Future[None]:
        """Await this to go on once bytes were added to ``buffer`` or ``eof`` was set. One reader at a time.

        Awaiting raises ``TimeoutError`` when ``read_deadline`` has passed. It is a bare future and not a coroutine
        because every request waits twice.
        """
        waiter = self.loop.create_future()
        if self.eof:
            waiter.set_result(None)
            return waiter
        self._resume_reading()
        self._read_waiter = waiter
        return waiter

    def wake(self) -> None:
        """Let a waiting reader look again, as if bytes had come."""
        self._wake_reader(None)

    # Writing.

    def write(self, data: bytes) -> None:
        """Send at the end of this step of the loop. Never blocks; pair it with ``drain``."""
        unsent = self._unsent
        if not unsent:
            self.group.enqueue(self)
        unsent.append(data)
        if len(data) >= _FLUSH_AT:
            self.flush()

    def write_now(self, data: bytes) -> None:
        """Send at once, behind what was written before."""
        self._unsent.append(data)
        self.flush()

    def flush(self) -> None:
        """Send (and encrypt) now what was written. Does nothing on a lost connection."""
        unsent = self._unsent
        if not unsent:
            return
        data = unsent[0] if len(unsent) == 1 else b"".join(unsent)
        unsent.clear()
        if self.lost:
            return
        if self.tls is None:
            self.transport.write(data)
            return
        try:
            if len(data) <= PIECE:
                self.transport.write(self.tls.send(data))
            else:  # not joined: then it costs no more than all at once
                rest, send = memoryview(data), self.tls.send
                self.transport.writelines([send(rest[at : at + PIECE]) for at in range(0, len(data), PIECE)])
        except ssl.SSLError as error:
            self.failure = error
            self.abort()

    def unsend(self) -> None:
        """Take back what was written in this step of the loop and not flushed."""
        self._unsent.clear()

    @property
    def clogged(self) -> bool:
        """Whether the peer reads so slowly that a writer should ``drain``."""
        return self._write_paused

    async def drain(self) -> None:
        """Return once the peer has read enough.

        Raises:
            TimeoutError: ``write_deadline`` has passed.
            ConnectionResetError: the connection was lost.
        """
        self.flush()
        while self._write_paused and not self.lost:
            waiter = self._drain_waiter = self.loop.create_future()
            try:
                await waiter
            finally:
                if self._drain_waiter is waiter:
                    self._drain_waiter = None
        if self.lost:
            raise ConnectionResetError("the connection was lost")

    def end(self) -> None:
        """Say properly that nothing more will be sent (close_notify, FIN), and keep reading."""
        self.flush()
        if self.lost or self._ended or self.transport.is_closing():
            return
        self._ended = True
        if self.tls is not None:
            self.transport.write(self.tls.close())
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def part(self) -> None:
        """Say no goodbye to a peer that ended its side without one where no message was under way.

        RFC 8446 section 6.1 asks for a close_notify before a side is closed, so that nothing is taken for cut. Here is
        nothing to cut, and who says none itself has mostly closed both sides, and would answer with a reset.
        """
        if self.eof and self.tls is not None and not self.tls.closed:
            self._ended = True

    def close(self, grace: float = 5.0) -> None:
        """Send what is buffered, say goodbye, close; abort after ``grace`` seconds if the peer does not read it."""
        if not self.lost and not self.transport.is_closing():
            self.flush()
            if self.tls is not None and self.tls.established and not self._ended:
                self.transport.write(self.tls.close())
            self.write_deadline = self.loop.time() + grace
            self.transport.close()

    def abort(self) -> None:
        """Close at once, dropping what was not sent: the peer must see that the message is incomplete."""
        self._unsent.clear()
        if not self.lost:
            self.transport.abort()

    def reset(self) -> None:
        """Close with RST: a body that ends where the connection does must not look complete."""
        self._unsent.clear()
        if not self.lost:
            sock = self.transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self.transport.abort()

    # TLS.

    def start_tls(self, channel: TlsChannel, *, client: bool) -> None:
        """Continue this connection under TLS; bytes already buffered are the first records."""
        self.tls = channel
        received, self.buffer = self.buffer, b""
        if client:
            channel.start()
            self._flush_tls()
        if received:
            self.buffer = self._decrypt(received)

    async def handshake(self) -> None:
        """Return once TLS is established.

        Raises:
            ssl.SSLError: it failed.
            ConnectionResetError: the peer went away.
            TimeoutError: ``read_deadline`` has passed.
        """
        channel = self.tls
        while channel is not None and not channel.established:
            if isinstance(self.failure, ssl.SSLError):
                raise self.failure
            if self.eof:
                raise ConnectionResetError("the connection was closed during the TLS handshake")
            await self.wait()

    def _decrypt(self, data: bytes) -> bytes:
        channel = self.tls
        if channel is None or self.failure is not None:
            return b""
        was_established = channel.established
        try:
            data = channel.receive(data)
        except ssl.SSLError as error:
            self.failure = error
            self.eof = True
            self._flush_tls()
            self.shaken()
            self.transport.close()
            return b""
        if not channel.patient:
            self._flush_tls()
        if channel.closed:
            self.input_ended()
        if channel.established is not was_established:
            self.shaken()
        return data

    def shaken(self) -> None:
        """The handshake is over: TLS is established, or ``failure`` says why not."""
        self._wake_reader(None)

    def _flush_tls(self) -> None:
        if self.tls is not None and not self.lost:
            output = self.tls.output()
            if output:
                self.transport.write(output)

    # Time.

    def expire(self, now: float) -> None:
        """Called by the group: whoever has waited too long gets ``TimeoutError``.

        A deadline stays until somebody waits, because its reader may be between two waits just now.
        """
        if now > self.read_deadline and self._read_waiter is not None:
            self.read_deadline = NEVER
            self._wake_reader(TimeoutError())
        if now > self.write_deadline:
            if self.transport.is_closing():
                self.write_deadline = NEVER
                self.abort()
            elif self._drain_waiter is not None:
                self.write_deadline = NEVER
                self._wake_writer(TimeoutError())

    def _wake_reader(self, error: Exception | None) -> None:
        waiter, self._read_waiter = self._read_waiter, None
        if waiter is not None and not waiter.done():
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

    def _wake_writer(self, error: Exception | None) -> None:
        waiter, self._drain_waiter = self._drain_waiter, None
        if waiter is not None and not waiter.done():
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)


class WireGroup:
    """What the wires of a listener or pool share: one timer for all deadlines, and one flush for each step of the loop.

    Args:
        loop: the event loop.
        tick: seconds between looks at the deadlines; they fire up to this much late.
    """

    __slots__ = ("_handle", "_tick", "_unflushed", "_wires", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, tick: float) -> None:
        self.loop = loop
        self._tick = tick
        self._wires: set[Wire] = set()
        self._unflushed: list[Wire] = []
        self._handle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._wires)

    def add(self, wire: Wire) -> None:
        """Watch a wire's deadlines until ``discard``."""
        self._wires.add(wire)
        if self._handle is None:
            self._handle = self.loop.call_later(self._tick, self._look)

    def discard(self, wire: Wire) -> None:
        """Watch it no longer."""
        self._wires.discard(wire)

    def enqueue(self, wire: Wire) -> None:
        """Flush this wire once at the end of the current step of the loop."""
        if not self._unflushed:
            self.loop.call_soon(self._flush)
        self._unflushed.append(wire)

    def _flush(self) -> None:
        unflushed, self._unflushed = self._unflushed, []
        for wire in unflushed:
            wire.flush()

    def _look(self) -> None:
        now = self.loop.time()
        for wire in list(self._wires):
            if now > wire.read_deadline or now > wire.write_deadline:
                wire.expire(now)
        self._handle = self.loop.call_later(self._tick, self._look) if self._wires else None
