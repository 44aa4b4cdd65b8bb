"""What goes on after a call has begun is done in turn too: how much of it is done in one pass of the loop."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from websockets import ConnectionClosed

from broker.stack import HOST, Stack, Streams, reset, until
from broker.websocket_rig import library
from keyhole.broker.frames import AnswerFrames, CallFrames
from keyhole.broker.watch import Watch
from keyhole.core.errors import ScrubFailedClosed
from keyhole.net.http2.fields import FieldDecoder
from keyhole.net.http2.frames import PREFACE
from keyhole.net.websocket import FrameLimits
from keyhole.scrub import Scrubber
from keyhole.scrub.body import BodyScrubber
from keyhole.scrub.scrubber import Stream
from keyhole.vault.admission import Admission
from loop_passes import Passes

MANY = 16
IN_TURN = 4  # two begin in a pass, and two that were let in during the one before go on


@asynccontextmanager
async def world() -> AsyncIterator[Stack]:
    """One in which nobody counts as alone."""
    async with Stack() as stack:
        stack.keyhole.node.open_vault().shares.admission = Admission(alone=2)
        yield stack


async def many_tunnels(stack: Stack) -> list[Streams]:
    """Tunnels of one agent."""
    await stack.secret("stripe/key")
    await stack.service("pay")
    token = await stack.agent("coder", "pay")
    return [await stack.tunnel(token) for _ in range(MANY)]


def small_frames(count: int) -> bytes:
    """Messages of a client, under a mask of zeros."""
    return b"\x82\x84\0\0\0\0beep" * count


def further() -> Callable[..., bool]:
    """Whether it is done again with something. The first piece of a body goes with its call."""
    begun: dict[int, object] = {}

    def again(one: object, *_: object) -> bool:
        known = id(one) in begun
        begun[id(one)] = one
        return known

    return again


@pytest.mark.parametrize("frames", [CallFrames, AnswerFrames])
def test_frames_of_many_websockets_are_worked_on_in_turn(monkeypatch: pytest.MonkeyPatch, frames: type) -> None:
    passes = Passes()

    async def talk(connection: Any) -> None:
        with suppress(ConnectionClosed):
            async for _ in connection:
                if frames is AnswerFrames:
                    connection.transport.write(b"\x82\x04beep" * 5_000)
        connection.transport.abort()

    async def go() -> None:
        async with world() as stack, library(stack, talk, tls=False, max_size=None) as line:
            streams = [(await line.shake())[1] for _ in range(MANY)]
            passes.note(monkeypatch, frames, "take")
            passes.begin()
            for _, writer in streams:
                writer.write(small_frames(1 if frames is AnswerFrames else 5_000))
            await until(lambda: sum(passes.done.values()) >= MANY * 4)
            passes.end()
            for _, writer in streams:
                reset(writer)
            await line.outcomes(MANY)
            await until(lambda: not stack.proxy.connections)

    asyncio.run(asyncio.wait_for(go(), 60))
    assert passes.most <= IN_TURN


def test_bodies_that_are_watched_are_looked_at_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = Passes()

    async def go() -> None:
        async with world() as stack:
            tunnels = await many_tunnels(stack)
            passes.note(monkeypatch, Watch, "steps", further())
            passes.begin()
            sending = [stack.send(tunnel, method="POST", body=b"x" * 500_000) for tunnel in tunnels]
            assert {reply.status for reply in await asyncio.gather(*sending)} == {200}
            passes.end()

    asyncio.run(asyncio.wait_for(go(), 60))
    assert sum(passes.done.values()) >= MANY
    assert passes.most <= IN_TURN


def test_bodies_of_answers_are_scrubbed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = Passes()

    async def go() -> None:
        async with world() as stack:
            tunnels = await many_tunnels(stack)
            stack.upstream.say = b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 2_000_000
            passes.note(monkeypatch, BodyScrubber, "feed", further())
            passes.begin()
            replies = await asyncio.gather(*(stack.send(tunnel) for tunnel in tunnels))
            passes.end()
            assert {len(reply.body) for reply in replies} == {2_000_000}

    asyncio.run(asyncio.wait_for(go(), 60))
    assert sum(passes.done.values()) >= MANY * 4
    assert passes.most <= IN_TURN


PACKED = gzip.compress(b"x" * 2_000_000)
MESSAGE = b"\1" + len(PACKED).to_bytes(4, "big") + PACKED
OF_CONNECT = b"Content-Type: application/connect+json\r\n"
COMPRESSED = OF_CONNECT + b"Connect-Content-Encoding: gzip\r\n"
UNDECLARED = b"\0" + MESSAGE[1:]


@pytest.mark.parametrize(
    ("asked", "lines", "said", "length"),
    [
        (MESSAGE, COMPRESSED, b"", 0),
        (PACKED, b"Content-Encoding: gzip\r\n", b"", 0),
        (b"", b"", COMPRESSED, len(MESSAGE)),
        (b"", b"", OF_CONNECT, len(MESSAGE)),
    ],
    ids=["message of a client", "body of a client", "message of an upstream", "what looks like one"],
)
def test_what_unfolds_to_many_times_its_length_is_looked_at_in_turn(
    monkeypatch: pytest.MonkeyPatch, asked: bytes, lines: bytes, said: bytes, length: int
) -> None:
    passes = Passes()

    async def go() -> None:
        async with world() as stack:
            tunnels = await many_tunnels(stack)
            if said:
                body = MESSAGE if said == COMPRESSED else UNDECLARED
                stack.upstream.say = b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (said, len(body), body)
            passes.note(monkeypatch, Stream, "feed", further())
            passes.begin()
            sending = [stack.send(tunnel, method="POST", headers=lines, body=asked) for tunnel in tunnels]
            replies = await asyncio.gather(*sending)
            passes.end()
            assert {(reply.status, len(reply.body) if said else 0) for reply in replies} == {(200, length)}

    asyncio.run(asyncio.wait_for(go(), 60))
    assert sum(passes.done.values()) >= MANY * 20
    assert passes.most <= IN_TURN


def test_frames_that_unfold_are_looked_at_one_by_one() -> None:
    frames = AnswerFrames(Scrubber.compile([b"a-value-to-look-for"]), FrameLimits())
    packed = gzip.compress(b"".join(b"%d" % number for number in range(2_000)))
    frames.add(b"".join(b"\x82\x7e" + len(data).to_bytes(2) + data for data in [b"y" * 200, packed, packed]))
    taken = []
    more = True
    while more:
        data, more = frames.take()
        taken.append(len(data))
    assert taken == [204 + 4 + len(packed), 4 + len(packed), 0]


def test_frame_that_unfolds_beyond_measure_is_withheld() -> None:
    frames = AnswerFrames(Scrubber.compile([b"a-value-to-look-for"]), FrameLimits())
    packed = gzip.compress(b"x" * 4_000_000)
    frames.add(b"\x82\x7e" + len(packed).to_bytes(2) + packed)
    assert frames.take() == (b"", True)
    with pytest.raises(ScrubFailedClosed):
        frames.take()


def test_heads_that_come_at_once_by_http2_are_decoded_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    passes, streams = Passes(), 40

    async def go() -> None:
        async with world() as stack:
            await stack.secret("stripe/key")
            await stack.service("pay")
            token = await stack.agent("coder", "pay")
            stack.client.set_alpn_protocols(["h2"])
            tunnels = [await stack.tunnel(token) for _ in range(MANY)]
            authority = f"{HOST}:{stack.secure}".encode()
            block = b"\x82\x87\x84\x01%c%b" % (len(authority), authority)
            heads = [
                len(block).to_bytes(3) + b"\x01\x05" + number.to_bytes(4) + block for number in range(1, 2 * streams, 2)
            ]
            passes.note(monkeypatch, FieldDecoder, "decode")
            passes.begin()
            for _, writer in tunnels:
                writer.write(PREFACE + b"\0\0\0\4\0\0\0\0\0" + b"".join(heads))
            await until(lambda: sum(passes.done.values()) >= MANY * streams)
            passes.end()

    asyncio.run(asyncio.wait_for(go(), 60))
    # The first four of each connection are its own; then four go with each turn. They came in a few reads.
    assert passes.most <= 4 * (MANY + IN_TURN)
