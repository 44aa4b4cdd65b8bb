"""A call is made ready while its intent is on its way to the disk; nothing leaves, and nothing is told, before."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from broker.stack import HOST, LOOPBACK, Stack, Streams, reset, until
from keyhole.broker.loan import Loan
from keyhole.core.errors import InvalidRequest, StoreUnavailable

_numbers = itertools.count()


class Held:
    """What the store is asked to write waits."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.gate = asyncio.Event()
        self.error: Exception | None = None


@contextlib.asynccontextmanager
async def holding(stack: Stack) -> AsyncIterator[Held]:
    store, held = stack.keyhole.node.open_vault().store, Held()
    commit = store.commit

    async def wait(batch: Any) -> Any:
        held.reached.set()
        await held.gate.wait()
        if held.error is not None:
            raise held.error
        return await commit(batch)

    store.commit = wait
    try:
        yield held
    finally:
        held.gate.set()
        del store.commit


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Kinds of injections that were begun."""
    begun: list[str] = []
    inject = Loan.inject

    def noted(loan: Loan, *about: Any) -> Any:
        begun.append(loan.service.inject.kind)
        return inject(loan, *about)

    monkeypatch.setattr(Loan, "inject", noted)
    return begun


async def begin(stack: Stack) -> tuple[str, Streams]:
    """A new agent with a tunnel; its name."""
    name = f"ready{next(_numbers)}"
    await stack.secret("stripe/key")
    await stack.service(name)
    token = await stack.agent(name, name)
    streams = await stack.tunnel(token)
    stack.upstream.forget()
    return name, streams


async def shape(stack: Stack, name: str) -> list[tuple[str, str]]:
    found = [record for record in await stack.records() if record.get("caller") == f"agent/{name}"]
    return [(str(record["phase"]), record.get("result", "")) for record in found]


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(("method", "body"), [("GET", b""), ("POST", b"x" * 100)])
def test_request_is_ready_and_not_sent_before_its_intent_is_durable(
    stack: Stack, run, ready: list[str], method: str, body: bytes
) -> None:
    async def go() -> None:
        name, streams = await begin(stack)
        async with holding(stack) as held:
            asking = asyncio.create_task(stack.send(streams, method=method, body=body))
            await held.reached.wait()
            await until(lambda: ready == ["bearer"])
            await settle()
            assert stack.upstream.received.strip(b"\0") == b""
            held.gate.set()
            assert (await asking).status == 200
        assert stack.upstream.last.body == body
        assert await shape(stack, name) == [("intent", ""), ("outcome", "ok")]

    run(go())


def test_a_tunnel_that_is_passed_on_begins_when_its_intent_is_durable(stack: Stack, run) -> None:
    async def go() -> None:
        name = f"ready{next(_numbers)}"
        hosts = [f"b.test:{stack.secure}"]
        passed = {"inject": {"kind": "none"}, "secret": "", "schemes": ["tls"], "allow_addresses": LOOPBACK}
        await stack.ask("update", f"services/{name}", {"hosts": hosts, **passed})
        token = await stack.agent(name, name)
        async with holding(stack) as held:
            opening = asyncio.create_task(stack.connect(token, hosts[0]))
            await held.reached.wait()
            await settle()
            assert not opening.done()
            held.gate.set()
            assert (await opening)[0].status == 200

    run(go())


def test_intent_that_cannot_be_written_has_no_outcome_and_leaves_the_connection_for_the_next_call(
    stack: Stack, run, ready: list[str]
) -> None:
    async def go() -> None:
        name, streams = await begin(stack)
        await stack.send(streams)
        stack.upstream.forget()
        connections = len(stack.upstream.raw)
        async with holding(stack) as held:
            held.error = StoreUnavailable("the disk is full")
            asking = asyncio.create_task(stack.send(streams))
            await until(lambda: len(ready) == 2)
            held.gate.set()
            reply = await asking
        assert (reply.status, reply.code) == (503, "audit_unavailable")
        assert stack.upstream.received.strip(b"\0") == b""
        assert (await stack.send(streams)).status == 200
        assert len(stack.upstream.raw) == connections
        assert await shape(stack, name) == [("intent", ""), ("outcome", "ok")] * 2

    run(go())


@pytest.mark.parametrize("written", [True, False])
def test_failure_while_a_call_is_made_ready_is_told_when_its_intent_is_durable(
    stack: Stack, run, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    async def go() -> None:
        name, streams = await begin(stack)
        failed = asyncio.Event()

        def fail(*_about: object) -> None:
            failed.set()
            raise InvalidRequest("no")

        monkeypatch.setattr(Loan, "inject", fail)
        async with holding(stack) as held:
            held.error = None if written else StoreUnavailable("the disk is full")
            asking = asyncio.create_task(stack.send(streams))
            await failed.wait()
            await settle()
            assert not asking.done()
            held.gate.set()
            assert (await asking).code == ("invalid_request" if written else "audit_unavailable")
        assert await shape(stack, name) == ([("intent", ""), ("outcome", "invalid_request")] if written else [])

    run(go())


def test_client_that_hangs_up_before_its_intent_is_durable_sends_nothing(stack: Stack, run, ready: list[str]) -> None:
    async def go() -> None:
        name, streams = await begin(stack)
        async with holding(stack) as held:
            streams[1].write(f"GET /v1/x HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\n\r\n".encode())
            await until(lambda: ready == ["bearer"])
            connections = stack.proxy.connections
            reset(streams[1])
            await until(lambda: stack.proxy.connections < connections)
            held.gate.set()
        await settle()
        assert stack.upstream.received.strip(b"\0") == b""
        assert await shape(stack, name) == [("intent", ""), ("outcome", "aborted")]

    run(go())
