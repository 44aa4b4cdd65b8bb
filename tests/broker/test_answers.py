"""What a client receives when an upstream gives the secret back in some disguise: every received byte is searched."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import gzip
import json
import resource
import zlib
from collections.abc import Iterator
from unittest import mock

import pytest

from broker.stack import HOST, SECRET, Received, Reply, Stack, read_reply, until, vectors
from keyhole.scrub import BodyScrubber
from scrub.decoders import once, shows

CASES = [case for case in vectors("redaction/response_cases.jsonl") if not case["where"].startswith("ws-")]
TIER_A = [case for case in CASES if case["tier"] == "A"]
CONTROLS = [case for case in CASES if case["tier"] == "allow"]
LONG = "runner pads to 10 MB before the secret"
VALUE = SECRET.encode()


def ids(cases: list[dict]) -> list[str]:
    return [f"{case['name']}-{case['id']}" for case in cases]


@pytest.fixture(scope="module")
def tokens(module_stack: Stack, runner) -> dict[str, str]:
    """A token for every secret of the cases. Some cannot stand in a header, and go into Basic credentials."""

    async def prepare() -> dict[str, str]:
        stack, made = module_stack, {}
        for number, secret in enumerate(dict.fromkeys([SECRET, *(case["secret"] for case in CASES)])):
            name = f"s{number}"
            await stack.secret(f"{name}/key", secret)
            fit = secret.isascii() and secret.isprintable()
            # What cannot be sent is stored beside what can: the scrubber knows all that was lent.
            inject = {"kind": "bearer"} if fit else {"kind": "placeholder", "text": "never-sent-placeholder"}
            await stack.service(name, secret=f"{name}/key", inject=inject)
            made[secret] = await stack.agent(name, name)
        return made

    return runner.run(prepare())


def answer_of(case: dict) -> list[bytes]:
    """What the upstream sends, piece by piece, as the case says."""
    body = base64.b64decode(case["body_b64"])
    if case["note"] == LONG:
        body = b"x" * (10_000_000 - len(body)) + body
    where, secret = case["where"], case["secret"].encode()
    reason = b"Denied for " + secret if where == "status-reason" else b"OK"
    lines = [f"{name}: {value}".encode() for name, value in case["headers"]]
    if where == "body" and case["chunks"]:
        head = b"\r\n".join([b"HTTP/1.1 200 " + reason, *lines, b"Transfer-Encoding: chunked", b"", b""])
        pieces, at = [head], 0
        for size in [*case["chunks"], len(body)]:
            if piece := body[at : at + size]:
                pieces.append(b"%x\r\n%b\r\n" % (len(piece), piece))
            at += size
        return [*pieces, b"0\r\n\r\n"]
    head = b"\r\n".join([b"HTTP/1.1 200 " + reason, *lines, b"Content-Length: %d" % len(body), b"", b""])
    return [head, body] if body else [head]


def visible(raw: bytes, secret: bytes) -> bool:
    head, _, body = raw.partition(b"\r\n\r\n")
    return any(shows(part, secret) for part in [*head.split(b"\r\n"), body[-20000:]]) or secret in raw


@pytest.mark.parametrize("case", TIER_A, ids=ids(TIER_A))
def test_disguised_secret_does_not_reach_the_client(stack: Stack, run, tokens, case: dict) -> None:
    stack.upstream.say = answer_of(case)
    reply = run(stack.get(tokens[case["secret"]]))
    assert len(stack.upstream.requests) == 1
    assert not visible(reply.raw if b"chunked" not in reply.raw[:400] else _plain(reply), case["secret"].encode())
    assert reply.status == 200 or reply.code == "scrub_failed_closed"
    if case["note"] == LONG:
        assert len(reply.body) == 10_000_000


def _plain(reply: Reply) -> bytes:
    return reply.raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + reply.body


@pytest.mark.parametrize("case", CONTROLS, ids=ids(CONTROLS))
def test_harmless_answer_is_unchanged(stack: Stack, run, tokens, case: dict) -> None:
    stack.upstream.say = answer_of(case)
    reply = run(stack.get(tokens[case["secret"]]))
    before = base64.b64decode(case["body_b64"])
    assert reply.status == 200
    assert reply.whole
    assert reply.body == before or set(once(reply.body)) & set(once(before))


@pytest.fixture
def token(tokens: dict[str, str]) -> str:
    return tokens[SECRET]


@pytest.mark.parametrize(
    "case",
    [case for case in TIER_A if case["where"] == "body" and not case["chunks"] and len(case["body_b64"]) < 400][:12],
    ids=lambda c: c["name"],
)
@pytest.mark.parametrize("size", [1, 3, 7])
def test_disguise_cut_into_small_pieces_is_found(stack: Stack, run, tokens, case: dict, size: int) -> None:
    body = base64.b64decode(case["body_b64"])
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    lines = b"".join(f"{name}: {value}\r\n".encode() for name, value in case["headers"])
    stack.upstream.say = [
        b"HTTP/1.1 200 OK\r\n" + lines + b"Transfer-Encoding: chunked\r\n\r\n",
        *(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces),
        b"0\r\n\r\n",
    ]
    reply = run(stack.get(tokens[case["secret"]]))
    assert not visible(_plain(reply), case["secret"].encode())


HEADS = [
    b"X-Debug: %b",
    b"Location: https://x.test/?key=%b#frag",
    b'ETag: "%b"',
    b"Set-Cookie: a=%b; Path=/\r\nSet-Cookie: b=%b",
    b"Content-Type: text/plain; x=%b",
    b'Content-Disposition: attachment; filename="%b"',
    b"Server: %b",
    b'WWW-Authenticate: Bearer realm="%b"',
    b"Via: 1.1 %b",
]


@pytest.mark.parametrize("line", HEADS)
@pytest.mark.parametrize("form", [VALUE, base64.b64encode(VALUE), VALUE.hex().encode(), b"%73" + VALUE[1:], VALUE[:24]])
@pytest.mark.parametrize(
    "status", [b"200 OK", b"302 Found", b"401 Unauthorized", b"500 Oops", b"204 No Content", b"304 Not Modified"]
)
def test_secret_in_any_header_is_masked(stack: Stack, run, token: str, line: bytes, form: bytes, status: bytes) -> None:
    length = b"" if status[:3] in {b"204", b"304"} else b"Content-Length: 0\r\n"
    stack.upstream.say = b"HTTP/1.1 " + status + b"\r\n" + line.replace(b"%b", form) + b"\r\n" + length + b"\r\n"
    reply = run(stack.get(token))
    assert reply.status == int(status[:3])
    assert not visible(reply.raw, VALUE)
    assert b"***" in reply.raw or line.startswith(b"Via")


@pytest.mark.parametrize(
    "form",
    [VALUE, VALUE.upper(), VALUE.hex().encode(), b"%73" + VALUE[1:]],
)
def test_header_with_the_secret_in_its_name_is_left_out(stack: Stack, run, token: str, form: bytes) -> None:
    stack.upstream.say = b"HTTP/1.1 200 OK\r\nX-" + form + b"-Y: 1\r\nX-Kept: 2\r\nContent-Length: 0\r\n\r\n"
    reply = run(stack.get(token))
    assert reply.status == 200
    assert reply.get(b"x-kept") == b"2"
    assert form.lower() not in reply.raw.lower()


def test_secret_in_trailers_and_informational_answers_is_dropped(stack: Stack, run, token: str) -> None:
    stack.upstream.say = [
        b"HTTP/1.1 103 Early Hints\r\nLink: <" + VALUE + b">\r\n\r\nHTTP/1.1 100 " + VALUE + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Key\r\n\r\n",
        b"2;x=" + VALUE + b"\r\nok\r\n0\r\nX-Key: " + VALUE + b"\r\n\r\n",
    ]

    async def ask() -> bytes:
        reader, writer = await stack.tunnel(token)
        head = f"GET /v1/x HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\nTE: trailers\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        return await reader.read()

    received = run(ask())
    assert received.endswith(b"0\r\n\r\n")
    assert VALUE not in received


def test_answer_to_head_is_masked_too(stack: Stack, run, token: str) -> None:
    stack.upstream.say = (
        b"HTTP/1.1 200 OK\r\nX-Key: " + VALUE + b"\r\nContent-Encoding: zzz\r\nContent-Length: 7\r\n\r\n"
    )
    reply = run(stack.get(token, method="HEAD"))
    assert reply.status == 200
    assert VALUE not in reply.raw


# Codings.


@functools.cache
def bomb() -> bytes:
    """1 GiB of zeros in 1 MiB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    mebibyte = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + mebibyte * 1024  # nobody gets as far as the check sum


