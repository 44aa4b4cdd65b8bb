"""What the proxy lets through, and what an upstream may learn of the client's request."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl

import pytest

from faces.proxy.rig import CREDENTIAL, HOST, TOKEN, Rig, client_context, converse, get, read_answer, until, vectors
from keyhole.core.errors import BadRequestFraming, InvalidRequest, LoopDetected, PolicyDenied
from keyhole.faces.proxy import ProxyServer
from keyhole.faces.proxy.gate import Tunnel, admit, read_credential
from keyhole.net.http1.grammar import parse_request_head
from keyhole.net.http1.limits import REQUEST_LIMITS, ListenerLimits
from keyhole.net.http1.tls import TlsChannel

INSIDE = Tunnel("https", HOST, 443, TOKEN)


def _admit(raw: bytes, tunnel: Tunnel | None = INSIDE):
    return admit(parse_request_head(raw, REQUEST_LIMITS), tunnel, TOKEN, "127.0.0.1", b"keyhole-rig").call


def _inside(*lines: bytes, method: bytes = b"GET") -> bytes:
    return b"\r\n".join([method + b" /v1/public/a HTTP/1.1", b"Host: " + HOST.encode(), *lines, b"", b""])


@pytest.mark.parametrize("case", vectors("proxy/allowlist_method_header.jsonl"), ids=lambda c: c["id"])
def test_method_and_header_tricks_neither_pass_nor_change_the_request(case: dict) -> None:
    if case["kind"] == "method":
        method = case["value"].encode()
        if method in {b"DELETE", b"PUT", b"HEAD", b"PROPFIND", b"LOCK", b"M-SEARCH"}:
            assert _admit(_inside(method=method)).method == case["value"]  # legal; the rule of the service judges it
        else:
            with pytest.raises((BadRequestFraming, InvalidRequest)):
                _admit(_inside(method=method))
        return
    name, value = (part.encode() for part in case["value"])
    line = name + b": " + value
    if name == b"Host":
        with pytest.raises((BadRequestFraming, InvalidRequest)):
            _admit(_inside(line))
        return
    headers = dict(_admit(_inside(line)).headers)
    passed = {b"authorization", b"cookie", b"range", b"accept-encoding", b"content-encoding", b"max-forwards"}
    if name == b"Via":
        assert headers[b"via"] == b"1.1 self, 1.1 keyhole-rig"
    elif name.lower() in passed | {b"_method"}:
        assert headers[name.lower()] == value  # end-to-end; for the broker to judge or replace
    else:
        assert headers == {b"via": b"1.1 keyhole-rig"}


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("http://api.allowed.test/", "evil.test"),
        ("http://evil.test/", "api.allowed.test"),
        ("http://api.allowed.test:8080/", "api.allowed.test"),
        ("http://api.allowed.test/", "api.allowed.test:8080"),
        ("http://user@api.allowed.test/", "api.allowed.test"),
        ("http://api.allowed.test@evil.test/", "api.allowed.test"),
        ("http://api.allowed.test\\@evil.test/", "api.allowed.test"),
        ("http://api.allowed.test/#x", "api.allowed.test"),
        ("ftp://api.allowed.test/", "api.allowed.test"),
        ("//api.allowed.test/", "api.allowed.test"),
        ("http:/api.allowed.test/", "api.allowed.test"),
        ("http://?/api.allowed.test/", "api.allowed.test"),
        ("http:///api.allowed.test/", "api.allowed.test"),
    ],
)
def test_a_url_that_differs_from_host_is_refused(target: str, host: str) -> None:
    with pytest.raises((BadRequestFraming, InvalidRequest)):
        _admit(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), None)


@pytest.mark.parametrize(
    ("target", "host", "expected"),
    [
        ("http://api.allowed.test/a?b=http://x/", "api.allowed.test", ("http", 80, b"/a?b=http://x/")),
        ("http://API.Allowed.test:80", "api.allowed.test.", ("http", 80, b"/")),
        ("http://api.allowed.test?x=/y", "api.allowed.test:80", ("http", 80, b"/?x=/y")),
        ("HTTPS://api.allowed.test:8443/", "api.allowed.test:8443", ("https", 8443, b"/")),
    ],
)
def test_equal_spellings_of_one_authority_are_one(target: str, host: str, expected: tuple) -> None:
    call = _admit(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), None)
    assert (call.scheme, call.port, call.target) == expected
    assert call.host == HOST


@pytest.mark.parametrize("host", ["evil.test", "api.allowed.test:80", "api.allowed.test:8443", "", "93.184.215.14"])
def test_inside_a_tunnel_host_must_be_the_tunnels(host: str) -> None:
    with pytest.raises((BadRequestFraming, InvalidRequest)):
        _admit(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())


def test_connection_cannot_name_a_credential_or_framing_away() -> None:
    lines = (b"Connection: close, Authorization, X-Api-Key, Content-Type", b"X-Api-Key: mine", b"Content-Type: a/b")
    call = _admit(_inside(*lines))
    assert dict(call.headers) == {b"content-type": b"a/b", b"via": b"1.1 keyhole-rig"}


@pytest.mark.parametrize(
    "name", [b"X_Forwarded-Proto", b"X-Forwarded_For", b"X_Real_IP", b"x_host", b"X_Keyhole_Service", b"Proxy_Cookie"]
)
def test_what_is_left_out_is_left_out_with_underscores_too(name: bytes) -> None:
    call = _admit(_inside(name + b": evil", b"X_Own: mine"))
    assert dict(call.headers) == {b"x_own": b"mine", b"via": b"1.1 keyhole-rig"}
    assert call.service == ""


@pytest.mark.parametrize(
    ("said", "sent"),
    [(b"1", b"0"), (b"07", b"6"), (b"9" * 5000, b"255"), (b"1000", b"255"), (b"-1", b"-1"), (b"", b"")],
)
def test_the_question_for_options_comes_one_hop_less_far(said: bytes, sent: bytes) -> None:
    head = _inside(b"Max-Forwards: " + said, method=b"OPTIONS")
    assert dict(_admit(head).headers)[b"max-forwards"] == sent
    assert dict(_admit(head.replace(b"OPTIONS", b"GET", 1)).headers)[b"max-forwards"] == said


@pytest.mark.parametrize("said", [b"Max-Forwards: 0", b"Max-Forwards: 000", b"Max-Forwards: 5\r\nMax-Forwards: 0"])
def test_the_question_for_options_that_may_go_no_further_does_not(said: bytes) -> None:
    with pytest.raises(LoopDetected):
        _admit(_inside(said, method=b"OPTIONS"))


def test_a_client_of_http10_needs_no_host_and_one_of_http11_does() -> None:
    for line, tunnel in ((b"GET /v1 HTTP/1.0", INSIDE), (b"GET http://a.test:81/v1?q HTTP/1.0", None)):
        call = _admit(line + b"\r\n\r\n", tunnel)
        assert (call.host, call.port) == ((HOST, 443) if tunnel else ("a.test", 81))
        with pytest.raises(BadRequestFraming):
            _admit(line.replace(b"1.0", b"1.1") + b"\r\n\r\n", tunnel)
        with pytest.raises(BadRequestFraming):
            _admit(line + b"\r\nHost: evil.test\r\n\r\n", tunnel)


def test_a_request_that_has_been_here_is_a_loop() -> None:
    with pytest.raises(LoopDetected):
        _admit(_inside(b"Via: 1.1 other", b"via: 1.1 keyhole-rig (x), 2 third"))


def test_the_chosen_service_is_told_to_the_broker_and_to_nobody_else() -> None:
    call = _admit(_inside(b"X-Keyhole-Service: stripe-test", b"X-Keyhole-Other: x"))
    assert call.service == "stripe-test"
    assert dict(call.headers) == {b"via": b"1.1 keyhole-rig"}


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (b"Basic " + base64.b64encode(b"agent:" + TOKEN), TOKEN),
        (b"basic " + base64.b64encode(TOKEN + b":"), TOKEN),
        (b"Basic " + base64.b64encode(TOKEN + b":x"), TOKEN),
        (b"Basic " + base64.b64encode(b"agent:root"), b"root"),
        (b"Basic " + base64.b64encode(b"root:"), b"root"),
        (b"Bearer " + TOKEN, TOKEN),
        (b"Basic !!!", b""),
        (b"Digest x", b""),
        (b"", b""),
        (None, b""),
    ],
)
def test_a_token_is_found_as_user_name_or_password(value: bytes | None, token: bytes) -> None:
    assert read_credential(value) == token


def test_the_agents_token_is_asked_for_and_never_forwarded() -> None:
    async def run() -> None:
        async with Rig() as rig:
            reader, writer = await rig.open()
            writer.write(get().replace(CREDENTIAL, b""))
            status, headers, body = await read_answer(reader)
            assert status == 407
            assert headers[b"proxy-authenticate"] == b'Basic realm="keyhole"'
            assert headers[b"x-keyhole-error"] == b"unauthenticated"
            error = json.loads(body)["error"]
            assert error["code"] == "unauthenticated"
            assert error["request_id"].encode() == headers[b"x-keyhole-request-id"]
            writer.write(get(headers=b"Proxy-Connection: keep-alive\r\nAuthorization: Bearer own\r\n"))
            assert (await read_answer(reader))[0] == 200
            (received,) = rig.upstream.requests
            assert received.values(b"authorization") == [b"Bearer injected"]
            assert b"proxy" not in received.head.lower()
            assert TOKEN not in received.head

    asyncio.run(run())


def test_a_token_revoked_meanwhile_is_refused_on_the_next_request_of_an_open_tunnel() -> None:
    async def run() -> None:
        async with Rig() as rig:
            reader, writer = await rig.tunnel()
            for expected, revoked in ((200, False), (407, True)):
                rig.broker.revoked = revoked
                writer.write(get(absolute=False))
                assert (await read_answer(reader))[0] == expected
            assert len(rig.upstream.requests) == 1

    asyncio.run(run())


@pytest.mark.parametrize("authority", ["evil.test:443", "93.184.215.14:443", "api.allowed.test:22"])
def test_a_tunnel_to_a_host_without_a_service_is_refused(authority: str) -> None:
    async def run() -> None:
        async with Rig() as rig:
            raw = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n".encode() + CREDENTIAL + b"\r\n"
            received, closed = await converse(await rig.open(), raw, 2.0)
            assert received.startswith(b"HTTP/1.1 403 ")
            assert b"no_service" in received
            assert closed
            assert not rig.dialler.dialled

    asyncio.run(run())


def test_a_tunnel_may_be_opened_in_http_1_0_without_host_as_older_pythons_do() -> None:
    async def run() -> None:
        async with Rig() as rig:
            reader, writer = await rig.open()
            writer.write(f"CONNECT {HOST}:443 HTTP/1.0\r\n".encode() + CREDENTIAL + b"\r\n")
            assert (await read_answer(reader, "CONNECT"))[0] == 200
            await writer.start_tls(client_context(), server_hostname=HOST)
            writer.write(get(absolute=False))
            assert (await read_answer(reader))[0] == 200
            received, _ = await converse(await rig.open(), f"CONNECT {HOST}:443 HTTP/1.1\r\n\r\n".encode(), 2.0)
            assert received.startswith(b"HTTP/1.1 400 ")

    asyncio.run(run())


def test_a_server_name_other_than_the_tunnels_host_ends_the_handshake() -> None:
    async def run() -> None:
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname = False
        trusting.verify_mode = ssl.CERT_NONE
        async with Rig() as rig:
            _, writer = await rig.tunnel(tls=False)
            with pytest.raises((ssl.SSLError, OSError)):
                await writer.start_tls(trusting, server_hostname="evil.test")
            _, writer = await rig.tunnel(tls=False)
            await writer.start_tls(trusting, server_hostname="API.allowed.test")
            assert not rig.broker.calls

    asyncio.run(run())


@pytest.mark.parametrize(
    "noise", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00\x01\x02", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /\n"]
)
def test_a_tunnel_speaks_tls_or_http_and_nothing_else(noise: bytes) -> None:
    async def run() -> None:
        async with Rig() as rig:
            received, closed = await converse(await rig.tunnel(tls=False), noise, 3.0)
            assert received.startswith(b"HTTP/1.1 400 ")
            assert closed
            assert not rig.dialler.dialled

    asyncio.run(run())


def test_plain_http_inside_a_tunnel_passes_the_same_gate() -> None:
    async def run() -> None:
        async with Rig() as rig:
            reader, writer = await rig.tunnel(port=80, tls=False)
            writer.write(get(absolute=False))
            assert (await read_answer(reader))[0] == 200
            assert rig.broker.calls[0].scheme == "http"
            writer.write(b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
            assert (await read_answer(reader))[0] == 400
            assert await reader.read() == b""

    asyncio.run(run())


def test_the_first_tls_record_may_come_together_with_connect() -> None:
    async def run() -> None:
        async with Rig() as rig:
            reader, writer = await rig.open()
            channel = TlsChannel(client_context(), server_side=False, server_hostname=HOST)
            channel.start()
            connect = f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n".encode() + CREDENTIAL + b"\r\n"
            writer.write(connect + channel.output())
            assert (await read_answer(reader, "CONNECT"))[0] == 200
            while not channel.established:
                channel.receive(await reader.read(65536))
                writer.write(channel.output())
            writer.write(channel.send(get(absolute=False)))
            plain = b""
            while b"ok" not in plain:
                plain += channel.receive(await reader.read(65536))
            assert plain.startswith(b"HTTP/1.1 200 ")

    asyncio.run(run())


def test_a_proxy_that_is_sent_to_itself_stops_at_the_first_round() -> None:
    async def run() -> None:
        async with Rig() as rig:
            rig.dialler.plain = rig.address[1]
            reader, writer = await rig.open()
            writer.write(get())
            status, _, body = await read_answer(reader)
            assert (status, json.loads(body)["error"]["code"]) == (508, "loop")
            assert len(rig.broker.calls) == 1

    asyncio.run(run())


def test_a_refused_request_leaves_the_connection_usable_when_it_was_read_to_its_end() -> None:
    async def run() -> None:
        async with Rig() as rig:
            rig.broker.refuse = PolicyDenied("the policy of the agent does not allow this", "ask for a grant")
            reader, writer = await rig.open()
            writer.write(get(method="POST", headers=b"Content-Length: 5\r\n") + b"hello")
            assert (await read_answer(reader))[0] == 403
            rig.broker.refuse = None
            writer.write(get())
            assert (await read_answer(reader))[0] == 200
            assert [received.line for received in rig.upstream.requests] == [b"GET /v1/public/a HTTP/1.1"]

    asyncio.run(run())


def test_pipelined_requests_are_judged_one_by_one_in_order() -> None:
    async def run() -> None:
        async with Rig() as rig:
            raw = (
                get("/first")
                + get("/second").replace(HOST.encode(), b"evil.test")
                + get("/third", headers=b"Connection: close\r\n")
            )
            received, closed = await converse(await rig.open(), raw, 2.0)
            assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"200", b"403", b"200"]
            assert closed
            assert len(rig.broker.calls) == 3
            assert [one.line.split(b" ")[1] for one in rig.upstream.requests] == [b"/first", b"/third"]

    asyncio.run(run())


def test_a_fault_of_ours_is_a_500_without_details(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with Rig() as rig:
            rig.broker.refuse = ValueError("canary-value")  # type: ignore[assignment]
            reader, writer = await rig.open()
            writer.write(get())
            status, _, body = await read_answer(reader)
            assert status == 500
            assert b"canary" not in body
            assert "ValueError" in caplog.text
            assert "canary" not in caplog.text

    asyncio.run(run())


def test_too_many_connections_are_turned_away_and_room_is_made_again() -> None:
    async def run() -> None:
        async with Rig(limits=ListenerLimits(connections=2, linger=0.2)) as rig:
            first = await rig.open()
            second = await rig.open()
            for reader, writer in (first, second):
                writer.write(get())
                assert (await read_answer(reader))[0] == 200
            received, closed = await converse(await rig.open(), get(), 2.0)
            assert (received, closed) == (b"", True)
            first[1].close()
            await until(lambda: rig.server.connections == 1)
            reader, writer = await rig.open()
            writer.write(get())
            assert (await read_answer(reader))[0] == 200

    asyncio.run(run())


def test_an_instance_name_that_would_break_via_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        ProxyServer(None, instance="a, b\r\n")  # type: ignore[arg-type]
