"""Bodies, waiting and leaving: what flows through the proxy, and what happens when one side stops."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tracemalloc

import pytest

from faces.proxy.rig import OK, Received, Rig, converse, get, read_answer, until
from keyhole.core.errors import PolicyDenied
from keyhole.core.message import Answer, Call
from keyhole.net.http1.limits import ListenerLimits

pytestmark = pytest.mark.usefixtures("either_loop")
SIZE = 50 * 1024 * 1024
PIECE = os.urandom(64 * 1024)
EXPECT = b"Expect: 100-continue\r\n"


def _post(length: int | None, *, absolute: bool = True, headers: bytes = b"") -> bytes:
    framing = b"Transfer-Encoding: chunked\r\n" if length is None else b"Content-Length: %d\r\n" % length
    return get(absolute=absolute, method="POST", headers=framing + headers)


async def _still_usable(rig: Rig, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, times: int = 10) -> None:
    for number in range(times):
        writer.write(get(f"/after/{number}"))
        assert (await read_answer(reader))[0] == 200
        assert rig.upstream.requests[-1].line == b"GET /after/%d HTTP/1.1" % number


def test_a_client_that_waits_for_100_gets_it_when_the_body_is_wanted() -> None:
    async def run() -> None:
        async with Rig() as rig:
            reader, writer = await rig.open()
            writer.write(_post(5, headers=EXPECT))
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert not rig.upstream.requests
            writer.write(b"hello")
            assert (await read_answer(reader))[0] == 200
            assert rig.upstream.requests[0].body == b"hello"
            assert not rig.upstream.requests[0].values(b"expect")
            await _still_usable(rig, reader, writer)

    asyncio.run(run())


def test_a_client_that_does_not_wait_for_100_gets_none() -> None:
    async def run() -> None:
        async with Rig() as rig:
            reader, writer = await rig.open()
            writer.write(_post(5, headers=EXPECT) + b"hello")
            assert (await read_answer(reader))[0] == 200
            await _still_usable(rig, reader, writer)

    asyncio.run(run())


def test_a_refused_request_never_gets_100_and_its_connection_ends() -> None:
    async def run() -> None:
        async with Rig() as rig:
            rig.broker.refuse = PolicyDenied("the policy of the agent does not allow this")
            received, closed = await converse(await rig.open(), _post(5, headers=EXPECT), 2.0)
            assert received.startswith(b"HTTP/1.1 403 ")
            assert closed

    asyncio.run(run())


def test_an_upstream_that_fails_the_expectation_is_passed_on_without_losing_step() -> None:
    async def run() -> None:
        async def early(received: Received, _writer: asyncio.StreamWriter) -> bytes | None:
            if received.line.startswith(b"POST"):
                return b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            return None

        async with Rig() as rig:
            rig.differential = False
            rig.upstream.on_head = early
            reader, writer = await rig.open()
            writer.write(_post(5, headers=EXPECT))
            await reader.readuntil(b"100 Continue\r\n\r\n")
            writer.write(b"hello")
            assert (await read_answer(reader))[0] == 417
            await _still_usable(rig, reader, writer)

    asyncio.run(run())


@pytest.mark.parametrize("length", [SIZE, None])
def test_an_early_refusal_of_the_upstream_ends_the_upload_and_both_connections(length: int | None) -> None:
    async def run() -> None:
        async def early(received: Received, _writer: asyncio.StreamWriter) -> bytes | None:
            if received.line.startswith(b"POST"):
                return b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig"
            return None

        async with Rig() as rig:
            rig.differential = False
            rig.upstream.on_head = early
            reader, writer = await rig.open()
            writer.write(_post(length) + (PIECE if length else b"%x\r\n%b\r\n" % (len(PIECE), PIECE)))
            status, headers, body = await read_answer(reader)
            assert (status, headers[b"connection"], body) == (413, b"close", b"big")
            assert await reader.read() == b""
            await until(lambda: rig.pool.idle == 0)
            reader, writer = await rig.open()
            await _still_usable(rig, reader, writer, 2)
            assert [one.line.split(b" ")[0] for one in rig.upstream.requests] == [b"POST", b"GET", b"GET"]

    asyncio.run(run())


def test_an_upstream_may_begin_to_answer_while_it_still_reads() -> None:
    async def run() -> None:
        async def respond(_received: Received, writer: asyncio.StreamWriter) -> bytes:
            return b"3\r\nend\r\n0\r\n\r\n"

        async def early(_received: Received, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n")

        async with Rig(respond) as rig:
            rig.upstream.on_head = early
            reader, writer = await rig.open()
            writer.write(_post(None) + b"3\r\none\r\n")
            await reader.readuntil(b"begin\r\n")
            for number in range(20):
                writer.write(b"3\r\n%03d\r\n" % number)
                await asyncio.sleep(0)
            writer.write(b"0\r\n\r\n")
            await reader.readuntil(b"end\r\n0\r\n\r\n")
            assert rig.upstream.requests[0].body == b"one" + b"".join(b"%03d" % number for number in range(20))

    asyncio.run(run())


@pytest.mark.parametrize("length", [100, None])
def test_a_client_that_leaves_in_the_middle_of_its_body_ends_the_upstream_connection(length: int | None) -> None:
    async def run() -> None:
        async with Rig() as rig:
            rig.differential = False
            _, writer = await rig.open()
            writer.write(_post(length) + (b"hello" if length else b"5\r\nhello\r\n"))
            await until(lambda: rig.upstream.open == 1)
            writer.close()
            await until(lambda: rig.upstream.open == 0)
            assert rig.pool.idle == 0
            assert not rig.upstream.requests

    asyncio.run(run())


def test_a_body_that_turns_out_broken_is_refused_and_never_completed_upstream() -> None:
    async def run() -> None:
        async with Rig() as rig:
            rig.differential = False
            reader, writer = await rig.open()
            writer.write(_post(None) + b"5\r\nhello\r\n")
            await until(lambda: rig.upstream.open == 1)
            writer.write(b"5\nhello\r\n0\r\n\r\n")
            status, headers, _ = await read_answer(reader)
            assert (status, headers[b"x-keyhole-error"]) == (400, b"bad_request_framing")
            assert await reader.read() == b""
            await until(lambda: rig.upstream.open == 0)
            assert not rig.upstream.requests

    asyncio.run(run())


@pytest.mark.parametrize("secure", [False, True])
def test_a_client_that_leaves_in_the_middle_of_an_answer_ends_the_upstream_connection(secure: bool) -> None:
    async def run() -> None:
        async def respond(_received: Received, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
            await writer.drain()
            await forever.wait()

        async with Rig(respond, limits=ListenerLimits(linger=0.1)) as rig:
            rig.differential = False
            forever = asyncio.Event()
            reader, writer = await (rig.tunnel() if secure else rig.open())
            writer.write(get(absolute=not secure))
            await reader.readuntil(b"data: 1\n\n")
            writer.close()
            await until(lambda: rig.server.connections == 0)
            assert rig.pool.idle == 0
            forever.set()

    asyncio.run(run())


def test_a_client_that_ends_its_side_still_gets_its_answer() -> None:
    async def run() -> None:
        async with Rig() as rig:
            reader, writer = await rig.open()
            writer.write(get() + get("/second"))
            writer.write_eof()
            received = await reader.read()
            assert received.count(b"HTTP/1.1 200 OK") == 2

    asyncio.run(run())


@pytest.mark.parametrize("secure", [False, True])
def test_events_arrive_one_by_one_without_delay(secure: bool) -> None:
    async def run() -> None:
        async def respond(_received: Received, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            while (event := await events.get()) is not None:
                writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            writer.write(b"0\r\n\r\n")

        async with Rig(respond) as rig:
            events: asyncio.Queue[bytes | None] = asyncio.Queue()
            reader, writer = await (rig.tunnel() if secure else rig.open())
            writer.write(get(absolute=not secure))
            assert b"text/event-stream" in await reader.readuntil(b"\r\n\r\n")  # before there is any event
            for number in range(20):
                event = b"data: %d\n\n" % number
                await events.put(event)  # the next one is made only when this one was seen
                assert await reader.readuntil(event + b"\r\n")
            await events.put(None)
            await reader.readuntil(b"0\r\n\r\n")

    asyncio.run(run())


def test_64_clients_at_once_each_get_their_own_answer() -> None:
    async def run() -> None:
        async def respond(received: Received, _writer: asyncio.StreamWriter) -> bytes:
            path = received.line.split(b" ")[1]
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path)

        async def client(rig: Rig, number: int) -> None:
            reader, writer = await (rig.tunnel() if number % 2 else rig.open())
            for turn in range(10):
                path = f"/{number}/{turn}"
                writer.write(get(path, absolute=not number % 2))
                assert (await read_answer(reader))[2] == path.encode()

        async with Rig(respond) as rig:
            await asyncio.gather(*(client(rig, number) for number in range(64)))
            assert len(rig.upstream.requests) == 640
            assert rig.upstream.accepted <= 64

    asyncio.run(run())


@pytest.mark.parametrize("secure", [False, True])
def test_a_large_upload_passes_whole_in_little_memory(secure: bool) -> None:
    async def run() -> None:
        async with Rig() as rig:
            rig.differential = rig.upstream.keep_bodies = False
            reader, writer = await (rig.tunnel() if secure else rig.open())
            tracemalloc.start()
            writer.write(_post(SIZE, absolute=not secure))
            for _ in range(SIZE // len(PIECE)):
                writer.write(PIECE)
                await writer.drain()
            assert (await read_answer(reader))[0] == 200
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert rig.upstream.body_bytes == SIZE
            assert peak < 8 * 1024 * 1024

    asyncio.run(run())


@pytest.mark.parametrize("secure", [False, True])
def test_a_large_download_passes_whole_in_little_memory_and_waits_for_a_slow_reader(secure: bool) -> None:
    async def run() -> None:
        async def respond(_received: Received, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
            for _ in range(SIZE // len(PIECE)):
                writer.write(PIECE)
                await writer.drain()
                sent += len(PIECE)
            done.set()

        sent = 0
        done = asyncio.Event()
        async with Rig(respond) as rig:
            rig.differential = False
            reader, writer = await (rig.tunnel() if secure else rig.open())
            tracemalloc.start()
            writer.write(get(absolute=not secure))
            await reader.readuntil(b"\r\n\r\n")
            before = -1
            while sent > before:  # until nobody takes any more: the client does not read
                before = sent
                await asyncio.sleep(0.1)
            assert sent < SIZE
            digest = hashlib.sha256()
            left = SIZE
            while left:
                piece = await reader.read(65536)
                assert piece
                digest.update(piece)
                left -= len(piece)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            await done.wait()
            assert digest.digest() == hashlib.sha256(PIECE * (SIZE // len(PIECE))).digest()
            assert peak < 8 * 1024 * 1024

    asyncio.run(run())


def test_a_client_that_stops_reading_is_cut() -> None:
    async def run() -> None:
        async def respond(_received: Received, writer: asyncio.StreamWriter) -> None:
            asked.set()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
            for _ in range(SIZE // len(PIECE)):
                writer.write(PIECE)
                await writer.drain()

        asked = asyncio.Event()
        async with Rig(respond, limits=ListenerLimits(write_timeout=0.2, linger=0.1)) as rig:
            rig.differential = False
            _, writer = await rig.open()
            writer.write(get())
            await asked.wait()
            await until(lambda: rig.server.connections == 0)
            await until(lambda: rig.upstream.open == 0)

    asyncio.run(run())


@pytest.mark.parametrize("start", [b"", b"G", get()[:-2], _post(5) + b"he"])
def test_a_client_that_drips_is_cut_by_the_time_for_the_whole(start: bytes) -> None:
    async def run() -> None:
        limits = ListenerLimits(head_timeout=0.2, idle_timeout=0.2, body_timeout=0.2, linger=0.1)
        async with Rig(limits=limits) as rig:
            rig.differential = False
            reader, writer = await rig.open()
            writer.write(start)
            received = b""
            async with asyncio.timeout(60):
                while not reader.at_eof():
                    if start and start[-1:] == b"\n":
                        writer.write(b"x")  # never the end of a head
                    try:
                        received += await asyncio.wait_for(reader.read(65536), 0.05)
                    except TimeoutError:
                        continue
                    except OSError:
                        break
            assert received[:13] in {b"", b"HTTP/1.1 408 ", b"HTTP/1.1 400 "}
            assert received or not start
            assert not rig.upstream.requests

    asyncio.run(run())


def test_an_idle_tunnel_and_a_handshake_that_stalls_are_closed() -> None:
    async def run() -> None:
        async with Rig(limits=ListenerLimits(tunnel_timeout=0.2, linger=0.1)) as rig:
            for start in (b"", b"\x16\x03\x01\x02\x00"):
                received, closed = await converse(await rig.tunnel(tls=False), start, 3.0)
                assert (received, closed) == (b"", True)

    asyncio.run(run())


def test_closing_lets_a_running_answer_finish_and_ends_idle_clients() -> None:
    async def run() -> None:
        async def respond(_received: Received, _writer: asyncio.StreamWriter) -> bytes:
            arrived.set()
            await release.wait()
            return OK

        async with Rig(respond) as rig:
            arrived, release = asyncio.Event(), asyncio.Event()
            idle_reader, _ = await rig.open()
            reader, writer = await rig.open()
            writer.write(get())
            await arrived.wait()
            closing = asyncio.create_task(rig.server.close(5.0))
            assert await idle_reader.read() == b""
            release.set()
            assert (await read_answer(reader))[0] == 200
            await closing
            assert rig.server.connections == 0

    asyncio.run(run())


def test_an_answer_that_a_broker_declares_too_long_or_too_short_never_looks_whole() -> None:
    class Short:
        length = 10

        def __init__(self) -> None:
            self.pieces = [b"only5", b""]
            self.closed = False

        async def read(self) -> bytes:
            await asyncio.sleep(0)
            return self.pieces.pop(0)

        async def close(self) -> None:
            self.closed = True

    async def run() -> None:
        body = Short()

        async def handle(_call: Call) -> Answer:
            return Answer(200, b"OK", [], body)

        async with Rig() as rig:
            rig.broker.handle = handle  # type: ignore[method-assign]
            received, closed = await converse(await rig.open(), get(), 2.0)
            assert closed
            assert received.endswith(b"only5")
            assert body.closed

    asyncio.run(run())


def test_a_header_of_an_answer_cannot_add_another_line() -> None:
    async def run() -> None:
        async def handle(_call: Call) -> Answer:
            return Answer(200, b"OK", [(b"x", b"a\r\nSet-Cookie: evil=1")], None)

        async with Rig() as rig:
            rig.broker.handle = handle  # type: ignore[method-assign]
            received, _ = await converse(await rig.open(), get(), 0.2)
            assert received.startswith(b"HTTP/1.1 502 ")
            assert b"evil" not in received

    asyncio.run(run())
