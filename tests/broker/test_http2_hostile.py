"""Upstreams of HTTP/2 that break the rules, or keep them to our cost: bounded, refused, and nobody else's loss."""

from __future__ import annotations

import asyncio
import resource

import pytest

from broker.h2_upstream import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    PUSH,
    RST,
    SETTINGS,
    WINDOW,
    RawUpstream,
    block,
    context,
    frame,
    head,
)
from broker.stack import HOST, Stack, until
from keyhole.core.errors import KeyholeError
from keyhole.core.message import Answer, Call

OK = head(("content-length", "2")) + frame(DATA, END_STREAM, 1, b"ok")
PLAIN = head()


class World:
    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.upstream = RawUpstream()
        self.token = ""
        self.port = 0

    async def prepare(self) -> None:
        await self.stack.secret("stripe/key")
        self.port = await self.stack.listen(self.upstream, context())
        await self.stack.service("raw", hosts=[f"{HOST}:{self.port}"])
        self.token = await self.stack.agent("raw", "raw")

    async def ask(self, method: str = "GET") -> Answer:
        token = self.token.encode()
        call = Call(token, "https", HOST, self.port, method, b"/v1/x", [], http2=True, trailers=True)
        return await self.stack.keyhole.broker.handle(call)

    async def get(self, method: str = "GET") -> tuple[int, bytes]:
        answer = await self.ask(method)
        body = b""
        while answer.body is not None and (chunk := await answer.body.read()):
            body += chunk
        return answer.status, body


@pytest.fixture(scope="module")
def made(module_stack: Stack, runner) -> World:
    world = World(module_stack)
    runner.run(world.prepare())
    return world


@pytest.fixture
def world(made: World, run) -> World:
    async def fresh() -> None:
        made.stack.keyhole.pool._end()
        await until(lambda: not made.upstream.writers)

    made.upstream.closes = False
    made.upstream.settings = frame(SETTINGS, 0, 0)
    run(fresh())
    made.upstream.received.clear()
    made.upstream.connections = 0
    return made


BROKEN_ANSWERS = {
    "no status": frame(HEADERS, END_HEADERS, 1, block(("x", "1"))),
    "status of one digit": head(status="2"),
    "status 101": head(status="101"),
    "two statuses": frame(HEADERS, END_HEADERS, 1, block((":status", "200"), (":status", "200"))),
    "a status after a header": frame(HEADERS, END_HEADERS, 1, block(("x", "1"), (":status", "200"))),
    "a pseudo header of requests": frame(HEADERS, END_HEADERS, 1, block((":status", "200"), (":path", "/"))),
    "an upper-case name": head(("X-A", "1")),
    "a line end in a value": head(("x-a", "1\r\nset-cookie: a=b")),
    "a NUL in a value": head(("x-a", "1\0")),
    "a space in a name": head(("x a", "1")),
    "connection": head(("connection", "close")),
    "transfer-encoding": head(("transfer-encoding", "chunked")),
    "upgrade": head(("upgrade", "h2c")),
    "two lengths": head(("content-length", "2"), ("content-length", "3")),
    "a length that is none": head(("content-length", "+2")),
    "too many headers": head(*[("x", "1")] * 300),
    "a body without a head": frame(DATA, END_STREAM, 1, b"ok"),
    "no end of 1xx": b"".join(head(status="103") for _ in range(20)),
    "a 1xx that ends": head(status="103", end=True),
    "a reset": frame(RST, 0, 1, bytes((0, 0, 0, 2))),
}


@pytest.mark.parametrize("name", BROKEN_ANSWERS)
def test_an_answer_that_is_none_is_refused(world: World, run, name: str) -> None:
    world.upstream.say = BROKEN_ANSWERS[name]

    async def scenario() -> KeyholeError:
        with pytest.raises(KeyholeError) as caught:
            await world.get()
        return caught.value

    assert run(scenario()).code == "upstream_unreachable"


BROKEN_BODIES = {
    "longer than declared": head(("content-length", "1")) + frame(DATA, END_STREAM, 1, b"ok"),
    "shorter than declared": head(("content-length", "3")) + frame(DATA, END_STREAM, 1, b"ok"),
    "no body at all": head(("content-length", "3"), end=True),
    "trailers that do not end": PLAIN + frame(HEADERS, END_HEADERS, 1, block(("x", "1"))),
    "a status in the trailers": PLAIN + head(end=True),
    "a reset": PLAIN + frame(DATA, 0, 1, b"ok") + frame(RST, 0, 1, bytes((0, 0, 0, 0))),
    "cut by a goodbye": PLAIN + frame(GOAWAY, 0, 0, bytes(8)),
    "padding longer than the frame": PLAIN + frame(DATA, 8, 1, b"\xff123"),
    "more than the window": PLAIN + frame(DATA, 0, 1, b"x" * 16_384) * 9,
    "too large a frame": PLAIN + frame(DATA, 0, 1, b"x" * 16_385),
    "a body on another stream": PLAIN + frame(DATA, 0, 3, b"x"),
    "an answer that nobody asked for": PLAIN + head(stream=3),
    "an answer on a stream of the server": PLAIN + head(stream=2),
    "a push": PLAIN + frame(PUSH, END_HEADERS, 1, bytes((0, 0, 0, 2)) + block((":method", "GET"))),
    "settings on a stream": PLAIN + frame(SETTINGS, 0, 1),
    "settings cut": PLAIN + frame(SETTINGS, 0, 0, b"\0"),
    "a setting out of range": PLAIN + frame(SETTINGS, 0, 0, bytes((0, 5, 0, 0, 0, 1))),
    "a push that is allowed": PLAIN + frame(SETTINGS, 0, 0, bytes((0, 2, 0, 0, 0, 1))),
    "a ping cut": PLAIN + frame(PING, 0, 0, b"1234"),
    "a window that overflows": PLAIN + frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff") * 2,
    "a window of nothing": PLAIN + frame(WINDOW, 0, 0, bytes(4)),
    "a continuation of nothing": PLAIN + frame(CONTINUATION, END_HEADERS, 1, b""),
    "a frame within a header section": PLAIN + frame(HEADERS, 0, 1, b"") + frame(PING, 0, 0, bytes(8)),
    "a block that cannot be read": PLAIN + frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff"),
    "something else than HTTP/2": PLAIN + b"HTTP/1.1 200 OK\r\n\r\n" * 10,
}


