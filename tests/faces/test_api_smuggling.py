"""Requests at the API's own port that two parsers could read differently, and what a connection does around them."""

import asyncio
import base64
import contextlib
import re

import httptools
import pytest

from faces.proxy.rig import converse
from faces.proxy.test_smuggling import LIMITS, llhttp_cases, smuggling_cases
from keyhole.faces.api.server import ApiServer

UPGRADE = "ws-upgrade-no-key"  # a proxy must refuse it; a server without WebSockets answers it as what else it is


class Port:
    """The API's listener before an application that notes what it is asked."""

    def __init__(self):
        self.asked = []
        self.whole = []
        self.refused = []
        self.server = ApiServer(self._answer, LIMITS, on_refusal=lambda error, _: self.refused.append(error))

    async def __aenter__(self):
        self.address = await self.server.listen("127.0.0.1", 0)
        return self

    async def __aexit__(self, *_):
        await self.server.close(1)

    async def _answer(self, scope, receive, send):
        self.asked.append(scope["raw_path"])
        more, body = True, b""
        while more:
            event = await receive()
            more, body = event.get("more_body"), body + event["body"]
        self.whole.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def play(self, raw, quiet=0.3):
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            return await converse((reader, writer), raw, quiet)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def each(cases, check):
    """Run a check for each case on a port of its own, several at a time."""

    async def main():
        gate = asyncio.Semaphore(16)

        async def one(name, raw):
            async with gate, Port() as port:
                await check(port, name, raw)

        await asyncio.gather(*(one(name, raw) for name, raw in cases))

    asyncio.run(main())


def test_every_ambiguous_request_is_refused_before_anybody_is_asked():
    async def check(port, name, raw):
        received, closed = await port.play(raw, 5.0)
        assert re.match(rb"HTTP/1\.1 4\d\d ", received), (name, received[:80])
        assert len(re.findall(rb"HTTP/1\.1 \d", received)) == 1, name
        assert closed, name
        assert port.whole == [], name
        assert len(port.refused) <= 1, name

    each([(name, raw) for name, raw in smuggling_cases("reject") if name != UPGRADE], check)


def test_odd_requests_are_refused_or_stay_one_request():
    async def check(port, name, raw):
        received, _ = await port.play(raw)
        assert re.match(rb"HTTP/1\.1 [24]\d\d ", received), (name, received[:80])
        assert len(port.asked) <= 1, name
        assert not [path for path in port.asked if b"smuggled" in path], name

    cases = smuggling_cases("reject", "reject_or_single", "reject_or_drop_trailer")
    each([(name, raw) for name, raw in cases if name == UPGRADE or (name, raw) not in smuggling_cases("reject")], check)


def test_a_body_that_never_ends_is_cut_and_nobody_gets_it_for_whole():
    async def check(port, name, raw):
        received, closed = await port.play(raw, 5.0)
        assert closed, name
        assert not received.startswith(b"HTTP/1.1 2"), name
        assert port.whole == [], name

    each(smuggling_cases("timeout_then_close"), check)


def test_legal_requests_pass():
    async def check(port, name, raw):
        received, closed = await port.play(raw)
        assert received.startswith(b"HTTP/1.1 200 "), (name, received[:80])
        assert not closed, name
        assert len(port.asked) == 1, name

    each(smuggling_cases("accept"), check)


def targets(raw):
    """The targets that llhttp reads until it finds something wrong."""
    found = []

    class Events:
        def on_url(self, url):
            found.append(url)

    with contextlib.suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
        httptools.HttpRequestParser(Events()).feed_data(raw)
    return found


@pytest.mark.vectors
def test_no_llhttp_request_is_more_messages_here_than_there():
    async def check(port, name, raw):
        await port.play(raw, 0.1)
        seen = targets(raw)
        assert len(port.whole) <= len(seen), (name, port.asked, seen)
        assert port.asked == seen[: len(port.asked)], (name, port.asked, seen)

    cases = []
    for row in llhttp_cases("request"):
        raw = re.sub(rb"(HTTP/1\.1\r\n)", rb"\1Host: x\r\n", base64.b64decode(row["raw_b64"]))
        cases.append((row["name"], re.sub(rb"\A([A-Z]+) (?:url|[^ /]+)(?= HTTP)", rb"\1 /url", raw)))
    each(cases, check)


GET = b"GET /v1/%b HTTP/1.1\r\nHost: x\r\n\r\n"


def test_requests_that_come_together_are_answered_in_turn():
    async def main():
        async with Port() as port:
            received, closed = await port.play(GET % b"a" + GET % b"b" + GET % b"c")
            assert port.asked == [b"/v1/a", b"/v1/b", b"/v1/c"]
            assert received.count(b"HTTP/1.1 200 ") == 3
            assert not closed
            received, closed = await port.play(GET % b"d" + b"GET /v1/e HTTP/1.1\r\nHost : x\r\n\r\n" + GET % b"f")
            assert [received.count(b"HTTP/1.1 %d " % status) for status in (200, 400)] == [1, 1]
            assert closed
            assert port.asked[-1] == b"/v1/d"

    asyncio.run(main())


def test_a_client_that_waits_for_100_is_told_to_go_on_and_one_that_does_not_is_understood():
    async def main():
        head = b"PUT /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        async with Port() as port:
            reader, writer = await asyncio.open_connection(*port.address)
            for _ in range(10):
                writer.write(head)
                assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
                writer.write(b"hello")
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
                assert await reader.readexactly(2) == b"ok"
            writer.write(head + b"hello" + GET % b"after")
            assert (await reader.readuntil(b"ok")).count(b"HTTP/1.1 200 ") == 1
            await reader.readuntil(b"ok")
            writer.close()
        assert port.whole == [b"hello"] * 11 + [b""]
        assert port.asked[-1] == b"/v1/after"

    asyncio.run(main())
