"""Answers of hostile and of odd upstreams.

No byte of one answer is ever taken for another's, and none looks whole that is not.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl

import pytest

from faces.proxy.rig import GUARD, OK, Received, Rig, converse, get, read_answer, until, vectors
from keyhole.broker.upstream import UpstreamLimits, UpstreamTimeouts
from keyhole.core.message import Message

pytestmark = pytest.mark.usefixtures("either_loop")
MINE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine"


def _once(hostile: bytes, then: bytes = MINE):
    """Answer the first request of a connection's life with these bytes, and all others well."""
    turns = iter([hostile])

    async def respond(_received: Received, _writer: asyncio.StreamWriter) -> bytes:
        return next(turns, then)

    return respond


def _case(name: str) -> bytes:
    return next(
        base64.b64decode(row["raw_b64"]) for row in vectors("smuggling/own_responses.jsonl") if row["name"] == name
    )


def _play(hostile: bytes, method: str = "GET", *, close: bool = False) -> tuple[bytes, bool, Rig]:
    """What the client got for the hostile answer; then checks that the next request gets its own answer."""

    async def run() -> tuple[bytes, bool, Rig]:
        async def respond(received: Received, writer: asyncio.StreamWriter) -> bytes | None:
            answer = await base(received, writer)
            if close and answer is hostile:
                writer.write(answer)
                return None
            return answer

        base = _once(hostile)
        async with Rig(respond) as rig:
            first = get("/first", method=method, headers=b"Connection: close\r\n")
            received, closed = await converse(await rig.open(), first, 2.0)
            reader, writer = await rig.open()
            writer.write(get("/second"))
            status, _, body = await read_answer(reader)
            assert (status, body) == (200, b"mine")
            return received, closed, rig

    return asyncio.run(run())


@pytest.mark.parametrize(
    "name",
    [
        "resp-cl-te",
        "resp-cl-two",
        "resp-header-lf",
        "resp-header-nul",
        "resp-obsfold",
        "resp-101-unasked",
        "resp-status-junk",
        "resp-http09",
    ],
)
def test_an_answer_that_can_be_read_in_two_ways_is_a_502(name: str) -> None:
    received, _, rig = _play(_case(name))
    assert received.startswith(b"HTTP/1.1 502 ")
    assert b"upstream_unreachable" in received
    assert b"evil" not in received.lower()
    assert rig.upstream.accepted == 2  # the connection was not used again


def test_endless_1xx_answers_are_cut_and_a_few_are_swallowed() -> None:
    received, _, _ = _play(b"HTTP/1.1 102 Processing\r\n\r\n" * 5000 + OK)
    assert received.startswith(b"HTTP/1.1 502 ")
    received, _, _ = _play(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + OK)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"Early" not in received


