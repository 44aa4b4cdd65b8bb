"""A flood of one org beside a call of another, counted in calls and handshakes of the flood, not in time."""

from __future__ import annotations

import asyncio
import ssl
from functools import partial

import pytest

from broker.stack import HOST, Stack, basic
from broker.stack import until as within
from keyhole.net.http1.tls import TlsChannel

until = partial(within, seconds=60)


class _Flood(asyncio.Protocol):
    """One connection that asks again as soon as it is answered.

    Attributes:
        done: answers of all of them.
    """

    done = 0

    def __init__(self, request: bytes) -> None:
        self.request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        assert isinstance(self.transport, asyncio.Transport)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        assert data.startswith(b"HTTP/1.1 200 "), data
        _Flood.done += 1
        self.ask()


class _Upstream(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert isinstance(self.transport, asyncio.Transport)
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * data.count(b"\r\n\r\n"))


def test_a_call_waits_for_part_of_a_flood_and_not_for_all_of_it() -> None:
    asyncio.run(_calls())


async def _calls() -> None:
    async with Stack() as stack:
        loop = asyncio.get_running_loop()
        upstream = await loop.create_server(_Upstream, "127.0.0.1", 0)
        port = upstream.sockets[0].getsockname()[1]
        requests = {}
        for org in ("flood", "quiet"):
            owner = str((await stack.ask("update", f"sys/namespaces/{org}"))["root_token"])
            await stack.secret("stripe/key", token=owner)
            await stack.service("pay", token=owner, hosts=[f"other.test:{port}"], schemes=["http"])
            token = await stack.agent("coder", "pay", token=owner)
            head = f"GET http://other.test:{port}/x HTTP/1.1\r\nHost: other.test:{port}\r\n".encode()
            requests[org] = head + basic(token) + b"\r\n"
        reader, writer = await stack.open()
        writer.write(requests["quiet"])
        await reader.readuntil(b"ok")
        _Flood.done = 0
        flood = [
            (await loop.create_connection(lambda: _Flood(requests["flood"]), *stack.address))[0] for _ in range(100)
        ]
        await until(lambda: _Flood.done >= 200)
        waited = []
        for _ in range(5):
            before = _Flood.done
            writer.write(requests["quiet"])
            await reader.readuntil(b"ok")
            waited.append(_Flood.done - before)
        for transport in flood:
            transport.abort()
        upstream.close()
        assert max(waited) < 50, waited  # of a hundred that are always there


def test_of_many_clients_that_say_hello_at_once_a_few_are_answered_in_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(_handshakes(monkeypatch))


async def _handshakes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Stack() as stack:
        await stack.secret("stripe/key")
        await stack.service("pay")
        token = await stack.agent("coder", "pay")
        passes, at_once, made = [0], [], TlsChannel.__init__
        going = True

        def count(self: TlsChannel, context: ssl.SSLContext, *, server_side: bool, **more: object) -> None:
            if server_side:
                at_once.append(passes[0])
            made(self, context, server_side=server_side, **more)  # type: ignore[arg-type]

        def another() -> None:
            passes[0] += 1
            if going:
                asyncio.get_running_loop().call_soon(another)

        monkeypatch.setattr(TlsChannel, "__init__", count)
        tunnels = [await stack.connect(token, f"{HOST}:{stack.secure}") for _ in range(50)]
        hello = _hello(stack.client)
        another()
        for _, (_, writer) in tunnels:
            writer.write(hello)
        await until(lambda: len(at_once) == 50)
        going = False
        assert max(at_once.count(number) for number in set(at_once)) <= 4


def _hello(context: ssl.SSLContext) -> bytes:
    channel = TlsChannel(context, server_side=False, server_hostname=HOST)
    channel.start()
    return channel.output()
