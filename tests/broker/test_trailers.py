"""Fields after a body, in both directions: judged, never a way around what the head was judged by."""

from __future__ import annotations

import pytest

from broker.stack import HOST, SECRET, Reply, Stack, read_reply

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"


@pytest.fixture(scope="module")
def token(module_stack: Stack, runner) -> str:
    async def prepare() -> str:
        await module_stack.secret("stripe/key")
        await module_stack.service("stripe")
        return await module_stack.agent("trailing", "stripe")

    return runner.run(prepare())


def ask(stack: Stack, token: str, headers: bytes = b"", body: bytes = b"", method: str = "GET"):
    async def talk() -> bytes:
        reader, writer = await stack.tunnel(token)
        head = f"{method} /v1/x HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\nConnection: close\r\n".encode()
        writer.write(head + headers + b"\r\n" + body)
        return await reader.read()

    return talk()


@pytest.mark.parametrize(
    "te", [b"TE: trailers\r\n", b"te: gzip;q=0.5, Trailers\r\n", b"TE: gzip\r\nTE: trailers;q=1\r\n"]
)
def test_trailers_of_an_answer_reach_a_client_that_takes_them(stack: Stack, run, token: str, te: bytes) -> None:
    stack.upstream.say = CHUNKED + b"X-Checksum: 1234\r\nServer-Timing: db;dur=3\r\n\r\n"
    received = run(ask(stack, token, te))
    assert received.endswith(b"0\r\nx-checksum: 1234\r\nserver-timing: db;dur=3\r\n\r\n")


@pytest.mark.parametrize("te", [b"", b"TE: gzip\r\n", b"TE: x-trailers\r\n"])
def test_other_clients_get_none(stack: Stack, run, token: str, te: bytes) -> None:
    stack.upstream.say = CHUNKED + b"X-Checksum: 1234\r\n\r\n"
    assert run(ask(stack, token, te)).endswith(b"ok\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "field",
    [
        b"Content-Length: 9",
        b"Transfer-Encoding: chunked",
        b"Set-Cookie: a=b",
        b"Location: https://evil.test/",
        b"Content-Type: text/html",
        b'Alt-Svc: h2=":1"',
        b"X-Keyhole-Error: no_service",
        b"X-Key: " + SECRET.encode(),
        b"X-" + SECRET.encode().hex().encode() + b": 1",
    ],
)
def test_what_a_trailer_must_not_say_or_show_is_left_out(stack: Stack, run, token: str, field: bytes) -> None:
    stack.upstream.say = CHUNKED + field + b"\r\nX-Kept: 1\r\n\r\n"
    received = run(ask(stack, token, b"TE: trailers\r\n"))
    assert received.endswith(b"ok\r\n0\r\nx-kept: 1\r\n\r\n")
    assert SECRET.encode() not in received


def test_trailers_of_a_request_reach_the_upstream_but_for_those_that_were_judged_before(
    stack: Stack, run, token: str
) -> None:
    body = b"3\r\nabc\r\n0\r\nX-Checksum: 1\r\nAuthorization: Bearer evil\r\nHost: evil.test\r\nX-Mine: 2\r\n\r\n"
    headers = b"X-Mine: 1\r\nTransfer-Encoding: chunked\r\n"
    assert run(ask(stack, token, headers, body, "POST")).startswith(b"HTTP/1.1 200")
    assert stack.upstream.last.body == b"abc"
    assert stack.upstream.last.trailers == b"x-checksum: 1\r\n\r\n"


def test_a_value_in_a_trailer_does_not_leave(stack: Stack, run, token: str) -> None:
    body = b"3\r\nabc\r\n0\r\nX-Mine: " + SECRET.encode() + b"\r\n\r\n"

    async def post() -> Reply:
        reader, writer = await stack.tunnel(token)
        head = f"POST /v1/x HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head.encode() + body)
        return await read_reply(reader)

    assert run(post()).code == "policy_denied"
    assert SECRET.encode() not in stack.upstream.received.replace(b"Bearer " + SECRET.encode(), b"")
