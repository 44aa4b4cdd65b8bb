"""Every hostile answer of the corpus, to clients of HTTP/1.1 and of HTTP/2; no case of a corpus is forgotten."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from pathlib import Path

import pytest

from broker.stack import HOST, LOOPBACK, SECRET, Received, Stack, vectors
from faces.proxy.h2 import PREFACE, Client, settings
from faces.proxy.test_smuggling import smuggling_cases

MANY = b"".join(b"X-%d: 1\r\n" % number for number in range(10_000))
LARGE = {  # too large to be kept in a file
    "resp-1xx-flood": b"HTTP/1.1 102 Processing\r\n\r\n" * 10_000 + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "resp-headers-10k": b"HTTP/1.1 200 OK\r\n" + MANY + b"Content-Length: 0\r\n\r\n",
}
CASES = {row["name"]: base64.b64decode(row["raw_b64"]) for row in vectors("smuggling/own_responses.jsonl")} | LARGE
# What the client sees of those that are not refused: the status, and whether the answer ends.
SEEN = {
    "resp-extra-after-body": (200, True),
    "resp-gzip-bomb-hint": (200, True),
    "resp-status-reason-secret": (400, True),
    "resp-302-attacker": (302, True),
    "resp-307-other-host": (307, True),
    "resp-truncated-chunk": (200, False),
    "resp-chunk-neg": (200, False),
    "resp-chunk-huge": (200, False),
    "resp-head-with-body": (200, True),
    "resp-unsolicited-early": (200, True),
}


@pytest.fixture(scope="module")
def token(module_stack: Stack, runner) -> str:
    async def prepare() -> str:
        await module_stack.secret("stripe/key")
        fields = {"hosts": [f"{HOST}:{module_stack.plain}"], "schemes": ["http"], "allow_addresses": LOOPBACK}
        await module_stack.service("plain", **fields)
        return await module_stack.agent("coder", "plain")

    return runner.run(prepare())


async def _http1(stack: Stack, token: str, method: str) -> tuple[int, bool, bytes]:
    """Status, whether the answer ended, and all that came."""
    reader, writer = await stack.tunnel(token, port=stack.plain, tls=False)
    writer.write(f"{method} /v1/x HTTP/1.1\r\nHost: {HOST}:{stack.plain}\r\nConnection: close\r\n\r\n".encode())
    received = b""
    broken = False
    try:
        async with asyncio.timeout(20):
            while piece := await reader.read(65536):
                received += piece
    except ConnectionError:
        broken = True
    writer.close()
    head, _, body = received.partition(b"\r\n\r\n")
    assert len(re.findall(rb"HTTP/1\.1 \d", received)) == 1, received
    chunked = b"transfer-encoding: chunked" in head.lower()
    return int(head[9:12]), not broken and (not chunked or body.endswith(b"0\r\n\r\n")), received


async def _http2(stack: Stack, token: str, method: str) -> tuple[int, bool, bytes]:
    client = Client(await stack.tunnel(token, port=stack.plain, tls=False))
    client.send(PREFACE + settings())
    authority = f"{HOST}:{stack.plain}".encode()
    fields = [(b":method", method.encode()), (b":scheme", b"http"), (b":authority", authority), (b":path", b"/v1/x")]
    answer = await client.answer(client.ask(fields))
    client.writer.transport.abort()
    await client.end()
    return answer.status, answer.ended, b" ".join([*answer.head, *answer.head.values(), answer.body])


@pytest.mark.parametrize("ask", [_http1, _http2])
def test_no_hostile_answer_is_more_than_one_answer_and_none_reaches_another_call(
    stack: Stack, run, token: str, ask
) -> None:
    async def play() -> None:
        for name, case in CASES.items():
            raw = case.replace(b"__SECRET__", SECRET.encode())

            async def say(_request: Received, writer: asyncio.StreamWriter, name: str = name, raw: bytes = raw) -> None:
                writer.write(raw)
                await writer.drain()
                if not SEEN.get(name, (0, True))[1]:
                    writer.close()

            stack.keyhole.pool.distrust()  # no connection is idle
            stack.upstream.forget()
            stack.upstream.say = say
            status, ended, received = await ask(stack, token, "HEAD" if name == "resp-head-with-body" else "GET")
            expected, whole = SEEN.get(name, (502, True))
            assert status in {expected, 502 if not whole else expected}, (name, received[:200])
            assert ended == whole or status == 502, name
            assert SECRET.encode() not in received, name
            assert b"EVIL" not in received or name == "resp-unsolicited-early", name
            assert b"evil=1" not in received, name
            stack.upstream.say = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine"
            status, ended, received = await ask(stack, token, "GET")
            assert (status, ended, received[-4:]) == (200, True, b"mine"), name
            assert len(stack.upstream.requests) == 2, name

    run(play())


@pytest.mark.vectors
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("smuggling/own_requests", "smuggling/own_requests"),
        ("smuggling/own_responses", "smuggling/own_responses"),
        ("proxy/allowlist_cases", "proxy/allowlist_cases"),
        ("proxy/secret_value_header_injection", "proxy/secret_value_header_injection"),
        ("redaction/response_cases", "redaction/response_cases"),
        ("ssrf/ssrf_urls", "net/ssrf_urls"),
        ("ssrf/dns_scenarios", "net/dns_scenarios"),
        ("h2/h2_cases", "proxy/h2_cases"),
    ],
)
def test_no_case_of_the_corpora_is_forgotten_here(theirs: str, ours: str) -> None:
    corpus = Path(os.environ.get("KEYHOLE_VECTORS", "nowhere")) / "own" / f"{theirs}.jsonl"
    if not corpus.exists():
        pytest.skip("KEYHOLE_VECTORS names no folder with the corpora: their copies here were not compared")
    rows = [json.loads(line) for line in corpus.read_text().splitlines()]
    made = {name for name, _ in smuggling_cases("reject")} | LARGE.keys()  # the large ones are made
    kept = vectors(f"{ours}.jsonl")
    assert [row for row in rows if row not in kept and row.get("name") not in made] == []
