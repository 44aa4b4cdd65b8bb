"""What an upstream may learn of a client's request, and what may not pass a tunnel at all."""

from __future__ import annotations

import asyncio
import base64

import pytest

from broker.stack import HOST, SECRET, Received, Reply, Stack, basic, read_reply

BEARER = b"Bearer " + SECRET.encode()


@pytest.fixture(scope="module")
def token(module_stack: Stack, runner) -> str:
    async def prepare() -> str:
        stack = module_stack
        await stack.secret("stripe/key")
        await stack.service("tls")
        await stack.service("plain", hosts=[f"{HOST}:{stack.plain}"], schemes=["http"])
        return await stack.agent("coder", "tls", "plain")

    return runner.run(prepare())


def both(stack: Stack, run, token: str, path: str = "/v1/x", headers: bytes = b"") -> list[Reply]:
    """The same request through a tunnel and in absolute form."""
    return [
        run(stack.get(token, path, headers=headers)),
        run(stack.absolute(token, f"http://{HOST}:{stack.plain}{path}", headers=headers)),
    ]


@pytest.mark.parametrize(
    "headers",
    [
        b"Connection: close, Authorization\r\n",
        b"Connection: Authorization\r\nAuthorization: Bearer mine\r\n",
        b"Connection: host, content-length, x-injected\r\nX-Injected: 1\r\n",
        b"Connection: X-Api-Key\r\nX-Api-Key: 1\r\nKeep-Alive: timeout=1\r\nProxy-Connection: keep-alive\r\n",
        b"Authorization: Bearer a\r\nauthorization: Basic b\r\nAUTHORIZATION: c\r\n",
        b"TE: trailers\r\nTrailer: Authorization\r\n",
    ],
)
def test_credential_arrives_once_and_nothing_hop_by_hop_leaks(stack: Stack, run, token: str, headers: bytes) -> None:
    assert [reply.status for reply in both(stack, run, token, headers=headers)] == [200, 200]
    for received in stack.upstream.requests:
        assert received.values(b"authorization") == [BEARER]
        names = {name for name, _ in received.headers}
        assert names == {b"host", b"via", b"authorization"}


def forms(token: str) -> list[tuple[str, bytes]]:
    raw = token.encode()
    escaped = "".join(f"%{byte:02x}" for byte in raw)
    credentials = base64.b64encode(b"agent:" + raw)
    return [
        (f"/v1/x?token={token}", b""),
        (f"/v1/x?{token}", b""),
        (f"/v1/{token}/x", b""),
        (f"/v1/x?t={escaped}", b""),
        (f"/v1/x?t={escaped.replace('%', '%25')}", b""),
        (f"/{escaped}", b""),
        ("/v1/x", b"Authorization: Bearer " + raw + b"\r\n"),
        ("/v1/x", b"Authorization: Basic " + credentials + b"\r\n"),
        ("/v1/x", b"X-Authorization: Basic " + credentials + b"\r\n"),
        ("/v1/x", b"Cookie: session=1; token=" + raw + b"; a=b\r\n"),
        ("/v1/x", b"Cookie: token=" + escaped.encode() + b"\r\n"),
        ("/v1/x", b"X-Vault-Token: " + raw + b"\r\n"),
        ("/v1/x", b"Referer: http://agent:" + raw + b"@127.0.0.1/\r\n"),
        ("/v1/x", raw.replace(b".", b"-.") + b": 1\r\nX-" + raw + b": 1\r\n"),
        *(("/v1/x", b"X-Proxy-Auth: Basic " + base64.b64encode(b"x" * at + raw + b"y") + b"\r\n") for at in range(3)),
        ("/v1/x", b"Cookie: auth=" + base64.urlsafe_b64encode(b"agent:" + raw).rstrip(b"=") + b"\r\n"),
        ("/v1/x?auth=" + base64.b64encode(b"agent:" + raw).decode().replace("=", "%3D"), b""),
        ("/v1/x", b"X-Hex: " + raw.hex().encode() + b"\r\n"),
        ("/v1/x?t=" + raw.hex().upper(), b""),
    ]


OVERRIDES = (
    "X-HTTP-Method-Override",
    "X-HTTP-Method",
    "X-Method-Override",
    "HTTP-Method-Override",
    "X-Original-Method",
)


@pytest.mark.parametrize("name", OVERRIDES)
def test_header_that_names_another_method_is_left_out(stack: Stack, run, token: str, name: str) -> None:
    for reply in both(stack, run, token, headers=f"{name}: DELETE\r\n".encode()):
        assert reply.status == 200
        assert b"DELETE" not in stack.upstream.last.head


