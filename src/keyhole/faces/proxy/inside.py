"""A tunnel on a stream of HTTP/2 (RFC 9113 section 8.5): as on a connection, and judged by the same code."""

from __future__ import annotations

import asyncio

from keyhole.core.errors import KeyholeError
from keyhole.core.host import Authority
from keyhole.faces.proxy.connection import ProxyConnection
from keyhole.faces.proxy.owner import Owner
from keyhole.faces.proxy.regulars import Connect
from keyhole.net.http1.wire import NEVER
from keyhole.net.http2 import frames
from keyhole.net.http2.stream import ServerStream
from keyhole.net.http2.transport import StreamTransport


class StreamTunnel(ProxyConnection):
    """The proxy's end of one.

    Args:
        owner: the listener, for which it counts as a connection.
        stream: on which it was asked for.
        authority: where it leads.
        service: that the client chose, or ``""``.
        credential: as shown with the CONNECT.
    """

    __slots__ = ("_begun", "_connecting", "_line", "_refused", "_stream")

    def __init__(
        self, owner: Owner, stream: ServerStream, authority: Authority, service: str, credential: bytes
    ) -> None:
        super().__init__(owner)
        self._stream = stream
        self._connecting = Connect(authority, credential, service)
        self._begun = False
        self._line: StreamTransport | None = None
        self._refused: KeyholeError | None = None

    async def last(self, remote: str) -> None:
        """Open it and carry it to its end.

        Args:
            remote: the client's address.

        Raises:
            KeyholeError: it is refused; the stream was not answered.
        """
        line = self._line = StreamTransport(self._stream, self, (remote, 0))
        self.connection_made(line)
        if self.seat is None:
            line.give_back()  # so that the listener forgets it
            self._stream.reset(frames.REFUSED_STREAM)
            return
        self.read_deadline = NEVER
        self.task = self.loop.create_task(self._run())
        try:
            await line.run()
        finally:
            await asyncio.wait([self.task])
        if self._refused is not None:
            raise self._refused

    def _no_room(self) -> None:
        """The stream is reset, see ``last``."""
        self.transport.close()

    async def _serve(self) -> None:
        self.serving = True
        try:
            requests = await self._open(self._connecting, self._established)
        except KeyholeError as error:
            self.serving = False
            if self._begun or self._line is None:
                self.abort()
                return
            self._refused = error
            self._line.give_back()
            return
        if requests:
            await self._serve_requests()
            return
        self.flush()
        await self.linger(self._owner.limits.linger, self._owner.limits.linger_bytes)

    def _established(self) -> None:
        self._begun = True
        self._stream.begin(200, [])
        self._stream.flush()
