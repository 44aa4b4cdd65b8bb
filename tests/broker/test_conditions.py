"""Conditions and limits of services in the whole product: refused and recorded before anything is lent."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest

from broker.stack import HOST, SECRET, Received, Reply, Stack, read_reply, reset, until

_numbers = itertools.count()
JSON = b"Content-Type: application/json\r\n"


async def begin(stack: Stack, **fields: Any) -> tuple[str, str]:
    """A new agent with one service at a path of its own; its name and token."""
    name = f"k{next(_numbers)}"
    await stack.secret(f"{name}/key")
    await stack.service(name, **{"secret": f"{name}/key", "paths": [f"/{name}/**"], **fields})
    return name, await stack.agent(name, name)


async def post(stack: Stack, token: str, path: str, body: Any, headers: bytes = JSON, method: str = "POST") -> Reply:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await stack.get(token, path, method=method, headers=headers, body=content)


async def records(stack: Stack, name: str) -> list[dict[str, Any]]:
    return [record for record in await stack.records() if record.get("caller") == f"agent/{name}"]


def nothing_was_lent(stack: Stack, found: list[dict[str, Any]], connections: int) -> bool:
    """No intent to use, no byte and no connection to the upstream."""
    return (
        all(str(record["phase"]) == "refused" for record in found)
        and not stack.upstream.requests
        and len(stack.upstream.raw) == connections
    )


@pytest.mark.parametrize(
    ("conditions", "path", "body", "code"),
    [
        ({"query": {"amount": {"max": 100}}}, "x?amount=101", None, "policy_denied"),
        ({"query": {"amount": {"max": 100}}}, "x?amount=1&amount=101", None, "invalid_request"),
        ({"body": [{"at": "/amount", "max": 100}]}, "x", {"amount": 101}, "policy_denied"),
        ({"body": [{"at": "/amount", "max": 100}]}, "x", b'{"amount": 1, "amount": 101}', "invalid_request"),
        (
            {"body": [{"at": "/amount", "max": 100}], "body_limit": 99},
            "x",
            {"amount": 1, "x": "." * 99},
            "body_too_large",
        ),
        ({"graphql": {"operations": ["query"]}}, "graphql", {"query": "mutation { x }"}, "policy_denied"),
        ({"graphql": {"operations": ["query"]}}, "graphql?query=mutation%7Bx%7D", None, "policy_denied"),
        ({"git": "fetch"}, "a.git/info/refs?service=git-receive-pack", None, "policy_denied"),
        ({"git": "fetch"}, "a.git/git-receive-pack", b"0000", "policy_denied"),
        ({"git": "fetch"}, "a.git/info/lfs/objects/batch", {"operation": "upload"}, "policy_denied"),
        ({"until": "2020-01-01"}, "x", None, "policy_denied"),
    ],
)
def test_a_request_that_fails_a_condition_is_recorded_and_lends_nothing(
    stack: Stack, run, conditions: dict[str, Any], path: str, body: Any, code: str
) -> None:
    async def ask() -> tuple[str, Reply, list[dict[str, Any]], int]:
        name, token = await begin(stack, conditions=conditions)
        before = len(stack.upstream.raw)
        target = f"/{name}/{path}"
        reply = await (stack.get(token, target) if body is None else post(stack, token, target, body))
        return name, reply, await records(stack, name), before

    name, reply, found, before = run(ask())
    assert reply.code == code
    assert [(str(record["phase"]), record["result"], record["service"]) for record in found] == [
        ("refused", code, name)
    ]
    assert nothing_was_lent(stack, found, before)
    assert json.loads(reply.body)["error"]["hint"]


def test_what_was_judged_is_byte_for_byte_what_is_sent(stack: Stack, run) -> None:
    body = b'{ "amount" :1e1,\n"x":"\\u00e9\\/" , "y" : [1.50] }\r\n'

    async def ask() -> Reply:
        name, token = await begin(stack, conditions={"body": [{"at": "/amount", "max": 10}]})
        return await post(stack, token, f"/{name}/a?q=%7E+x", body)

    assert run(ask()).status == 200
    assert stack.upstream.last.body == body
    assert stack.upstream.last.values(b"authorization") == [b"Bearer " + SECRET.encode()]


@pytest.mark.parametrize("line", [b"Content_Type: application/x-www-form-urlencoded", b"content~encoding: gzip"])
def test_no_other_spelling_says_how_a_judged_body_is_to_be_read(stack: Stack, run, line: bytes) -> None:
    async def play() -> int:
        name, token = await begin(stack, conditions={"body": [{"at": "/amount", "max": 100}]})
        body = {"amount": 5, "note": "&amount=5000&"}
        return (await post(stack, token, f"/{name}/x", body, JSON + line + b"\r\n")).status

    assert run(play()) == 200
    names = {b"host", b"via", b"authorization", b"content-type", b"content-length"}
    assert {name for name, _ in stack.upstream.last.headers} == names


def test_a_body_in_chunks_is_judged_whole_and_sent_whole(stack: Stack, run) -> None:
    async def ask(second: bytes) -> Reply:
        name, token = await begin(stack, conditions={"body": [{"at": "/amount", "max": 10}]})
        reader, writer = await stack.tunnel(token)
        head = f"POST /{name}/a HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\nTransfer-Encoding: chunked\r\n".encode()
        writer.write(head + JSON + b'\r\nb\r\n{"amount": \r\n')
        await asyncio.sleep(0)
        writer.write(second)
        return await read_reply(reader, "POST")

    assert run(ask(b"3\r\n99}\r\n0\r\n\r\n")).code == "policy_denied"
    assert not stack.upstream.requests
    assert run(ask(b"2\r\n9}\r\n0\r\n\r\n")).status == 200
    assert stack.upstream.last.body == b'{"amount": 9}'


def test_a_clone_goes_through_a_rule_for_fetching(stack: Stack, run) -> None:
    pack = bytes(range(256)) * 64

    async def ask() -> list[int]:
        name, token = await begin(stack, conditions={"git": "fetch"})
        refs = await stack.get(token, f"/{name}/a.git/info/refs?service=git-upload-pack")
        headers = b"Content-Type: application/x-git-upload-pack-request\r\nContent-Encoding: gzip\r\n"
        fetch = await post(stack, token, f"/{name}/a.git/git-upload-pack", pack, headers)
        return [refs.status, fetch.status]

    assert run(ask()) == [200, 200]
    assert stack.upstream.last.body == pack


def test_a_condition_binds_the_requests_that_it_is_for(stack: Stack, run) -> None:
    conditions = [{"for": {"methods": ["POST"]}, "query": {"dry_run": ["true"]}}]

    async def ask() -> list[int]:
        name, token = await begin(stack, conditions=conditions)
        return [
            (await stack.get(token, f"/{name}/a")).status,
            (await post(stack, token, f"/{name}/a", {})).status,
            (await post(stack, token, f"/{name}/a?dry_run=true", {})).status,
        ]

    assert run(ask()) == [200, 403, 200]


def test_a_failed_condition_does_not_fall_through_to_a_wider_service(stack: Stack, run) -> None:
    async def ask() -> Reply:
        name, _ = await begin(stack, conditions={"query": {"a": ["b"]}})
        await stack.secret("wide/key")
        await stack.service(f"{name}-wide", secret="wide/key", paths=["/**"])
        return await stack.get(await stack.agent(name, f"{name}-wide"), f"/{name}/x")

    assert run(ask()).code == "policy_denied"


def test_nothing_goes_over_a_websocket_that_nobody_could_judge(stack: Stack, run) -> None:
    async def ask() -> Reply:
        name, token = await begin(stack, conditions={"body": [{"at": "/amount", "max": 10}]})
        upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        return await stack.get(
            token, f"/{name}/ws", headers=upgrade + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        )

    assert run(ask()).code == "policy_denied"
    assert not stack.upstream.requests


def test_a_rate_lets_a_burst_through_and_then_says_when_to_come_again(stack: Stack, run) -> None:
    async def ask() -> tuple[list[Reply], list[Reply], list[dict[str, Any]]]:
        name, token = await begin(stack, limits={"rate": "3/h"})
        again = str((await stack.ask("update", f"agents/{name}/token", {"ttl": "1h"}))["token"])
        other = await stack.agent(f"{name}-other", name)
        mine = [await stack.get(each, f"/{name}/x") for each in (token, again, token, again)]
        return mine, [await stack.get(other, f"/{name}/x")], await records(stack, name)

    mine, other, found = run(ask())
    assert [reply.status for reply in mine] == [200, 200, 200, 429], "two tokens of an agent are one agent"
    assert mine[-1].code == "rate_limited"
    assert 1100 < int(mine[-1].get(b"retry-after") or b"") <= 1200
    assert other[0].status == 200, "an agent has its own share"
    assert [str(record["phase"]) for record in found][-1] == "refused"


def test_a_count_is_used_up_exactly_by_parallel_calls(stack: Stack, run) -> None:
    async def ask() -> tuple[list[Reply], str, str]:
        name, token = await begin(stack, limits={"count": "7/52w"})
        replies = await asyncio.gather(*(stack.get(token, f"/{name}/x") for _ in range(12)))
        return list(replies), name, token

    replies, name, token = run(ask())
    assert sorted(reply.status for reply in replies) == [200] * 7 + [429] * 5
    assert len(stack.upstream.requests) == 7
    assert all(int(reply.get(b"retry-after") or b"0") > 0 for reply in replies if reply.status == 429)
    assert run(stack.get(token, f"/{name}/x")).status == 429


def test_calls_at_once_are_bounded_and_make_room_when_they_end(stack: Stack, run) -> None:
    gate = asyncio.Event()

    async def slow(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
        await gate.wait()
        writer.write(b"lf")

    async def ask() -> list[str]:
        name, token = await begin(stack, limits={"concurrent": 2})
        stack.upstream.say = slow
        path = f"/{name}/x"
        first = asyncio.create_task(stack.get(token, path))
        streams = await stack.tunnel(token)
        streams[1].write(f"GET {path} HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\n\r\n".encode())
        await until(lambda: len(stack.upstream.requests) == 2)
        codes = [(await stack.get(token, path)).code]
        reset(streams[1])  # a client that hangs up has made room
        gate.set()
        codes.append((await first).code)
        stack.upstream.say = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        return codes + [(await stack.get(token, path)).code for _ in range(6)]  # each ends before the next begins

    assert run(ask()) == ["rate_limited", "", *[""] * 6]


def test_a_call_that_fails_makes_room_too(stack: Stack, run) -> None:
    async def ask() -> list[str]:
        name, token = await begin(stack, limits={"concurrent": 1}, secret="there/is-none")
        return [(await stack.get(token, f"/{name}/x")).code for _ in range(3)]

    assert run(ask()) == ["not_found"] * 3


def test_a_service_that_no_longer_has_a_limit_lets_through(stack: Stack, run) -> None:
    async def ask() -> list[int]:
        name, token = await begin(stack, limits={"count": "1/52w"})
        path = f"/{name}/x"
        first = [(await stack.get(token, path)).status for _ in range(2)]
        await stack.service(name, secret=f"{name}/key", paths=[f"/{name}/**"], limits={"count": "2/52w"})
        more = [(await stack.get(token, path)).status for _ in range(2)]
        await stack.service(name, secret=f"{name}/key", paths=[f"/{name}/**"])
        return [*first, *more, (await stack.get(token, path)).status]

    assert run(ask()) == [200, 429, 200, 429, 200]


def test_what_is_asked_of_a_call_can_be_asked_about(stack: Stack, run) -> None:
    conditions = {"query": {"a": ["b"]}, "body": [{"at": "/amount", "max": 5}]}

    async def ask() -> list[dict[str, Any]]:
        name, token = await begin(stack, conditions=conditions, limits={"rate": "5/m"})
        url = f"https://{HOST}:{stack.secure}/{name}/x"
        return [
            await stack.ask("update", "sys/why", {"method": "POST", "url": f"{url}{query}"}, token)
            for query in ("?a=b", "?a=c")
        ]

    fine, refused = run(ask())
    assert fine["allowed"]
    assert fine["checks"] == ["query a: b", "body /amount: at most 5", "rate: 5/m, 5 at once"]
    assert not refused["allowed"]
    assert refused["error"]["code"] == "policy_denied"


def test_a_limit_that_is_misspelt_is_refused(stack: Stack, run) -> None:
    async def ask() -> None:
        await stack.secret("x/key")
        await stack.service("x", secret="x/key", limits={"rates": "5/m"})

    with pytest.raises(Exception, match="limits have"):
        run(ask())
