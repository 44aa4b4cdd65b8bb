"""Calls to upstreams that speak HTTP/2: many on a connection, each an answer of its own, nobody's shared."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace

import pytest

from broker.h2_upstream import GOAWAY, Asked, H2Upstream, Pieces, Strict, Talk, context, frame, ok
from broker.stack import HOST, SECRET, Stack, authority, until
from broker.test_minted import client_pem
from keyhole.config import Config
from keyhole.core.errors import KeyholeError, UpstreamTimeout
from keyhole.core.message import Answer, Call

BEARER = b"Bearer " + SECRET.encode()


class World:
    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.upstream = H2Upstream()
        self.port = 0
        self.token = ""

    async def prepare(self) -> None:
        await self.stack.secret("stripe/key")
        self.port = await self.stack.listen(self.upstream, context("h2", "http/1.1"))
        self.only = await self.stack.listen(Strict(await self.stack.listen(self.upstream, context("h2"))))
        self.plain = await self.stack.listen(self.upstream)
        hosts = [f"{HOST}:{self.port}", f"{HOST}:{self.only}"]
        await self.stack.service("two", hosts=hosts)
        await self.stack.service("clear", hosts=[f"{HOST}:{self.plain}"], schemes=["http"])
        self.token = await self.stack.agent("h2", "two", "clear")

    def call(self, path: str = "/v1/x", method: str = "GET", **fields) -> Call:
        fields = {"http2": True, "scheme": "https", "port": self.port, "headers": [], **fields}
        return Call(token=self.token.encode(), host=HOST, method=method, target=path.encode(), **fields)

    async def ask(self, *args, **fields) -> Answer:
        return await self.stack.keyhole.broker.handle(self.call(*args, **fields))

    async def get(self, *args, **fields) -> tuple[int, bytes]:
        answer = await self.ask(*args, **fields)
        return answer.status, await whole(answer)


async def whole(answer: Answer) -> bytes:
    parts = []
    while answer.body is not None and (chunk := await answer.body.read()):
        parts.append(chunk)
    return b"".join(parts)


@pytest.fixture(scope="module")
def made(module_stack: Stack, runner) -> World:
    world = World(module_stack)
    runner.run(world.prepare())
    return world


@pytest.fixture
def world(made: World, run) -> World:
    made.upstream.say = ok
    made.upstream.settings = {3: 100}
    made.upstream.acknowledge = True
    made.upstream.requests.clear()
    run(fresh(made))
    return made


async def fresh(world: World) -> None:
    """Let every connection end, so that the next call makes one."""
    world.stack.keyhole.pool._end()
    await until(lambda: not world.upstream.writers)
    world.upstream.talks.clear()


def test_a_call_by_http2_goes_by_http2_with_its_credential(world: World, run) -> None:
    assert run(world.get()) == (200, b"ok")
    [asked] = world.upstream.requests
    assert asked.headers[b":authority"] == f"{HOST}:{world.port}".encode()
    assert asked.headers[b"authorization"] == BEARER
    assert asked.headers[b":path"] == b"/v1/x"
    assert {b"connection", b"host", b"te"}.isdisjoint(asked.headers)


def test_several_calls_share_one_connection(world: World, run) -> None:
    async def scenario() -> list[tuple[int, bytes]]:
        await world.get()
        gate = asyncio.Event()

        async def say(talk, asked):
            await gate.wait()
            talk.head(asked, [(b":status", b"200")])
            await talk.data(asked, asked.headers[b":path"], end=True)

        world.upstream.say = say
        calls = [asyncio.ensure_future(world.get(f"/v1/{number}")) for number in range(20)]
        await until(lambda: len(world.upstream.requests) == 21)
        gate.set()
        return await asyncio.gather(*calls)

    assert run(scenario()) == [(200, f"/v1/{number}".encode()) for number in range(20)]
    assert len(world.upstream.talks) == 1


def test_no_more_at_once_than_the_upstream_allows(world: World, run) -> None:
    world.upstream.settings = {3: 2}

    async def scenario() -> None:
        await world.get()
        assert [status for status, _ in await asyncio.gather(*(world.get() for _ in range(7)))] == [200] * 7

    run(scenario())
    assert len(world.upstream.requests) == 8


def test_another_agent_and_service_never_share_a_connection(world: World, run) -> None:
    async def scenario() -> None:
        await world.get()
        await world.stack.secret("other/key", "sk_live_another_value_2")
        await world.stack.service("third", hosts=[f"{HOST}:{world.port}"], secret="other/key", paths=["/third"])
        other = await world.stack.agent("h2-other", "third")
        call = world.call("/third")
        call.token = other.encode()
        assert (await world.stack.keyhole.broker.handle(call)).status == 200

    run(scenario())
    assert len(world.upstream.talks) == 2
    first, second = world.upstream.requests
    assert first.headers[b"authorization"] != second.headers[b"authorization"]


def test_a_client_of_http1_is_served_by_http1_where_there_is_both(world: World, run) -> None:
    async def scenario() -> None:
        world.stack.upstream.forget()
        await world.stack.service("both", hosts=[f"{HOST}:{world.stack.secure}"])
        token = await world.stack.agent("h1", "both", "two")
        assert (await world.stack.get(token)).status == 200
        reply = await world.stack.get(token, port=world.only)  # this one has nothing else
        assert (reply.status, reply.body) == (200, b"ok"), reply.raw
        assert reply.reason == b"OK"

    run(scenario())
    [asked] = world.upstream.requests
    assert asked.headers[b"authorization"] == BEARER


def test_a_call_by_http2_goes_by_http1_to_an_upstream_that_has_nothing_else(world: World, run) -> None:
    async def scenario() -> None:
        await world.stack.service("old", hosts=[f"{HOST}:{world.stack.secure}"])
        token = await world.stack.agent("h2-old", "old")
        for _ in range(2):
            call = world.call("/v1/x", "POST", body=Pieces(b"abc"), port=world.stack.secure)
            call.token = token.encode()
            answer = await world.stack.keyhole.broker.handle(call)
            assert (answer.status, await whole(answer)) == (200, b"ok")
        assert world.stack.upstream.last.body == b"abc"

    run(scenario())


def test_an_upgrade_stays_with_http1(world: World, run) -> None:
    async def scenario() -> KeyholeError:
        with pytest.raises(KeyholeError) as caught:
            await world.ask(upgrade="websocket", port=world.only)
        return caught.value

    assert "HTTP/1.1" in run(scenario()).reason


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_bodies_arrive_whole_in_both_directions(world: World, run, size: int) -> None:
    async def echo(talk, asked):
        await asked.ended.wait()
        talk.head(asked, [(b":status", b"200"), (b"content-length", b"%d" % len(asked.body))])
        await talk.data(asked, bytes(asked.body), end=True)

    world.upstream.say = echo
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    pieces = [data[start : start + 50_000] for start in range(0, size, 50_000)]
    for length in (None, size):
        status, body = run(world.get(method="POST", body=Pieces(*pieces, length=length)))
        assert (status, len(body)) == (200, size)
        assert body == data


def test_a_slow_reader_holds_the_upstream_back(world: World, run) -> None:
    sent = 0

    async def endless(talk, asked):
        nonlocal sent
        talk.head(asked, [(b":status", b"200")])
        while True:
            await talk.data(asked, b"x" * 16_000)
            sent += 16_000

    world.upstream.say = endless

    async def scenario() -> None:
        answer = await world.ask()
        assert await answer.body.read()
        world.upstream.say = ok
        for _ in range(20):  # others on the same connection go on
            assert await world.get() == (200, b"ok")
        assert sent < 600_000
        await answer.body.close()
        await until(lambda: world.upstream.requests[0].reset is not None)

    run(scenario())
    assert len(world.upstream.talks) == 1


def test_an_upstream_that_does_not_read_holds_the_client_back(world: World, run) -> None:
    world.upstream.acknowledge = False
    taken = 0

    class Endless:
        length = None
        trailers: list = []  # noqa: RUF012

        async def read(self) -> bytes:
            nonlocal taken
            taken += 1
            await asyncio.sleep(0)
            return b"x" * 10_000

    async def scenario() -> None:
        call = asyncio.ensure_future(world.get(method="POST", body=Endless()))
        await until(lambda: bool(world.upstream.requests) and len(world.upstream.requests[0].body) >= 65_535)
        before = taken
        for _ in range(50):
            await asyncio.sleep(0)
        assert taken <= before + 2
        call.cancel()
        await until(lambda: world.upstream.requests[0].reset is not None)

    run(scenario())
    assert taken < 20


def test_an_early_answer_ends_the_request_and_not_the_connection(world: World, run) -> None:
    async def early(talk, asked):
        talk.head(asked, [(b":status", b"413")])
        await talk.data(asked, b"too large", end=True)
        talk.h2.reset_stream(asked.stream, 0)
        talk.flush()

    world.upstream.say = early
    never = asyncio.Event

    async def scenario() -> None:
        body = Pieces(b"abc", never().wait())
        assert await world.get(method="POST", body=body) == (413, b"too large")
        world.upstream.say = ok
        assert await world.get() == (200, b"ok")

    run(scenario())
    assert len(world.upstream.talks) == 1


def test_a_client_may_hear_the_answer_before_it_begins_its_body(world: World, run) -> None:
    async def hello(talk, asked):
        talk.head(asked, [(b":status", b"200"), (b"content-type", b"text/plain")])
        await talk.data(asked, b"hello ")
        await asked.ended.wait()
        await talk.data(asked, bytes(asked.body), end=True)

    world.upstream.say = hello

    async def scenario() -> None:
        heard = asyncio.Event()
        answer = await world.ask(method="POST", body=Pieces(heard.wait(), b"world"))
        assert await answer.body.read() == b"hello "
        heard.set()
        assert await whole(answer) == b"world"

    run(scenario())


def test_a_body_that_never_begins_leaves_nothing_behind(world: World, run) -> None:
    async def silent(talk, asked):
        await asyncio.Event().wait()

    async def scenario() -> None:
        await world.get()
        world.upstream.say = silent
        before = asyncio.all_tasks()
        call = asyncio.ensure_future(world.get(method="POST", body=Pieces(asyncio.Event().wait())))
        await until(lambda: len(world.upstream.requests) == 2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: world.upstream.requests[1].reset is not None)
        await until(lambda: asyncio.all_tasks() <= before | world.upstream.talks[0].tasks)

    run(scenario())


def test_informational_answers_are_passed_over(world: World, run) -> None:
    async def hints(talk, asked):
        talk.head(asked, [(b":status", b"103"), (b"link", b"</a>")])
        talk.head(asked, [(b":status", b"100")])
        await ok(talk, asked)

    world.upstream.say = hints
    assert run(world.get()) == (200, b"ok")


def test_trailers_pass_in_both_directions(world: World, run) -> None:
    async def echo(talk, asked):
        await asked.ended.wait()
        talk.head(asked, [(b":status", b"200")])
        await talk.data(asked, b"ok")
        talk.end(asked, [*asked.trailers, (b"set-cookie", b"a=b"), (b"x-key", SECRET.encode())])

    world.upstream.say = echo

    async def scenario() -> list[tuple[bytes, bytes]]:
        sent = [(b"x-checksum", b"12"), (b"authorization", b"Bearer evil"), (b"host", b"evil.test")]
        answer = await world.ask(method="POST", body=Pieces(b"abc", trailers=sent), trailers=True)
        assert await whole(answer) == b"ok"
        return answer.body.trailers

    assert run(scenario()) == [(b"x-checksum", b"12")]
    [asked] = world.upstream.requests
    assert asked.trailers == [(b"x-checksum", b"12")]
    assert asked.headers[b"te"] == b"trailers"


def test_a_goodbye_lets_answers_end_and_new_calls_go_elsewhere(world: World, run) -> None:
    gate = asyncio.Event()

    async def slow(talk, asked):
        await gate.wait()
        await ok(talk, asked)

    async def scenario() -> None:
        await world.get()
        world.upstream.say = slow
        call = asyncio.ensure_future(world.get())
        await until(lambda: len(world.upstream.requests) == 2)
        world.upstream.talks[0].writer.write(frame(GOAWAY, 0, 0, bytes((0, 0, 0, 3)) + bytes(4)))
        world.upstream.say = ok
        while len(world.upstream.talks) == 1:  # until the goodbye has come, others may still go the old way
            assert await world.get() == (200, b"ok")
        gate.set()
        assert await call == (200, b"ok")
        assert await world.get() == (200, b"ok")

    run(scenario())
    assert len(world.upstream.talks) == 2


@pytest.mark.parametrize("how", ["refused", "goaway", "cut"])
def test_only_what_may_be_said_twice_or_was_not_taken_is_sent_again(world: World, run, how: str) -> None:
    async def scenario() -> None:
        await world.get()

        async def refuse(talk, asked):
            await asked.ended.wait()
            world.upstream.say = ok
            if how == "refused":
                talk.h2.reset_stream(asked.stream, 7)
            elif how == "goaway":
                talk.writer.write(frame(GOAWAY, 0, 0, bytes((0, 0, 0, asked.stream - 2)) + bytes(4)))
            else:
                talk.writer.transport.abort()
            talk.flush()

        world.upstream.say = refuse
        assert await world.get() == (200, b"ok")
        await world.get()
        world.upstream.say = refuse
        if how == "cut":
            for body in (Pieces(b"abc", b"def"), None):
                with pytest.raises(KeyholeError) as caught:
                    await world.get(method="POST", body=body)
                assert caught.value.code == "upstream_unreachable"
                await world.get()
                world.upstream.say = refuse
        else:
            assert await world.get(method="POST", body=Pieces(b"abc", b"def")) == (200, b"ok")

    run(scenario())
    asked = [bytes(each.body) for each in world.upstream.requests if each.headers[b":method"] == b"POST"]
    assert asked == ([b"abcdef", b""] if how == "cut" else [b"abcdef"] * 2)


def test_a_call_that_was_refused_twice_or_whose_body_is_gone_is_not_sent_again(world: World, run) -> None:
    async def refuse(talk, asked):
        await asked.ended.wait()
        talk.h2.reset_stream(asked.stream, 7)
        talk.flush()

    async def scenario() -> None:
        world.upstream.say = refuse
        for pieces in ((b"abc",), (b"x" * 40_000, b"y" * 40_000, b"z" * 1000)):
            with pytest.raises(KeyholeError) as caught:
                await world.get(method="POST", body=Pieces(*pieces))
            assert caught.value.code == "upstream_unreachable"

    run(scenario())
    assert [len(asked.body) for asked in world.upstream.requests] == [3, 3, 81_000]


def test_a_call_of_grpc_that_was_refused_before_its_message_came_is_sent_again(world: World, run) -> None:
    said = asyncio.Event()

    async def refuse(talk, asked):
        world.upstream.say = ok
        talk.h2.reset_stream(asked.stream, 7)
        talk.flush()
        said.set()

    async def scenario() -> None:
        world.upstream.say = refuse
        headers = [(b"content-type", b"application/grpc")]
        body = Pieces(said.wait(), b"\0\0\0\0\3abc")
        answer = await world.ask("/a.B/C", "POST", body=body, headers=headers)
        assert answer.status == 200
        await whole(answer)

    run(scenario())
    assert [bytes(asked.body)[5:] for asked in world.upstream.requests] == [b"", b"abc"]


def test_a_revoked_token_cuts_a_stream_by_a_reset(world: World, run) -> None:
    async def endless(talk, asked):
        talk.head(asked, [(b":status", b"200"), (b"content-type", b"text/event-stream")])
        await talk.data(asked, b"data: 1\n\n")

    world.upstream.say = endless

    async def scenario() -> None:
        token = await world.stack.agent("h2-short", "two")
        call = world.call()
        call.token = token.encode()
        answer = await world.stack.keyhole.broker.handle(call)
        assert await answer.body.read() == b"data: 1\n\n"
        await world.stack.ask("update", "auth/token/revoke", {"token": token})
        with pytest.raises(KeyholeError):
            await answer.body.read()
        await until(lambda: world.upstream.requests[-1].reset is not None)

    run(scenario())


def test_a_value_is_masked_in_head_and_body(world: World, run) -> None:
    async def echo(talk, asked):
        value = asked.headers[b"authorization"]
        talk.head(asked, [(b":status", b"200"), (b"x-echo", value)])
        for start in range(0, len(value), 3):
            await talk.data(asked, value[start : start + 3])
        await talk.data(asked, b"", end=True)

    world.upstream.say = echo

    async def scenario() -> None:
        answer = await world.ask()
        body = await whole(answer)
        assert SECRET.encode() not in body + b"".join(value for _, value in answer.headers)
        assert len(body) == len(BEARER)

    run(scenario())


def test_plain_http2_is_spoken_where_the_call_is_grpc(world: World, run) -> None:
    headers = [(b"content-type", b"application/grpc")]

    async def scenario() -> None:
        assert await world.get(
            scheme="http", port=world.plain, method="POST", body=Pieces(b"\0" * 5), headers=headers
        ) == (
            200,
            b"ok",
        )

    run(scenario())
    [asked] = world.upstream.requests
    assert asked.headers[b":scheme"] == b"http"


def test_sessions_of_tls_are_resumed(world: World, run) -> None:
    async def scenario() -> list[bool]:
        await world.get()
        await fresh(world)
        await world.get()
        return [talk.writer.get_extra_info("ssl_object").session_reused for talk in world.upstream.talks]

    assert run(scenario()) == [True]


def test_nobody_is_believed_for_what_was_proved_before_trust_changed(world: World, run) -> None:
    async def scenario() -> list[bool]:
        await world.get()
        world.stack.keyhole.pool.distrust()
        await until(lambda: not world.upstream.writers)
        world.upstream.talks.clear()
        await world.get()
        return [talk.writer.get_extra_info("ssl_object").session_reused for talk in world.upstream.talks]

    assert run(scenario()) == [False]


def test_a_client_of_http1_gets_trailers_of_http2(world: World, run) -> None:
    async def say(talk, asked):
        talk.head(asked, [(b":status", b"200")])
        await talk.data(asked, b"ok")
        talk.end(asked, [(b"x-checksum", b"12")])

    world.upstream.say = say

    async def scenario() -> bytes:
        reader, writer = await world.stack.tunnel(world.token, port=world.only)
        writer.write(
            f"GET /v1/x HTTP/1.1\r\nHost: {HOST}:{world.only}\r\nTE: trailers\r\nConnection: close\r\n\r\n".encode()
        )
        return await reader.read()

    assert run(scenario()).endswith(b"0\r\nx-checksum: 12\r\n\r\n")


@pytest.fixture
def hurried(world: World):
    """A pool that waits for a moment only."""
    pool = world.stack.keyhole.pool
    before = pool.limits
    pool.limits = replace(before, timeouts=replace(before.timeouts, answer=0.2, body=0.2, write=0.2))
    yield world
    pool.limits = before


async def silent(_talk, asked) -> None:
    await asked.ended.wait()


async def stalling(talk, asked) -> None:
    talk.head(asked, [(b":status", b"200")])
    await talk.data(asked, b"and then")


@pytest.mark.parametrize("say", [silent, stalling])
def test_an_upstream_that_falls_silent_is_left(hurried: World, run, say) -> None:
    async def scenario() -> None:
        hurried.upstream.say = say
        with pytest.raises(UpstreamTimeout):
            await hurried.get()
        await until(lambda: hurried.upstream.requests[0].reset is not None)
        hurried.upstream.say = ok
        assert await hurried.get() == (200, b"ok")

    run(scenario())
    assert len(hurried.upstream.talks) == 2  # nobody else waits on a connection that is silent


def test_an_upstream_that_does_not_read_a_body_is_left(hurried: World, run) -> None:
    hurried.upstream.acknowledge = False
    hurried.upstream.say = silent
    pool = hurried.stack.keyhole.pool
    pool.limits = replace(pool.limits, timeouts=replace(pool.limits.timeouts, answer=30.0))

    async def scenario() -> str:
        with pytest.raises(UpstreamTimeout) as caught:
            await hurried.get(method="POST", body=Pieces(*[b"x" * 10_000] * 10))
        return caught.value.reason

    assert run(scenario()) == "the upstream stopped reading"


def test_a_certificate_of_a_client_has_a_connection_of_its_own(world: World, run) -> None:
    mutual = context("h2", "mutual")
    authority().configure_trust(mutual)
    mutual.verify_mode = ssl.CERT_REQUIRED

    async def scenario() -> list[str]:
        port = await world.stack.listen(world.upstream, mutual)
        for name in ("one", "two"):
            await world.stack.secret(f"bank/{name}", client_pem(f"{name}.bank.test"))
            await world.stack.service(
                f"bank-{name}",
                hosts=[f"{HOST}:{port}"],
                secret=f"bank/{name}",
                inject={"kind": "mtls"},
                paths=[f"/{name}"],
            )
        token = await world.stack.agent("h2-bank", "bank-one", "bank-two")
        for name in ("one", "two", "one"):
            call = world.call(f"/{name}", port=port)
            call.token = token.encode()
            assert (await world.stack.keyhole.broker.handle(call)).status == 200
        shown = [talk.writer.get_extra_info("peercert") for talk in world.upstream.talks]
        return [dict(each["subjectAltName"])["DNS"] for each in shown]

    assert run(scenario()) == ["one.bank.test", "two.bank.test"]


@pytest.mark.parametrize("declared", [True, False])
def test_an_answer_that_drips_is_cut_and_never_looks_whole(declared: bool) -> None:
    async def drip(talk: Talk, asked: Asked) -> None:
        length = [(b"content-length", b"99999")] if declared else []
        talk.head(asked, [(b":status", b"200"), *length])
        while asked.reset is None:
            await talk.data(asked, b"x")
            await asyncio.sleep(0.02)  # never silent for as long as silence is allowed

    async def go() -> None:
        async with Stack(Config(stream_rate=1000.0, rate_window=0.1)) as stack:
            world = World(stack)
            await world.prepare()
            world.upstream.say = drip
            answer = await world.ask()
            with pytest.raises(UpstreamTimeout, match="slow"):
                await whole(answer)
            [asked] = world.upstream.requests
            await until(lambda: asked.reset is not None)

    asyncio.run(asyncio.wait_for(go(), 60))
