"""Frames that were made to trick or to exhaust: the upstream's log stays clean, and the proxy stays small."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import tracemalloc
from collections.abc import Callable
from typing import NoReturn

import pytest

from faces.proxy.h2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    Answer,
    Client,
    Fields,
    frame,
    request,
    reset,
    settings,
    window,
)
from faces.proxy.rig import HOST, OK, Received, Rig, until, vectors
from keyhole.core.message import Call
from keyhole.net.http1.limits import ListenerLimits
from keyhole.net.http2.limits import Http2Limits

LIMITS = ListenerLimits(linger=0.2)
SECOND = b"GET /smuggled HTTP/1.1\r\nHost: " + HOST.encode() + b"\r\n\r\n"
CALM, PROTOCOL, FLOW, CLOSED, SIZE, COMPRESSION = 11, 1, 3, 5, 6, 9


def changed(fields: Fields, **values: bytes) -> Fields:
    return [(name, values.get(name[1:].decode(), value) if name[:1] == b":" else value) for name, value in fields]


def _with(*more: tuple[bytes, bytes]) -> Fields:
    return [*request(method=b"POST"), *more]


# What is wrong with one request, by the name of its case in the corpus, or a name of ours.
MALFORMED: dict[str, Fields] = {
    "h2-te-chunked": _with((b"transfer-encoding", b"chunked")),
    "h2-connection-hdr": _with((b"connection", b"close")),
    "h2-keepalive-hdr": _with((b"keep-alive", b"1"), (b"proxy-connection", b"x"), (b"upgrade", b"h2c")),
    "upgrade alone": _with((b"upgrade", b"websocket")),
    "http2-settings": _with((b"http2-settings", b"AAMAAABkAAQAAP__")),
    "h2-te-gzip": _with((b"te", b"gzip")),
    "te of two": _with((b"te", b"trailers, gzip")),
    "h2-upper-name": _with((b"X-Upper", b"1")),
    "h2-lf-name": _with((b"x\ny", b"1")),
    "colon in a name": _with((b"x:y", b"1")),
    "space in a name": _with((b"x y", b"1")),
    "empty name": _with((b"", b"1")),
    "cr in a value": _with((b"x", b"a\rb")),
    "lf in a value": _with((b"x", b"a\r\nhost: evil.test")),
    "nul in a value": _with((b"x", b"a\0b")),
    "space before a value": _with((b"x", b" a")),
    "tab after a value": _with((b"x", b"a\t")),
    "h2-path-crlf": request(b"/a HTTP/1.1\r\nHost: x\r\n\r\n" + SECOND),
    "h2-path-space": request(b"/a HTTP/1.1"),
    "h2-path-absolute": request(b"http://evil.test/"),
    "asterisk": request(b"*", b"OPTIONS"),
    "empty path": request(b""),
    "fragment": request(b"/a#b"),
    "h2-scheme-inject": changed(request(), scheme=b"http://evil.test/?"),
    "other scheme": changed(request(), scheme=b"http"),
    "h2-authority-vs-host": _with((b"host", b"evil.test")),
    "two hosts": _with((b"host", HOST.encode()), (b"host", HOST.encode())),
    "h2-authority-userinfo": changed(request(), authority=b"a@evil.test"),
    "userinfo of the host": changed(request(), authority=b"a@" + HOST.encode()),
    "path in the authority": changed(request(), authority=HOST.encode() + b"/x"),
    "other port": changed(request(), authority=HOST.encode() + b":8443"),
    "h2-coalesced": changed(request(), authority=b"other.allowed.test"),
    "no authority": [pair for pair in request() if pair[0] != b":authority"],
    "h2-dup-pseudo": [(b":path", b"/other"), *request()],
    "pseudo after others": [(b"x", b"1"), *request()],
    "h2-unknown-pseudo": [(b":protocol", b"websocket"), *request()],
    "pseudo of answers": [(b":status", b"200"), *request()],
    "pseudo of nobody": [(b":nobody", b"1"), *request()],
    "no method": request()[1:],
    "no scheme": [pair for pair in request() if pair[0] != b":scheme"],
    "no path": [pair for pair in request() if pair[0] != b":path"],
    "lower-case method": request(method=b"get"),
    "method with a line end": request(method=b"GET / HTTP/1.1\r\nx: y\r\n\r\nGET"),
    "trace": request(method=b"TRACE"),
    "two lengths": _with((b"content-length", b"0"), (b"content-length", b"0")),
    "length that is none": _with((b"content-length", b"+5")),
    "length without a body": _with((b"content-length", b"5")),
    "underscores": _with((b"content_length", b"5")),
    "many headers": _with(*((b"x-%d" % number, b"1") for number in range(200))),
    "long value": _with((b"x", b"a" * 20_000)),
    "long path": request(b"/" + b"a" * 9000),
    "dots in the path": request(b"/v1/public/../admin"),
    "connect with a path": changed(request(), method=b"CONNECT"),
}
# Frames after which the connection is at its end, and the code of that end.
FATAL: dict[str, tuple[Callable[[Client], bytes], int]] = {
    "h2-rapid-reset": (lambda c: b"".join(c.headers(request()) + reset(c.last) for _ in range(10_000)), CALM),
    "h2-continuation-flood": (
        lambda c: frame(HEADERS, 0, 1, c.encoder.encode(request())) + frame(9, 0, 1, b"\x82" * 64) * 10_000,
        CALM,
    ),
    "large continuations": (lambda c: frame(HEADERS, 0, 1, b"\x82") + frame(9, 0, 1, b"\x82" * 16_384) * 8, CALM),
    "h2-settings-flood": (lambda _: settings(window=65_535) * 100_000, CALM),
    "h2-ping-flood": (lambda _: frame(PING, 0, 0, bytes(8)) * 100_000, CALM),
    "priority flood": (lambda _: frame(2, 0, 1, bytes(5)) * 100_000, CALM),
    "flood of unknown frames": (lambda _: frame(0xBE) * 100_000, CALM),
    "flood of empty data": (lambda c: c.headers(request(), end=False) + frame(DATA, 0, 1) * 100_000, CALM),
    "flood of small windows": (lambda c: c.headers(request(), end=False) + window(1, 1) * 100_000, CALM),
    "flood of malformed": (lambda c: b"".join(c.headers(request(b"no path")) for _ in range(2_000)), CALM),
    "flood of refused": (lambda c: b"".join(c.headers(request(), end=False) for _ in range(2_000)), CALM),
    "header bomb": (
        lambda c: frame(HEADERS, 4, 1, c.encoder.encode([(b"x", b"a" * 4000)]) + b"\xbe" * 12_000),
        CALM,
    ),
    "many fields of one byte": (lambda _: frame(HEADERS, 4, 1, b"\x82" * 16_000), CALM),
    "index out of the table": (lambda _: frame(HEADERS, 4, 1, b"\xff\xff\x03"), COMPRESSION),
    "index zero": (lambda _: frame(HEADERS, 4, 1, b"\x80"), COMPRESSION),
    "late table update": (lambda _: frame(HEADERS, 4, 1, b"\x82\x20"), COMPRESSION),
    "large table": (lambda _: frame(HEADERS, 4, 1, b"\x3f\xff\xff\x03"), COMPRESSION),
    "data within headers": (lambda _: frame(HEADERS, 0, 1, b"\x82") + frame(DATA, 0, 1), PROTOCOL),
    "lone continuation": (lambda _: frame(9, 4, 1, b"\x82"), PROTOCOL),
    "even stream": (lambda _: frame(HEADERS, 5, 2, b"\x82"), PROTOCOL),
    "stream zero": (lambda _: frame(HEADERS, 5, 0, b"\x82"), PROTOCOL),
    "data on no stream": (lambda _: frame(DATA, 0, 1, b"x"), PROTOCOL),
    "data on stream zero": (lambda _: frame(DATA, 0, 0, b"x"), PROTOCOL),
    "reset of nothing": (lambda _: reset(5), PROTOCOL),
    "push": (lambda _: frame(5, 4, 1, bytes(8)), PROTOCOL),
    "window of nothing": (lambda _: window(0, 0), PROTOCOL),
    "window too large": (lambda _: window(0, 2**31 - 1), FLOW),
    "initial window too large": (lambda _: settings(window=2**31), FLOW),
    "push setting": (lambda _: settings(push=2), PROTOCOL),
    "frame setting": (lambda _: settings(frame=100), PROTOCOL),
    "odd settings": (lambda _: frame(SETTINGS, 0, 0, bytes(5)), SIZE),
    "settings on a stream": (lambda _: frame(SETTINGS, 0, 1), PROTOCOL),
    "short ping": (lambda _: frame(PING, 0, 0, bytes(7)), SIZE),
    "large frame": (lambda _: frame(DATA, 0, 1, bytes(16_385)), SIZE),
    "too much padding": (lambda c: c.headers(request(), end=False) + frame(DATA, 8, 1, b"\x09x"), PROTOCOL),
    "data after the end": (lambda c: c.headers(request()) + frame(DATA, 1, 1, SECOND), CLOSED),
    "headers after the end": (lambda c: c.headers(request()) + c.headers(request(), stream=1), CLOSED),
    "data after its reset": (lambda c: c.headers(request(), end=False) + reset(1) + frame(DATA, 1, 1, b"x"), CLOSED),
}
# Cases of the corpus that have a test of their own.
APART = {"h2-cl-mismatch", "h2-pseudo-in-trailers", "h2-zero-window"}


def test_every_case_of_the_corpus_is_played() -> None:
    assert {row["name"] for row in vectors("proxy/h2_cases.jsonl")} <= MALFORMED.keys() | FATAL.keys() | APART


def test_every_malformed_request_is_refused_on_its_stream_and_nothing_of_it_reaches_the_upstream() -> None:
    async def run() -> None:
        async with Rig(limits=LIMITS) as rig:
            client = await Client.tunnel(rig)
            for name, fields in MALFORMED.items():
                if name == "dots in the path":  # is judged by the broker
                    continue
                answer = await client.answer(client.ask(fields))
                assert answer.status == 400, name
                assert json.loads(answer.body)["error"]["code"] in {"bad_request_framing", "invalid_request"}, name
            assert rig.upstream.accepted == 0
            assert len(rig.broker.noted) == len(MALFORMED) - 1
            assert not rig.broker.calls
            assert (await client.get()).status == 200

    asyncio.run(run())


def test_the_same_at_the_proxys_own_port() -> None:
    async def run() -> None:
        async with Rig(limits=LIMITS) as rig:
            client = await Client.plain(rig)
            for name, fields in MALFORMED.items():
                if name in {"dots in the path", "h2-coalesced", "other port", "other scheme"}:
                    continue
                plain = [(key, b"http" if (key, value) == (b":scheme", b"https") else value) for key, value in fields]
                assert (await client.answer(client.ask(plain))).status == 400, name
            assert rig.upstream.accepted == 0
            assert not rig.broker.calls

    asyncio.run(run())


@pytest.mark.parametrize("name", FATAL)
def test_whoever_breaks_the_protocol_or_floods_is_cut_off(name: str) -> None:
    make, code = FATAL[name]

    async def run() -> None:
        async with Rig(limits=LIMITS) as rig:
            rig.differential = False
            client = await Client.tunnel(rig)
            client.send(make(client))
            await client.end()
            assert client.goaway == code
            assert rig.broker.noted[-1][0] == "bad_request_framing"
            assert len(rig.upstream.requests) <= 1
            assert not any(b"smuggled" in bytes(raw) for raw in rig.upstream.raw)

    asyncio.run(run())


def test_more_of_a_body_than_its_window_allows_ends_the_connection() -> None:
    async def run() -> None:
        async with Rig(limits=LIMITS) as rig:

            async def unread(_call: Call) -> NoReturn:
                await asyncio.Event().wait()
                raise AssertionError

            rig.broker.handle = unread
            client = await Client.plain(rig)
            client.send(client.headers(request(method=b"POST", scheme=b"http"), end=False))
            await client.until(lambda: bool(client.settings))
            client.send(frame(DATA, 0, 1, bytes(16_384)) * 9)
            await client.end()
            assert client.goaway == FLOW

    asyncio.run(run())


@pytest.mark.parametrize("sent", [b"", SECOND, b"xy"])
@pytest.mark.parametrize("length", [b"0", b"1", b"70000"])
def test_a_body_that_is_not_as_long_as_declared_is_refused(sent: bytes, length: bytes) -> None:
    async def run() -> Answer | None:
        async with Rig(limits=LIMITS) as rig:
            rig.differential = False
            client = await Client.tunnel(rig)
            answer = await client.answer(client.ask(request(method=b"POST", content_length=length), sent))
            assert not any(b"smuggled" in bytes(raw) for raw in rig.upstream.raw)
            whole = len(sent) == int(length)
            assert answer.status == (200 if whole else 400)
            assert len(rig.upstream.requests) == whole
            assert (await client.get()).status == 200
            return answer

    asyncio.run(run())


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ([(b":path", b"/v1/admin")], True),
        ([(b"connection", b"close")], True),
        ([(b"x", b"a\r\nb")], True),
        ([(b"X", b"a")], True),
        ([(b"x", b"a")], False),
    ],
)
def test_trailers_that_are_none_end_the_request(fields: Fields, end: bool) -> None:
    async def run() -> None:
        async with Rig(limits=LIMITS) as rig:
            rig.differential = False
            client = await Client.tunnel(rig)
            stream = client.ask(request(method=b"POST"), b"body", end=False)
            client.send(client.headers(fields, end=end, stream=stream))
            answer = await client.answer(stream)
            assert answer.status == 400
            assert not rig.upstream.requests
            assert (await client.get()).status == 200

    asyncio.run(run())


def test_windows_that_never_open_hold_little_memory_and_end() -> None:
    async def respond(_received: Received, _writer: asyncio.StreamWriter) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000)

    async def run() -> None:
        limits = ListenerLimits(linger=0.2, write_timeout=0.5, http2=Http2Limits(streams=20))
        async with Rig(respond, limits) as rig:
            rig.differential = False
            client = await Client.tunnel(rig, first=settings(window=0))
            answers = [client.answers[client.ask(request())] for _ in range(100)]
            await client.until(lambda: all(answer.over for answer in answers))
            assert not any(answer.body or answer.ended for answer in answers)
            assert any(answer.reset == 7 for answer in answers)
            assert (await client.get()).reset == 8

    asyncio.run(run())


def test_tiny_frames_of_data_cost_no_more_memory_than_their_bytes() -> None:
    async def run() -> None:
        async with Rig(limits=LIMITS) as rig:
            rig.differential = False
            released = asyncio.Event()

            async def wait(_received: Received, _writer: asyncio.StreamWriter) -> None:
                await released.wait()

            rig.upstream.on_head = wait
            client = await Client.tunnel(rig)
            stream = client.ask(request(method=b"POST"), end=False)
            tracemalloc.start()
            for _ in range(20):
                client.send(frame(DATA, 0, stream, b"xy") * 1000)
                await client.writer.drain()
            client.send(frame(PING, 0, 0, bytes(8)))
            await client.until(lambda: client.pongs == 1)
            held = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            assert held < 600_000, held
            released.set()
            rig.upstream.on_head = None
            client.send(frame(DATA, END_STREAM, stream))
            assert (await client.answer(stream)).status == 200
            assert rig.upstream.body_bytes == 40_000

    asyncio.run(run())


def test_a_client_that_reads_nothing_cannot_pile_up_what_is_answered_by_itself() -> None:
    async def run() -> None:
        limits = ListenerLimits(linger=0.2, write_timeout=0.3, http2=Http2Limits(noise=10**9, noise_rate=1e9))
        async with Rig(limits=limits) as rig:
            _reader, writer = await rig.open()
            writer.write(PREFACE + settings())
            writer.transport.pause_reading()
            ping = frame(PING, 0, 0, bytes(8)) * 4000

            async def flood() -> None:
                for _ in range(2000):
                    writer.write(ping)
                    await writer.drain()

            with contextlib.suppress(OSError):  # reset or broken pipe, as the system sees it
                await flood()
                pytest.fail("it was never cut off")
            writer.transport.abort()

    asyncio.run(run())


@pytest.mark.parametrize("begun", [b"", PREFACE[:10], PREFACE, PREFACE + settings() + frame(HEADERS, 0, 1, b"\x82")])
def test_a_connection_that_does_not_get_to_its_point_is_closed(begun: bytes) -> None:
    async def run() -> None:
        async with Rig(limits=ListenerLimits(linger=0.1, head_timeout=0.2, idle_timeout=0.2)) as rig:
            client = Client(await rig.tunnel(alpn="h2"))
            client.send(begun)
            await client.end()
            assert rig.upstream.accepted == 0

    asyncio.run(run())


def test_what_begins_as_another_protocol_after_http2_was_agreed_on_is_cut_off() -> None:
    async def run() -> None:
        async with Rig(limits=LIMITS) as rig:
            client = Client(await rig.tunnel(alpn="h2"))
            client.send(b"GET /v1/public/a HTTP/1.1\r\nHost: " + HOST.encode() + b"\r\n\r\n")
            await client.end()
            assert client.goaway == PROTOCOL
            assert rig.upstream.accepted == 0

    asyncio.run(run())


def test_requests_of_all_connections_together_are_bounded() -> None:
    async def run() -> None:
        async with Rig(limits=ListenerLimits(linger=0.2, connections=4)) as rig:
            released = asyncio.Event()

            async def late(_received: Received, _writer: asyncio.StreamWriter) -> bytes:
                await released.wait()
                return OK

            rig.upstream.respond = late
            clients = [await Client.tunnel(rig) for _ in range(2)]
            answers = [client.answers[client.ask(request())] for client in clients for _ in range(3)]
            await until(lambda: sum(answer.reset == 7 for answer in answers) == 2)
            released.set()
            await until(lambda: sum(answer.status == 200 for answer in answers) == 4)
            assert (await clients[0].get()).status == 200

    asyncio.run(run())


def test_random_frames_never_reach_the_upstream_and_never_stop_the_listener() -> None:
    chance = random.Random(9113)

    def noise(client: Client) -> bytes:
        kind, flags, stream = chance.randrange(12), chance.choice([0, 1, 4, 5, 8, 0x2D]), chance.choice([0, 1, 1, 3, 5])
        if kind == HEADERS and chance.random() < 0.5:
            return frame(HEADERS, END_HEADERS, stream, client.encoder.encode(request(b"no path")))
        return frame(kind, flags, stream, chance.randbytes(chance.choice([0, 4, 5, 6, 8, 40])))

    async def one(rig: Rig) -> None:
        client = await Client.plain(rig)
        client.send(b"".join(noise(client) for _ in range(20)))
        client.send(frame(PING, 0, 0, bytes(8)))
        await client.until(lambda: client.pongs > 0 or client.closed)
        client.writer.close()

    async def run() -> None:
        async with Rig(limits=LIMITS) as rig:
            for _ in range(60):
                try:
                    await one(rig)
                except ConnectionError:
                    continue
            assert rig.upstream.accepted == 0
            assert (await (await Client.tunnel(rig)).get()).status == 200

    asyncio.run(run())
