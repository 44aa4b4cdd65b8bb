"""Bodies that trickle: a byte now and then is no more than silence, and silence has an end."""

from __future__ import annotations

import asyncio

import pytest

from broker.stack import read_reply
from faces.proxy.h2 import DATA, Client, frame, request
from faces.proxy.rig import Received, Rig, get, until
from keyhole.broker.upstream import UpstreamLimits, UpstreamTimeouts
from keyhole.faces.api.server import ApiServer
from keyhole.net.http1.limits import ListenerLimits
from keyhole.net.http1.pace import Pace, TooSlow, window_for

pytestmark = pytest.mark.usefixtures("either_loop")
EVERY = 0.02  # seconds between the bytes of a drip: never silent for as long as silence is allowed
SLOW = UpstreamLimits(timeouts=UpstreamTimeouts(rate=1000.0, window=0.1))
LISTENER = ListenerLimits(body_rate=1000.0, rate_window=0.1, linger=0.2)


def _drip(head: bytes, piece: bytes, pieces: int = 10_000):
    """An upstream that begins to answer, and goes on a piece at a time."""

    async def respond(_received: Received, writer: asyncio.StreamWriter) -> bytes | None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
        for _ in range(pieces):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(EVERY)
        return b"0\r\n\r\n" if b"chunked" in head else b""

    return respond


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"Content-Length: 9999\r\n", b"x"),
        (b"Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n"),
        (b"Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n", b"1;" + b"e" * 200 + b"\r\nx\r\n"),
        (b"Connection: close\r\n", b"x"),
    ],
    ids=["declared", "chunked", "chunk-extensions", "until-close"],
)
def test_an_answer_that_drips_is_cut_and_never_looks_whole(head: bytes, piece: bytes) -> None:
    async def run() -> None:
        async with Rig(_drip(head, piece), upstream=SLOW) as rig, asyncio.timeout(60):
            reader, writer = await rig.open()
            writer.write(get())
            reply = await read_reply(reader)
            assert reply.status == 200
            assert not reply.whole
            assert set(reply.body) == {ord("x")}
            await until(lambda: rig.upstream.open == 0)
            assert rig.pool.idle == 0

    asyncio.run(run())


@pytest.mark.parametrize("kind", [b"text/event-stream", b"application/x-ndjson; charset=utf-8", b"application/grpc"])
def test_an_event_stream_may_be_as_slow_as_its_events(kind: bytes) -> None:
    async def run() -> None:
        head = b"Transfer-Encoding: chunked\r\nContent-Type: " + kind + b"\r\n"
        async with Rig(_drip(head, b"1\r\nx\r\n", 50), upstream=SLOW) as rig, asyncio.timeout(60):
            reader, writer = await rig.open()
            writer.write(get())
            reply = await read_reply(reader)
            assert (reply.whole, len(reply.body)) == (True, 50)

    asyncio.run(run())


def test_a_long_poll_may_be_silent_and_then_say_little() -> None:
    async def respond(_received: Received, writer: asyncio.StreamWriter) -> bytes | None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(1.0)  # many windows, without a byte
        writer.write(b"an")
        await writer.drain()
        await asyncio.sleep(EVERY)
        return b" event"

    async def run() -> None:
        async with Rig(respond, upstream=SLOW) as rig, asyncio.timeout(60):
            reader, writer = await rig.open()
            writer.write(get())
            assert (await read_reply(reader)).body == b"an event"

    asyncio.run(run())


