"""A tunnel that is passed on: bytes in both directions, of which only the client's first ones are looked at.

They have to be what the service is for, a ClientHello for the host that was judged or the banner of SSH, so that a rule
for one host is no way to another one behind the same address, and none into another protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from keyhole.broker.live import Ended, StreamLimits
from keyhole.core.errors import KeyholeError, PolicyDenied, UpstreamTimeout
from keyhole.core.host import Authority, parse_host
from keyhole.net.hello import HelloReader, NotAHello
from keyhole.net.http1.client import ClientConnection
from keyhole.net.http1.wire import NEVER

_BANNER = b"SSH-2.0-"  # RFC 4253 section 4.2
_BANNER_LINE = 255


class TunnelStream:
    """``core.message.Stream`` over a connection of its own.

    Args:
        connection: to the host.
        begins: whether what a client has said so far is a right beginning; ``None`` while that is not known.
        limits: bounds.
        ended: called once at the end.
    """

    __slots__ = (
        "_begins",
        "_connection",
        "_ended",
        "_error",
        "_held",
        "_limits",
        "_over",
        "_received",
        "_sent",
        "touched",
    )

    def __init__(
        self,
        connection: ClientConnection,
        begins: Callable[[bytes], bool | None],
        limits: StreamLimits,
        ended: Ended,
    ) -> None:
        self._connection = connection
        self._begins: Callable[[bytes], bool | None] | None = begins
        self._limits = limits
        self._ended = ended
        self._error: BaseException | None = None
        self._held = b""
        self._over = False
        self._received = self._sent = 0
        self.touched = connection.loop.time()

    async def read(self) -> bytes:
        """The next bytes of the host; ``b""`` at the end."""
        connection = self._connection
        while not self._over:
            if connection.buffer:
                data, connection.buffer = connection.buffer, b""
                self._received += len(data)
                self.touched = connection.loop.time()
                return data
            if connection.eof:
                break
            await connection.wait()
        return b""

    async def write(self, data: bytes) -> None:
        """Send the client's bytes on, once it has begun rightly."""
        connection = self._connection
        self.touched = connection.loop.time()
        if self._begins is not None:
            data = self._held = self._held + data
            verdict = self._begins(data)
            if verdict is None:
                return
            if not verdict:
                self._stop(PolicyDenied("the tunnel begins otherwise than its service allows", "see docs/proxy.md"))
                return
            self._begins, self._held = None, b""
        if self._over or connection.lost:
            return
        self._sent += len(data)
        connection.write(data)
        if connection.clogged:
            connection.write_deadline = connection.loop.time() + self._limits.write
            try:
                await connection.drain()
            except TimeoutError:
                self._stop(UpstreamTimeout("the upstream stopped reading"))
            except ConnectionResetError:
                pass  # whoever reads sees it too
            finally:
                connection.write_deadline = NEVER

    def end(self) -> None:
        """The client ended its side; the host may have something to say yet."""
        if self._begins is None:
            self._connection.end()
        else:
            self._stop(None)

    def leave(self) -> None:
        """There is no word for it in a protocol that nobody looks into."""
        self._stop(None)

    def cut(self, error: KeyholeError) -> None:
        """End it for a reason that neither side gave."""
        self._stop(error)

    def overdue(self, now: float) -> KeyholeError | None:
        """Why it has to end although nobody ended it."""
        if now - self.touched <= self._limits.tunnel_idle:
            return None
        return UpstreamTimeout("the tunnel was idle for too long", "raise the setting tunnel_idle_timeout")

    def _stop(self, error: KeyholeError | None) -> None:
        if self._error is None:
            self._error = error
        self._over = True
        self._connection.wake()

    async def close(self) -> None:
        """Record how it ended, and end the connection."""
        connection = self._connection
        error = self._error
        if error is None and not self._over and not connection.eof:
            error = asyncio.CancelledError()
        self._ended(error, status=200, received=self._received, sent=self._sent)
        if connection.eof and error is None:
            connection.close(self._limits.farewell)
        else:
            connection.abort()


def beginning(scheme: str, host: str) -> Callable[[bytes], bool | None]:
    """What a client of such a tunnel has to say first.

    Args:
        scheme: ``tls`` or ``ssh``.
        host: that was judged; an address is named by no ClientHello.
    """
    if scheme == "ssh":
        return _is_ssh

    reader = HelloReader()

    def is_hello(data: bytes) -> bool | None:
        try:
            name = reader.server_name(data)
        except NotAHello:
            return False
        if name is None:
            return None
        try:
            return parse_host(name) == host if name else Authority(host, 1).is_ip
        except KeyholeError:
            return False

    return is_hello


def _is_ssh(data: bytes) -> bool | None:
    if len(data) < len(_BANNER):
        return None if _BANNER.startswith(data) else False
    if not data.startswith(_BANNER):
        return False
    line, end, _ = data.partition(b"\n")
    return len(line) < _BANNER_LINE if end else (None if len(data) < _BANNER_LINE else False)
