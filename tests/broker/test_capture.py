"""Captures: what an operator learns of calls, that no value is in it, and that nobody else learns anything."""

import asyncio
import base64
import contextlib
import json

import pytest

from broker.stack import HOST, SECRET, Stack, until
from broker.test_minted import SECRET as MINTING_SECRET
from broker.test_minted import Endpoint, service
from broker.websocket_rig import library
from e2e.world import forms, held
from keyhole.broker.capture import CALLS, MOST
from keyhole.broker.upstream import Lease
from keyhole.cli.har import HarFile, entry_of_call
from keyhole.core.errors import KeyholeError

OTHER = 'ghp_other/+Canary"&<%20>0123456789'


@pytest.fixture
def world(stack, run):
    """The stack with two services, an agent, and no capture left on."""

    async def make():
        await stack.secret("stripe/key")
        await stack.secret("other/key", OTHER)
        await stack.service("pay")
        await stack.service("other", hosts=["other.test"], secret="other/key")
        return await stack.agent("coder", "pay")

    stack.token = run(make())
    yield stack

    async def end():
        for name in (await stack.ask("list", "sys/capture"))["keys"]:
            await stack.ask("delete", f"sys/capture/{name}")

    run(end())


async def begin(stack, **fields):
    return (await stack.ask("update", "sys/capture", fields))["id"]


async def calls(stack, name, **asked):
    return (await stack.ask("read", f"sys/capture/{name}", asked))["calls"]


def test_a_call_is_told_without_bodies_and_with_few_values(world, run):
    async def scenario():
        name = await begin(world)
        world.upstream.say = (
            b"HTTP/1.1 201 Made\r\nContent-Type: application/json\r\nX-Own: private\r\nContent-Length: 5\r\n\r\nhello"
        )
        headers = b"User-Agent: tool/1\r\nX-Thing: something\r\nContent-Type: text/plain\r\n"
        await world.get(world.token, "/v1/x?page=7&q=words", method="POST", headers=headers, body=b"0123456789")
        [call] = await calls(world, name)
        assert (call["method"], call["host"], call["target"]) == ("POST", f"{HOST}:{world.secure}", "/v1/x")
        assert call["parameters"] == ["page", "q"]
        assert (call["agent"], call["service"], call["result"]) == ("agent/coder", "pay", "ok")
        assert call["injection"] == "authorization: Bearer ***"
        asked, answered = dict(call["request"]["headers"]), dict(call["response"]["headers"])
        assert (asked["user-agent"], asked["x-thing"], asked["content-type"]) == ("tool/1", "", "text/plain")
        assert (answered["content-type"], answered["x-own"]) == ("application/json", "")
        assert (call["request"]["size"], call["response"]["size"], call["response"]["status"]) == (10, 5, 201)
        assert all(call["timings"][part] >= 0 for part in ("decide", "connect", "send", "wait", "receive"))
        for kept in (b"private", b"something", b"words", b"hello", b"0123456789", b"Made"):
            assert kept not in json.dumps(call).encode()

    run(scenario())


def test_a_refusal_says_code_and_reason_also_of_a_tunnel(world, run):
    async def scenario():
        name = await begin(world)
        await world.service("pay", deny_paths=["/v1/secret/**"])
        assert (await world.get(world.token, "/v1/secret/x")).code == "policy_denied"
        reply, streams = await world.connect(world.token, "evil.test:443")
        streams[1].close()
        assert reply.status == 403
        inner, tunnel = await calls(world, name)
        assert (inner["result"], inner["response"]["status"], inner["service"]) == ("policy_denied", 403, "pay")
        assert inner["reason"]
        assert inner["injection"] == ""
        assert (tunnel["method"], tunnel["host"], tunnel["result"]) == ("CONNECT", "evil.test:443", "no_service")
        assert "evil.test" in tunnel["reason"]

    run(scenario())


def test_a_call_that_fails_on_its_way_is_told_with_its_reason(world, run):
    async def scenario():
        name = await begin(world)
        world.upstream.say = b"nonsense\r\n\r\n"
        assert (await world.get(world.token)).status == 502
        [call] = await calls(world, name)
        assert (call["result"], call["response"]["status"]) == ("upstream_unreachable", 502)
        assert call["reason"]

    run(scenario())


