"""WebSockets through the whole product, spoken by a library that is not ours on both ends."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from broker.stack import HOST, SECRET, Stack, server_context

Talk = Callable[[ServerConnection], Awaitable[None]]


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@contextlib.asynccontextmanager
async def upstream(talk: Talk = echo, *, tls: bool = True, **options: object) -> AsyncIterator[int]:
    """A WebSocket server that lets in only who shows the secret; its port."""

    def check(connection: ServerConnection, request: websockets.Request) -> websockets.Response | None:
        if request.headers.get("Authorization") != f"Bearer {SECRET}":
            return connection.respond(401, "who are you")
        return None

    context = server_context() if tls else None
    async with serve(talk, "127.0.0.1", 0, ssl=context, process_request=check, **options) as server:
        yield server.sockets[0].getsockname()[1]


def client(stack: Stack, token: str, port: int, *, tls: bool = True, **options: object) -> connect:
    proxy = f"http://agent:{token}@{stack.address[0]}:{stack.address[1]}"
    scheme = "wss" if tls else "ws"
    trust = {"ssl": stack.client} if tls else {}
    return connect(f"{scheme}://{HOST}:{port}/v1/ws", proxy=proxy, **trust, **options)


@pytest.mark.parametrize("tls", [True, False], ids=["wss", "ws"])
def test_messages_flow_both_ways_and_the_secret_stands_in_the_handshake_only(stack: Stack, run, tls: bool) -> None:
    async def ask() -> tuple[list[str | bytes], str, list[dict]]:
        async with upstream(tls=tls) as port:
            await stack.secret("stripe/key")
            await stack.service("ws", hosts=[f"{HOST}:{port}"], schemes=["https" if tls else "http"])
            token = await stack.agent("talker", "ws")
            async with client(stack, token, port, tls=tls) as connection:
                heard = []
                for message in ("hello", b"\x00\xff" * 5000, "", "x" * 70_000):
                    await connection.send(message)
                    heard.append(await connection.recv())
                await (await connection.ping())
            return heard, connection.close_code, await stack.records(service="ws")

    heard, code, records = run(ask())
    assert heard == ["hello", b"\x00\xff" * 5000, "", "x" * 70_000]
    assert code == 1000
    assert [(one["phase"], one.get("result", ""), one.get("status", 0)) for one in records[-2:]] == [
        ("intent", "", 0),
        ("outcome", "ok", 101),
    ]