@pytest.mark.parametrize("name", BROKEN_BODIES)
def test_a_body_that_breaks_a_rule_never_looks_whole(world: World, run, name: str) -> None:
    world.upstream.say = BROKEN_BODIES[name]

    async def scenario() -> None:
        with pytest.raises(KeyholeError) as caught:
            await asyncio.wait_for(world.get(), 20)
        assert caught.value.code == "upstream_unreachable"

    run(scenario())


def test_a_stream_that_breaks_a_rule_leaves_the_connection_to_others(world: World, run) -> None:
    async def scenario() -> None:
        world.upstream.say = OK
        await world.get()  # from here on it is known to speak HTTP/2, and calls share a connection
        world.stack.keyhole.pool._end()
        await until(lambda: not world.upstream.writers)
        world.upstream.connections = 0
        world.upstream.say = BROKEN_ANSWERS["connection"] + head(stream=3) + frame(DATA, END_STREAM, 3, b"ok")
        first, second = asyncio.ensure_future(world.ask()), asyncio.ensure_future(world.get())
        with pytest.raises(KeyholeError):
            await first
        assert await second == (200, b"ok")
        assert world.upstream.connections == 1

    run(scenario())


FLOODS = {
    "pings": frame(PING, 0, 0, bytes(8)) * 5000,
    "settings": frame(SETTINGS, 0, 0) * 200,
    "settings that were not sent": frame(SETTINGS, ACK, 0) * 5000,
    "priorities": frame(PRIORITY, 0, 1, bytes(5)) * 5000,
    "unknown frames": frame(99, 0, 1) * 5000,
    "empty data": PLAIN + frame(DATA, 0, 1) * 5000,
    "padding alone": PLAIN + frame(DATA, 8, 1, b"\x00") * 5000,
    "small windows": frame(WINDOW, 0, 0, bytes((0, 0, 0, 1))) * 5000,
    "continuations": frame(HEADERS, 0, 1, block((":status", "200"))) + frame(CONTINUATION, 0, 1, b"") * 100,
    "a long block": frame(HEADERS, 0, 1, b"\x00" * 10) + frame(CONTINUATION, 0, 1, b"\x00" * 16_000) * 6,
    "a header bomb": frame(HEADERS, END_HEADERS, 1, block((":status", "200"), ("x", "y" * 4000)) + b"\xbe" * 12_000),
    "a table beyond the limit": frame(HEADERS, END_HEADERS, 1, b"\x3f\xe1\xff\x03" + block((":status", "200"))),
    "goodbyes": frame(GOAWAY, 0, 0, b"\x7f\xff\xff\xff" + bytes(4)) * 5000,
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_the_connection(world: World, run, name: str) -> None:
    world.upstream.say = FLOODS[name]

    async def scenario() -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(KeyholeError) as caught:
            await asyncio.wait_for(world.get(), 20)
        assert caught.value.code == "upstream_unreachable"
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
        await until(lambda: not world.upstream.writers)
        assert world.upstream.frames()[-1][0] == GOAWAY

    run(scenario())


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_an_answer_without_a_body_is_whole(world: World, run, method: str) -> None:
    world.upstream.say = head(("content-length", "7"), end=True) if method == "HEAD" else head(status="204", end=True)
    assert run(world.get(method)) == (200 if method == "HEAD" else 204, b"")


@pytest.mark.parametrize(("method", "status"), [("HEAD", "200"), ("GET", "204"), ("GET", "304")])
def test_a_body_where_there_can_be_none_is_not_taken_for_another_answer(
    world: World, run, method: str, status: str
) -> None:
    world.upstream.say = head(status=status) + frame(DATA, 0, 1, b"HTTP/1.1 200 OK\r\n\r\n")

    async def scenario() -> tuple[int, bytes]:
        return await world.get(method)

    assert run(scenario()) == (int(status), b"")


def test_an_answer_ends_where_it_says_so_whatever_follows(world: World, run) -> None:
    world.upstream.say = OK + frame(DATA, 0, 1, b"more")
    assert run(world.get()) == (200, b"ok")


def test_an_upstream_that_allows_nothing_at_once_is_not_waited_for(world: World, run) -> None:
    world.upstream.settings = frame(SETTINGS, 0, 0, bytes((0, 3, 0, 0, 0, 0)))
    world.upstream.say = frame(RST, 0, 1, bytes((0, 0, 0, 7)))

    async def scenario() -> None:
        for _ in range(3):
            with pytest.raises(KeyholeError) as caught:
                await asyncio.wait_for(world.get("POST"), 20)
            assert caught.value.code == "upstream_unreachable"

    run(scenario())


def test_a_connection_that_ends_without_an_answer_is_told(world: World, run) -> None:
    world.upstream.say = PLAIN
    world.upstream.closes = True

    async def scenario() -> None:
        with pytest.raises(KeyholeError) as caught:
            await world.get()
        assert caught.value.code == "upstream_unreachable"

    run(scenario())
