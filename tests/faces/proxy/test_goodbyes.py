"""How a tunnel ends under TLS: with close_notify wherever something could be taken for cut without it."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from tests.faces.proxy.rig import HOST, Rig, client_context, get, until


class _Client:
    """TLS by hand inside a tunnel, because a socket of TLS does not end its side without saying so."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._into, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = client_context().wrap_bio(self._into, self._out, server_hostname=HOST)

    async def _take(self) -> None:
        data = await self._reader.read(65536)
        if not data:
            raise EOFError
        self._into.write(data)

    async def handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._writer.write(self._out.read())
                await self._take()
            else:
                return

    async def ask(self, request: bytes) -> None:
        self._tls.write(request)
        self._writer.write(self._out.read())
        await self._writer.drain()

    async def ask_and_part(self, request: bytes) -> None:
        """Send a request and close_notify together, with what is left of the handshake."""
        if request:
            self._tls.write(request)
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._writer.write(self._out.read())
        await self._writer.drain()

    async def read_until(self, end: bytes) -> bytes:
        got = b""
        while not got.endswith(end):
            try:
                got += self._tls.read(65536)
            except ssl.SSLWantReadError:
                await self._take()
        return got

    def hang_up(self) -> None:
        """End this side of the connection, and say nothing of it in TLS."""
        self._writer.write_eof()

    async def rest(self) -> tuple[bytes, bool]:
        """What else comes to the end, and whether that was said to be the end."""
        got = b""
        while True:
            try:
                piece = self._tls.read(65536)
            except ssl.SSLWantReadError:
                try:
                    await self._take()
                except EOFError:
                    return got, False
            except ssl.SSLZeroReturnError:
                return got, True
            else:
                if not piece:
                    return got, True
                got += piece


async def _connected(rig: Rig) -> _Client:
    client = _Client(*await rig.tunnel(tls=False))
    await client.handshake()
    return client


def test_who_hangs_up_between_two_requests_is_told_nothing_more() -> None:
    async def run() -> None:
        async with Rig() as rig:
            client = await _connected(rig)
            await client.ask(get(absolute=False))
            assert b"200 OK" in await client.read_until(b"ok")
            client.hang_up()
            assert await client.rest() == (b"", False)

    asyncio.run(run())


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
def test_who_hangs_up_while_it_waits_gets_its_answer_to_the_end(version: bytes) -> None:
    async def run() -> None:
        async with Rig() as rig:
            client = await _connected(rig)
            await client.ask(get(absolute=False).replace(b"HTTP/1.1", version))
            client.hang_up()
            got, said = await client.rest()
            assert got.endswith(b"ok")
            assert said

    asyncio.run(run())


def test_who_stays_is_told_the_end() -> None:
    async def run() -> None:
        async with Rig() as rig:
            client = await _connected(rig)
            await client.ask(get(absolute=False, headers=b"Connection: close\r\n"))
            got, said = await client.rest()
            assert got.endswith(b"ok")
            assert said

    asyncio.run(run())


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("request_", [get(absolute=False), b""])
def test_a_request_may_come_with_the_goodbye_and_both_with_the_end_of_the_handshake(
    request_: bytes, *, known: bool
) -> None:
    async def run() -> None:
        async with Rig() as rig:
            if known:  # the next such tunnel has no task yet when they come
                _, writer = await rig.tunnel(tls=False)
                writer.close()
                await until(lambda: rig.server.connections == 0)
            client = await _connected(rig)
            await client.ask_and_part(request_)
            got, _ = await client.rest()
            assert got.endswith(b"ok") is bool(request_)
            await until(lambda: rig.server.connections == 0)

    asyncio.run(run())
