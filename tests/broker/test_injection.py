"""Where a secret stands in the request that the upstream received, and what else of the request changed: nothing."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import itertools
import os
import random
import re
import zlib

import pytest

from broker.stack import HOST, SECRET, Received, Reply, Stack, read_reply, reset, until, vectors

_numbers = itertools.count()
TEXT = "sk-placeholder-0001"


async def send(
    stack: Stack, value: str | dict, inject: dict, headers: bytes = b"", path: str = "/v1/x", **more
) -> Reply:
    """One request through a new service with this secret and injection."""
    name = f"s{next(_numbers)}"
    await stack.secret(f"{name}/key", value)
    await stack.service(name, secret=f"{name}/key", inject=inject, **more)
    token = await stack.agent(name, name)
    try:
        return await stack.get(token, path, headers=headers)
    finally:
        await stack.ask("delete", f"services/{name}")


def b64(text: str) -> bytes:
    return base64.b64encode(text.encode())


@pytest.mark.parametrize(
    ("value", "inject", "name", "expected"),
    [
        (SECRET, {"kind": "bearer"}, b"authorization", b"Bearer " + SECRET.encode()),
        (SECRET, {"kind": "header", "name": "X-Api-Key"}, b"x-api-key", SECRET.encode()),
        (
            SECRET,
            {"kind": "header", "name": "authorization", "template": "Token token={}, v=1"},
            b"authorization",
            b"Token token=" + SECRET.encode() + b", v=1",
        ),
        ("user:pass:word", {"kind": "basic"}, b"authorization", b"Basic " + b64("user:pass:word")),
        (SECRET, {"kind": "basic", "user": "oauth2"}, b"authorization", b"Basic " + b64(f"oauth2:{SECRET}")),
        (
            {"username": "us\u00e9r", "password": "p:\u00e4ss word"},
            {"kind": "basic"},
            b"authorization",
            b"Basic " + b64("us\u00e9r:p:\u00e4ss word"),
        ),
    ],
)
def test_secret_stands_where_the_service_says_and_only_there(
    stack: Stack, run, value: str | dict, inject: dict, name: bytes, expected: bytes
) -> None:
    own = name + b": mine-1\r\n" + name.upper() + b": mine-2\r\nX-Other: 1\r\n"
    assert run(send(stack, value, inject, own)).status == 200
    received = stack.upstream.last
    assert received.values(name) == [expected]
    assert b"mine" not in received.head
    assert received.values(b"x-other") == [b"1"]


@pytest.mark.parametrize("own", [b"X_Api_Key", b"X.Api~Key", b"x-api_key"])
def test_header_that_servers_take_for_the_one_that_is_set_does_not_stand_beside_it(
    stack: Stack, run, own: bytes
) -> None:
    assert run(send(stack, SECRET, {"kind": "header", "name": "X-Api-Key"}, own + b": mine\r\n")).status == 200
    assert {name for name, _ in stack.upstream.last.headers} == {b"host", b"via", b"x-api-key"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ("Authorization: Bearer {}", "Authorization: Bearer {}"),
        ("X-Api-Key: {}", "x-api-key: {}"),
        ("X-Api-Key: {}{}", "x-api-key: {}{}"),
        ('Authorization: Digest k="{}", again="{}", other=1', 'Authorization: Digest k="{}", again="{}", other=1'),
        ("X-A: {}\r\nX-B: before{}after", "x-b: before{}after"),
        ("Cookie: a=1; key={}; b=2", "Cookie: a=1; key={}; b=2"),
    ],
)
def test_placeholder_is_replaced_in_headers(stack: Stack, run, headers: str, expected: str) -> None:
    lines = headers.replace("{}", TEXT).encode() + b"\r\n"
    assert run(send(stack, SECRET, {"kind": "placeholder", "text": TEXT}, lines)).status == 200
    assert expected.replace("{}", SECRET).lower().encode() in stack.upstream.last.head.lower()
    assert SECRET.encode() in stack.upstream.last.head
    assert TEXT.encode() not in stack.upstream.last.head


@pytest.mark.parametrize("credentials", ["{}:x-oauth", "x-access-token:{}", "{}:{}", "a{}b:c"])
@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
def test_placeholder_is_replaced_inside_basic_credentials(stack: Stack, run, credentials: str, scheme: str) -> None:
    line = f"Authorization: {scheme} ".encode() + b64(credentials.replace("{}", TEXT)) + b"\r\n"
    assert run(send(stack, SECRET, {"kind": "placeholder", "text": TEXT}, line)).status == 200
    [value] = stack.upstream.last.values(b"authorization")
    assert base64.b64decode(value.split(b" ")[1]).decode() == credentials.replace("{}", SECRET)


def test_answer_that_echoes_basic_credentials_is_scrubbed(stack: Stack, run) -> None:
    async def echo(request: Received, writer: asyncio.StreamWriter) -> None:
        [value] = request.values(b"authorization")
        body = value + b" " + base64.b64decode(value.split(b" ")[1])
        writer.write(b"HTTP/1.1 200 OK\r\nX-Echo: %b\r\nContent-Length: %d\r\n\r\n%b" % (value, len(body), body))

    stack.upstream.say = echo
    line = b"Authorization: Basic " + b64(f"bot:{TEXT}") + b"\r\n"
    for inject, value in (
        ({"kind": "placeholder", "text": TEXT}, SECRET),
        ({"kind": "basic", "user": "bot"}, SECRET),
        ({"kind": "basic"}, f"bot:{SECRET}"),
        ({"kind": "basic"}, {"username": "bot", "password": SECRET}),
    ):
        reply = run(send(stack, value, inject, line))
        assert reply.status == 200
        assert SECRET.encode() not in reply.raw
        assert b64(f"bot:{SECRET}") not in reply.raw
        assert base64.b64encode(SECRET.encode())[:20] not in reply.raw


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (f"/v1/x?key={TEXT}", b""),
        (f"/v1/{TEXT}", b""),
        ("/v1/x", b"Authorization: Bearer sk-placeholder-0002\r\n"),
        ("/v1/x", b"Authorization: Bearer SK-PLACEHOLDER-0001\r\n"),
        ("/v1/x", b"Authorization: Bearer sk-placeholder-000\r\n"),
        ("/v1/x", b"sk-placeholder-0001: 1\r\n"),
    ],
)
def test_placeholder_elsewhere_and_of_others_stays_as_it_is(stack: Stack, run, path: str, headers: bytes) -> None:
    assert run(send(stack, SECRET, {"kind": "placeholder", "text": TEXT}, headers, path)).status == 200
    assert SECRET.encode() not in stack.upstream.received
    assert stack.upstream.last.target == path.encode()
    if headers:
        assert headers.strip().lower() in stack.upstream.last.head.lower()


def test_placeholder_in_a_body_and_for_another_host_stays_as_it_is(stack: Stack, run) -> None:
    async def ask() -> None:
        await stack.secret("bound/key")
        await stack.secret("free/key", "value-of-free")
        await stack.service("bound", secret="bound/key", inject={"kind": "placeholder", "text": TEXT})
        await stack.service("free", secret="free/key", hosts=[f"other.test:{stack.secure}"])
        token = await stack.agent("both", "bound", "free")
        streams = await stack.tunnel(token)
        await stack.send(streams, method="POST", body=TEXT.encode(), headers=b"Content-Type: text/plain\r\n")
        await stack.get(token, host="other.test", headers=f"X-Key: {TEXT}\r\n".encode())
        await stack.ask("delete", "services/bound")
        await stack.ask("delete", "services/free")

    run(ask())
    assert [request.body for request in stack.upstream.requests] == [TEXT.encode(), b""]
    assert stack.upstream.last.values(b"x-key") == [TEXT.encode()]
    assert SECRET.encode() not in stack.upstream.received


@pytest.mark.parametrize(
    "line",
    [f"Authorization: Bearer {TEXT}", f"X-Goog-Api-Key: {TEXT}", f"Authorization: Basic {b64(f'u:{TEXT}').decode()}"],
)
def test_header_in_which_an_sdk_sent_the_placeholder_is_taken_out(stack: Stack, run, line: str) -> None:
    inject = {"kind": "header", "name": "X-Api-Key"}
    assert run(send(stack, SECRET, inject, f"{line}\r\nX-Kept: 1\r\n".encode(), placeholder=TEXT)).status == 200
    names = {name for name, _ in stack.upstream.last.headers}
    assert names == {b"host", b"via", b"x-api-key", b"x-kept"}


UNFIT = [case["stored_secret"] for case in vectors("proxy/secret_value_header_injection.jsonl")]
UNFIT += ["v\0x", "v\rX-Evil: 1", "v\nX-Evil: 1", "v\x0bX", "v\x1b[0m", "key\n", "\tkey", "v\ufeff", ""]


@pytest.mark.parametrize("value", UNFIT, ids=[ascii(value)[:20] for value in UNFIT])
@pytest.mark.parametrize("kind", ["bearer", "header", "placeholder", "basic", "inside"])
def test_secret_that_cannot_stand_in_a_header_is_refused_with_a_reason(
    stack: Stack, run, value: str, kind: str
) -> None:
    inject = {
        "bearer": {"kind": "bearer"},
        "header": {"kind": "header", "name": "x-key"},
        "basic": {"kind": "basic", "user": "u"},
    }.get(kind, {"kind": "placeholder", "text": TEXT})
    line = f"Authorization: Bearer {TEXT}\r\n".encode()
    if kind == "inside":
        line = b"Authorization: Basic " + b64(f"u:{TEXT}") + b"\r\n"
    # What Basic encodes may be any text, but for control characters (RFC 7617 section 2).
    fits = kind == "basic" and re.fullmatch(r"[^\x00-\x1f\x7f]{1,1000}", value)
    reply = run(send(stack, value, inject, line))
    if fits or value == "v%0d%0aX-Evil: 1":
        assert reply.status == 200
        received = stack.upstream.last
        assert b"X-Evil" not in received.head or b"%0d%0aX-Evil" in received.head
        assert b"x-evil" not in {name for name, _ in received.headers}
        assert [name for name, _ in received.headers].count(b"authorization") <= 1
    else:
        assert (reply.status, reply.code) == (400, "invalid_request")
        assert b"keyhole " in reply.body
        assert stack.upstream.requests == []
        assert not value or value.encode() not in reply.body


def test_refusal_of_an_unfit_secret_is_an_outcome_on_record(stack: Stack, run) -> None:
    assert run(send(stack, "v\r\nX-Evil: 1", {"kind": "bearer"})).status == 400
    records = run(stack.records())[-2:]
    assert [record["phase"] for record in records] == ["intent", "outcome"]
    assert records[1]["result"] == "invalid_request"
    assert "Evil" not in str(records)


# Bodies.

PACKFILE = b"0032want " + gzip.compress(b"PACK\0\0\0\2" + bytes(range(256)) * 40)
BODIES = {
    "every byte": bytes(range(256)),
    "not UTF-8": b"\xff\xfe\x80\xc3(\xf0\x9f\x98" * 1000,
    "gzip": PACKFILE,
    "deflate": zlib.compress(os.urandom(5000)),
    "line ends": b"\r\n\r\n\n\r0\r\n\r\nGET / HTTP/1.1\r\n" * 50,
    "the placeholder": f'{{"key": "{TEXT}"}}'.encode() * 3,
    "one byte": b"x",
    "nothing": b"",
}


@pytest.fixture(scope="module")
def token(module_stack: Stack, runner) -> str:
    async def prepare() -> str:
        stack = module_stack
        await stack.secret("stripe/key")
        await stack.service("posts", placeholder=TEXT)
        return await stack.agent("poster", "posts")

    return runner.run(prepare())


async def post(stack: Stack, token: str, pieces: list[bytes], *, chunked: bool, headers: bytes = b"") -> Reply:
    reader, writer = await stack.tunnel(token)
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % sum(map(len, pieces))
    writer.write(
        f"POST /v1/x?a=1 HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\n".encode() + headers + length + b"\r\n\r\n"
    )
    if b"Expect" in headers:
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    for piece in pieces:
        writer.write(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        await writer.drain()
    if chunked:
        writer.write(b"0\r\n\r\n")
    reply = await read_reply(reader, "POST")
    writer.close()
    return reply


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("headers", [b"", b"Content-Encoding: gzip\r\n", b"Expect: 100-continue\r\n"])
def test_body_arrives_byte_for_byte_with_exactly_one_credential(
    stack: Stack, run, token: str, name: str, chunked: bool, headers: bytes
) -> None:
    body = BODIES[name]
    if not body:
        headers = headers.replace(b"Expect: 100-continue\r\n", b"")  # nobody waits to send nothing
    pieces = [body[at : at + 700] for at in range(0, len(body), 700)]
    assert run(post(stack, token, pieces, chunked=chunked, headers=headers)).status == 200
    received = stack.upstream.last
    assert received.body == body
    assert received.values(b"authorization") == [b"Bearer " + SECRET.encode()]
    assert received.values(b"expect") == []
    assert received.target == b"/v1/x?a=1"
    assert len(received.values(b"content-length") + received.values(b"transfer-encoding")) == 1


@pytest.mark.parametrize("chunked", [False, True])
def test_fifty_megabytes_arrive_unchanged(stack: Stack, run, token: str, chunked: bool) -> None:
    piece = random.Random(1).randbytes(1 << 20)
    digest = hashlib.sha256()

    async def upload(request: Received, writer: asyncio.StreamWriter) -> None:
        digest.update(request.body)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    stack.upstream.say = upload
    assert run(post(stack, token, [piece] * 50, chunked=chunked)).status == 200
    assert digest.digest() == hashlib.sha256(piece * 50).digest()


def test_client_that_waits_for_continue_is_not_made_to_send_what_is_refused(stack: Stack, run, token: str) -> None:
    async def ask() -> Reply:
        reader, writer = await stack.tunnel(token)
        head = f"POST /v1/..%2f HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\nContent-Length: 5\r\n"
        writer.write(head.encode() + b"Expect: 100-continue\r\n\r\n")
        return await read_reply(reader)

    reply = run(ask())
    assert reply.status == 400
    assert b"100 Continue" not in reply.raw


def test_client_that_breaks_off_its_body_leaves_no_half_request_that_counts(stack: Stack, run, token: str) -> None:
    async def ask() -> None:
        _, writer = await stack.tunnel(token)
        writer.write(f"POST /v1/x HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\nContent-Length: 100\r\n\r\nhalf".encode())
        await until(lambda: bool(stack.upstream.requests))
        lost = stack.upstream.lost
        reset(writer)
        await until(lambda: stack.upstream.lost > lost)

    run(ask())
    half = stack.upstream.raw[-1]
    assert half.endswith(b"\r\n\r\nhalf")
    assert stack.upstream.last.body == b""
    assert run(stack.get(token)).status == 200
    assert half.endswith(b"\r\n\r\nhalf"), "nothing else goes over the connection of the half request"