@pytest.mark.parametrize("number", range(21))
def test_callers_own_token_never_reaches_an_upstream(stack: Stack, run, token: str, number: int) -> None:
    path, headers = forms(token)[number]
    for reply in both(stack, run, token, path, headers):
        assert (reply.status, reply.code) == (403, "policy_denied")
    assert stack.upstream.received.replace(b"\0", b"") == b""


def test_refusal_of_the_own_token_does_not_write_it_down(stack: Stack, run, token: str) -> None:
    run(stack.get(token, f"/v1/{token}?{token}=1"))
    record = run(stack.records())[-1]
    assert (record["phase"], record["result"]) == ("refused", "policy_denied")
    assert token not in str(record)


def test_own_token_in_an_org_without_rules_is_kept_back_too(stack: Stack, run, token: str) -> None:
    async def ask() -> Reply:
        await stack.ask("update", "sys/org", {"egress": "allow"})
        try:
            return await stack.absolute(token, f"http://other.test:{stack.plain}/?t={token}")
        finally:
            await stack.ask("update", "sys/org", {"egress": "deny"})

    assert run(ask()).code == "policy_denied"


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
def test_proxy_authorization_opens_the_proxy_and_stays_there(stack: Stack, run, token: str, scheme: str) -> None:
    value = token if scheme == "Bearer" else base64.b64encode(f"{token}:x".encode()).decode()

    async def ask() -> Reply:
        reader, writer = await stack.open()
        lines = f"GET http://{HOST}:{stack.plain}/ HTTP/1.1\r\nHost: {HOST}:{stack.plain}\r\n"
        writer.write(f"{lines}Proxy-Authorization: {scheme} {value}\r\n\r\n".encode())
        return await read_reply(reader)

    assert run(ask()).status == 200
    assert b"roxy" not in stack.upstream.received
    assert value.encode() not in stack.upstream.received


def test_proxy_authorization_inside_a_tunnel_is_not_passed_on(stack: Stack, run, token: str) -> None:
    other = run(stack.agent("other", "tls"))
    assert run(stack.get(token, headers=basic(other))).status == 200
    assert b"roxy" not in stack.upstream.received


@pytest.mark.parametrize(
    "credential", [b"", b"Proxy-Authorization: Bearer hvs.nobody\r\n", b"Proxy-Authorization: x\r\n"]
)
def test_without_a_token_nothing_is_opened(stack: Stack, run, credential: bytes) -> None:
    async def ask(line: bytes) -> Reply:
        reader, writer = await stack.open()
        writer.write(line + credential + b"\r\n")
        return await read_reply(reader)

    name = f"{HOST}:{stack.secure}"
    for line in (f"CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n", f"GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\n"):
        reply = run(ask(line.encode()))
        assert (reply.status, reply.code) == (407, "unauthenticated")
        assert (reply.get(b"proxy-authenticate") or b"").startswith(b"Basic")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["https://evil.test/x", "http://{host}/x", "//evil.test/", "/v1/other"])
def test_redirect_is_given_back_and_not_followed(stack: Stack, run, token: str, status: int, where: str) -> None:
    location = where.format(host=HOST)
    stack.upstream.say = f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    reply = run(stack.get(token))
    assert reply.status == status
    assert reply.get(b"location") == location.encode()
    assert len(stack.upstream.requests) == 1


@pytest.mark.parametrize(
    "headers",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        b"Connection: upgrade\r\nUpgrade: foo/1\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket, h2c\r\nSec-WebSocket-Version: 99\r\n",
    ],
)
def test_upgrade_opens_no_blind_tunnel(stack: Stack, run, token: str, headers: bytes) -> None:
    async def ask() -> tuple[Reply, bytes]:
        reader, writer = await stack.tunnel(token)
        head = f"GET /v1/x HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\n".encode()
        # Bytes that a client which believes in the upgrade sends at once; as a request they would pass the rule.
        writer.write(head + headers + b"\r\n" + head + b"\r\n")
        reply = await read_reply(reader)
        try:
            return reply, await reader.read()
        except OSError:
            return reply, b""

    reply, rest = run(ask())
    assert reply.status != 101
    assert rest == b""
    assert len(stack.upstream.requests) <= 1
    for received in stack.upstream.requests:
        assert {b"upgrade", b"http2-settings", b"connection"}.isdisjoint(name for name, _ in received.headers)


