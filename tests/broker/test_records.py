"""What the journal says of calls: one intent and one outcome for each that reached an upstream, and no value."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from broker.stack import HOST, SECRET, Received, Reply, Stack, Streams, read_reply, reset, until

_numbers = itertools.count()


async def begin(stack: Stack, **service: Any) -> tuple[str, str]:
    """A new agent with a service that means only the folder ``/v1``; its name and token."""
    name = f"n{next(_numbers)}"
    await stack.secret(f"{name}/key")
    fields = {"hosts": [f"{name}.wild.test:{stack.secure}"], "paths": ["/v1/**"], **service}
    await stack.service(name, secret=f"{name}/key", **fields)
    return name, await stack.agent(name, name)


@pytest.fixture(scope="module")
def named(module_stack: Stack, runner):
    """Names below ``wild.test`` resolve to loopback, so that every test has a host of its own."""
    from keyhole.net.resolve import Resolver

    module_stack.keyhole.dialer._resolver = Resolver(
        "", tuple(f"n{number}.wild.test:127.0.0.1" for number in range(200)) + module_stack.config.resolve
    )


@pytest.fixture(autouse=True)
def _names(named) -> None:
    pass


async def tunnel(stack: Stack, token: str, name: str) -> Streams:
    reply, streams = await stack.connect(token, f"{name}.wild.test:{stack.secure}")
    assert reply.status == 200
    await streams[1].start_tls(stack.client, server_hostname=f"{name}.wild.test")
    return streams


async def records(stack: Stack, name: str) -> list[dict[str, Any]]:
    return [record for record in await stack.records() if record.get("caller") == f"agent/{name}"]


def shape(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(str(record["phase"]), record.get("result", "")) for record in found]


def test_each_call_has_one_intent_and_one_outcome_and_each_refusal_one_record(stack: Stack, run) -> None:
    async def ask() -> list[dict[str, Any]]:
        name, token = await begin(stack)
        streams = await tunnel(stack, token, name)
        for path in ("/v1/a?key=query-value&key=def", "/v2/b", "/v1/c", "/v1/..%2f"):
            await stack.send(streams, path, host=f"{name}.wild.test:{stack.secure}")
        return await records(stack, name)

    found = run(ask())
    assert shape(found) == [
        ("intent", ""),
        ("outcome", "ok"),
        ("refused", "policy_denied"),
        ("intent", ""),
        ("outcome", "ok"),
        ("refused", "invalid_request"),
    ]
    first, outcome, refused = found[:3]
    assert first["id"] == outcome["id"] != refused["id"]
    assert first["parameters"] == ("key", "key")
    assert (first["method"], first["target"]) == ("GET", "/v1/a")
    assert (outcome["status"], outcome["received"]) == (200, 2)
    assert (refused["target"], refused["service"]) == ("/v2/b", first["service"])
    assert refused["secrets"] == first["secrets"] == (f"{first['service']}/key",)
    assert "query-value" not in str(found)
    assert SECRET not in str(found)
    assert len(stack.upstream.requests) == 2


def test_second_of_two_pipelined_requests_is_judged_and_recorded_by_itself(stack: Stack, run) -> None:
    async def ask() -> tuple[list[Reply], list[dict[str, Any]]]:
        name, token = await begin(stack)
        reader, writer = await tunnel(stack, token, name)
        host = f"Host: {name}.wild.test:{stack.secure}\r\n\r\n"
        writer.write(f"GET /v1/a HTTP/1.1\r\n{host}GET /v2/b HTTP/1.1\r\n{host}GET /v1/c HTTP/1.1\r\n{host}".encode())
        return [await read_reply(reader) for _ in range(3)], await records(stack, name)

    replies, found = run(ask())
    assert [reply.status for reply in replies] == [200, 403, 200]
    assert [kind for kind, _ in shape(found)] == ["intent", "outcome", "refused", "intent", "outcome"]
    assert replies[1].get(b"x-keyhole-request-id").decode() == found[2]["id"]


@pytest.mark.parametrize("when", ["before the answer", "in the answer"])
def test_client_that_hangs_up_is_recorded_as_aborted(stack: Stack, run, when: str) -> None:
    gate = asyncio.Event()

    async def slow(_request: Received, writer: asyncio.StreamWriter) -> None:
        if when == "in the answer":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            await writer.drain()
        await gate.wait()

    async def ask() -> list[dict[str, Any]]:
        name, token = await begin(stack)
        reader, writer = await tunnel(stack, token, name)
        writer.write(f"GET /v1/a HTTP/1.1\r\nHost: {name}.wild.test:{stack.secure}\r\n\r\n".encode())
        if when == "in the answer":
            await reader.readuntil(b"half")
        else:
            await until(lambda: bool(stack.upstream.requests))
        reset(writer)
        while len(found := await records(stack, name)) < 2:  # noqa: ASYNC110 - a record tells nobody
            await asyncio.sleep(0.01)
        gate.set()
        return found

    stack.upstream.say = slow
    found = run(ask())
    assert shape(found) == [("intent", ""), ("outcome", "aborted")]


def test_client_that_hangs_up_while_the_intent_is_written_leaves_no_intent_without_outcome(stack: Stack, run) -> None:
    async def ask() -> list[dict[str, Any]]:
        name, token = await begin(stack)
        store = stack.keyhole.node.open_vault().store
        gate, reached, commit = asyncio.Event(), asyncio.Event(), store.commit

        async def slow(batch: Any) -> Any:
            reached.set()
            await gate.wait()
            return await commit(batch)

        _, writer = await tunnel(stack, token, name)
        store.commit = slow
        try:
            writer.write(f"GET /v1/a HTTP/1.1\r\nHost: {name}.wild.test:{stack.secure}\r\n\r\n".encode())
            await reached.wait()
            connections = stack.proxy.connections
            reset(writer)
            await until(lambda: stack.proxy.connections < connections)
        finally:
            del store.commit
            gate.set()
        await asyncio.sleep(0)
        return await records(stack, name)

    found = run(ask())
    assert shape(found) == [("intent", ""), ("outcome", "aborted")]
    assert stack.upstream.requests == []


FAILURES = {
    b"": "upstream_unreachable",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf": "upstream_unreachable",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: zzz\r\nContent-Length: 2\r\n\r\nok": "scrub_failed_closed",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok": "scrub_failed_closed",
}


@pytest.mark.parametrize("answer", FAILURES)
def test_failure_after_the_intent_is_its_outcome(stack: Stack, run, answer: bytes) -> None:
    async def hang_up(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def ask() -> list[dict[str, Any]]:
        name, token = await begin(stack)
        streams = await tunnel(stack, token, name)
        await stack.send(streams, "/v1/a", host=f"{name}.wild.test:{stack.secure}")
        return await records(stack, name)

    stack.upstream.say = hang_up
    assert shape(run(ask())) == [("intent", ""), ("outcome", FAILURES[answer])]


@pytest.mark.parametrize("where", ["header", "reason", "body", "nowhere"])
def test_outcome_says_whether_something_was_masked(stack: Stack, run, where: str) -> None:
    value = SECRET.encode()
    line = b"X-Key: " + value + b"\r\n" if where == "header" else b""
    reason = value if where == "reason" else b"OK"
    body = value if where == "body" else b"ok"
    stack.upstream.say = b"HTTP/1.1 200 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (reason, line, len(body), body)

    async def ask() -> list[dict[str, Any]]:
        name, token = await begin(stack)
        streams = await tunnel(stack, token, name)
        await stack.send(streams, "/v1/a", host=f"{name}.wild.test:{stack.secure}")
        return await records(stack, name)

    _, outcome = run(ask())
    assert bool(outcome.get("scrubbed")) == (where != "nowhere")
    assert SECRET not in str(outcome)


def test_refused_tunnels_are_recorded(stack: Stack, run) -> None:
    async def ask() -> list[dict[str, Any]]:
        name, token = await begin(stack)
        other, _ = await begin(stack)
        for target in (f"evil.test:{stack.secure}", f"{other}.wild.test:{stack.secure}", f"{name}.wild.test:1"):
            reply, _ = await stack.connect(token, target)
            assert reply.status == 403
            assert reply.get(b"x-keyhole-request-id")
        return await records(stack, name)

    found = run(ask())
    assert shape(found) == [("refused", "no_service"), ("refused", "policy_denied"), ("refused", "no_service")]
    assert {record["method"] for record in found} == {"CONNECT"}
    assert [bool(record.get("service")) for record in found] == [False, True, False]
    assert found[0]["host"] == f"evil.test:{stack.secure}"


def test_unknown_callers_are_recorded_without_what_they_showed(stack: Stack, run) -> None:
    async def ask() -> dict[str, Any]:
        reply, _ = await stack.connect("hvs.thisisnotatokenofanybody", f"{HOST}:{stack.secure}")
        assert reply.status == 407
        return (await stack.records())[-1]

    record = run(ask())
    assert (record["phase"], record["result"]) == ("refused", "unauthenticated")
    assert "thisisnot" not in str(record)


def test_calls_to_hosts_without_service_are_recorded_where_egress_lets_them(stack: Stack, run) -> None:
    async def ask() -> list[dict[str, Any]]:
        name, token = await begin(stack)
        await stack.ask("update", "sys/org", {"egress": "log"})
        try:
            await stack.absolute(token, f"http://other.test:{stack.plain}/x?token=query-value")
        finally:
            await stack.ask("update", "sys/org", {"egress": "deny"})
        return await records(stack, name)

    found = run(ask())
    assert shape(found) == [("intent", ""), ("outcome", "address_denied")]
    assert found[0]["operation"] == "egress"
    assert found[0]["parameters"] == ("token",)
    assert "query-value" not in str(found)


def test_no_byte_is_sent_when_the_intent_cannot_be_written(stack: Stack, run) -> None:
    from keyhole.core.errors import StoreUnavailable

    async def ask() -> Reply:
        name, token = await begin(stack)
        streams = await tunnel(stack, token, name)
        store = stack.keyhole.node.open_vault().store

        async def fail(_batch: Any) -> Any:
            raise StoreUnavailable("the disk is full")

        store.commit = fail
        try:
            return await stack.send(streams, "/v1/a", host=f"{name}.wild.test:{stack.secure}")
        finally:
            del store.commit

    reply = run(ask())
    assert (reply.status, reply.code) == (503, "audit_unavailable")
    assert stack.upstream.requests == []


def test_many_calls_at_once_are_all_recorded_exactly_once(stack: Stack, run) -> None:
    async def ask() -> list[dict[str, Any]]:
        name, token = await begin(stack)
        tunnels = [await tunnel(stack, token, name) for _ in range(10)]
        host = f"{name}.wild.test:{stack.secure}"
        paths = [["/v1/a", "/v2/a"] * 5 for _ in tunnels]

        async def each(streams: Streams, mine: list[str]) -> None:
            for path in mine:
                await stack.send(streams, path, host=host)

        await asyncio.gather(*(each(*pair) for pair in zip(tunnels, paths, strict=True)))
        return await records(stack, name)

    found = run(ask())
    kinds = [kind for kind, _ in shape(found)]
    assert (kinds.count("intent"), kinds.count("outcome"), kinds.count("refused")) == (50, 50, 50)
    assert len({record["id"] for record in found}) == 100
    assert len(stack.upstream.requests) == 50
