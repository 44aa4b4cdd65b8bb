"""A stream of events: each is handed on where it arrives, in order, scrubbed, and never past a client without room."""

from __future__ import annotations

import asyncio
import base64
import gzip
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from broker.stack import HOST, SECRET, Received, Stack
from broker.websocket_rig import Line
from keyhole.broker import live
from keyhole.broker.upstream import UpstreamTimeouts
from keyhole.core.errors import UpstreamUnreachable
from keyhole.core.message import Message
from keyhole.faces.proxy.answering import AnsweringWire
from keyhole.net.http1.client import ClientConnection
from keyhole.net.http1.limits import ANSWER_LIMITS
from keyhole.net.http1.wire import WireGroup

VALUE = SECRET.encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The pieces that were handed on, and not read by a task."""
    pieces: list[bytes] = []
    take = AnsweringWire.take

    def noted(self: AnsweringWire, piece: bytes) -> None:
        pieces.append(piece)
        take(self, piece)

    monkeypatch.setattr(AnsweringWire, "take", noted)
    return pieces


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass
class Feed:
    """A stream that was asked for: what the upstream sends, and what the client has."""

    stack: Stack
    line: Line
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    upstream: asyncio.StreamWriter
    ended: asyncio.Event
    got: bytes = b""
    whole: bool | None = None

    async def send(self, raw: bytes) -> None:
        """Let the upstream send bytes that are not joined with what it sends next."""
        self.upstream.write(raw)
        with suppress(OSError):  # it may have been hung up on
            await self.upstream.drain()
        await asyncio.sleep(0.01)

    async def read(self, size: int) -> bytes:
        """So many bytes of the body, more of which the client has then."""
        async with asyncio.timeout(30):
            while len(self.got) < size and await self._piece():
                pass
        return self.got

    async def rest(self) -> tuple[bytes, bool]:
        """The body, and whether it came to its end."""
        async with asyncio.timeout(30):
            while await self._piece():
                pass
        return self.got, bool(self.whole)

    async def _piece(self) -> bool:
        try:
            line = await self.reader.readuntil(b"\r\n")
            piece = (await self.reader.readexactly(int(line, 16) + 2))[:-2]
        except (asyncio.IncompleteReadError, OSError):
            self.whole = False
            return False
        self.whole = not piece
        self.got += piece
        return bool(piece)


@asynccontextmanager
async def feed(stack: Stack, first: bytes, *, tls: bool = True) -> AsyncIterator[Feed]:
    """An event stream whose first bytes, which a task reads, have come."""
    begun: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
    ended = asyncio.Event()

    async def say(_request: Received, writer: asyncio.StreamWriter) -> None:
        begun.set_result(writer)
        await ended.wait()

    stack.upstream.say = say
    line = Line(stack, stack.secure if tls else stack.plain, tls, name=f"events{next(_numbers)}")
    await line.grant()
    reader, writer = await stack.tunnel(line.token, tls=tls)
    writer.write(f"GET /v1/x HTTP/1.1\r\nHost: {HOST}:{line.port}\r\n\r\n".encode())
    it = Feed(stack, line, reader, writer, await begun, ended)
    await it.send(HEAD + chunk(first))
    assert b"event-stream" in await reader.readuntil(b"\r\n\r\n")
    await it.read(len(first))
    try:
        yield it
    finally:
        ended.set()
        writer.close()
        await stack.ask("delete", f"services/{line.name}")


EVENTS = [b"data: %d\n\n" % number for number in range(20)]


@pytest.mark.parametrize("tls", [True, False])
def test_events_are_handed_on_in_order(stack: Stack, run, taken: list[bytes], tls: bool) -> None:
    async def main() -> tuple[bytes, bool, dict[str, Any]]:
        async with feed(stack, b"data: first\n\n", tls=tls) as it:
            for number, event in enumerate(EVENTS):
                await it.send(chunk(event))
                await it.read(13 + sum(map(len, EVENTS[: number + 1])))
            it.upstream.write(chunk(b"data: last\n\n") + LAST)
            return (*await it.rest(), await it.line.ended())

    body, whole, record = run(main())
    assert body == b"".join([b"data: first\n\n", *EVENTS, b"data: last\n\n"])
    assert whole
    assert taken == EVENTS
    assert (record["result"], record["status"], record["received"]) == ("ok", 200, len(body))


def test_several_events_and_parts_of_their_framing_at_once_stay_in_order(stack: Stack, run, taken) -> None:
    raw = b"".join(map(chunk, EVENTS)) + LAST

    async def main() -> tuple[bytes, bool]:
        async with feed(stack, b"data: first\n\n") as it:
            for at in range(0, len(raw), 7):
                await it.send(raw[at : at + 7])
            return await it.rest()

    body, whole = run(main())
    assert body == b"data: first\n\n" + b"".join(EVENTS)
    assert whole
    assert taken


@pytest.mark.parametrize("cut", [1, 4, len(VALUE) // 2, len(VALUE) - 1])
def test_value_that_is_split_over_events_is_masked(stack: Stack, run, taken: list[bytes], cut: int) -> None:
    before, after = b"data: a\n\ndata: " + VALUE[:cut], VALUE[cut:] + b"\n\n"

    async def main() -> bytes:
        async with feed(stack, b"data: first\n\n") as it:
            await it.send(chunk(before))
            await it.read(13 + len(b"data: a\n\ndata: "))
            assert it.got.endswith(b"data: "), "what may begin a value is held back"
            await it.send(chunk(after))
            await it.read(13 + len(before + after))
            await it.send(chunk(b"data: b\n\n"))
            await it.send(LAST)
            return (await it.rest())[0]

    assert run(main()) == b"data: first\n\ndata: a\n\ndata: " + b"*" * len(VALUE) + b"\n\ndata: b\n\n"
    assert len(taken) == 3


def test_value_that_is_split_over_lines_of_base64_in_events_is_masked(stack: Stack, run, taken) -> None:
    text = base64.b64encode(b"A" * 30 + VALUE * 2 + b"B" * 30)
    lines = [text[at : at + 64] + b"\n" for at in range(0, len(text), 64)]

    async def main() -> bytes:
        async with feed(stack, b"data: first\n\n") as it:
            for line in lines:
                await it.send(chunk(line))
            await it.send(chunk(b"\n\n"))
            await it.send(LAST)
            return (await it.rest())[0]

    body = run(main())
    assert len(body) == 13 + sum(map(len, lines)) + 2
    secret = text[44:-44]
    assert not any(secret[at : at + 8] in body for at in range(len(secret) - 7))
    assert taken


def test_revoked_stream_hands_nothing_on(stack: Stack, run, taken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY", 0.05)

    async def main() -> tuple[bytes, bool, dict[str, Any]]:
        async with feed(stack, b"data: first\n\n") as it:
            await it.send(chunk(b"data: before\n\n"))
            await it.read(27)
            await stack.ask("update", f"agents/{it.line.name}/revoke", {})
            record = await it.line.ended()
            await it.send(chunk(b"data: after\n\n"))
            return (*await it.rest(), record)

    body, whole, record = run(main())
    assert (body, whole) == (b"data: first\n\ndata: before\n\n", False)
    assert taken == [b"data: before\n\n"]
    assert (record["result"], record["status"]) == ("unauthenticated", 200)


@pytest.mark.parametrize(
    "broken", [b"zz\r\n", b"3\r\nabcX", chunk(b"data: good\n\n") + b"-1\r\n"], ids=["size", "end", "later"]
)
def test_stream_whose_framing_breaks_is_seen_to_break_off(stack: Stack, run, taken, broken: bytes) -> None:
    async def main() -> tuple[bytes, bool, dict[str, Any]]:
        async with feed(stack, b"data: first\n\n") as it:
            await it.send(chunk(b"data: before\n\n"))
            await it.send(broken)
            return (*await it.rest(), await it.line.ended())

    body, whole, record = run(main())
    assert (body, whole) == (b"data: first\n\ndata: before\n\n", False)
    assert taken == [b"data: before\n\n"]
    assert record["result"] == UpstreamUnreachable.code


@pytest.mark.parametrize("how", ["cut", "ended"])
def test_stream_that_the_upstream_leaves_is_seen_to_break_off(stack: Stack, run, how: str) -> None:
    async def main() -> tuple[bytes, bool, dict[str, Any]]:
        async with feed(stack, b"data: first\n\n", tls=False) as it:
            await it.send(chunk(b"data: before\n\n"))
            if how == "cut":
                it.upstream.transport.abort()
            else:
                it.upstream.write_eof()
            return (*await it.rest(), await it.line.ended())

    body, whole, record = run(main())
    assert (body, whole) == (b"data: first\n\ndata: before\n\n", False)
    assert record["result"] == UpstreamUnreachable.code


def test_stream_that_cannot_be_inspected_any_more_breaks_off(stack: Stack, run) -> None:
    packed = gzip.compress(b"data: " + VALUE + b"\n\n", compresslevel=0)

    async def main() -> tuple[bytes, bool, dict[str, Any]]:
        async with feed(stack, packed[:16]) as it:
            for at in range(16, len(packed), 16):
                await it.send(chunk(packed[at : at + 16]))
            return (*await it.rest(), await it.line.ended())

    body, whole, record = run(main())
    assert not whole
    assert VALUE[:12] not in body
    assert record["result"] == "scrub_failed_closed"


def test_client_that_does_not_read_holds_the_upstream_back_and_loses_nothing(stack: Stack, run, taken) -> None:
    event = b"data: " + b"x" * 8000 + b"\n\n"
    count = 4000

    async def main() -> tuple[int, bytes, bool]:
        async with feed(stack, b"data: first\n\n", tls=False) as it:
            it.writer.transport.pause_reading()
            for _ in range(count):
                it.upstream.write(chunk(event))
            left, transport = 0, it.upstream.transport
            while left != transport.get_write_buffer_size():  # until nothing moves any more
                left = transport.get_write_buffer_size()
                await asyncio.sleep(0.2)
            it.writer.transport.resume_reading()
            it.upstream.write(LAST)
            return (left, *await it.rest())

    left, body, whole = run(main())
    assert left, "the upstream was not held back"
    assert body == b"data: first\n\n" + event * count
    assert whole


def test_client_that_ended_its_side_gets_events_still(stack: Stack, run, taken: list[bytes]) -> None:
    async def main() -> bytes:
        async with feed(stack, b"data: first\n\n", tls=False) as it:
            it.writer.write_eof()
            await it.send(chunk(b"data: after\n\n"))
            return await it.read(26)

    assert run(main()) == b"data: first\n\ndata: after\n\n"
    assert taken == [b"data: after\n\n"]


def test_connection_serves_another_call_after_a_stream(stack: Stack, run) -> None:
    async def main() -> tuple[int, bytes]:
        async with feed(stack, b"data: first\n\n") as it:
            await it.send(chunk(b"data: next\n\n"))
            await it.send(LAST)
            await it.rest()
            it.ended.set()
            before = len(stack.upstream.raw)
            stack.upstream.say = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            reply = await stack.send((it.reader, it.writer), host=f"{HOST}:{it.line.port}")
            return len(stack.upstream.raw) - before, reply.body

    assert run(main()) == (0, b"ok")


def test_large_pieces_and_bodies_that_are_not_open_ended_are_read(stack: Stack, run, taken: list[bytes]) -> None:
    large = b"data: " + b"x" * 40_000 + b"\n\n"
    pieces = [b"a" * 100] * 5
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def main() -> tuple[bytes, bytes]:
        async with feed(stack, b"data: first\n\n") as it:
            await it.send(chunk(large))
            await it.send(LAST)
            body, _ = await it.rest()
            it.ended.set()
            stack.upstream.say = (head, *map(chunk, pieces), LAST)
            return body, (await stack.send((it.reader, it.writer), host=f"{HOST}:{it.line.port}")).body

    assert run(main()) == (b"data: first\n\n" + large, b"".join(pieces))
    assert sum(map(len, taken)) < len(large)
    assert not set(taken) & set(pieces)


class _Transport(asyncio.Transport):
    """One that takes no notice."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes | bytearray | memoryview) -> None: ...