@pytest.mark.parametrize(
    "first", [b"SSH-2.0-OpenSSH_9.6\r\n", b"\x00\x01\x02\x03" * 8, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"EHLO x\r\n"]
)
def test_bytes_that_are_neither_tls_nor_http_close_the_tunnel(stack: Stack, run, token: str, first: bytes) -> None:
    async def ask() -> bytes:
        reader, writer = await stack.tunnel(token, port=stack.secure, tls=False)
        writer.write(first)
        writer.write_eof()
        try:
            return await reader.read()
        except OSError:
            return b""

    answer = run(ask())
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert stack.upstream.received.strip(b"\0") == b""


def test_trailers_of_a_request_do_not_become_headers(stack: Stack, run, token: str) -> None:
    async def ask() -> tuple[Reply, Reply]:
        reader, writer = streams = await stack.tunnel(token)
        head = f"POST /v1/x HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        writer.write(
            head + b"3\r\nabc\r\n0\r\nAuthorization: Bearer evil\r\nHost: evil.test\r\nContent-Length: 9\r\n\r\n"
        )
        reply = await read_reply(reader)
        return reply, reply if reply.status == 400 else await stack.send(streams)

    first, second = run(ask())
    assert first.status in {200, 400}
    assert second.status in {200, 400}
    for received in stack.upstream.requests:
        assert received.values(b"authorization") == [BEARER]
        assert b"evil" not in received.head + received.body
    assert b"evil" not in stack.upstream.received


def test_query_passes_byte_for_byte(stack: Stack, run, token: str) -> None:
    query = "?b=2&a=1&a=%31&a=&&=x;y&sig=a%2fb%2B%2b+/=&%7e~&X-Amz-Signature=0aF%0A&e=?/:@!$'()*,[]{}|^`\"<>"
    assert run(stack.get(token, "/v1/x" + query)).status == 200
    assert stack.upstream.last.target == b"/v1/x" + query.encode()


@pytest.mark.parametrize(
    "line",
    [
        b"Range: bytes=0-19\r\n",
        b'Range: bytes=20-\r\nIf-Range: "e"\r\n',
        b"Request-Range: bytes=0-19\r\n",
        b"A-IM: vcdiff\r\n",
    ],
)
def test_parts_of_an_answer_cannot_be_asked_for(stack: Stack, run, token: str, line: bytes) -> None:
    assert run(stack.get(token, headers=line)).status == 200
    assert {name for name, _ in stack.upstream.last.headers} == {b"host", b"via", b"authorization"}


@pytest.mark.parametrize(
    ("asked", "sent"),
    [(b"xz, dcb, exotic", b"identity"), (b"gzip, xz;q=1, br", None), (b"*", None), (b"identity;q=0, xz", None)],
)
def test_upstream_is_asked_only_for_codings_that_can_be_inspected(
    stack: Stack, run, token: str, asked: bytes, sent: bytes | None
) -> None:
    headers = b"Accept-Encoding: " + asked + b"\r\nAccept-Encoding: dcz\r\n"
    assert run(stack.get(token, headers=headers)).status == 200
    [value] = stack.upstream.last.values(b"accept-encoding")
    names = {part.partition(b";")[0].strip() for part in value.split(b",")}
    assert names <= {b"gzip", b"x-gzip", b"deflate", b"br", b"zstd", b"identity"}
    assert sent in {None, value}


@pytest.mark.parametrize("scheme", [b"NTLM", b"Negotiate", b"negotiate"])
def test_connection_that_one_agent_has_logged_in_serves_no_other(stack: Stack, run, scheme: bytes) -> None:
    async def both_agents() -> list[bytes]:
        await stack.service("windows", inject={"kind": "none"}, secret="", hosts=[f"a.test:{stack.secure}"])
        alice, bob = [await stack.agent(name, "windows") for name in ("alice", "bob")]
        stack.upstream.say = say
        login = b"Authorization: " + scheme + b" YWxpY2U=\r\n"
        answers = [await stack.get(token, host="a.test", headers=line) for token, line in steps(alice, bob, login)]
        return [answer.body for answer in answers]

    def steps(alice: str, bob: str, login: bytes) -> list[tuple[str, bytes]]:
        return [(alice, b""), (alice, login), (alice, login), (bob, b""), (bob, login)]

    users: dict[object, bytes] = {}

    async def say(received: Received, writer: asyncio.StreamWriter) -> None:
        user = users.setdefault(writer, b"nobody")
        if received.values(b"authorization"):
            users[writer] = b"somebody"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(user), user))

    assert run(both_agents()) == [b"nobody", b"nobody", b"somebody", b"nobody", b"nobody"]
