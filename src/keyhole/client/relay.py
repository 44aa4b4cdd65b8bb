"""A port of loopback for a proxy that speaks TLS, since few clients can use such a proxy as it is.

curl verifies a proxy by other settings than its upstreams, urllib speaks no TLS to a proxy, and ``ssl`` wraps no socket
that is wrapped already. The relay carries bytes and knows nothing of them: who may call is still asked by the proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from concurrent.futures import Future

_CHUNK = 64 * 1024
_HANDSHAKE = 20.0


class Relay:
    """Carries connections to a proxy, in a thread of its own, until it is closed.

    Args:
        host, port: of the proxy.
        context: whom to trust there.

    Raises:
        OSError: the proxy cannot be reached or is not trusted.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        self._where = (host, port)
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._stop: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        ready: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="keyhole-relay", daemon=True)
        self._thread.start()
        self.port = ready.result()

    def close(self) -> None:
        """End all connections and the port."""
        if self._stop is not None:
            loop, stop = self._stop
            self._stop = None
            loop.call_soon_threadsafe(stop.set)
        self._thread.join()

    def _run(self, ready: Future[int]) -> None:
        try:
            asyncio.run(self._serve(ready))
        except Exception as error:  # noqa: BLE001 - whoever waits for the port is told
            if not ready.done():
                ready.set_exception(error)

    async def _serve(self, ready: Future[int]) -> None:
        _, writer = await self._connect()  # what is wrong with the proxy is said now, not to each client
        writer.transport.abort()
        stop = asyncio.Event()
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self._stop = (asyncio.get_running_loop(), stop)
        ready.set_result(server.sockets[0].getsockname()[1])
        try:
            await stop.wait()
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for writer in self._open:  # a goodbye that is still on its way has no loop to arrive in
                writer.transport.abort()
            await asyncio.gather(*self._open.values(), return_exceptions=True)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(
            *self._where, ssl=self._context, ssl_handshake_timeout=_HANDSHAKE
        )
        self._keep(writer)
        return reader, writer

    def _keep(self, writer: asyncio.StreamWriter) -> None:
        """Know a connection until it is closed, which for TLS is later than ``close``."""
        ended = self._open[writer] = asyncio.create_task(_closed(writer))
        ended.add_done_callback(lambda _: self._open.pop(writer, None))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            self._keep(writer)
            task.add_done_callback(self._tasks.discard)
        with contextlib.closing(writer), contextlib.suppress(OSError):
            far_reader, far_writer = await self._connect()
            with contextlib.closing(far_writer):
                ways = [asyncio.create_task(_pipe(*way)) for way in ((reader, far_writer), (far_reader, writer))]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)


async def _closed(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()