def planted(value):
    """Heads and bodies with the value in every place and form that a client can write."""
    plain, basic = value.encode(), base64.b64encode(b"u:" + value.encode())
    written = [form for form in forms(value, whole=True) if b"\n" not in form and b"\0" not in form]
    token = bytes(byte if chr(byte).isalnum() else 95 for byte in plain)
    for form in written:
        safe = form.replace(b" ", b"%20")
        yield {"headers": b"User-Agent: " + form + b"\r\n"}
        yield {"headers": b"Content-Type: text/" + form + b"\r\n", "method": "POST", "body": form}
        yield {"headers": b"Accept: a\r\nX-Mine: " + form + b"\r\n"}
        if safe.isascii():
            yield {"path": "/v1/" + safe.decode()}
            yield {"path": "/v1/x?q=" + safe.decode() + "&" + safe.decode() + "=1"}
        yield {"method": "POST", "body": b"before " + form + b" after"}
    yield {"headers": b"Authorization: Basic " + basic + b"\r\n"}
    yield {"headers": b"X-" + token + b": 1\r\n"}
    yield {
        "headers": b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Trailer: " + plain + b"\r\n",
        "method": "POST",
    }


async def echo(request, writer):
    """The credential in every place and form of an answer."""
    value = dict(request.headers)[b"authorization"].partition(b" ")[2].decode()
    written = [form for form in forms(value, whole=True) if b"\n" not in form and b"\0" not in form]
    head = b"HTTP/1.1 200 " + value.encode() + b"\r\nTransfer-Encoding: chunked\r\n"
    for number, form in enumerate(written):
        head += b"X-%d: %b\r\nServer: %b\r\nContent-Type: text/%b\r\n" % (number, form, form, form)
    body = b"\n".join(written)
    writer.write(head + b"X-" + value.replace("_", "-").encode() + b": 1\r\n\r\n")
    writer.write(b"%x\r\n%b\r\n0\r\nX-Trailer: %b\r\n\r\n" % (len(body), body, value.encode()))
    await writer.drain()


@pytest.mark.parametrize("tripwire", ["stop", "off"])
def test_no_value_stands_in_a_capture_in_any_form_wherever_it_was_put(world, run, tmp_path, tripwire):
    async def scenario():
        await world.ask("update", "sys/org", {"tripwire": tripwire})
        name = await begin(world)
        world.upstream.say = echo
        found = []
        for value in (SECRET, OTHER):
            for asked in planted(value):
                # What cannot be read at all has no place in a capture either.
                with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                    await world.get(world.token, **asked)
                found += await calls(world, name, after=found[-1]["number"] if found else 0)
        assert len(found) > 60
        assert {call["result"] for call in found} >= ({"ok"} if tripwire == "off" else {"ok", "policy_denied"})
        return found

    found = run(scenario())
    run(world.ask("update", "sys/org", {"tripwire": "stop"}))
    with HarFile(str(tmp_path / "calls.har")) as file:
        file.add(entry_of_call(call) for call in found)
    text = (tmp_path / "calls.har").read_bytes()
    for value in (SECRET, OTHER, world.token):
        assert held(value, text) == []
        assert held(value, json.dumps(found, ensure_ascii=False).encode()) == []


def test_the_callers_own_token_stands_in_no_capture(world, run):
    async def scenario():
        name = await begin(world)
        await world.get(world.token, f"/v1/{world.token}?a={world.token}", headers=b"User-Agent: x\r\n")
        await world.get(world.token, headers=b"User-Agent: " + world.token.encode() + b"\r\n")
        found = await calls(world, name)
        assert [call["result"] for call in found] == ["policy_denied"] * 2
        assert world.token not in json.dumps(found)

    run(scenario())


def test_a_placeholder_in_a_path_stays_one(world, run):
    async def scenario():
        inject = {"kind": "placeholder", "text": "{{the-key}}", "in": ["path"]}
        await world.service("pathed", hosts=[f"{HOST}:{world.secure}"], inject=inject, paths=["/bot/**"])
        await world.service("pay", paths=["/v1/**"])
        token = await world.agent("walker", "pathed")
        name = await begin(world)
        assert (await world.get(token, "/bot/{{the-key}}/send")).status == 200
        assert SECRET.encode() in world.upstream.last.target
        [call] = await calls(world, name)
        assert call["target"] == "/bot/{{the-key}}/send"

    run(scenario())