def test_chunk_framing_is_no_progress() -> None:
    """A size line or a trailer that drips keeps no answer alive, since none of it is payload."""

    async def respond(_received: Received, writer: asyncio.StreamWriter) -> bytes | None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: ")
        for _ in range(10_000):
            writer.write(b"y")
            await writer.drain()
            await asyncio.sleep(EVERY)
        return None

    async def run() -> None:
        patient = UpstreamLimits(timeouts=UpstreamTimeouts(body=0.3, rate=0.0))
        async with Rig(respond, upstream=patient) as rig, asyncio.timeout(60):
            reader, writer = await rig.open()
            writer.write(get())
            reply = await read_reply(reader)
            assert (reply.body, reply.whole) == (b"x", False)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("framing", "piece"),
    [(b"Content-Length: 9999\r\n", b"x"), (b"Transfer-Encoding: chunked\r\n", b"1;" + b"e" * 200 + b"\r\nx\r\n")],
    ids=["declared", "chunked"],
)
def test_a_request_that_drips_is_refused_and_never_completed_upstream(framing: bytes, piece: bytes) -> None:
    async def run() -> None:
        async with Rig(limits=LISTENER) as rig, asyncio.timeout(60):
            rig.differential = False
            reader, writer = await rig.open()
            writer.write(get(method="POST", headers=framing))
            answer = asyncio.ensure_future(read_reply(reader))
            while not answer.done():
                writer.write(piece)
                await asyncio.sleep(EVERY)
            reply = await answer
            assert (reply.status, reply.code) == (400, "bad_request_framing")
            assert b"slow" in reply.body
            await until(lambda: rig.upstream.open == 0)
            assert not rig.upstream.requests

    asyncio.run(run())


def test_a_request_by_http2_that_drips_is_refused_and_never_completed_upstream() -> None:
    async def run() -> None:
        async with Rig(limits=LISTENER) as rig, asyncio.timeout(60):
            rig.differential = False
            client = await Client.tunnel(rig)
            stream = client.ask(request(method=b"POST"), b"x", end=False)
            while not client.answers[stream].over:
                client.send(frame(DATA, 0, stream, b"x"))
                await asyncio.sleep(EVERY)
            answer = await client.answer(stream)
            assert answer.status == 400
            assert b"slow" in answer.body
            assert not rig.upstream.requests

    asyncio.run(run())


def test_a_client_that_streams_events_may_be_slow() -> None:
    async def run() -> None:
        async with Rig(limits=LISTENER) as rig, asyncio.timeout(60):
            reader, writer = await rig.open()
            kind = b"Content-Type: application/x-ndjson\r\n"
            writer.write(get(method="POST", headers=b"Transfer-Encoding: chunked\r\n" + kind))
            for _ in range(20):
                writer.write(b"1\r\n\n\r\n")
                await asyncio.sleep(EVERY)
            writer.write(b"0\r\n\r\n")
            assert (await read_reply(reader)).status == 200

    asyncio.run(run())


def test_the_api_cuts_a_body_that_drips_whatever_it_calls_itself() -> None:
    async def application(_scope, receive, send) -> None:
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def run() -> None:
        server = ApiServer(application, LISTENER)
        reader, writer = await asyncio.open_connection(*await server.listen("127.0.0.1", 0))
        writer.write(
            b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n"
        )
        answer = asyncio.ensure_future(read_reply(reader))
        async with asyncio.timeout(60):
            while not answer.done():
                writer.write(b"x")
                await asyncio.sleep(EVERY)
        assert (await answer).status == 400
        writer.close()
        await server.close(1.0)

    asyncio.run(run())


def test_a_consumer_that_is_slow_does_not_make_the_sender_slow() -> None:
    """Only waits count: a body that is there whenever it is asked for may take as long as its reader likes."""

    def play(wait: float) -> None:
        pace = Pace(100.0, 1.0)
        for received in range(0, 1000, 2):
            pace.check(received)
            pace.waited(wait)

    play(0.01)
    with pytest.raises(TooSlow):
        play(0.03)


def test_a_body_that_is_made_while_it_is_sent_has_more_time() -> None:
    json = {b"content-type": b"application/json"}
    assert window_for(json, 60.0, declared=False) > window_for(json, 60.0, declared=True) == 60.0
    assert window_for({b"content-type": b"Text/Event-Stream; charset=utf-8"}, 60.0, declared=True) == float("inf")


def test_a_limit_of_zero_is_none() -> None:
    async def run() -> None:
        none = UpstreamLimits(timeouts=UpstreamTimeouts(rate=0.0, window=0.05))
        async with Rig(_drip(b"Content-Length: 20\r\n", b"x", 20), upstream=none) as rig, asyncio.timeout(60):
            reader, writer = await rig.open()
            writer.write(get())
            assert (await read_reply(reader)).body == b"x" * 20

    asyncio.run(run())
