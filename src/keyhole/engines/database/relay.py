"""A way for a driver that resolves names by itself to the one address that the guard has judged.

It is given a socket of this machine, in a folder that only this process may enter. What it sends there goes to that
address, in TLS by our own rules where the database wants it.
"""

from __future__ import annotations

import asyncio
import shutil
import ssl
import tempfile
from pathlib import Path

from keyhole.engines.database.plugins import Address
from keyhole.net.tasks import Tasks

_CONNECT = 5.0
_READ = 64 * 1024

_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Relay:
    """Leads to one address; make it with ``open``.

    Attributes:
        path: of the socket that leads there.
        broken: why the address did not take what was sent, once it has not: a driver would try on and on.
    """

    def __init__(self, place: Address, address: str, context: ssl.SSLContext | None) -> None:
        self.path = ""
        self.broken: asyncio.Future[OSError] = asyncio.get_running_loop().create_future()
        self._place, self._address, self._context = place, address, context
        self._first: _Stream | None = None
        self._server: asyncio.Server | None = None
        self._folder = ""
        self._running = Tasks()

    @classmethod
    async def open(cls, place: Address, address: str, context: ssl.SSLContext | None) -> Relay:
        """Connect once, and listen for the driver.

        Raises:
            OSError: it cannot be reached, or does not prove itself (``ssl.SSLError``).
            TimeoutError: it took too long.
        """
        relay = cls(place, address, context)
        try:
            relay._first = await relay._dial()
            relay._folder = await asyncio.to_thread(tempfile.mkdtemp, prefix="keyhole-")  # 0700
            relay.path = str(Path(relay._folder) / "database.sock")
            relay._server = await asyncio.start_unix_server(relay._take, relay.path)
        except BaseException:
            await relay.close()
            raise
        return relay

    async def _dial(self) -> _Stream:
        async with asyncio.timeout(_CONNECT):
            if self._place.is_local:
                return await asyncio.open_unix_connection(self._place.host)
            name = self._place.host if self._context else None
            return await asyncio.open_connection(
                self._address, self._place.port, ssl=self._context, server_hostname=name
            )

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._running.begin(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, self._first = self._first, None
        try:
            far_reader, far_writer = first or await self._dial()
        except OSError as error:
            self._break(error)
            writer.transport.abort()
            return
        there = asyncio.ensure_future(_pump(reader, far_writer))
        back = asyncio.ensure_future(_pump(far_reader, writer))
        try:
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            if back.done():
                try:
                    if not await back:
                        self._break(ConnectionResetError())
                except OSError as error:
                    self._break(error)
        finally:
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
            for each in (writer, far_writer):
                each.transport.abort()

    def _break(self, error: OSError) -> None:
        if not self.broken.done():
            self.broken.set_result(error)

    async def close(self) -> None:
        """Let go of everything."""
        if self._server is not None:
            self._server.close()
        await self._running.end()
        if self._first is not None:
            self._first[1].transport.abort()
            self._first = None
        if self._folder:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """How many bytes there were. Raises ``OSError``."""
    count = 0
    while data := await reader.read(_READ):
        count += len(data)
        writer.write(data)
        await writer.drain()
    return count