def test_too_many_headers_are_a_502() -> None:
    many = b"".join(b"X-%d: 1\r\n" % number for number in range(10_000))
    received, _, _ = _play(b"HTTP/1.1 200 OK\r\n" + many + b"Content-Length: 0\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(("name", "method"), [("resp-extra-after-body", "GET"), ("resp-head-with-body", "HEAD")])
def test_bytes_after_an_answer_are_dropped_with_their_connection(name: str, method: str) -> None:
    received, _, rig = _play(_case(name), method)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"EVIL" not in received
    assert received.endswith(b"\r\n\r\n" if method == "HEAD" else b"hello")
    assert rig.upstream.accepted == 2


@pytest.mark.parametrize("status", [204, 304])
def test_a_body_where_none_can_be_is_not_the_next_answer(status: int) -> None:
    received, _, rig = _play(b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\nhello" % status)
    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert received.endswith(b"\r\n\r\n")
    assert rig.upstream.accepted == 2


@pytest.mark.parametrize(
    "hostile",
    [
        _case("resp-chunk-neg"),
        _case("resp-chunk-huge"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX" + b"a" * 70_000,
    ],
)
def test_broken_framing_is_never_a_whole_answer(hostile: bytes) -> None:
    received, closed, _ = _play(hostile)
    if received.startswith(b"HTTP/1.1 502 "):
        assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["hint"]
    else:
        assert closed
        assert not received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    "truncated",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ],
)
def test_a_truncated_answer_never_ends_cleanly(truncated: bytes) -> None:
    received, closed, _ = _play(truncated, close=True)
    assert closed or received.startswith(b"HTTP/1.1 502 ")
    assert not received.endswith(b"0\r\n\r\n")
    if received.startswith(b"HTTP/1.1 200"):
        assert b"Content-Length: 50" in received or b"chunked" in received


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_answer_that_ends_with_its_connection_is_framed_anew(version: str) -> None:
    async def run() -> None:
        async def respond(_received: Received, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it")

        async with Rig(respond) as rig:
            rig.differential = False
            raw = get().replace(b"HTTP/1.1", b"HTTP/" + version.encode())
            received, closed = await converse(await rig.open(), raw, 0.3)
            assert b"all of it" in received
            if version == "1.0":
                assert b"chunked" not in received
                assert closed
            else:
                assert received.endswith(b"0\r\n\r\n")
                assert not closed

    asyncio.run(run())


def test_a_tls_connection_that_is_cut_is_not_the_end_of_a_body() -> None:
    async def run() -> None:
        async def respond(_received: Received, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")
            await writer.drain()
            writer.transport.abort()  # no close_notify

        async with Rig(respond) as rig:
            rig.differential = False
            received, closed = await converse(await rig.tunnel(), get(absolute=False), 2.0)
            assert closed
            assert not received.endswith(b"0\r\n\r\n")

    asyncio.run(run())


def test_a_truncated_answer_to_an_http10_client_ends_in_a_reset() -> None:
    async def run() -> None:
        async def respond(_received: Received, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            await writer.drain()
            await hold.wait()

        async with Rig(respond) as rig:
            rig.differential = False
            hold = asyncio.Event()
            reader, writer = await rig.open()
            writer.write(get().replace(b"HTTP/1.1", b"HTTP/1.0"))
            await reader.readuntil(b"hello")
            hold.set()
            with pytest.raises(ConnectionResetError):
                await reader.read()

    asyncio.run(run())


def test_a_redirect_is_passed_on_and_not_followed() -> None:
    async def run() -> None:
        location = b"HTTP/1.1 307 X\r\nLocation: https://evil.test/\r\nContent-Length: 0\r\n\r\n"
        async with Rig(_once(location)) as rig:
            reader, writer = await rig.open()
            writer.write(get())
            status, headers, _ = await read_answer(reader)
            assert (status, headers[b"location"]) == (307, b"https://evil.test/")
            assert len(rig.upstream.requests) == 1

    asyncio.run(run())


def test_hop_by_hop_headers_and_ways_around_the_proxy_are_not_passed_on() -> None:
    async def run() -> None:
        hostile = (
            b"HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nAlt-Svc: h3\r\n"
            b"Upgrade: h2c\r\nProxy-Authenticate: Basic\r\nX-Keyhole-Error: spoofed\r\nX-End: 2\r\n"
            b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok"
        )
        async with Rig(_once(hostile)) as rig:
            received, _ = await converse(await rig.open(), get(), 0.2)
            names = [line.partition(b":")[0].lower() for line in received.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
            assert sorted(names) == [b"content-length", b"set-cookie", b"set-cookie", b"via", b"x-end"]

    asyncio.run(run())


def test_head_keeps_the_length_that_get_would_have() -> None:
    async def run() -> None:
        async with Rig(_once(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")) as rig:
            reader, writer = await rig.open()
            for _ in range(2):
                writer.write(get(method="HEAD"))
                status, headers, _ = await read_answer(reader, "HEAD")
                assert status == 200
                assert headers[b"content-length"] in {b"1234", b"4"}
                rig.upstream.respond = _once(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
            assert rig.upstream.accepted == 1

    asyncio.run(run())


def test_an_idle_connection_that_receives_bytes_is_not_used_again() -> None:
    async def run() -> None:
        async with Rig() as rig:
            writers: list[asyncio.StreamWriter] = []

            async def respond(_received: Received, writer: asyncio.StreamWriter) -> bytes:
                writers.append(writer)
                return MINE

            rig.upstream.respond = respond
            reader, writer = await rig.open()
            writer.write(get())
            assert (await read_answer(reader))[2] == b"mine"
            await until(lambda: rig.pool.idle == 1)
            writers[0].write(_case("resp-unsolicited-early"))
            writer.write(get())  # at once: the bytes may still be in the kernel
            assert (await read_answer(reader))[2] == b"mine"
            assert rig.upstream.accepted == 2

    asyncio.run(run())


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("body", [b"Content-Length: 2\r\n\r\nhi", b"Content-Length: 0\r\n\r\n", b"\r\n"])
def test_a_connection_that_the_upstream_closed_is_replaced_without_the_client_noticing(
    method: str, body: bytes
) -> None:
    async def run() -> None:
        async def respond(received: Received, _writer: asyncio.StreamWriter) -> bytes | None:
            number = sum(one.connection == received.connection for one in rig.upstream.requests)
            return OK if number == 1 else None  # the second request on a connection finds it closed

        async with Rig(respond) as rig:
            reader, writer = await rig.open()
            for _ in range(3):
                writer.write(get())
                assert (await read_answer(reader))[0] == 200
            writer.write(get(method=method).removesuffix(b"\r\n") + body)
            assert (await read_answer(reader))[0] == 502
            sent = [one.line.split(b" ")[0].decode() for one in rig.upstream.requests]
            assert sent.count(method) == 1, "never sent twice"

    asyncio.run(run())


def test_an_upstream_that_does_not_answer_is_a_504() -> None:
    async def run() -> None:
        async def respond(_received: Received, _writer: asyncio.StreamWriter) -> None:
            await release.wait()

        limits = UpstreamLimits(timeouts=UpstreamTimeouts(answer=0.1))
        async with Rig(respond, upstream=limits) as rig:
            release = asyncio.Event()
            reader, writer = await rig.open()
            writer.write(get())
            status, headers, body = await read_answer(reader)
            assert (status, headers[b"x-keyhole-error"]) == (504, b"upstream_timeout")
            assert json.loads(body)["error"]["hint"]
            release.set()

    asyncio.run(run())


def test_an_untrusted_upstream_gets_no_request() -> None:
    async def run() -> None:
        async with Rig() as rig:
            rig.pool._tls_context = lambda _origin: ssl.create_default_context()
            reader, writer = await rig.tunnel()
            writer.write(get(absolute=False))
            status, headers, _ = await read_answer(reader)
            assert (status, headers[b"x-keyhole-error"]) == (502, b"upstream_tls")
            assert not rig.upstream.requests

    asyncio.run(run())


def test_connections_are_kept_for_their_key_only_and_sessions_are_resumed() -> None:
    async def run() -> None:
        resumed: list[bool] = []

        async def respond(_received: Received, writer: asyncio.StreamWriter) -> bytes | None:
            resumed.append(writer.get_extra_info("ssl_object").session_reused)
            return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"

        async with Rig() as rig:
            rig.differential = False

            async def send(key: str) -> None:
                answer = await rig.pool.send(
                    key, Message("GET", "https", "api.allowed.test", 443, b"/", []), None, guard=GUARD
                )
                while await answer.read():
                    pass

            for key in ("a", "b", "a", "b"):
                await send(key)
            assert rig.upstream.accepted == 2
            rig.upstream.respond = respond
            with contextlib.suppress(asyncio.CancelledError):
                for key in ("a", "a", "c"):
                    await send(key)
            assert resumed == [False, True, False]

    asyncio.run(run())


def test_a_lease_that_is_cancelled_sends_nothing_and_leaves_nothing_behind() -> None:
    async def run() -> None:
        async with Rig() as rig:
            lease = rig.pool.reserve("key", "http", "api.allowed.test", 80, GUARD)
            lease.cancel()
            lease = rig.pool.reserve("key", "http", "api.allowed.test", 80, GUARD)
            answer = await lease.send(Message("GET", "http", "api.allowed.test", 80, b"/", []), None)
            while await answer.read():
                pass
            rig.pool.reserve("key", "http", "api.allowed.test", 80, GUARD).cancel()
            assert rig.pool.idle == 1
            await until(lambda: rig.upstream.open == 1)
            assert len(rig.upstream.requests) == 1

    asyncio.run(run())


def test_idle_connections_are_bounded_in_number_and_time() -> None:
    async def run() -> None:
        limits = UpstreamLimits(idle=2, idle_seconds=0.2)
        async with Rig(upstream=limits) as rig:
            streams = [await rig.open() for _ in range(6)]
            for _, writer in streams:
                writer.write(get())
            for reader, _ in streams:
                assert (await read_answer(reader))[0] == 200
            assert rig.pool.idle <= 2
            await until(lambda: rig.pool.idle == 0 and rig.upstream.open == 0)

    asyncio.run(run())
