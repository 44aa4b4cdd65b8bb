"""Requests that would come back to Keyhole end at the first hop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker.stack import HOST, LOOPBACK, Stack
from keyhole.config import Config
from keyhole.net.via import Via


@pytest.fixture(scope="module")
def token(module_stack: Stack, runner) -> str:
    async def prepare() -> str:
        stack = module_stack
        await stack.secret("stripe/key")
        await stack.service("mine", hosts=[f"{HOST}:{stack.address[1]}"], schemes=["http", "https"])
        await stack.service("literal", hosts=[f"127.0.0.1:{stack.address[1]}"], schemes=["http", "https"])
        return await stack.agent("coder", "mine", "literal")

    return runner.run(prepare())


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("host", [HOST, "127.0.0.1"])
def test_proxy_asked_for_itself_says_so(stack: Stack, run, token: str, host: str) -> None:
    port = stack.address[1]

    async def ask() -> list[tuple[int, str]]:
        replies = [
            await stack.absolute(token, f"http://{host}:{port}/x"),
            await stack.absolute(token, f"https://{host}:{port}/x"),
            await stack.get(token, host=host, port=port),
        ]
        return [(reply.status, reply.code) for reply in replies]

    before = open_files()
    for _ in range(10):
        assert run(ask()) == [(508, "loop")] * 3
    assert open_files() <= before + 40  # our own client sockets; nothing dialled


def test_request_that_carries_our_via_is_a_loop(stack: Stack, run, token: str) -> None:
    line = b"Via: 1.0 fred, 1.1 " + stack.proxy.pseudonym + b"\r\n"
    reply = run(stack.absolute(token, f"http://{HOST}:{stack.address[1]}/", headers=line))
    assert (reply.status, reply.code) == (508, "loop")


def test_two_proxies_in_a_ring_end_at_the_first_hop(runner, run) -> None:
    """Each names the other as its corporate proxy: a tunnel through the other needs a token of the other."""

    async def ask() -> tuple[int, list[int]]:
        async with Stack() as first, Stack(Config(upstream_proxy=f"127.0.0.1:{first.address[1]}")) as second:
            first.keyhole.dialer._via = Via.parse(f"127.0.0.1:{second.address[1]}")
            await first.secret("stripe/key")
            await first.service("ours")
            token = await first.agent("coder", "ours")
            statuses = [(await first.get(token)).status for _ in range(5)]
            seen = len(first.upstream.requests) + len(second.upstream.requests)
            await asyncio.sleep(0)
            assert first.proxy.connections <= 6
            assert second.proxy.connections <= 6
            return seen, statuses

    assert run(ask()) == (0, [502] * 5)


def test_two_proxies_that_are_each_others_service_end_at_the_first_hop(run) -> None:
    """What is sent to a host is in origin-form, which a proxy's port refuses."""

    async def ask() -> tuple[int, bytes]:
        async with Stack() as first, Stack() as second:
            for stack, other in ((first, second), (second, first)):
                await stack.secret("stripe/key")
                fields = {"hosts": [f"{HOST}:{other.address[1]}"], "schemes": ["http"], "allow_addresses": LOOPBACK}
                await stack.service("next", **fields)
            token = await first.agent("coder", "next")
            reply = await first.absolute(token, f"http://{HOST}:{second.address[1]}/")
            return reply.status, reply.raw

    status, raw = run(ask())
    assert status == 400
    assert b"this is a proxy" in raw