def test_a_capture_is_for_operators_and_for_their_own_org(world, run):
    async def scenario():
        name = await begin(world)
        acme = (await world.ask("update", "sys/namespaces/acme"))["root_token"]
        for operation, path in (("update", "sys/capture"), ("read", f"sys/capture/{name}"), ("list", "sys/capture")):
            with pytest.raises(KeyholeError) as refused:
                await world.ask(operation, path, token=world.token)
            assert refused.value.code == "policy_denied"
        with pytest.raises(KeyholeError) as refused:
            await world.ask("read", f"sys/capture/{name}", token=acme)
        assert refused.value.code == "not_found"
        assert (await world.ask("list", "sys/capture", token=acme))["keys"] == []
        theirs = (await world.ask("update", "sys/capture", token=acme))["id"]
        await world.get(world.token)
        assert (await world.ask("read", f"sys/capture/{theirs}", token=acme))["calls"] == []
        assert len(await calls(world, name)) == 1
        await world.ask("delete", f"sys/capture/{theirs}", token=acme)

    run(scenario())


def test_one_tokens_calls_can_be_captured_alone(world, run):
    async def scenario():
        made = await world.ask("update", "agents/coder/token", {"ttl": "1h"})
        name = await begin(world, accessor=made["accessor"])
        await world.get(world.token)
        await world.get(made["token"])
        [call] = await calls(world, name)
        assert call["accessor"] == made["accessor"]

    run(scenario())


def test_a_capture_ends_by_itself_and_costs_nothing_after(world, run):
    async def scenario():
        broker = world.keyhole.broker
        name = await begin(world, **{"for": "1s"})
        assert broker._captures is not None
        await until(lambda: broker._captures is None)
        assert world.keyhole.pool.lease is Lease
        with pytest.raises(KeyholeError) as refused:
            await calls(world, name)
        assert refused.value.code == "not_found"
        for bad in ("0s", "2h", "soon"):
            with pytest.raises(KeyholeError) as refused:
                await begin(world, **{"for": bad})
            assert refused.value.code == "invalid_request"

    run(scenario())


def test_what_a_capture_holds_is_bounded_and_says_what_it_lost(world, run):
    async def scenario():
        name = await begin(world)
        for _ in range(MOST - 1):
            await begin(world)
        with pytest.raises(KeyholeError) as refused:
            await begin(world)
        assert refused.value.code == "invalid_request"
        streams = await world.tunnel(world.token)
        for _ in range(CALLS + 5):
            await world.send(streams)
        streams[1].close()
        data = await world.ask("read", f"sys/capture/{name}")
        assert (data["missed"], data["count"], data["calls"][0]["number"]) == (5, CALLS + 5, 6)
        rest = await calls(world, name, after=CALLS)
        assert [call["number"] for call in rest] == list(range(CALLS + 1, CALLS + 6))

    run(scenario())


def test_a_request_for_a_token_is_a_call_of_its_own_without_the_secret(world, run):
    async def scenario():
        name, token = await service(world, Endpoint())
        capture = await begin(world)
        assert (await world.get(token)).status == 200
        mint, call = await calls(world, capture)
        assert (mint["operation"], mint["target"], mint["service"]) == ("mint", "/token", name)
        assert (mint["request"]["headers"], mint["result"], mint["response"]["status"]) == ([], "ok", 200)
        assert (call["operation"], call["target"], call["result"]) == ("use", "/v1/x", "ok")
        assert not held(MINTING_SECRET, json.dumps([mint, call]).encode())
        assert "minted-token-number" not in json.dumps([mint, call])

    run(scenario())


def test_captures_are_forgotten_when_the_vault_is_sealed():
    async def scenario():
        async with Stack() as own:
            await own.secret("stripe/key")
            await own.service("pay")
            token = await own.agent("coder", "pay")
            await begin(own)
            await own.get(token)
            captures = own.keyhole.broker._captures
            await own.keyhole.node.seal()
            assert own.keyhole.broker._captures is None
            assert captures._on == {}
            assert own.keyhole.pool.lease is Lease

    asyncio.run(scenario())


def test_a_websocket_is_one_call_that_ends_with_what_was_said(world, run):
    async def scenario():
        async with library(world) as line:
            name = await begin(world)
            async with line.connect() as connection:
                await connection.send("hello")
                assert await connection.recv() == "hello"
            await line.ended()
            [call] = await calls(world, name)
        assert (call["response"]["status"], call["result"]) == (101, "ok")
        assert call["request"]["size"] > 0
        assert call["response"]["size"] > 0
        assert "hello" not in json.dumps(call)

    run(scenario())