@pytest.mark.parametrize("coding", ["gzip", "gzip, gzip", ""])
def test_bomb_is_stopped_in_little_memory(stack: Stack, run, token: str, coding: str) -> None:
    packed = gzip.compress(bomb()) if coding == "gzip, gzip" else bomb()
    line = f"Content-Encoding: {coding}\r\n".encode() if coding else b""
    stack.upstream.say = b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (line, len(packed), packed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reply = run(stack.get(token))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert reply.code == "scrub_failed_closed" or not reply.whole
    assert grown < 64 * 1024  # KiB


@pytest.mark.parametrize("coding", ["gzip", ""])
def test_a_few_bytes_that_unfold_to_many_leave_others_their_turn(stack: Stack, run, token: str, coding: str) -> None:
    packed = gzip.compress(bytes(8 << 20))  # in pieces of 64 KiB
    line = f"Content-Encoding: {coding}\r\n".encode() if coding else b""
    stack.upstream.say = b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (line, len(packed), packed)
    longest = passes = 0
    feeding = BodyScrubber.steps

    def counted(self: BodyScrubber, data: bytes) -> Iterator[bytes]:
        nonlocal longest
        begun = passes
        for number, step in enumerate(feeding(self, data)):
            yield step
            longest = max(longest, number // (passes - begun + 1))

    async def ask() -> Reply:
        async def others() -> None:
            nonlocal passes
            while True:
                await asyncio.sleep(0)
                passes += 1

        waiting = asyncio.create_task(others())
        with mock.patch.object(BodyScrubber, "steps", counted):
            reply = await stack.get(token)
        waiting.cancel()
        return reply

    assert run(ask()).status == 200
    assert 0 < longest <= 32


@pytest.mark.parametrize("coding", ["zzz", "gzip, zzz", "compress", "gzip;q=1", "gzip gzip", "br, br, br, br"])
def test_coding_that_cannot_be_inspected_is_withheld(stack: Stack, run, token: str, coding: str) -> None:
    stack.upstream.say = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: 2\r\n\r\nok".encode()
    reply = run(stack.get(token))
    assert (reply.status, reply.code) == (502, "scrub_failed_closed")
    assert run(stack.records())[-1]["result"] == "scrub_failed_closed"


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Encoding: gzip\r\nContent-Encoding: identity\r\n",
        b"Content-Encoding: gzip\r\ncontent-encoding: gzip\r\n",
        b"content-encoding: GZIP\r\n",
    ],
)
def test_codings_in_several_fields_are_all_undone(stack: Stack, run, token: str, lines: bytes) -> None:
    body = gzip.compress(b'{"key": "' + VALUE + b'"}')
    if lines.count(b"gzip") == 2:
        body = gzip.compress(body)
    stack.upstream.say = b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (lines, len(body), body)
    reply = run(stack.get(token))
    assert not visible(_plain(reply), VALUE)
    assert reply.status == 200 or reply.code == "scrub_failed_closed"


