"""Requests that two parsers could read differently: the upstream must never see one of them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import tarfile
from collections.abc import Coroutine, Iterable
from pathlib import Path

import pytest

from faces.proxy.rig import CREDENTIAL, HOST, Received, Rig, Streams, converse, get, vectors
from keyhole.broker.upstream import UpstreamLimits, UpstreamTimeouts
from keyhole.net.http1.limits import ListenerLimits

LIMITS = ListenerLimits(head_timeout=1.0, body_timeout=0.3, linger=0.2)
_ORIGIN_FORM = re.compile(rb"\A((?:\r\n)*[A-Z]+ )(/v1[^ ]*)(?= HTTP/1)")


def _large() -> list[dict]:
    host = f"Host: {HOST}\r\n".encode()
    chunked = b"POST /v1/public/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + host + b"\r\n"
    many = b"".join(b"X-%d: 1\r\n" % number for number in range(10_000))
    cases = {
        "chunk-ext-huge": (chunked + b"5;" + b"a" * 70_000 + b"\r\nhello\r\n0\r\n\r\n", "reject"),
        "header-64k": (b"GET /v1/public/a HTTP/1.1\r\n" + host + b"X: " + b"a" * 65_536 + b"\r\n\r\n", "reject"),
        "headers-10k": (b"GET /v1/public/a HTTP/1.1\r\n" + host + many + b"\r\n", "reject"),
        "target-64k": (b"GET /v1/public/" + b"a" * 65_536 + b" HTTP/1.1\r\n" + host + b"\r\n", "reject"),
        "method-64k": (b"G" * 65_536 + b" /v1/public/a HTTP/1.1\r\n" + host + b"\r\n", "reject"),
    }
    return [
        {"name": name, "raw_b64": base64.b64encode(raw).decode(), "must": must, "class": "size"}
        for name, (raw, must) in cases.items()
    ]


def smuggling_cases(*musts: str) -> list[tuple[str, bytes]]:
    rows = vectors("smuggling/own_requests.jsonl") + _large()
    return [(row["name"], base64.b64decode(row["raw_b64"])) for row in rows if row["must"] in musts]


def _absolute(raw: bytes) -> bytes:
    """The same trick in the form that a proxy expects, so that it is refused for the trick and not for the form."""
    raw = _ORIGIN_FORM.sub(rb"\1http://%b\2" % HOST.encode(), raw, count=1)
    return raw.replace(b"\r\n", b"\r\n" + CREDENTIAL, 1) if raw.startswith((b"GET http", b"POST http")) else raw


async def _open(rig: Rig, form: str) -> Streams:
    return await (rig.tunnel() if form == "tunnel" else rig.open())


async def play(rig: Rig, form: str, raw: bytes, quiet: float) -> tuple[bytes, bool]:
    return await converse(await _open(rig, form), _absolute(raw) if form == "absolute" else raw, quiet)


async def _play_all(rig: Rig, form: str, cases: list[tuple[str, bytes]]) -> list[tuple[str, bytes, bool]]:
    gate = asyncio.Semaphore(32)

    async def one(name: str, raw: bytes) -> tuple[str, bytes, bool]:
        async with gate:
            return (name, *await play(rig, form, raw, 5.0))

    return list(await asyncio.gather(*(one(name, raw) for name, raw in cases)))


@pytest.mark.parametrize("form", ["absolute", "tunnel"])
def test_every_ambiguous_request_is_refused_and_nothing_of_it_reaches_the_upstream(form: str) -> None:
    async def run() -> None:
        async with Rig(limits=LIMITS) as rig:
            for name, received, closed in await _play_all(rig, form, smuggling_cases("reject")):
                assert re.match(rb"HTTP/1\.1 4\d\d ", received), (name, received[:80])
                assert len(re.findall(rb"HTTP/1\.1 \d", received)) == 1, name
                assert closed, name
            assert not rig.upstream.requests
            assert not any(rig.upstream.raw)

    asyncio.run(run())


def test_requests_for_an_origin_server_are_refused_at_the_proxys_own_port() -> None:
    async def run() -> None:
        async with Rig(limits=LIMITS) as rig:
            cases = smuggling_cases(
                "reject", "accept", "reject_or_single", "reject_or_drop_trailer", "timeout_then_close"
            )
            for name, received, closed in await _play_all(rig, "origin", cases):
                assert re.match(rb"HTTP/1\.1 4\d\d ", received), (name, received[:80])
                assert closed, name
            assert rig.upstream.accepted == 0

    asyncio.run(run())


@pytest.mark.parametrize("form", ["absolute", "tunnel"])
def test_odd_requests_are_refused_or_stay_one_request(form: str) -> None:
    async def one(name: str, raw: bytes) -> None:
        async with Rig(limits=LIMITS) as rig:
            received, _ = await play(rig, form, raw, 0.3)
            assert re.match(rb"HTTP/1\.1 [24]\d\d ", received), (name, received[:80])
            assert len(rig.upstream.requests) <= 1, name
            sent = b"".join(map(bytes, rig.upstream.raw))
            assert b"GET /smuggled" not in sent or name == "cl-on-get", name
            assert b"Bearer x" not in sent, name

    _run_together(one(name, raw) for name, raw in smuggling_cases("reject_or_single", "reject_or_drop_trailer"))


@pytest.mark.parametrize("form", ["absolute", "tunnel"])
def test_a_body_that_never_ends_is_cut_and_the_upstream_never_sees_a_whole_request(form: str) -> None:
    async def run() -> None:
        async with Rig(limits=LIMITS) as rig:
            rig.differential = False
            for name, received, closed in await _play_all(rig, form, smuggling_cases("timeout_then_close")):
                assert closed, name
                assert not received.startswith(b"HTTP/1.1 2"), name
            assert not rig.upstream.requests

    asyncio.run(run())


@pytest.mark.parametrize("form", ["absolute", "tunnel"])
def test_legal_requests_pass(form: str) -> None:
    async def one(name: str, raw: bytes) -> None:
        async with Rig(limits=LIMITS) as rig:
            received, closed = await play(rig, form, raw, 0.3)
            assert received.startswith(b"HTTP/1.1 200 "), name
            assert not closed, name
            assert len(rig.upstream.requests) == 1
            assert rig.upstream.requests[0].values(b"authorization") == [b"Bearer injected"]

    _run_together(one(name, raw) for name, raw in smuggling_cases("accept"))


def _run_together(cases: Iterable[Coroutine[None, None, None]]) -> None:
    async def run() -> None:
        await asyncio.gather(*cases)

    asyncio.run(run())


def llhttp_cases(kind: str) -> list[dict]:
    folder = os.environ.get("KEYHOLE_VECTORS")
    if not folder:
        pytest.skip("KEYHOLE_VECTORS is not set: the 246 llhttp cases did not run")
    archive = Path(folder) / "third-party" / "llhttp.tar.gz"
    with tarfile.open(archive) as tar:
        lines = tar.extractfile("smuggling/llhttp_cases.jsonl").read().splitlines()
    return [row for row in map(json.loads, lines) if row["meta"]["type"].startswith(kind)]


@pytest.mark.vectors
def test_no_llhttp_request_makes_the_upstream_see_more_messages_than_we_judged() -> None:
    async def run() -> None:
        cases = llhttp_cases("request")
        async with Rig(limits=LIMITS) as rig:
            gate = asyncio.Semaphore(16)

            async def one(raw: bytes) -> None:
                async with gate:
                    # Without a Host almost all of them would be refused for that alone.
                    raw = re.sub(rb"(HTTP/1\.1\r\n)", rb"\1Host: " + HOST.encode() + rb"\r\n", raw)
                    raw = re.sub(rb"\A([A-Z]+) (?:url|[^ /]+)(?= HTTP)", rb"\1 /url", raw)
                    await play(rig, "tunnel", raw, 0.1)

            await asyncio.gather(*(one(base64.b64decode(row["raw_b64"])) for row in cases))
            assert len(rig.broker.calls) > 20
            assert len(rig.upstream.requests) <= len(rig.broker.calls)
            rig.differential = False

    asyncio.run(run())


@pytest.mark.vectors
def test_no_llhttp_response_leaks_into_the_answer_to_another_request() -> None:
    async def one(name: str, hostile: bytes) -> None:
        turns = iter([hostile])

        async def respond(_received: Received, _writer: asyncio.StreamWriter) -> bytes:
            return next(turns, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine")

        upstream = UpstreamLimits(timeouts=UpstreamTimeouts(answer=1.0))  # some are heads that never end
        async with Rig(respond, limits=LIMITS, upstream=upstream) as rig:
            rig.differential = False
            first, _ = await converse(await rig.open(), get("/first"), 0.2)
            assert len(re.findall(rb"HTTP/1\.1 \d", first)) <= 1 + hostile.count(b"HTTP/1."), name
            second, _ = await converse(await rig.open(), get("/second"), 0.2)
            assert second.startswith(b"HTTP/1.1 200 "), name
            assert second.endswith(b"mine"), (name, second)

    _run_together(one(row["name"], base64.b64decode(row["raw_b64"])) for row in llhttp_cases("response"))
