"""What a client sees at the edge of its share, and that others see nothing of it."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from broker.stack import HOST, Stack, Streams, basic, read_reply
from broker.stack import until as within
from keyhole.config import Config

ORG = "acme"
until = partial(within, seconds=30)


@contextlib.asynccontextmanager
async def world(**settings: Any) -> AsyncIterator[tuple[Stack, str, str]]:
    """Two orgs, with an agent each that may use a service for the same host."""
    async with Stack(Config(**settings)) as stack:
        owner = str((await stack.ask("update", f"sys/namespaces/{ORG}"))["root_token"])
        tokens = []
        for token in ("root", owner):
            await stack.secret("stripe/key", token=token)
            await stack.service("pay", token=token)
            tokens.append(await stack.agent("coder", "pay", token=token))
            await stack.trust(token)
        yield stack, tokens[0], tokens[1]


def error_of(reply: Any) -> dict[str, str]:
    return dict(json.loads(reply.body)["error"])


def nothing_left(stack: Stack) -> bool:
    vault = stack.keyhole.node.open_vault()
    tenants = vault.shares._tenants.values()
    return not any(tenant.agents or tenant.all.calls or tenant.all.held for tenant in tenants)


def play(job: Any) -> None:
    asyncio.run(asyncio.wait_for(job, 60))


def test_the_tunnel_over_an_agents_connections_is_refused_and_another_orgs_is_opened():
    async def job() -> None:
        async with world(connections=8, agent_share=0.25) as (stack, noisy, quiet):
            for _ in range(2):
                await stack.tunnel(noisy)
            reply, _ = await stack.connect(noisy, f"{HOST}:{stack.secure}")
            assert reply.status == 429
            assert reply.get(b"retry-after") == b"1"
            assert error_of(reply)["reason"] == "this agent has 2 connections open"
            assert error_of(reply)["hint"].startswith("let some end first")
            assert (await stack.get(quiet)).status == 200

    play(job())


def test_a_closed_tunnel_makes_room_for_the_next():
    async def job() -> None:
        async with world(connections=8, agent_share=0.125) as (stack, noisy, _):
            for _ in range(3):
                assert (await stack.get(noisy)).status == 200
                await until(lambda: not stack.proxy.guests.all)
            assert not stack.proxy.guests.counts

    play(job())


def test_the_call_over_a_share_is_refused_in_its_tunnel_and_goes_through_later():
    async def job() -> None:
        async with world(calls=4, agent_share=0.25) as (stack, noisy, quiet):
            hold = asyncio.Event()

            async def late(_request: Any, writer: asyncio.StreamWriter) -> None:
                await hold.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

            stack.upstream.say = late
            first, second = await stack.tunnel(noisy), await stack.tunnel(noisy)
            waiting = asyncio.create_task(stack.send(first))
            await until(lambda: bool(stack.upstream.requests))
            refused = await stack.send(second)
            assert (refused.status, refused.get(b"retry-after")) == (429, b"1")
            assert "this agent has its share of 1 calls under way" in error_of(refused)["reason"]
            other = asyncio.create_task(stack.get(quiet))
            await until(lambda: len(stack.upstream.requests) == 2)
            hold.set()
            assert [(await waiting).status, (await other).status, (await stack.send(second)).status] == [200, 200, 200]
            await until(lambda: nothing_left(stack))

    play(job())


async def _hang_up(stack: Stack, token: str) -> None:
    _, writer = streams = await stack.tunnel(token)
    sending = asyncio.create_task(stack.send(streams))
    await until(lambda: bool(stack.upstream.requests))
    reset = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    writer.transport.abort()
    with contextlib.suppress(asyncio.IncompleteReadError):
        await sending


async def _upstream_breaks_off(stack: Stack, token: str) -> None:
    streams = await stack.tunnel(token)
    stack.upstream.say = _close
    reply = await stack.send(streams)
    assert reply.status == 502 or not reply.whole
    streams[1].close()


async def _close(_request: Any, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbroken")
    writer.close()


async def _client_reads_half(stack: Stack, token: str) -> None:
    stack.upstream.say = b"HTTP/1.1 200 OK\r\nContent-Length: 30000000\r\n\r\n" + bytes(1_000_000)
    reader, writer = await stack.tunnel(token)
    writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\n\r\n".encode())
    await reader.readexactly(100_000)
    writer.transport.abort()


async def _never(_request: Any, writer: asyncio.StreamWriter) -> None:
    """Say nothing, for as long as somebody waits for it."""
    await until(writer.transport.is_closing)


@pytest.mark.parametrize("way", [_hang_up, _upstream_breaks_off, _client_reads_half])
def test_whatever_becomes_of_a_call_its_place_is_given_back(way):
    async def job() -> None:
        async with world() as (stack, noisy, _):
            if way is _hang_up:
                stack.upstream.say = _never
            await way(stack, noisy)
            await until(lambda: nothing_left(stack))
            await until(lambda: not stack.proxy.guests.all)
            assert not stack.proxy.guests.counts

    play(job())


def test_certificates_for_new_hosts_are_bounded_and_known_hosts_go_on():
    async def job() -> None:
        async with world(certificates=4, agent_share=0.5) as (stack, noisy, quiet):
            await stack.service("wild", hosts=[f"*.wild.test:{stack.secure}"])
            await stack.ask("update", "agents/coder/services/wild")
            answers = []
            for number in range(3):
                reply, (_, writer) = await stack.connect(noisy, f"h{number}.wild.test:{stack.secure}")
                answers.append(reply)
                writer.close()
            assert [reply.status for reply in answers] == [200, 200, 429]
            assert "certificates for 2 new hosts a minute" in error_of(answers[2])["reason"]
            assert int(answers[2].get(b"retry-after") or 0) > 1
            assert (await stack.connect(noisy, f"h0.wild.test:{stack.secure}"))[0].status == 200
            assert (await stack.get(quiet)).status == 200

    play(job())


def test_bodies_that_are_held_have_a_share_of_memory():
    async def job() -> None:
        async with world(held_bytes=400_000, agent_share=0.25) as (stack, noisy, _):
            await stack.service("pay", inject={"kind": "hmac", "message": "{body}", "header": "x-s"})
            refused = await stack.get(noisy, method="POST", body=bytes(150_000))
            assert refused.status == 429
            assert "this agent has its share of 100000 bytes of bodies in memory" in error_of(refused)["reason"]
            assert (await stack.get(noisy, method="POST", body=bytes(90_000))).status == 200
            await until(lambda: nothing_left(stack))

    play(job())


async def silent(stack: Stack, count: int) -> list[Streams]:
    """Clients that begin to say something and never come to its end."""
    found = []
    for _ in range(count):
        streams = await stack.open()
        streams[1].write(b"GET / HTTP/1.1\r\nHos")
        found.append(streams)
    await until(lambda: len(stack.proxy.guests.all) == min(count, stack.proxy.limits.connections))
    return found


def test_silent_clients_keep_nobody_out():
    async def job() -> None:
        async with world(connections=6, strangers=4) as (stack, noisy, _):
            held = await silent(stack, 12)
            assert (await stack.get(noisy)).status == 200
            gone = [await asyncio.wait_for(reader.read(), 60) for reader, _ in held[:7]]
            assert gone == [b""] * 7
            assert stack.keyhole.node.open_vault().shares.refused["strangers"] >= 7

    play(job())


def test_where_everybody_is_at_work_a_new_client_is_told_that_the_proxy_is_full():
    async def job() -> None:
        async with world(connections=2, org_share=1, agent_share=1) as (stack, noisy, quiet):
            stack.upstream.say = _never
            busy = [await stack.tunnel(noisy), await stack.tunnel(quiet)]
            waiting = [asyncio.create_task(stack.send(streams)) for streams in busy]
            await until(lambda: len(stack.upstream.requests) == 2)
            reader, writer = await stack.open()
            writer.write(b"GET http://x.test/ HTTP/1.1\r\nHost: x.test\r\n" + basic(noisy) + b"\r\n")
            reply = await read_reply(reader, "GET")
            assert (reply.status, reply.get(b"retry-after")) == (503, b"1")
            assert error_of(reply)["reason"] == "the proxy has as many connections as may be"
            for streams in busy:
                streams[1].transport.abort()
            await asyncio.gather(*waiting, return_exceptions=True)

    play(job())
