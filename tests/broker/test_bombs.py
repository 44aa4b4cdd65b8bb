"""Compressed answers that begin as bombs do are refused before their head is sent; events are not held up by that."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import pytest

from broker.stack import HOST, Stack
from broker.test_answers import bomb
from broker.test_http2_face import basic, fields, own_port


@pytest.fixture(scope="module")
def token(module_stack: Stack, runner) -> str:
    async def prepare() -> str:
        await module_stack.secret("s/key")
        hosts = [f"{HOST}:{module_stack.secure}", f"{HOST}:{module_stack.plain}"]
        await module_stack.service("s", secret="s/key", hosts=hosts, schemes=["https", "http"])
        return await module_stack.agent("s", "s")

    return runner.run(prepare())


@pytest.mark.parametrize("cuts", [(0, 1), (10, 700), (300, 20_000), (4_000, 100_000)])
@pytest.mark.parametrize("coding", ["gzip", "gzip, gzip"])
def test_a_bomb_that_says_what_it_is_gets_no_head_through(
    stack: Stack, run, token: str, coding: str, cuts: tuple[int, int]
) -> None:
    packed = gzip.compress(bomb()) if coding == "gzip, gzip" else bomb()
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    first, second = cuts
    stack.upstream.say = [head + packed[:first], packed[first:second], packed[second:]]
    reply = run(stack.get(token))
    assert (reply.status, reply.code) == (502, "scrub_failed_closed")
    assert run(stack.records())[-1]["result"] == "scrub_failed_closed"


def test_a_bomb_is_refused_on_its_stream_of_http2(stack: Stack, run, token: str) -> None:
    packed = bomb()
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    stack.upstream.say = [head, packed[:100], packed[100:]]

    async def play() -> dict[bytes, bytes]:
        async with own_port(stack) as client:
            asked = client.ask(fields(stack.plain, b"/v1/x", (b"proxy-authorization", basic(token))))
            return (await client.answer(asked)).head

    answered = run(play())
    assert answered[b":status"] == b"502"
    assert answered[b"x-keyhole-error"] == b"scrub_failed_closed"


def test_what_unfolds_to_much_at_first_and_ends_well_arrives_whole(stack: Stack, run, token: str) -> None:
    content = bytes(4 << 20) + b"the end"
    packed = gzip.compress(content)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    stack.upstream.say = [head + packed[:900], packed[900:2_000], packed[2_000:]]
    reply = run(stack.get(token))
    assert reply.status == 200
    assert gzip.decompress(reply.body) == content


def test_compressed_events_come_one_by_one_and_their_head_before_them(stack: Stack, run, token: str) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    event = b"data: " + b"x" * 4000 + b"\n\n"
    packed = packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH)

    async def play() -> bytes:
        sent, ended = asyncio.Event(), asyncio.Event()

        async def say(_received, writer) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Type: text/event-stream\r\n\r\n")
            await sent.wait()
            writer.write(packed)
            await ended.wait()

        stack.upstream.say = say
        reader, writer = await stack.tunnel(token)
        writer.write(f"GET /v1/x HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")  # nothing of the body is there yet
        sent.set()
        unpacker, got = zlib.decompressobj(31), b""
        while len(got) < len(event):
            size = int(await reader.readuntil(b"\r\n"), 16)
            got += unpacker.decompress((await reader.readexactly(size + 2))[:-2])
        ended.set()
        writer.close()
        return got

    assert run(play()) == event
