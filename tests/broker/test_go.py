"""Clients in Go through the whole product: HTTP/2 of net/http, gRPC by hand over it, and google.golang.org/grpc.

They are told nothing but what `keyhole run` tells every command: the proxy's address and the CA, by variables.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker.h2_upstream import Asked, H2Upstream, Talk, ok
from broker.stack import HOST, SECRET, Stack, until
from broker.test_grpc import World
from broker.test_grpc import world as world  # noqa: PLC0414 - a fixture

PROGRAMS = Path(__file__).parents[2] / ".cache/clients/go"
BEARER = b"Bearer " + SECRET.encode()
HIDDEN = "*" * len(SECRET)


async def go(world: World, program: str, *words: str, token: str = "") -> tuple[int, list[str]]:
    """A program with an environment of its own; its exit code and the lines that it printed."""
    if not (PROGRAMS / program).exists():
        pytest.skip(f"{program}.go was not built: there was no go, or not Debian's golang-google-grpc-dev")
    stack = world.stack
    ca = Path(stack.config.upstream_ca).with_name("keyhole-ca.pem")
    ca.write_text((await stack.ask("read", "sys/keyhole"))["ca"])
    proxy = f"http://agent:{token or world.token}@{stack.address[0]}:{stack.address[1]}"
    env = {"HTTPS_PROXY": proxy, "SSL_CERT_FILE": str(ca)}
    process = await asyncio.create_subprocess_exec(
        str(PROGRAMS / program), *words, env=env, stdout=-1, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    assert SECRET.encode() not in out
    return process.returncode, out.decode().splitlines()


@pytest.fixture
def upstream(world: World) -> H2Upstream:
    world.raw.say = ok
    world.raw.requests.clear()
    world.raw.talks.clear()
    return world.raw


def ask(world: World, run, what: str, path: str = "/v1/x") -> list[str]:
    code, said = run(go(world, "http2", what, f"https://{HOST}:{world.raw_port}{path}"))
    assert code == 0, said
    return said


async def whole(talk: Talk, asked: Asked, body: bytes, *fields: tuple[bytes, bytes]) -> None:
    talk.head(asked, [(b":status", b"200"), *fields])
    await talk.data(asked, body, end=True)


def test_requests_at_once_get_each_its_own_answer_over_http2(world: World, upstream: H2Upstream, run) -> None:
    async def echo(talk: Talk, asked: Asked) -> None:
        await asked.ended.wait()
        await whole(talk, asked, bytes(asked.body))

    upstream.say = echo
    said = ask(world, run, "many")
    assert sorted(said) == sorted(f"{number} HTTP/2.0 200 true" for number in range(20))
    assert {each.headers[b"authorization"] for each in upstream.requests} == {BEARER}
    assert len(upstream.requests) == 20


def test_two_sides_talk_in_turn_and_one_ends_before_the_other(world: World, upstream: H2Upstream, run) -> None:
    async def talk_back(talk: Talk, asked: Asked) -> None:
        talk.head(asked, [(b":status", b"200"), (b"content-type", b"text/event-stream")])
        heard = 0
        while not asked.ended.is_set():
            asked.came.clear()
            if len(asked.body) > heard:
                await talk.data(asked, b"heard " + asked.body[heard:])
                heard = len(asked.body)
            waits = [asyncio.ensure_future(each.wait()) for each in (asked.came, asked.ended)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for each in waits:
                each.cancel()
        await talk.data(asked, b"bye " + asked.headers[b"authorization"], end=True)

    upstream.say = talk_back
    assert ask(world, run, "talk") == ["heard one", "heard two", "heard three", f"bye Bearer {HIDDEN}"]


def test_trailers_pass_in_both_directions(world: World, upstream: H2Upstream, run) -> None:
    async def say(talk: Talk, asked: Asked) -> None:
        await asked.ended.wait()
        talk.head(asked, [(b":status", b"200")])
        await talk.data(asked, b"ok")
        talk.end(asked, [*asked.trailers, (b"x-more", b"1"), (b"x-key", BEARER), (b"set-cookie", b"a=b")])

    upstream.say = say
    said = ask(world, run, "trailers")
    assert [said[0], *sorted(said[1:])] == ["ok", "X-Checksum 12", "X-More 1"]
    assert upstream.requests[0].trailers == [(b"x-checksum", b"12")]


def test_an_early_answer_ends_its_request_and_the_next_is_served(world: World, upstream: H2Upstream, run) -> None:
    async def early(talk: Talk, asked: Asked) -> None:
        upstream.say = ok
        talk.head(asked, [(b":status", b"413")])
        await talk.data(asked, b"too large", end=True)

    upstream.say = early
    assert ask(world, run, "early") == ["413 too large", "200 ok"]


def test_a_body_that_waits_to_be_wanted_is_sent(world: World, upstream: H2Upstream, run) -> None:
    assert ask(world, run, "wait") == ["200 ok"]
    assert bytes(upstream.requests[0].body) == b"wanted"


def test_a_request_that_is_taken_back_ends_at_the_upstream(world: World, upstream: H2Upstream, run) -> None:
    async def begin(talk: Talk, asked: Asked) -> None:
        talk.head(asked, [(b":status", b"200"), (b"content-type", b"text/event-stream")])
        await talk.data(asked, b"data: 1\n\n")

    upstream.say = begin
    assert ask(world, run, "leave") == ["true"]
    run(until(lambda: upstream.requests[0].reset is not None))


def grpc(world: World, run, method: str, *messages: str, token: str = "") -> list[str]:
    url = f"https://{HOST}:{world.port}/test.Test/{method}"
    code, said = run(go(world, "http2", "grpc", url, *messages, token=token))
    assert code == 0, said
    return said


@pytest.mark.parametrize(
    ("method", "messages", "answers", "status"),
    [
        ("Echo", ["hi "], [f"0 hi Bearer {HIDDEN}"], "status 0 "),
        ("Count", ["50"], [f"0 {number}" for number in range(50)], "status 0 "),
        ("Talk", ["a ", "b "], ["0 hello", f"0 a Bearer {HIDDEN}", f"0 b Bearer {HIDDEN}"], "status 0 "),
        ("Fail", [""], [], f"status 5 no such thing for Bearer {HIDDEN}"),
        ("Nothing", [""], [], "status 12 Method not found!"),
    ],
)
def test_grpc_over_net_http(world: World, run, method, messages, answers, status) -> None:
    assert grpc(world, run, method, *messages) == ["HTTP/2.0 application/grpc", *answers, status]
    assert world.service.seen[-1]["authorization"] == f"Bearer {SECRET}"


def test_a_method_that_is_denied_is_refused_in_words_of_grpc(world: World, run) -> None:
    async def prepare(stack: Stack) -> str:
        where = {"hosts": [f"{HOST}:{world.port}"], "paths": ["/test.Test/*"]}
        await stack.service("go-narrow", **where, deny_paths=["/test.Test/Echo"])
        return await stack.agent("go-narrow", "go-narrow")

    world.service.seen.clear()
    head, status = grpc(world, run, "Echo", "hi ", token=run(prepare(world.stack)))
    assert head == "HTTP/2.0 application/grpc"
    assert status.startswith("status 7 ")
    assert "denies" in status
    assert world.service.seen == []


def test_grpc_go_calls_in_every_way(world: World, run) -> None:
    code, said = run(go(world, "grpc", f"{HOST}:{world.port}"))
    assert code == 0, said
    fields = [
        f'x-echo ["Bearer {HIDDEN}"]',
        f'x-echo-bin ["<Bearer {HIDDEN}>"]',
        'x-more ["1"]',
        rf'x-more-bin ["\x00{HIDDEN}"]',
    ]
    assert said == [
        f"Echo identity Bearer {HIDDEN}",
        *fields,
        f"Echo gzip Bearer {HIDDEN}",
        *fields,
        "Count 500 499",
        "Packed 2 " + f"Bearer {HIDDEN}" * 10 + "!",
        "Talk hello",
        *(f"Talk {number} Bearer {HIDDEN}" for number in range(3)),
        "Talk EOF",
        f"Fail NotFound no such thing for Bearer {HIDDEN}",
        "Nothing Unimplemented Method not found!",
        "Wait DeadlineExceeded ",
    ]
