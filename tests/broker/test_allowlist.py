"""A service means one host, two methods and one folder: nothing else reaches the upstream, however it is written."""

from __future__ import annotations

import random
from urllib.parse import unquote_to_bytes

import pytest

from broker.stack import HOST, SECRET, Reply, Stack, basic, read_reply, vectors

CASES = vectors("proxy/allowlist_cases.jsonl")
BEARER = b"Bearer " + SECRET.encode()


@pytest.fixture(scope="module")
def token(module_stack: Stack, runner) -> str:
    async def prepare() -> str:
        stack = module_stack
        await stack.secret("stripe/key")
        rule = {"methods": ["GET", "POST"], "paths": ["/v1/public/**"], "deny_paths": ["/v1/admin/**"]}
        await stack.service("tls", **rule)
        await stack.service("plain", hosts=[f"{HOST}:{stack.plain}"], schemes=["http"], **rule)
        return await stack.agent("coder", "tls", "plain")

    return runner.run(prepare())


def of(kind: str, must: str = "") -> list:
    rows = [case for case in CASES if case["kind"] == kind and case["must"].startswith(must)]
    return [pytest.param(case["value"], id=case["id"]) for case in rows]


def readings(target: bytes) -> set[bytes]:
    """The path as an upstream could read it: decoded never, once or twice, with either slash."""
    found, path = set(), target.partition(b"?")[0]
    for _ in range(3):
        found.add(path.replace(b"\\", b"/"))
        path = unquote_to_bytes(path)
    return found


def outside(target: bytes) -> bool:
    for path in readings(target):
        parts: list[bytes] = []
        for part in path.split(b"/"):
            name = part.partition(b";")[0].strip().lower()
            if name == b"..":
                parts[-1:] = []
            elif name not in {b"", b"."}:
                parts.append(name)
        if parts[:2] != [b"v1", b"public"]:
            return True
    return False


async def raw(stack: Stack, lines: bytes, token: str = "") -> Reply:
    """Bytes as they are: in a tunnel of the allowed host, or with a token on the proxy's own port."""
    reader, writer = await (stack.open() if token else stack.tunnel(stack_token))
    writer.write(lines + (basic(token) if token else b"") + b"\r\n")
    try:
        return await read_reply(reader, lines.split(b" ")[0].decode())
    finally:
        writer.close()


stack_token = ""


@pytest.fixture(autouse=True)
def _token(token: str) -> None:
    global stack_token  # noqa: PLW0603 - the one token of this module
    stack_token = token


def assert_refused(stack: Stack, reply: Reply) -> None:
    assert 400 <= reply.status < 500, reply.raw
    assert stack.upstream.requests == []
    assert SECRET.encode() not in reply.raw


async def ways(stack: Stack, value: str) -> list[Reply]:
    """One host in CONNECT, in the URL, and in Host alone."""
    token = stack_token
    port = "" if ":" in value else f":{stack.secure}"
    reply, (_, writer) = await stack.connect(token, value + port)
    writer.close()
    replies = [reply]
    port = "" if ":" in value else f":{stack.plain}"
    replies.append(await stack.absolute(token, f"http://{value}{port}/v1/public/a", host=value + port))
    host = value.encode() + (b"" if ":" in value else b":%d" % stack.secure)
    replies.append(await raw(stack, b"GET /v1/public/a HTTP/1.1\r\nHost: " + host + b"\r\n"))
    return replies


@pytest.mark.parametrize("value", of("host", "deny"))
def test_other_host_is_refused_wherever_it_stands(stack: Stack, run, value: str) -> None:
    for number, reply in enumerate(run(ways(stack, value))):
        # A tab beside a header's value is white space (RFC 9110, section 5.5), so Host alone is the allowed host.
        if not (number == 2 and value.strip() == HOST):
            assert_refused(stack, reply)


@pytest.mark.parametrize("value", [*of("host", "allow"), HOST, "API.ALLOWED.TEST."])
def test_equal_spelling_of_the_host_is_allowed(stack: Stack, run, value: str) -> None:
    assert [reply.status for reply in run(ways(stack, value))] == [200, 200, 200]
    hosts = {received.values(b"host")[0].partition(b":")[0] for received in stack.upstream.requests}
    assert hosts == {HOST.encode()}


@pytest.mark.parametrize("value", of("path", "deny"))
def test_path_outside_the_rule_is_refused(stack: Stack, run, value: str) -> None:
    inside = f"Host: {HOST}:{stack.secure}\r\n".encode()
    assert_refused(stack, run(raw(stack, b"GET " + value.encode() + b" HTTP/1.1\r\n" + inside)))
    url = value if value.startswith("http:") else f"http://{HOST}:{stack.plain}{value}"
    if value != "*":
        assert_refused(stack, run(stack.absolute(stack_token, url, host=f"{HOST}:{stack.plain}")))


