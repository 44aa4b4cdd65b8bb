"""A connection to an upstream of HTTP/2 that falls silent, in a loop whose time passes by itself."""

from __future__ import annotations

import asyncio
import struct

import pytest

from fuzzing import ticking
from keyhole.core.errors import UpstreamTimeout
from keyhole.core.message import Message
from keyhole.net.http1.limits import WireLimits
from keyhole.net.http1.wire import Wire
from keyhole.net.http2.client import Http2Connection
from keyhole.net.http2.limits import Http2Limits

PING, ACK = 6, 1
HELLO = b"\0\0\0\4\0\0\0\0\0"
PONG = b"\0\0\x08\6\1\0\0\0\0" + bytes(8)
OK = b"\0\0\1\1\5\0\0\0\1\x88"  # 200, and no more


class Timeouts:
    answer = body = write = 10_000.0
    rate = 0.0
    window = 60.0


class Line:
    """A connection whose other end is played by the test."""

    def __init__(self, **limits: float) -> None:
        group = ticking.group()
        self.connection = Http2Connection(
            group, b"a.test", WireLimits(), Http2Limits(**limits), on_free=lambda _: None, on_lost=lambda _: None
        )
        before = Wire(group)
        self.pipe = ticking.Pipe(self.connection)
        before.connection_made(self.pipe)
        self.connection.begin(before)
        group.add(self.connection)
        self.group = group
        self.connection.data_received(HELLO)

    def ask(self) -> asyncio.Task:
        self.connection.reserved += 1
        message = Message("GET", "https", "a.test", 443, b"/", [], http2=True)
        return asyncio.ensure_future(self.connection.exchange(message, None, b"", Timeouts()))

    @property
    def pings(self) -> int:
        """Pings that were sent, and are no answers."""
        at, count, data = 24, 0, bytes(self.pipe.written)
        while at < len(data):
            kind, flags = struct.unpack(">BB", data[at + 3 : at + 5])
            count += kind == PING and not flags & ACK
            at += 9 + int.from_bytes(data[at : at + 3])
        return count

    async def end(self) -> None:
        self.connection.abort()
        await asyncio.sleep(0)
        self.group.discard(self.connection)
        await asyncio.sleep(2)


def play(scene) -> None:
    with ticking.loop() as loop:
        loop.run_until_complete(scene())


def test_an_upstream_that_is_silent_for_long_is_pinged_and_waited_for_while_it_answers() -> None:
    async def scene() -> None:
        line = Line()
        asked = line.ask()
        await asyncio.sleep(295)
        assert line.pings == 0
        for number in (1, 2, 3):
            await asyncio.sleep(10)
            assert line.pings == number
            line.connection.data_received(PONG)
            await asyncio.sleep(292)
        line.connection.data_received(OK)
        assert (await asked).status == 200
        await line.end()

    play(scene)


def test_an_upstream_that_answers_no_ping_is_given_up_with_all_its_requests() -> None:
    async def scene() -> None:
        line = Line(ping=30.0, ping_timeout=5.0)
        asked = [line.ask() for _ in range(3)]
        for each in asked:
            with pytest.raises(UpstreamTimeout, match="answers no ping"):
                await each
        assert 35 <= asyncio.get_running_loop().time() <= 38
        assert line.pings == 1
        assert not line.connection.usable
        await line.end()

    play(scene)


def test_an_upstream_that_owes_nothing_is_not_pinged_and_its_silence_before_does_not_count() -> None:
    async def scene() -> None:
        line = Line(ping=30.0)
        await asyncio.sleep(100)
        asked = line.ask()
        await asyncio.sleep(25)
        assert line.pings == 0
        line.connection.data_received(OK)
        await asked
        await asyncio.sleep(100)
        assert line.pings == 0
        await line.end()

    play(scene)


def test_pings_can_be_left_out() -> None:
    async def scene() -> None:
        line = Line(ping=0.0)
        asked = line.ask()
        await asyncio.sleep(9000)
        assert line.pings == 0
        line.connection.data_received(OK)
        assert (await asked).status == 200
        await line.end()

    play(scene)