def test_lengths_and_digests_are_right_after_a_body_was_encoded_again(stack: Stack, run, token: str) -> None:
    body = gzip.compress(json.dumps({"key": SECRET, "other": "kept"}).encode())
    stale = (
        b'ETag: "x"\r\nContent-MD5: x\r\nDigest: x\r\nContent-Digest: x\r\nRepr-Digest: x\r\nAccept-Ranges: bytes\r\n'
    )
    stack.upstream.say = b"HTTP/1.1 200 OK\r\n%bContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (
        stale,
        len(body),
        body,
    )
    reply = run(stack.get(token))
    assert reply.whole
    assert json.loads(gzip.decompress(reply.body)) == {"key": "*" * len(SECRET), "other": "kept"}
    assert {name for name, _ in reply.headers} == {b"content-encoding", b"transfer-encoding", b"via"}


def test_length_is_kept_when_a_plain_body_was_masked(stack: Stack, run, token: str) -> None:
    body = b"key=" + VALUE + b"&kept=1"
    stack.upstream.say = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    reply = run(stack.get(token))
    assert reply.get(b"content-length") == b"%d" % len(body)
    assert reply.body == b"key=" + b"*" * len(VALUE) + b"&kept=1"


def test_body_that_ends_with_the_connection_is_masked_to_its_last_byte(stack: Stack, run, token: str) -> None:
    stack.upstream.say = [b"HTTP/1.1 200 OK\r\n\r\nbegin " + VALUE[:10], VALUE[10:]]
    reply = run(stack.get(token))
    assert reply.body == b"begin " + b"*" * len(VALUE)