@pytest.mark.parametrize("value", of("path", "allow"))
def test_path_inside_the_rule_is_sent_with_the_secret(stack: Stack, run, value: str) -> None:
    assert run(stack.get(stack_token, value)).status == 200
    assert run(stack.absolute(stack_token, f"http://{HOST}:{stack.plain}{value}")).status == 200
    for received in stack.upstream.requests:
        assert unquote_to_bytes(received.target).decode() == value
        assert received.values(b"authorization") == [BEARER]
        assert received.target.isascii()


@pytest.mark.parametrize("value", of("method", "deny"))
def test_other_method_is_refused(stack: Stack, run, value: str) -> None:
    inside = f" /v1/public/a HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\n".encode()
    assert_refused(stack, run(raw(stack, value.encode() + inside)))
    url = f" http://{HOST}:{stack.plain}/v1/public/a HTTP/1.1\r\nHost: {HOST}:{stack.plain}\r\n".encode()
    assert_refused(stack, run(raw(stack, value.encode() + url, stack_token)))


END_TO_END = {"cookie", "content-encoding", "max-forwards", "_method"}


@pytest.mark.parametrize("value", of("header"))
def test_header_that_would_change_the_request_does_not_reach_the_upstream(stack: Stack, run, value: list[str]) -> None:
    name, text = value
    line = f"{name}: {text}\r\n".encode()
    replies = [
        run(stack.get(stack_token, "/v1/public/a", headers=line)),
        run(stack.absolute(stack_token, f"http://{HOST}:{stack.plain}/v1/public/a", headers=line)),
    ]
    for received in stack.upstream.requests:
        assert received.target == b"/v1/public/a"
        assert received.method == "GET"
        assert received.values(b"authorization") == [BEARER]
        assert len(received.values(b"host")) == 1
        values = received.values(name.lower().encode())
        if name == "Via":
            assert values[0].startswith(b"1.1 self, 1.1 keyhole-")
        elif name == "Accept-Encoding":
            assert b"xz" not in values[0]
        elif name.lower() not in END_TO_END | {"authorization", "host"}:
            assert values == []
        assert b"evil" not in received.head
        assert b"attacker-own" not in received.head
    if name in {"Host", "Transfer-Encoding"}:
        assert {reply.status // 100 for reply in replies} == {4}
        assert stack.upstream.requests == []
    elif not name.startswith("Proxy-Authorization"):
        assert [reply.status for reply in replies] == [200, 200]


TRICKS = (
    r"/ // . .. %2e %2E%2e .%2e %2f %5c \ ; ;x=1 ;/ %3b %00 %20 %c0%af %25%32%65 %252e %252f %ef%bc%8f # * %09 ~ @ : ?"
)
WORDS = "admin ADMIN adm%69n public Public v1 V1 a"
ATOMS = [*TRICKS.split(), *WORDS.split(), "\uff0e\uff0e", "\u2025", "\uff0f"]


def test_no_mixture_of_tricks_leads_out_of_the_folder(stack: Stack, run) -> None:
    chance = random.Random(7)
    paths = ["/v1/public/" + "".join(chance.choices(ATOMS, k=chance.randint(1, 6))) for _ in range(400)]
    paths += ["/" + "".join(chance.choices(ATOMS, k=chance.randint(2, 8))) for _ in range(200)]

    async def all_of_them() -> None:
        for path in paths:
            reply = await stack.absolute(
                stack_token, f"http://{HOST}:{stack.plain}{path}", host=f"{HOST}:{stack.plain}"
            )
            assert reply.status < 500

    run(all_of_them())
    seen = [received.target for received in stack.upstream.requests]
    assert len(seen) > 20
    assert [target for target in seen if outside(target)] == []


@pytest.mark.parametrize("host", ["evil.test", "api.allowed.test:1", "", "127.0.0.1"])
def test_url_and_host_must_be_one(stack: Stack, run, host: str) -> None:
    url = f"http://{HOST}:{stack.plain}/v1/public/a"
    assert run(stack.absolute(stack_token, url, host=host)).status == 400
    reply = run(stack.absolute(stack_token, "http://evil.test/v1/public/a", host=f"{HOST}:{stack.plain}"))
    assert reply.status == 400
    assert stack.upstream.requests == []


def test_refusals_of_a_rule_keep_the_tunnel_and_say_why(stack: Stack, run) -> None:
    async def three() -> list[Reply]:
        streams = await stack.tunnel(stack_token)
        return [await stack.send(streams, path) for path in ("/v1/admin/keys", "/v2/x", "/v1/public/a")]

    replies = run(three())
    assert [reply.status for reply in replies] == [403, 403, 200]
    assert [reply.code for reply in replies] == ["policy_denied", "policy_denied", ""]
    assert len(stack.upstream.requests) == 1
