"""What is under way ends soon after it was forbidden, is seen to have ended, and its record says why."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from broker.stack import HOST, Received, Stack, read_reply, until
from broker.websocket_rig import Line, accept, echo, everything, frame, library, raw, unframe
from keyhole.broker import live

_numbers = itertools.count()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look every 50 ms."""
    monkeypatch.setattr(live, "EVERY", 0.05)


CHANGES = {
    "token revoked": ("update", "agents/{name}/revoke", {}, "unauthenticated"),
    "agent deleted": ("delete", "agents/{name}", {}, "unauthenticated"),
    "entity disabled": ("update", "identity/entity/id/{entity}", {"disabled": True}, "unauthenticated"),
    "grant taken back": ("delete", "agents/{name}/services/{name}", {}, "policy_denied"),
    "policy deleted": ("delete", "sys/policies/acl/agent/{name}", {}, "policy_denied"),
    "service deleted": ("delete", "services/{name}", {}, "policy_denied"),
    "secret deleted": ("delete", "secret/data/{name}/key", {}, "not_found"),
    "secret expired": ("update", "secret/metadata/{name}/key", {"expires_at": "2020-01-01T00:00:00Z"}, "expired"),
}


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("change", CHANGES)
def test_websocket_is_closed_on_both_sides_when(stack: Stack, run, change: str) -> None:
    operation, path, data, code = CHANGES[change]
    theirs = []

    async def talk(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await echo(connection)
        theirs.append((connection.close_code, connection.close_reason))

    async def ask() -> tuple[int | None, str | None, dict]:
        async with library(stack, talk) as line, line.connect() as connection:
            await connection.send("hello")
            assert await connection.recv() == "hello"
            await stack.ask(operation, path.format(name=line.name, entity=await stack.entity(line.name)), data)
            with pytest.raises(ConnectionClosed):
                await connection.recv()
            await until(lambda: bool(theirs))
            return connection.close_code, connection.close_reason, await line.ended()

    close_code, reason, record = run(ask())
    expected = 1008 if code in {"unauthenticated", "policy_denied"} else 1001
    assert (close_code, reason) == (expected, code)
    assert theirs == [(expected, code)]
    assert (record["result"], record["status"]) == (code, 101)
    assert record["received"] > 0
    assert record["sent"] > 0


def test_websocket_ends_within_five_seconds_of_the_revocation(stack: Stack, run, monkeypatch) -> None:
    looked: list[None] = []
    look = live.Live._look

    def counted(self: live.Live) -> None:
        looked.append(None)
        look(self)

    monkeypatch.setattr(live.Live, "_look", counted)

    async def ask() -> int | None:
        async with library(stack) as line, line.connect() as connection:
            await stack.ask("update", f"agents/{line.name}/revoke", {})
            looked.clear()
            with pytest.raises(ConnectionClosed):
                await connection.recv()
            return connection.close_code

    assert run(ask()) == 1008
    assert len(looked) * live.EVERY <= 5.0  # what is promised


@pytest.mark.usefixtures("soon")
def test_websocket_lives_on_while_other_things_change(stack: Stack, run) -> None:
    async def ask() -> str | bytes:
        async with library(stack) as line, line.connect() as connection:
            for number in range(5):
                await stack.secret(f"other/{line.name}-{number}")
                await stack.secret(f"{line.name}/key", "sk_live_a_newer_value_of_it")
                await asyncio.sleep(0.06)
            await connection.send("still here")
            return await connection.recv()

    assert run(ask()) == "still here"


@pytest.mark.usefixtures("soon")
def test_websocket_ends_with_the_life_of_its_token(run) -> None:
    async def ask() -> tuple[int | None, str | None]:
        async with Stack() as stack, library(stack) as line:
            answer = await stack.ask("update", f"agents/{line.name}/token", {"ttl": "1h"})
            line.token = answer["token"]
            clock = stack.keyhole.node.open_vault().clock
            async with line.connect() as connection:
                later = clock.now() + 3601
                clock.now = lambda: later
                with pytest.raises(ConnectionClosed):
                    await connection.recv()
                return connection.close_code, connection.close_reason

    assert run(ask()) == (1008, "unauthenticated")


@pytest.mark.usefixtures("soon")
def test_close_is_not_put_into_the_middle_of_a_frame(stack: Stack, run) -> None:
    half = frame(2, b"." * 1000)[:500]

    async def ask() -> tuple[bytes, dict]:
        async with raw(stack, lambda request: accept(request) + half) as (line, _):
            _, (reader, _) = await line.shake()
            assert await reader.readexactly(len(half)) == half
            await stack.ask("update", f"agents/{line.name}/revoke", {})
            return await everything(reader), await line.ended()

    rest, record = run(ask())
    assert rest == b""
    assert record["result"] == "unauthenticated"


@pytest.mark.usefixtures("soon")
def test_client_that_does_not_read_is_cut_off_too(stack: Stack, run) -> None:
    flood = frame(2, bytes(1 << 20))

    async def ask() -> dict:
        async with raw(stack, accept, tls=False, read=False) as (line, seen):
            before = stack.proxy.connections
            _, (_, writer) = await line.shake()
            assert seen.streams is not None
            writer.transport.pause_reading()
            for _ in range(32):
                seen.streams[1].write(flood)
            left, transport = 0, seen.streams[1].transport
            while left != transport.get_write_buffer_size():  # until nothing moves any more
                left = transport.get_write_buffer_size()
                await asyncio.sleep(0.2)
            assert left
            await stack.ask("update", f"agents/{line.name}/revoke", {})
            record = await line.ended()
            await until(lambda: stack.proxy.connections <= before)
            return record

    record = run(ask())
    assert record["result"] == "unauthenticated"
    assert record["received"] < 32 << 20


async def _endless(_request: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    with contextlib.suppress(OSError):
        while not writer.is_closing():
            writer.write(b"6\r\nevent\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)


async def _until_close(_request: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\nevent")
    await _silent(_request, writer)


async def _silent(_request: Received, writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.01)


async def _line(stack: Stack, *, tls: bool = True) -> Line:
    line = Line(stack, stack.secure if tls else stack.plain, tls, name=f"body{next(_numbers)}")
    await line.grant()
    return line


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("change", ["token revoked", "grant taken back", "service deleted"])
def test_streamed_body_breaks_off_where_it_can_be_seen_when(stack: Stack, run, change: str) -> None:
    operation, path, data, code = CHANGES[change]

    async def ask() -> tuple[bool, dict]:
        line = await _line(stack)
        reader, writer = await stack.tunnel(line.token)
        writer.write(f"GET /v1/x HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\n\r\n".encode())
        reading = asyncio.create_task(read_reply(reader))
        await until(lambda: bool(stack.upstream.requests))
        await stack.ask(operation, path.format(name=line.name, entity=await stack.entity(line.name)), data)
        reply = await reading
        record = await line.ended()
        with contextlib.suppress(Exception):
            await stack.ask("delete", f"services/{line.name}")
        return reply.whole, record

    stack.upstream.say = _endless
    whole, record = run(ask())
    assert not whole
    assert (record["result"], record["status"]) == (code, 200)
    assert record["received"] > 0


@pytest.mark.usefixtures("soon")
def test_body_that_ends_with_its_connection_is_reset_and_looks_incomplete(stack: Stack, run) -> None:
    async def ask() -> bool:
        line = await _line(stack, tls=False)
        reader, writer = await stack.tunnel(line.token, tls=False)
        writer.write(f"GET /v1/x HTTP/1.0\r\nHost: {HOST}:{stack.plain}\r\n\r\n".encode())
        reading = asyncio.create_task(read_reply(reader))
        await until(lambda: bool(stack.upstream.requests))
        await stack.ask("update", f"agents/{line.name}/revoke", {})
        whole = (await reading).whole
        await stack.ask("delete", f"services/{line.name}")
        return whole

    stack.upstream.say = _until_close
    assert not run(ask())


@pytest.mark.usefixtures("soon")
def test_call_that_still_waits_for_its_answer_is_refused(stack: Stack, run) -> None:
    async def ask() -> tuple[int, str, dict, bool]:
        line = await _line(stack)
        sending = asyncio.create_task(stack.get(line.token))
        await until(lambda: bool(stack.upstream.requests))
        await stack.ask("update", f"agents/{line.name}/revoke", {})
        reply = await sending
        record = await line.ended()
        await stack.ask("delete", f"services/{line.name}")
        return reply.status, reply.code, record, reply.get(b"x-keyhole-request-id") == record["id"].encode()

    stack.upstream.say = _silent
    status, code, record, same = run(ask())
    assert (status, code, record["result"], same) == (407, "unauthenticated", "unauthenticated", True)


@pytest.mark.usefixtures("soon")
def test_sealing_ends_what_is_under_way(run) -> None:
    async def ask() -> tuple[int | None, str | None]:
        async with Stack() as stack, library(stack) as line, line.connect() as connection:
            await connection.send("hello")
            await connection.recv()
            await stack.keyhole.node.seal()
            with pytest.raises(ConnectionClosed):
                await connection.recv()
            return connection.close_code, connection.close_reason

    assert run(ask()) == (1001, "sealed")


def test_nothing_is_looked_after_once_all_calls_have_ended(stack: Stack, run) -> None:
    async def ask() -> int:
        line = await _line(stack)
        await stack.get(line.token)
        await stack.ask("delete", f"services/{line.name}")
        return len(stack.keyhole.broker._resources.live)

    assert run(ask()) == 0


def test_frames_are_read_right_by_these_tests() -> None:
    data = frame(1, b"a" * 70_000, mask=True) + frame(9, b"") + frame(0, b"b" * 200, fin=False)
    assert unframe(data) == [(1, True, b"a" * 70_000), (9, True, b""), (0, False, b"b" * 200)]
