"""The tools of ``keyhole mcp serve``, without a transport."""

import asyncio
import http.client
import socket
import threading

import pytest
from mcp import Client

from keyhole.client import travel
from keyhole.client.core import Result
from keyhole.faces.mcp import server
from keyhole.faces.mcp.tools import Shelf


class Asked:
    """Remembers what it was asked."""

    def __init__(self):
        self.data = None

    def ask(self, operation, path, data=None):
        self.data = dict(data or {})
        return Result({"records": []})


@pytest.mark.parametrize("name", ["workflow", "run", "step", "tool", "after", "before", "service"])
def test_an_agent_finds_its_records_of_one_piece_of_work(name):
    asked = Asked()
    assert not Shelf().use(asked, "my_audit", {name: "x", "limit": 5}).failed
    assert asked.data == {name: "x", "limit": 5}


def test_an_agent_asks_for_no_records_but_its_own():
    found = Shelf().use(Asked(), "my_audit", {"agent": "other"})
    assert found.failed


def test_an_argument_that_is_null_is_left_out():
    asked = Asked()
    assert not Shelf().use(asked, "my_audit", {"run": "x", "step": None, "limit": None}).failed
    assert asked.data == {"run": "x", "limit": 50}
    assert Shelf().use(asked, "call", {"url": None}).failed


class OnThisLoop:
    """A vault on the loop that serves the tools, and needs a thread of it for each call, as a new certificate does."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()

    def call(self, trip):
        work = asyncio.to_thread(travel.Answered, 200, (), trip.url.encode())
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=60)


def test_calls_do_not_wait_for_threads_that_wait_for_them():
    async def main():
        asker = OnThisLoop()
        async with Client(server.build(Shelf(), lambda _: asker)) as client:
            urls = [f"https://a{number}.test/" for number in range(80)]
            found = await asyncio.gather(*(client.call_tool("call", {"url": url}) for url in urls))
            assert [each.structured_content["body"] for each in found] == urls

    asyncio.run(main())


class Hangs:
    """Every call of this agent hangs until it is let go."""

    def __init__(self):
        self.begun, self.let_go = threading.Semaphore(0), threading.Event()

    def call(self, _trip):
        self.begun.release()
        assert self.let_go.wait(60)
        return travel.Answered(200, (), b"late")


def test_calls_that_hang_keep_no_other_agent_from_its_tools():
    async def main():
        asked, hangs = Asked(), Hangs()
        askers = {"slow": hangs, "other": asked}
        async with (
            Client(server.build(Shelf(), lambda context: askers[context.meta["who"]])) as client,
            asyncio.timeout(60),
        ):
            try:
                url = {"url": "https://a.test/"}
                calls = [asyncio.create_task(client.call_tool("call", url, meta={"who": "slow"})) for _ in range(100)]
                for _ in range(16):
                    await asyncio.to_thread(hangs.begun.acquire)
                for call in calls[:50]:  # whoever gives up does not get more turns for that
                    call.cancel()
                assert not (await client.call_tool("my_audit", {}, meta={"who": "other"})).is_error
                assert not hangs.begun.acquire(blocking=False)
            finally:
                hangs.let_go.set()
            await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(main())


class Large:
    """Gives as much as is wanted, and says how much more there was."""

    def call(self, trip):
        return travel.Answered(200, (), b"x" * trip.keep, left=1000)


@pytest.mark.parametrize("most", [0, 5, 10**12])
def test_of_an_answer_no_more_is_kept_than_a_model_is_given(most):
    found = Shelf().use(Large(), "call", {"url": "https://a.test/", "max_bytes": most}).data
    assert (len(found["body"]), found["truncated"]) == (min(most, 4 * 1024 * 1024), True)


def test_the_rest_of_an_answer_is_read_and_counted():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000)
        response = http.client.HTTPResponse(ours)
        response.begin()
        assert travel._content(response, 10) == (b"x" * 10, 990)
        response.close()
