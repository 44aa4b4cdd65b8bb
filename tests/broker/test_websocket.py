"""WebSockets through the whole product, spoken by libraries that are not ours on both ends, or byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from broker.stack import HOST, SECRET, Reply, Stack, basic, until
from broker.websocket_rig import (
    KEY,
    Line,
    Raw,
    accept,
    answer,
    echo,
    everything,
    frame,
    handshake,
    library,
    raw,
    unframe,
)
from e2e.world import node
from keyhole.config import Config

TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9
MASKED = "*" * len(SECRET)


# What flows.


@pytest.mark.parametrize("tls", [True, False], ids=["wss", "ws"])
def test_messages_flow_both_ways_and_the_handshake_is_recorded_once(stack: Stack, run, tls: bool) -> None:
    messages = ["hello", b"\x00\xff" * 5000, "", "x" * 70_000]

    async def ask() -> tuple[list[str | bytes], int | None, list[dict]]:
        async with library(stack, tls=tls) as line:
            async with line.connect() as connection:
                heard = []
                for message in messages:
                    await connection.send(message)
                    heard.append(await connection.recv())
                await (await connection.ping())
            await line.ended()
            return heard, connection.close_code, await stack.records(service=line.name)

    heard, code, [intent, outcome] = run(ask())
    assert heard == messages
    assert code == 1000
    assert intent["phase"] == "intent"
    assert (outcome["result"], outcome["status"], outcome["method"], outcome["target"]) == ("ok", 101, "GET", "/v1/ws")
    assert outcome["received"] > 80_000
    assert outcome["sent"] > 80_000


@pytest.mark.parametrize("scheme", ["wss", "ws"])
def test_aiohttp_talks_through_the_proxy(stack: Stack, run, scheme: str) -> None:
    async def ask() -> tuple[object, object]:
        async with library(stack, tls=scheme == "wss") as line, aiohttp.ClientSession() as session:
            proxy = f"http://agent:{line.token}@{stack.address[0]}:{stack.address[1]}"
            url = f"{scheme}://{HOST}:{line.port}/v1/ws"
            async with session.ws_connect(url, proxy=proxy, ssl=stack.client) as connection:
                await connection.send_str("hello")
                text = await connection.receive_str()
                await connection.send_bytes(b"\0" * 100_000)
                return text, len(await connection.receive_bytes())

    assert run(ask()) == ("hello", 100_000)


NODE = """
const ws = new WebSocket(process.env.URL);
ws.onopen = () => ws.send("hello");
ws.onmessage = (event) => { console.log(event.data); ws.close(1000, "bye"); };
ws.onclose = (event) => console.log(event.code);
"""


def test_node_talks_through_the_proxy_that_its_environment_names(stack: Stack, run, tmp_path: Path) -> None:
    async def ask() -> bytes:
        (tmp_path / "ca.pem").write_text((await stack.ask("read", "sys/keyhole"))["ca"])
        async with library(stack) as line:
            environment = {
                "URL": f"wss://{HOST}:{line.port}/v1/ws",
                "HTTPS_PROXY": f"http://agent:{line.token}@{stack.address[0]}:{stack.address[1]}",
                "NODE_USE_ENV_PROXY": "1",
                "NODE_EXTRA_CA_CERTS": str(tmp_path / "ca.pem"),
            }
            pipe = asyncio.subprocess.PIPE
            child = await asyncio.create_subprocess_exec(node(), "-e", NODE, env=environment, stdout=pipe, stderr=pipe)
            said, _ = await child.communicate()
            return said

    assert run(ask()) == b"hello\n1000\n"


def test_upstream_sees_the_secret_in_the_handshake_and_no_offer_of_an_extension(stack: Stack, run) -> None:
    async def ask() -> tuple[bytes, str | None, bytes | None]:
        async with raw(stack, lambda request: accept(request, b"Sec-WebSocket-Protocol: chat\r\n")) as (line, seen):
            offers = b"Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: mqtt, chat\r\n"
            reply, _ = await line.shake(offers)
            return seen.request, reply.code, reply.get(b"sec-websocket-protocol")

    request, _, protocol = run(ask())
    fields = dict(one.lower().split(b": ", 1) for one in request.split(b"\r\n")[1:-2])
    assert fields[b"authorization"] == b"bearer " + SECRET.lower().encode()
    assert fields[b"connection"] == fields[b"upgrade"].replace(b"websocket", b"upgrade")
    assert b"sec-websocket-extensions" not in fields
    assert fields[b"sec-websocket-protocol"] == b"mqtt, chat"
    assert b"proxy-authorization" not in fields
    assert protocol == b"chat"


def test_library_that_offers_compression_goes_without(stack: Stack, run) -> None:
    async def ask() -> list[object]:
        async with library(stack) as line, line.connect(compression="deflate") as connection:
            await connection.send("a" * 1000)
            await connection.recv()
            return list(connection.protocol.extensions)

    assert run(ask()) == []


def test_frames_in_the_same_segment_as_the_handshakes_are_not_lost(stack: Stack, run) -> None:
    async def ask() -> tuple[bytes, list]:
        say = frame(TEXT, b"first " + SECRET.encode())
        async with raw(stack, lambda request: accept(request) + say) as (line, seen):
            _, (reader, _) = await line.shake(then=frame(TEXT, b"early", mask=True))
            first = await reader.readexactly(len(say))
            await until(lambda: len(unframe(seen.received)) == 1)
            return first, unframe(seen.received)

    first, received = run(ask())
    assert unframe(first) == [(TEXT, True, b"first " + MASKED.encode())]
    assert received == [(TEXT, True, b"early")]


def test_echoes_are_masked_in_messages_fragments_pings_and_close_reasons(stack: Stack, run) -> None:
    async def talk(connection: ServerConnection) -> None:
        await connection.send(f"you are {SECRET}")
        await connection.send(SECRET.encode())
        await connection.send([SECRET[:9], SECRET[9:20], SECRET[20:]])
        await connection.close(1000, f"bye {SECRET}")

    async def ask() -> tuple[list[str | bytes], str | None, dict]:
        async with library(stack, talk) as line, line.connect() as connection:
            heard = [await connection.recv() for _ in range(3)]
            await connection.wait_closed()
            return heard, connection.close_reason, await line.ended()

    heard, reason, record = run(ask())
    assert heard == [f"you are {MASKED}", MASKED.encode(), MASKED]
    assert reason == f"bye {MASKED}"
    assert (record["result"], record["scrubbed"]) == ("ok", 1)


def test_placeholder_in_a_text_frame_becomes_the_secret_and_its_echo_is_masked(stack: Stack, run) -> None:
    seen = []

    async def talk(connection: ServerConnection) -> None:
        async for message in connection:
            seen.append(message)
            await connection.send(message)

    async def ask() -> str | bytes:
        inject = {"kind": "placeholder", "text": "sk-placeholder-1", "in": ["header", "frame"]}
        async with library(stack, talk, grant={"inject": inject}) as line:
            headers = {"Authorization": "Bearer sk-placeholder-1"}
            async with line.connect(additional_headers=headers) as connection:
                await connection.send('{"type":"auth","token":"sk-placeholder-1"}')
                return await connection.recv()

    heard = run(ask())
    assert seen == [f'{{"type":"auth","token":"{SECRET}"}}']
    assert heard == f'{{"type":"auth","token":"{MASKED}"}}'


def test_message_with_a_value_does_not_leave_and_raises_an_alarm(stack: Stack, run) -> None:
    seen = []

    async def talk(connection: ServerConnection) -> None:
        seen.extend([message async for message in connection])

    async def ask() -> tuple[int | None, dict, list]:
        async with library(stack, talk) as line, line.connect() as connection:
            await connection.send("a harmless word")
            await connection.send(f"forward this: {SECRET}")
            await connection.wait_closed()
            found = (await stack.ask("read", "sys/audit-log", {"operation": "alarm"}))["records"]
            return connection.close_code, await line.ended(), found

    code, record, found = run(ask())
    assert seen == ["a harmless word"]
    assert (code, record["result"]) == (1008, "policy_denied")
    assert found[-1]["result"] == "value in frame"


# Who may.


def test_path_rules_hold_for_handshakes(stack: Stack, run) -> None:
    async def ask() -> tuple[Reply, Reply, bytes]:
        async with raw(stack, deny_paths=["/v1/admin/**"], paths=["/v1/**"]) as (line, seen):
            denied, _ = await line.shake(target="/v1/admin/ws")
            elsewhere, _ = await line.shake(target="/v2/ws")
            return denied, elsewhere, seen.request

    denied, elsewhere, request = run(ask())
    assert (denied.code, elsewhere.code, request) == ("policy_denied", "policy_denied", b"")


WRONG: dict[str, Callable[[bytes], bytes]] = {
    "no key": lambda head: head.replace(b"Sec-WebSocket-Key: " + KEY + b"\r\n", b""),
    "two keys": lambda head: head + b"Sec-WebSocket-Key: " + KEY + b"\r\n",
    "short key": lambda head: head.replace(KEY, b"dGVzdA=="),
    "key that is no base64": lambda head: head.replace(KEY, b"!" * 24),
    "version 8": lambda head: head.replace(b"Version: 13", b"Version: 8"),
    "no version": lambda head: head.replace(b"Sec-WebSocket-Version: 13\r\n", b""),
    "a POST": lambda head: head.replace(b"GET ", b"POST "),
    "HTTP/1.0": lambda head: head.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a body": lambda head: head + b"Content-Length: 5\r\n",
    "a chunked body": lambda head: head + b"Transfer-Encoding: chunked\r\n",
    "no Connection": lambda head: head.replace(b"Connection: Upgrade\r\n", b""),
    "another upgrade besides": lambda head: head.replace(b"Upgrade: websocket", b"Upgrade: websocket, h2c"),
    "two upgrades": lambda head: head + b"Upgrade: websocket\r\n",
}


@pytest.mark.parametrize("name", WRONG)
def test_handshake_that_is_none_is_refused_and_what_follows_is_no_request(stack: Stack, run, name: str) -> None:
    async def ask() -> tuple[Reply, bytes]:
        async with raw(stack) as (line, seen):
            reader, writer = await stack.tunnel(line.token, port=line.port)
            legal = handshake(f"{HOST}:{line.port}")
            writer.write(WRONG[name](legal) + b"\r\n" + legal + b"\r\n")
            return await answer(reader), seen.request

    reply, request = run(ask())
    assert reply.status == 400
    assert reply.raw.count(b"HTTP/1.1 ") == 1
    assert request == b""


def test_connection_header_cannot_name_the_handshake_away(stack: Stack, run) -> None:
    async def ask() -> tuple[int, bytes]:
        async with raw(stack) as (line, seen):
            named = b"Connection: sec-websocket-key, authorization, sec-websocket-version\r\n"
            reply, _ = await line.shake(named)
            return reply.status, seen.request

    status, request = run(ask())
    assert status == 101
    assert b"Sec-WebSocket-Key: " + KEY in request
    assert b"Authorization: Bearer " + SECRET.encode() in request


# Hostile upstreams.


def _without(name: bytes) -> Callable[[bytes], bytes]:
    return lambda request: b"".join(
        line for line in accept(request).splitlines(keepends=True) if not line.lower().startswith(name)
    )


ANSWERS: dict[str, Callable[[bytes], bytes]] = {
    "wrong accept": lambda request: accept(request.replace(KEY, b"AAAAAAAAAAAAAAAAAAAAAA==")),
    "no accept": _without(b"sec-websocket-accept"),
    "two accepts": lambda request: accept(request, b"Sec-WebSocket-Accept: x\r\n"),
    "extension": lambda request: accept(request, b"Sec-WebSocket-Extensions: permessage-deflate\r\n"),
    "subprotocol": lambda request: accept(request, b"Sec-WebSocket-Protocol: chat\r\n"),
    "no upgrade": _without(b"upgrade"),
    "another upgrade": lambda request: accept(request).replace(b"Upgrade: websocket", b"Upgrade: h2c"),
    "no connection": _without(b"connection"),
    "HTTP/1.0": lambda request: accept(request).replace(b"HTTP/1.1 101", b"HTTP/1.0 101"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_101_that_agrees_to_something_else_is_an_error_and_no_tunnel(stack: Stack, run, name: str) -> None:
    async def ask() -> tuple[Reply, dict, Raw]:
        async with raw(stack, ANSWERS[name]) as (line, seen):
            reply, _ = await line.shake()
            return reply, await line.ended(), seen

    reply, record, seen = run(ask())
    assert (reply.status, reply.code, record["result"]) == (502, "upstream_unreachable", "upstream_unreachable")
    assert seen.received == b""


def test_101_that_nobody_asked_for_is_an_error(stack: Stack, run) -> None:
    async def ask() -> Reply:
        async with raw(stack, lambda _request: b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n") as (line, _):
            return await stack.get(line.token, port=line.port)

    assert run(ask()).code == "upstream_unreachable"


def test_refusal_of_the_upstream_is_an_ordinary_answer_scrubbed_and_not_pooled(stack: Stack, run) -> None:
    said = b"HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n%b" % (len(SECRET), SECRET.encode())

    async def ask() -> tuple[Reply, int, InvalidStatus]:
        before = stack.keyhole.pool.idle
        async with raw(stack, lambda _request: said) as (line, _):
            reply, _ = await line.shake()
            with pytest.raises(InvalidStatus) as caught:
                async with line.connect():
                    pass
            return reply, stack.keyhole.pool.idle - before, caught.value

    reply, pooled, error = run(ask())
    assert (reply.status, reply.body, pooled) == (403, MASKED.encode(), 0)
    assert error.response.status_code == 403


def test_handshake_takes_no_connection_from_the_pool_and_gives_none_back(stack: Stack, run) -> None:
    async def ask() -> tuple[list[int], list[int]]:
        line = Line(stack, stack.secure)
        await line.grant()
        connections, idle = [], []
        for _ in range(2):
            assert (await stack.get(line.token)).status == 200
            connections.append(len(stack.upstream.raw))
            idle.append(stack.keyhole.pool.idle)
        assert (await line.shake())[0].status == 200  # an upstream that does not know WebSockets
        await stack.ask("delete", f"services/{line.name}")
        return [*connections, len(stack.upstream.raw)], [*idle, stack.keyhole.pool.idle]

    connections, idle = run(ask())
    assert connections[1:] == [connections[0], connections[0] + 1]
    assert len(set(idle)) == 1


BROKEN = {
    "masked frame": frame(TEXT, b"x", mask=True),
    "compressed frame": b"\xc1\x05hello",
    "length of 2^63": b"\x82\x7f" + (1 << 63).to_bytes(8),
    "length of 2^62": b"\x82\x7f" + (1 << 62).to_bytes(8),
    "continuation of nothing": frame(0, b"x"),
    "unknown opcode": frame(3, b"x"),
    "long ping": b"\x89\x7e\x00\x7e",
    "close code 1006": frame(CLOSE, b"\x03\xee"),
    "flood of fragments": frame(TEXT, b"", fin=False) + frame(0, b"", fin=False) * 100_001,
}


@pytest.mark.parametrize("name", BROKEN)
def test_upstream_that_breaks_the_protocol_is_cut_off_and_both_are_told(stack: Stack, run, name: str) -> None:
    async def ask() -> tuple[list, dict, list]:
        say = frame(TEXT, b"good") + BROKEN[name] + frame(TEXT, b"never")
        async with raw(stack, lambda request: accept(request) + say) as (line, seen):
            _, (reader, _) = await line.shake()
            return unframe(await everything(reader)), await line.ended(), unframe(seen.received)

    heard, record, told = run(ask())
    assert heard[0] == (TEXT, True, b"good")
    assert (heard[-1][0], heard[-1][2][:2]) == (CLOSE, (1014).to_bytes(2))
    assert all(payload != b"never" for _, _, payload in heard)
    code = 1009 if "2^62" in name or "flood" in name else 1002
    assert (told[-1][0], told[-1][2][:2]) == (CLOSE, code.to_bytes(2))
    assert record["result"] == "upstream_unreachable"


def test_flood_of_pings_is_passed_on_and_starves_nobody(stack: Stack, run) -> None:
    count = 20_000

    async def ask() -> tuple[int, int]:
        async with raw(stack, lambda request: accept(request) + frame(PING, b"") * count) as (line, _):
            quiet = Line(stack, stack.secure)
            await quiet.grant()
            (_, (reader, _)), other = await asyncio.gather(line.shake(), stack.get(quiet.token))
            await stack.ask("delete", f"services/{quiet.name}")
            return len(unframe(await reader.readexactly(2 * count))), other.status

    assert run(ask()) == (count, 200)


def test_upstream_that_breaks_off_is_not_said_to_have_ended_well(stack: Stack, run) -> None:
    async def talk(connection: ServerConnection) -> None:
        await connection.send("hello")
        connection.transport.abort()

    async def ask() -> tuple[int | None, dict]:
        async with library(stack, talk) as line, line.connect() as connection:
            assert [message async for message in _said(connection)] == ["hello"]
            return connection.close_code, await line.ended()

    code, record = run(ask())
    assert (code, record["result"]) == (1006, "upstream_unreachable")


async def _said(connection: ClientConnection) -> AsyncIterator[str | bytes]:
    with contextlib.suppress(ConnectionClosed):
        while True:
            yield await connection.recv()


# Hostile clients.


@pytest.mark.parametrize(
    "bad",
    [frame(TEXT, b"x"), b"\xc1\x80\0\0\0\0", frame(3, b"x", mask=True), frame(0, b"x", mask=True)],
    ids=["no mask", "reserved bit", "unknown opcode", "continuation of nothing"],
)
def test_client_that_breaks_the_protocol_is_told_and_its_bytes_go_no_further(stack: Stack, run, bad: bytes) -> None:
    async def ask() -> tuple[list, list, dict]:
        async with raw(stack) as (line, seen):
            _, (reader, writer) = await line.shake()
            writer.write(frame(TEXT, b"good", mask=True) + bad + b"GET /v1/admin HTTP/1.1\r\n\r\n")
            heard = unframe(await everything(reader))
            return heard, unframe(seen.received), await line.ended()

    heard, told, record = run(ask())
    assert [(one, payload[:2]) for one, _, payload in heard] == [(CLOSE, (1002).to_bytes(2))]
    assert told[0] == (TEXT, True, b"good")
    assert [(one, payload[:2]) for one, _, payload in told[1:]] == [(CLOSE, (1001).to_bytes(2))]
    assert record["result"] == "bad_request_framing"


def test_client_that_goes_away_is_recorded_and_the_upstream_learns_of_it(stack: Stack, run) -> None:
    async def ask() -> dict:
        async with library(stack) as line:
            async with line.connect() as connection:
                connection.transport.abort()
            return await line.ended()

    assert run(ask())["result"] == "aborted"


def test_absolute_form_on_the_proxys_port_is_understood_with_either_scheme(stack: Stack, run) -> None:
    async def ask(scheme: str) -> int:
        async with raw(stack, tls=False) as (line, _):
            reader, writer = await stack.open()
            target = f"{scheme}://{HOST}:{line.port}/v1/ws"
            writer.write(handshake(f"{HOST}:{line.port}", target) + basic(line.token) + b"\r\n")
            return (await answer(reader)).status

    assert [run(ask(scheme)) for scheme in ("http", "ws", "WS")] == [101, 101, 101]


# Time and numbers.


@pytest.mark.parametrize("reader", ["client", "upstream"])
def test_side_that_does_not_read_holds_back_the_other(stack: Stack, run, reader: str) -> None:
    size = 32 << 20

    async def ask() -> int:
        async with raw(stack, tls=False, read=False) as (line, seen):
            _, (_, client) = await line.shake()
            assert seen.streams is not None
            silent, loud = client, seen.streams[1]
            if reader == "upstream":
                silent, loud = loud, silent
            silent.transport.pause_reading()
            mask = reader == "upstream"
            head = bytes([0x80 | BINARY, 127 | (0x80 if mask else 0)]) + size.to_bytes(8)
            loud.write(head + (bytes(4) if mask else b"") + bytes(size))  # a mask of zeros is quickly made
            left = -1
            while left != loud.transport.get_write_buffer_size():  # until nothing moves any more
                left = loud.transport.get_write_buffer_size()
                await asyncio.sleep(0.2)
            return left

    assert run(ask()) > 0


def test_idle_websocket_ends_and_one_that_pings_lives(run) -> None:
    async def ask() -> tuple[int | None, bool, dict]:
        async with Stack(Config(websocket_idle_timeout=2.0)) as stack, library(stack, ping_interval=None) as line:
            async with line.connect(ping_interval=None) as idle, line.connect(ping_interval=0.1) as pinging:
                with pytest.raises(ConnectionClosed):
                    await idle.recv()
                await pinging.send("alive")
                alive = await pinging.recv() == "alive"
                ended = await line.outcomes(1)
            return idle.close_code, alive, ended[0]

    code, alive, record = run(ask())
    assert (code, alive, record["result"]) == (1001, True, "upstream_timeout")


def test_server_that_stops_says_goodbye_in_the_words_of_the_protocol(run) -> None:
    theirs = []

    async def talk(connection: ServerConnection) -> None:
        await echo(connection)
        theirs.append(connection.close_code)

    async def ask() -> tuple[int | None, dict]:
        async with Stack() as stack, library(stack, talk) as line, line.connect() as connection:
            await connection.send("hello")
            await connection.recv()
            await stack.proxy.close(5.0)
            with pytest.raises(ConnectionClosed):
                await connection.recv()
            return connection.close_code, await line.ended()

    code, record = run(ask())
    assert (code, theirs, record["result"]) == (1001, [1001], "ok")


def test_two_hundred_idle_websockets_cost_little_memory_each(run) -> None:
    count = 200

    async def ask() -> tuple[float, int]:
        async with Stack() as stack, raw(stack, tls=False) as (line, _):
            for _ in range(5):
                await line.shake()
            gc.collect()
            tracemalloc.start()
            opened = [await line.shake() for _ in range(count)]
            gc.collect()
            snapshot = tracemalloc.take_snapshot()
            tracemalloc.stop()
            ours = snapshot.filter_traces([tracemalloc.Filter(True, "*/src/keyhole/*")])
            size = sum(one.size for one in ours.statistics("filename"))
            return size / count, sum(reply.status == 101 for reply, _ in opened)

    each, switched = run(ask())
    assert switched == count
    assert each < 32 * 1024