def test_secret_cut_off_by_a_broken_connection_does_not_leak_its_beginning(stack: Stack, run, token: str) -> None:
    stack.upstream.say = [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin " + VALUE[:26]]

    async def cut(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin " + VALUE[:26])
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()

    stack.upstream.say = cut
    reply = run(stack.get(token))
    assert VALUE[:20] not in reply.raw
    assert not reply.whole or reply.status == 502


def test_half_a_secret_is_held_while_events_before_it_flow(stack: Stack, run, token: str) -> None:
    gate = asyncio.Event()

    async def stream(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\ndata: " + VALUE[:12])
        await writer.drain()
        await gate.wait()
        writer.write(VALUE[12:] + b"\n\n")
        await writer.drain()
        writer.close()

    async def ask() -> tuple[bytes, bytes]:
        reader, writer = await stack.tunnel(token)
        writer.write(f"GET /v1/x HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\n\r\n".encode())
        early = await reader.readuntil(b"data: one\n\n")
        with contextlib.suppress(TimeoutError):
            early += await asyncio.wait_for(reader.read(100), 0.2)
        gate.set()
        rest = await reader.readuntil(b"0\r\n\r\n")
        return early, rest

    stack.upstream.say = stream
    early, rest = run(ask())
    assert VALUE[:4] not in early.partition(b"data: one")[2]
    assert b"*" in rest
    assert VALUE[:6] not in early + rest


# Our own texts.


@pytest.mark.parametrize("where", ["unreachable", "breaks off", "not HTTP", "bad header"])
def test_texts_of_our_own_name_no_value(stack: Stack, run, token: str, tokens, where: str) -> None:
    says = {
        "breaks off": [],
        "not HTTP": b"SSH-2.0-" + VALUE + b"\r\n\r\n",
        "bad header": b"HTTP/1.1 200 OK\r\nX-" + VALUE + b"(): " + VALUE + b"\x01\r\nContent-Length: 0\r\n\r\n",
    }

    async def hang_up(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(says.get(where, b"") or b"")
        writer.close()

    async def ask() -> Reply:
        if where == "unreachable":
            await stack.secret("gone/key")
            await stack.service("gone", secret="gone/key", hosts=["b.test:1"])
            return await stack.get(await stack.agent("gone", "gone"), host="b.test", port=1, path="/v1/x?key=abc")
        return await stack.get(token)

    stack.upstream.say = hang_up
    reply = run(ask())
    assert reply.status == 502
    assert not visible(reply.raw, VALUE)
    assert b"Traceback" not in reply.raw
    body = json.loads(reply.body)
    assert set(body["error"]) == {"code", "reason", "hint", "request_id"}
    assert body["errors"]


def test_only_the_secrets_of_the_call_are_masked(stack: Stack, run, tokens) -> None:
    other = next(value for value in tokens if value.startswith("AKIA"))
    body = f"{other} 1234 test {SECRET}".encode()
    stack.upstream.say = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    reply = run(stack.get(tokens[SECRET]))
    assert reply.body == f"{other} 1234 test {'*' * len(SECRET)}".encode()


def test_early_answer_ends_the_upload_and_the_connection_is_not_used_again(stack: Stack, run, token: str) -> None:
    async def refuse(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async def ask() -> tuple[Reply, Reply]:
        stack.upstream.early, stack.upstream.say = True, refuse
        reader, writer = await stack.tunnel(token)
        writer.write(
            f"POST /v1/x HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\nContent-Length: 1000\r\n\r\nbegin".encode()
        )
        first = await read_reply(reader)
        stack.upstream.early, stack.upstream.say = False, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        return first, await stack.get(token)

    first, second = run(ask())
    assert (first.status, second.status) == (413, 200)
    assert [request.method for request in stack.upstream.requests] == ["POST", "GET"]


def test_zlib_is_told_from_raw_deflate(stack: Stack, run, token: str) -> None:
    for body in (zlib.compress(VALUE), zlib.compress(VALUE)[2:-4]):
        stack.upstream.say = b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: %d\r\n\r\n%b" % (
            len(body),
            body,
        )
        reply = run(stack.get(token))
        assert reply.status == 200
        assert not visible(_plain(reply), VALUE)


def test_idle_connections_hold_no_answers_of_others(stack: Stack, run, token: str) -> None:
    """Bytes after an answer end its connection: nobody gets them as an answer."""
    stack.upstream.say = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    )

    async def ask() -> list[bytes]:
        found = []
        for _ in range(3):
            lost = stack.upstream.lost
            found.append((await stack.get(token)).body)
            await until(lambda before=lost: stack.upstream.lost > before)
        return found

    assert run(ask()) == [b"ok"] * 3
