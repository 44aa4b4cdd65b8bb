"""Messages with a length before each, which may be compressed one by one, in answers over HTTP/1."""

from __future__ import annotations

import base64
import gzip

import pytest

from broker.stack import SECRET, Stack

VALUE = SECRET.encode()


@pytest.fixture(scope="module")
def token(module_stack: Stack, runner) -> str:
    async def prepare() -> str:
        await module_stack.secret("stripe/key")
        await module_stack.service("stripe")
        return await module_stack.agent("coder", "stripe")

    return runner.run(prepare())


def answer(body: bytes, lines: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (lines, len(body), body)


def enveloped(message: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(message).to_bytes(4, "big") + message


def opened(body: bytes) -> list[tuple[int, bytes]]:
    found = []
    while body:
        end = 5 + int.from_bytes(body[1:5], "big")
        found.append((body[0], gzip.decompress(body[5:end]) if body[0] & 1 else body[5:end]))
        body = body[end:]
    return found


STREAM = b"Content-Type: application/connect+json\r\nConnect-Content-Encoding: gzip\r\n"


def test_compressed_messages_of_connect_are_looked_into(stack: Stack, run, token: str) -> None:
    clean = enveloped(gzip.compress(b"nothing", mtime=0), 1)
    secret = clean + enveloped(b"so " + VALUE) + enveloped(gzip.compress(b"and " + VALUE), 1)
    stack.upstream.say = answer(secret + enveloped(gzip.compress(b"{}" + VALUE), 3) + clean, STREAM)
    reply = run(stack.get(token, headers=b"Connect-Accept-Encoding: zstd, br, gzip\r\n"))
    hidden = b"*" * len(VALUE)
    assert opened(reply.body) == [
        (1, b"nothing"),
        (0, b"so " + hidden),
        (1, b"and " + hidden),
        (3, b"{}" + hidden),
        (1, b"nothing"),
    ]
    assert stack.upstream.last.values(b"connect-accept-encoding") == [b"gzip"]
    assert clean in reply.body


@pytest.mark.parametrize(
    "lines",
    [
        STREAM.replace(b"gzip", b"br"),
        STREAM + b"Content-Encoding: gzip\r\n",
        b"Content-Type: application/grpc-web-text\r\nGrpc-Encoding: gzip\r\n",
        b"Content-Type: application/grpc-web-text+proto\r\nGrpc-Encoding: gzip\r\nContent-Encoding: identity\r\n",
    ],
)
def test_compressed_messages_that_cannot_be_looked_into_are_withheld(
    stack: Stack, run, token: str, lines: bytes
) -> None:
    message = enveloped(gzip.compress(VALUE), 1)
    body = base64.b64encode(message) if b"text" in lines else message
    stack.upstream.say = answer(gzip.compress(body) if b"Content-Encoding: gzip" in lines else body, lines)
    reply = run(stack.get(token))
    assert (reply.status, reply.code) == (502, "scrub_failed_closed")


def test_messages_of_grpc_behind_no_coding_at_all_are_looked_into(stack: Stack, run, token: str) -> None:
    lines = b"Content-Type: application/grpc-web+proto\r\nGrpc-Encoding: gzip\r\nContent-Encoding: identity\r\n"
    stack.upstream.say = answer(enveloped(gzip.compress(VALUE), 1), lines)
    assert opened(run(stack.get(token)).body) == [(1, b"*" * len(VALUE))]


def test_text_form_of_grpc_web_is_asked_for_uncompressed(stack: Stack, run, token: str) -> None:
    lines = b"Content-Type: application/grpc-web-text\r\nGrpc-Accept-Encoding: gzip\r\n"
    run(stack.get(token, method="POST", headers=lines, body=b"AAAAAAA="))
    assert stack.upstream.last.values(b"grpc-accept-encoding") == [b"identity"]


def test_value_in_a_compressed_message_of_a_client_of_connect_does_not_leave(stack: Stack, run, token: str) -> None:
    message = enveloped(gzip.compress(b"clean " * 40 + VALUE), 1)
    reply = run(stack.get(token, method="POST", headers=STREAM, body=enveloped(b"a") + message))
    assert (reply.status, reply.code) == (403, "policy_denied")
    assert message[5:] not in stack.upstream.received
