"""Clients of HTTP/2 at the whole product: what is lent, what is taken back, and what that leaves alone."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
from websockets.frames import Frame, Opcode

from broker.stack import HOST, SECRET, Received, Stack, until
from broker.websocket_rig import Line, library
from faces.proxy.h2 import DATA, END_STREAM, PREFACE, Client, Fields, frame, settings
from faces.proxy.rig import client_context
from keyhole.core.record import Phase

VALUE = SECRET.encode()


def basic(token: str) -> bytes:
    return b"Basic " + base64.b64encode(b"agent:" + token.encode())


def fields(
    port: int, path: bytes, *more: tuple[bytes, bytes], scheme: bytes = b"http", method: bytes = b"GET"
) -> Fields:
    where = f"{HOST}:{port}".encode()
    return [(b":method", method), (b":scheme", scheme), (b":authority", where), (b":path", path), *more]


@contextlib.asynccontextmanager
async def own_port(stack: Stack) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(*stack.address)
    client = Client((reader, writer))
    client.send(PREFACE + settings())
    try:
        yield client
    finally:
        writer.close()
        await client.end()


@contextlib.asynccontextmanager
async def in_tunnel(stack: Stack, token: str, port: int) -> AsyncIterator[Client]:
    reader, writer = await stack.tunnel(token, port=port, tls=False)
    ca = (await stack.ask("read", "sys/keyhole"))["ca"]
    context = client_context.__wrapped__("h2")
    context.load_verify_locations(cadata=ca)
    await writer.start_tls(context, server_hostname=HOST)
    client = Client((reader, writer))
    client.send(PREFACE + settings())
    try:
        yield client
    finally:
        writer.close()
        await client.end()


@contextlib.contextmanager
def endless(stack: Stack) -> Iterator[None]:
    """The upstream begins event streams, and ends none of them before this ends."""
    gate = asyncio.Event()

    async def say(_received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await gate.wait()

    stack.upstream.say = say
    try:
        yield
    finally:
        gate.set()


async def plain(stack: Stack, name: str) -> str:
    await stack.secret("stripe/key")
    await stack.service(name, hosts=[f"{HOST}:{stack.plain}"], schemes=["http"])
    return await stack.agent(name, name)


def test_one_token_that_is_revoked_ends_its_streams_and_leaves_those_of_another(run) -> None:
    async def scene() -> None:
        async with Stack() as stack, own_port(stack) as client:
            with endless(stack):
                await ending(stack, client)

    async def ending(stack: Stack, client: Client) -> None:
        first, second = await plain(stack, "one"), await stack.agent("two", "one")
        shown = [(b"proxy-authorization", basic(token)) for token in (first, second, first)]
        answers = [client.answers[client.ask(fields(stack.plain, b"/v1/a", each))] for each in shown]
        await client.until(lambda: all(answer.body for answer in answers))
        await stack.ask("update", "auth/token/revoke", {"token": first})
        await client.until(lambda: answers[0].reset is not None and answers[2].reset is not None)
        assert not answers[1].over
        late = client.ask(fields(stack.plain, b"/v1/b", (b"proxy-authorization", basic(first))))
        assert (await client.answer(late)).status == 407
        assert not answers[1].over
        results = [each["result"] for each in await stack.records() if each["phase"] == Phase.OUTCOME]
        assert results.count("unauthenticated") == 2

    run(scene())


@pytest.mark.parametrize("how", ["agent", "service", "grant"])
def test_what_is_taken_back_ends_the_streams_of_a_tunnel(run, how: str) -> None:
    async def scene() -> None:
        async with Stack() as stack:
            await stack.secret("stripe/key")
            await stack.service("kept")
            token = await stack.agent("short", "kept")
            async with in_tunnel(stack, token, stack.secure) as client:
                with endless(stack):
                    answers = [
                        client.answers[client.ask(fields(stack.secure, b"/a", scheme=b"https"))] for _ in range(3)
                    ]
                    await client.until(lambda: all(answer.body for answer in answers))
                    path = {"agent": "agents/short", "service": "services/kept", "grant": "agents/short/services/kept"}[
                        how
                    ]
                    await stack.ask("delete", path)
                    await client.until(lambda: all(answer.reset is not None for answer in answers))
                    again = await client.answer(client.ask(fields(stack.secure, b"/a", scheme=b"https")))
                    assert again.status in {403, 407}

    run(scene())


async def websocket(client: Client, line: Line, origin: bytes = b"") -> int:
    more = [(b":protocol", b"websocket"), (b"sec-websocket-version", b"13")]
    more += [(b"origin", origin)] if origin else []
    asked = fields(line.port, b"/v1/ws", scheme=b"https", method=b"CONNECT")
    stream = client.ask([asked[0], more[0], *asked[1:], *more[1:]], end=False)
    await client.until(lambda: client.answers[stream].status or client.answers[stream].over)
    return stream


def masked(text: bytes, opcode: Opcode = Opcode.TEXT) -> bytes:
    return Frame(opcode, text).serialize(mask=True)


def test_a_websocket_on_a_stream_reaches_a_server_that_asks_for_the_secret(run) -> None:
    async def scene() -> None:
        async with Stack() as stack, library(stack) as line, in_tunnel(stack, line.token, line.port) as client:
            stream, other = await websocket(client, line), await websocket(client, line)
            answer = client.answers[stream]
            assert answer.status == client.answers[other].status == 200
            client.send(frame(DATA, 0, stream, masked(b"hello")) + frame(DATA, 0, other, masked(b"there")))
            await client.until(lambda: answer.body == b"\x81\x05hello")
            await client.until(lambda: client.answers[other].body == b"\x81\x05there")
            client.send(frame(DATA, 0, stream, masked(VALUE)))
            assert (await client.answer(stream)).ended
            assert answer.body[7] == 0x88, "what a tripwire finds ends it with a close frame"
            assert VALUE not in answer.body
            client.send(frame(DATA, END_STREAM, other, masked(b"\x03\xe8", Opcode.CLOSE)))
            assert (await client.answer(other)).body.endswith(b"\x88\x02\x03\xe8")
            assert len(await line.outcomes(2)) == 2

    run(scene())


def test_a_websocket_on_a_stream_is_closed_when_its_token_is_revoked(run) -> None:
    async def scene() -> None:
        async with Stack() as stack, library(stack) as line, in_tunnel(stack, line.token, line.port) as client:
            stream = await websocket(client, line)
            client.send(frame(DATA, 0, stream, masked(b"hello")))
            answer = client.answers[stream]
            await client.until(lambda: answer.body)
            await stack.ask("update", "auth/token/revoke", {"token": line.token})
            assert (await client.answer(stream)).ended
            assert answer.body[7:].startswith(b"\x88")
            assert b"\x03\xf0" in answer.body, "1008"
            assert (await line.ended())["result"] == "unauthenticated"

    run(scene())


def test_a_tunnel_on_a_stream_lends_the_credential_and_ends_with_its_token(run) -> None:
    async def scene() -> None:
        async with Stack() as stack, own_port(stack) as client:
            token = await plain(stack, "tunnelled")
            where = [(b":method", b"CONNECT"), (b":authority", f"{HOST}:{stack.plain}".encode())]
            stream = client.ask([*where, (b"proxy-authorization", basic(token))], end=False)
            ask = f"GET /v1/t HTTP/1.1\r\nHost: {HOST}:{stack.plain}\r\n\r\n".encode()
            client.send(frame(DATA, 0, stream, ask))
            answer = client.answers[stream]
            await client.until(lambda: answer.body.endswith(b"ok"))
            assert stack.upstream.last.values(b"authorization") == [b"Bearer " + VALUE]
            with endless(stack):
                client.send(frame(DATA, 0, stream, ask))
                await client.until(lambda: b"data: 1" in answer.body)
                await stack.ask("update", "auth/token/revoke", {"token": token})
                assert (await client.answer(stream)).over
                assert not answer.body.endswith(b"\r\n0\r\n\r\n"), "what was cut off looks whole"
            await until(lambda: stack.proxy.connections == 1)

    run(scene())
