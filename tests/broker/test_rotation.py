"""A rotation under load: no call fails, and no answer has one of the values, whatever the upstream gives back."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import Counter
from itertools import count

import pytest

from broker.stack import HOST, LOOPBACK, Received, Stack

ADMIN = "the-admin-token-1234"
FIRST = "first-value-0123456789"
WORKERS = 8
CALLS = 300
RATE = 200.0  # calls a second


class Api:
    """Takes the keys that are live now, and gives back every one of them that was ever shown to it.

    ``/slow`` waits to be let go.
    """

    def __init__(self) -> None:
        self.live = {"0": FIRST}
        self.ever = [FIRST]
        self.used: Counter[str] = Counter()
        self.shown: set[str] = set()
        self.both = 0  # answers with two keys
        self.waiting = asyncio.Semaphore(0)
        self.let_go = asyncio.Event()
        self.newest = asyncio.Event()

    async def say(self, request: Received, writer: asyncio.StreamWriter) -> None:
        token = request.values(b"authorization")[0].removeprefix(b"Bearer ").decode()
        status, answer = 403, b"{}"
        if token == ADMIN and request.method == "POST":
            number, value = secrets.token_hex(4), "made-" + secrets.token_hex(12)
            self.live[number] = value
            self.ever.append(value)
            status, answer = 201, json.dumps({"id": number, "secret": value}).encode()
        elif token == ADMIN and request.method == "DELETE":
            del self.live[request.target.rpartition(b"/")[2].decode()]
            status = 200
        elif token in self.live.values():
            self.shown.add(token)
            self.used[token] += request.target != b"/me"
            if request.target.startswith(b"/v1/") and token == self.ever[-1]:
                self.newest.set()
            if request.target == b"/v1/slow":
                self.waiting.release()
                await self.let_go.wait()
            status, answer = 200, json.dumps({"keys": sorted(self.shown & {*self.live.values()})}).encode()
            self.both += len(self.shown & {*self.live.values()}) == 2
        writer.write(
            b"HTTP/1.1 %d X\r\nX-Key: %s\r\nContent-Length: %d\r\n\r\n" % (status, token.encode(), len(answer))
        )
        writer.write(answer)
        await writer.drain()


def _recipe(stack: Stack) -> dict[str, object]:
    base, admin = f"https://{HOST}:{stack.secure}", {"Authorization": "Bearer {{secrets.admin}}"}
    return {
        "secrets": {"admin": "acme/admin#token"},
        "allow_addresses": LOOPBACK,
        "create": {"url": f"{base}/keys", "headers": admin, "fields": {"value": "$.secret"}, "handle": {"id": "$.id"}},
        "verify": {"url": f"{base}/me", "headers": {"Authorization": "Bearer {{new.value}}"}},
        "revoke": {"method": "DELETE", "url": f"{base}/keys/{{{{handle.id}}}}", "headers": admin},
    }


@pytest.mark.parametrize("times", [2])
def test_no_call_fails_and_no_value_is_seen_while_values_are_replaced(times: int) -> None:
    async def main() -> None:
        api = Api()
        async with Stack() as stack:
            stack.upstream.say = api.say
            await stack.secret("stripe/key", FIRST)
            await stack.secret("acme/admin", {"token": ADMIN})
            await stack.service("api")
            rotation = {"secret": "stripe/key", "rotator": "http", "settings": _recipe(stack), "handle": {"id": "0"}}
            await stack.ask("update", "sys/rotations/r", {**rotation, "grace": "1h"})
            token = await stack.agent("coder", "api")
            raw = await _load(stack, api, token, times)
            assert not any(value.encode() in raw for value in api.ever)
            assert len(api.ever) == times + 1
            assert api.both > 0
            assert min(api.used[value] for value in api.ever) > 0
            await _next_call_has_the_new_value(stack, api, token)

    asyncio.run(main())


async def _load(stack: Stack, api: Api, token: str, times: int) -> bytes:
    """Calls at a rate, with rotations amid them and slow calls across each; every answer, as the client got it."""
    seen, numbers, started = bytearray(), count(), asyncio.get_running_loop().time()
    rotated = asyncio.Event()

    async def worker() -> None:
        streams = await stack.tunnel(token)
        while (number := next(numbers)) < CALLS or not rotated.is_set():
            await asyncio.sleep(started + number / RATE - asyncio.get_running_loop().time())
            reply = await stack.send(streams, f"/v1/{number}")
            assert reply.status == 200, reply.raw
            seen.extend(reply.raw)

    async def rotator() -> None:
        for _ in range(times):
            await _used_now(api)
            slow = asyncio.ensure_future(stack.get(token, "/v1/slow"))
            await api.waiting.acquire()
            await stack.ask("update", "sys/rotations/r/rotate", {})
            await _used_now(api)
            api.let_go.set()
            reply = await slow
            assert reply.status == 200
            seen.extend(reply.raw)
            api.let_go.clear()
            await stack.ask("update", "sys/rotations/r/rotate", {"now": True})  # its grace is over
        rotated.set()

    await asyncio.gather(rotator(), *(worker() for _ in range(WORKERS)))
    return bytes(seen)


async def _used_now(api: Api) -> None:
    """Wait until some calls were made with the newest value."""
    for _ in range(10):
        api.newest.clear()
        await api.newest.wait()


async def _next_call_has_the_new_value(stack: Stack, api: Api, token: str) -> None:
    await stack.ask("update", "sys/rotations/r/rotate", {})
    before = api.used[api.ever[-1]]
    assert (await stack.get(token)).status == 200
    assert api.used[api.ever[-1]] == before + 1