class _Taker:
    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def has_room(self, size: int) -> bool:
        return size > 0

    def take(self, piece: bytes) -> None:
        self.pieces.append(piece)


def test_each_piece_that_is_handed_on_begins_the_time_limit_anew(run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> tuple[float, float, list[bytes]]:
        loop, now = asyncio.get_running_loop(), 1000.0
        monkeypatch.setattr(loop, "time", lambda: now)
        group = WireGroup(loop, 1.0)
        connection = ClientConnection(group, b"h", ANSWER_LIMITS, on_free=lambda _: None, on_lost=lambda _: None)
        connection.connection_made(_Transport())
        timeouts = UpstreamTimeouts(body=60.0)
        asking = asyncio.ensure_future(
            connection.exchange(Message("GET", "http", "h", 80, b"/", []), None, b"", timeouts)
        )
        await asyncio.sleep(0)
        connection.data_received(HEAD + chunk(b"data: first\n\n"))
        answer, taker = await asking, _Taker()
        answer.hand_on(taker)
        await answer.read()
        reading = asyncio.ensure_future(answer.read())
        await asyncio.sleep(0)
        before = connection.read_deadline
        now = 1050.0
        connection.data_received(chunk(b"data: next\n\n"))
        after = connection.read_deadline
        connection.data_received(LAST)
        assert await reading == b""
        return before, after, taker.pieces

    assert run(main()) == (1060.0, 1110.0, [b"data: next\n\n"])
