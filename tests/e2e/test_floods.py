"""Peers that never come to an end, against a server that is a process of its own: it cuts them, in little memory."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from cli_driver import environment, serving, spawn

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the memory of another process is read from /proc")
HOST = "flood.test"
AT_ONCE = 16
GROWTH = 16 * 1024 * 1024
PIECE = 64 * 1024
LIMITS = {
    "KEYHOLE_RESOLVE": f"{HOST}:127.0.0.1",
    "KEYHOLE_ANSWER_TIMEOUT": "2",
    "KEYHOLE_HEAD_TIMEOUT": "1",
    "KEYHOLE_STREAM_RATE": "1000",
    "KEYHOLE_BODY_RATE": "1000",
    "KEYHOLE_RATE_WINDOW": "0.5",
}

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

# What each peer begins with, what it then sends for ever, and the seconds between two pieces.
ANSWERS = {
    "1xx": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 1000, 0.0),
    "1xx-without-end": (b"HTTP/1.1 103 Early Hints\r\n", b"Link: </x>\r\n" * 5000, 0.0),
    "header": (HEAD + b"X: ", b"a" * PIECE, 0.0),
    "headers": (HEAD, b"X: a\r\n" * 10_000, 0.0),
    "chunk-extension": (HEAD + CHUNKED + b"5;", b"a" * PIECE, 0.0),
    "chunk-extensions": (HEAD + CHUNKED, (b"1;" + b"a" * 200 + b"\r\nx\r\n") * 300, 0.0),
    "trailers": (HEAD + CHUNKED + b"0\r\n", b"X: a\r\n" * 10_000, 0.0),
    "body-drip": (HEAD + CHUNKED, b"1\r\nx\r\n", 0.05),
    "head-drip": (HEAD + b"X: ", b"a", 0.05),
}
POST = f"POST http://{HOST}:%d/ HTTP/1.1\r\nHost: {HOST}:%d\r\n".encode()
REQUESTS = {
    "head": (b"GET http://flood.test/ HTTP/1.1\r\nX: ", b"a" * PIECE, 0.0),
    "headers": (b"GET http://flood.test/ HTTP/1.1\r\n", b"X: a\r\n" * 10_000, 0.0),
    "chunk-extension": (POST + b"%b" + CHUNKED + b"5;", b"a" * PIECE, 0.0),
    "body-drip": (POST + b"%b" + CHUNKED, b"1\r\nx\r\n", 0.05),
    "head-drip": (b"GET http://flood.test/ HTTP/1.1\r\nX: ", b"a", 0.05),
}


class World:
    """A server, and an upstream in this process that floods whoever asks.

    Attributes:
        say: what the upstream begins with, then sends for ever, and how often.
    """

    def __init__(self, started: dict) -> None:
        self.pid = int(started["pid"])
        host, _, port = started["proxy"].rpartition("/")[2].rpartition(":")
        self.proxy = host, int(port)
        self.credential = b""
        self.say: tuple[bytes, bytes, float] | None = None
        self.port = 0
        self.env: dict[str, str] = {}
        self.serving: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            if self.say is None:
                writer.write(HEAD + b"Content-Length: 2\r\nConnection: close\r\n\r\nok")
            else:
                await pour(writer, *self.say)
            while await reader.read(PIECE):
                pass
        await gone(writer)
        self.serving.discard(task)

    async def client(self, begin: bytes, piece: bytes = b"", every: float = 0.0) -> bytes:
        """Send for ever, until the server ends the connection; what it said."""
        reader, writer = await asyncio.open_connection(*self.proxy)
        pouring = asyncio.ensure_future(pour(writer, begin, piece, every))
        received = b""
        with contextlib.suppress(OSError):
            while part := await reader.read(PIECE):
                received = (received + part)[-PIECE:]
        pouring.cancel()
        await asyncio.gather(pouring, return_exceptions=True)
        await gone(writer)
        return received

    def get(self) -> bytes:
        line = f"GET http://{HOST}:{self.port}/ HTTP/1.1\r\nHost: {HOST}:{self.port}\r\nConnection: close\r\n"
        return line.encode() + self.credential + b"\r\n"


async def gone(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def pour(writer: asyncio.StreamWriter, begin: bytes, piece: bytes, every: float) -> None:
    with contextlib.suppress(OSError):
        writer.write(begin)
        while piece:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(every)


def memory(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    env = environment(KEYHOLE_HOME=str(tmp_path_factory.mktemp("floods")), **LIMITS)
    with serving("--dev", "--dev-root-token-id", "root", env=env, real=True) as (_, started):
        made = World(started)
        env |= {"KEYHOLE_ADDR": started["api"], "KEYHOLE_TOKEN": "root"}
        assert spawn("set", "flood/key", stdin=b"value-of-the-flood", env=env).code == 0
        assert spawn("agent", "add", "flooded", env=env).code == 0
        token = spawn("agent", "token", "flooded", "--json", env=env).json["token"]
        made.credential = b"Proxy-Authorization: Basic " + base64.b64encode(f"a:{token}".encode()) + b"\r\n"
        made.env = env
        yield made


def flood(world: World, conversations: Callable[[], Awaitable[list[bytes]]]) -> list[bytes]:
    """What each of many clients at once was told, once the server has shown that it is warm. Asserts its memory."""

    async def run() -> list[bytes]:
        server = await asyncio.start_server(world.serve, "127.0.0.1", world.port)
        world.port = server.sockets[0].getsockname()[1]
        if world.env:
            await asyncio.to_thread(_bind, world)
            world.env = {}
        world.say, say = None, world.say
        world.serving.clear()
        async with server, asyncio.timeout(60):
            calm = await asyncio.gather(*(world.client(world.get()) for _ in range(AT_ONCE)))
            assert all(answer.endswith(b"ok") for answer in calm), calm[0]
            world.say = say
            before = memory(world.pid, "VmRSS")
            received = await conversations()
            grown = memory(world.pid, "VmHWM") - before
            assert grown <= GROWTH, f"{grown / 1e6:.1f} MB"
            world.say = None
            assert (await world.client(world.get())).endswith(b"ok")
            await asyncio.gather(*world.serving)
        return received

    return asyncio.run(run())


def _bind(world: World) -> None:
    address = f"{HOST}:{world.port}"
    bound = ["--host", address, "--scheme", "http", "--secret", "flood/key", "--bearer"]
    for args in (["service", "add", "flood", *bound, "--allow-address", "127.0.0.1/32"], ["grant", "flooded", "flood"]):
        done = spawn(*args, env=world.env)
        assert done.code == 0, done


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_upstream_that_never_ends_is_cut_in_little_memory(world: World, kind: str) -> None:
    world.say = ANSWERS[kind]

    async def ask() -> list[bytes]:
        return await asyncio.gather(*(world.client(world.get()) for _ in range(AT_ONCE)))

    for received in flood(world, ask):
        status = received[9:12]
        if kind in {"1xx", "1xx-without-end", "header", "headers", "head-drip"}:
            assert status in {b"502", b"504"}, received[:200]
        else:  # a 200 had to be said before the end was known: it is cut, and not ended
            assert status == b"200" or status.startswith(b"50"), received[:200]
            assert not received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_client_that_never_ends_is_cut_in_little_memory(world: World, kind: str) -> None:
    world.say = (b"", b"", 0.0)  # it waits for the whole request

    async def send() -> list[bytes]:
        begin, piece, every = REQUESTS[kind]
        if begin.startswith(b"POST"):
            begin = begin.replace(b"%d", b"%d" % world.port).replace(b"%b", world.credential)
        return await asyncio.gather(*(world.client(begin, piece, every) for _ in range(AT_ONCE)))

    for received in flood(world, send):
        # A client that goes on sending may lose the answer to a reset; it never gets a good one.
        assert received[9:12] in {b"", b"400", b"408", b"502"}, received[:200]
