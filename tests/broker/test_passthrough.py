"""Tunnels that are passed on and not looked into, by rule only."""

import asyncio
import contextlib
import ssl
from types import SimpleNamespace

import pytest
from tests.broker.stack import HOST, LOOPBACK, SECRET, Stack, authority, until

from keyhole import bounds
from keyhole.broker.tunnel import TunnelStream
from keyhole.config import Config
from keyhole.core.errors import InvalidRequest
from keyhole.core.service import Service

OTHER = "other.test"
PLAIN = {"inject": {"kind": "none"}, "secret": "", "schemes": ["tls"], "allow_addresses": LOOPBACK}


async def passing(stack, *, host=HOST, port=0, scheme="tls", name="pinned"):
    """A service that passes tunnels on, and the token of an agent that may use it."""
    fields = {**PLAIN, "hosts": [f"{host}:{port or stack.secure}"], "schemes": [scheme]}
    await stack.ask("update", f"services/{name}", fields)
    return await stack.agent("coder", name)


def pinned():
    """A client that trusts the upstream's own authority, and not ours."""
    return ssl.create_default_context(cadata=authority().cert_pem.bytes().decode())


def test_a_client_that_pins_its_host_gets_through_and_the_record_counts_bytes(run):
    async def scene():
        async with Stack() as stack:
            token = await passing(stack)
            streams = await stack.tunnel(token, tls=False, port=stack.secure)
            await streams[1].start_tls(pinned(), server_hostname=HOST)
            reply = await stack.send(streams, "/v1/x", host=f"{HOST}:{stack.secure}")
            streams[1].close()
            seen = stack.upstream.last
            records = []
            while len(records) < 2:
                records = [r for r in await stack.records() if r["operation"] == "use"]
                await asyncio.sleep(0.01)
            return reply.status, seen.target, seen.values(b"via"), records

    status, target, via, records = run(scene())
    assert (status, target, via) == (200, b"/v1/x", [])
    assert [record["phase"] for record in records] == ["intent", "outcome"]
    assert (records[0]["path"], records[0]["method"]) == ("services/pinned", "CONNECT")
    assert records[1]["result"] == "ok"
    assert records[1]["sent"] > 200
    assert records[1]["received"] > 200


@pytest.mark.parametrize(
    ("sni", "begins", "why"),
    [
        ("other.test", None, "another host behind the same address"),
        (None, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "plain HTTP"),
        (None, b"SSH-2.0-x\r\n", "another protocol"),
        (None, b"\x16\x03\x01\x00\x04\x02\0\0\0", "a handshake that is no ClientHello"),
        (None, b"\x16\x03\x01\x40\x01", "a record that is too long"),
    ],
)
def test_what_begins_otherwise_reaches_nobody_and_is_recorded(run, sni, begins, why):
    async def scene():
        async with Stack() as stack:
            token = await passing(stack)
            streams = await stack.tunnel(token, tls=False, port=stack.secure)
            if begins is None:
                with pytest.raises((OSError, ssl.SSLError)):
                    await streams[1].start_tls(pinned(), server_hostname=sni)
            else:
                streams[1].write(begins)
                assert await streams[0].read() == b"", why
            streams[1].close()
            await until(lambda: stack.proxy.connections == 0)
            outcomes = []
            while not outcomes:
                outcomes = [r["result"] for r in await stack.records() if r["phase"] == "outcome"]
                await asyncio.sleep(0.01)
            return stack.upstream.requests, outcomes

    assert run(scene()) == ([], ["policy_denied"])


def test_a_tunnel_is_passed_on_by_rule_only_and_a_service_of_requests_wins(run):
    async def scene():
        async with Stack() as stack:
            await stack.secret("stripe/key")
            token = await passing(stack)
            nobody = await stack.agent("nobody")
            refused, streams = await stack.connect(nobody, f"{HOST}:{stack.secure}")
            streams[1].close()
            elsewhere, streams = await stack.connect(token, f"{OTHER}:{stack.secure}")
            streams[1].close()
            why = await stack.ask("update", "sys/why", {"agent": "coder", "url": f"tls://{HOST}:{stack.secure}"})
            await stack.service("ours", allow_addresses=LOOPBACK)
            await stack.ask("update", "sys/policies/acl/agent/coder", {"policy": ALLOWED})
            looked_into = await stack.get(token)
            why_not = await stack.ask("update", "sys/why", {"agent": "coder", "url": f"tls://{HOST}:{stack.secure}"})
            head = stack.upstream.last.head
            codes = [(refused.status, refused.code), (elsewhere.status, elsewhere.code)]
            return codes, looked_into.status, head, why["allowed"], why_not["allowed"]

    codes, status, head, why, why_not = run(scene())
    assert codes == [(403, "policy_denied"), (403, "no_service")]
    assert status == 200
    assert SECRET.encode() in head
    assert (why, why_not) == (True, False)


ALLOWED = 'path "services/*" { capabilities = ["use"] }'


def test_where_every_call_is_let_out_no_tunnel_is_passed_on_without_a_rule(run):
    async def scene():
        async with Stack(Config(resolve=(f"{OTHER}:93.184.215.14",))) as stack:
            token = await passing(stack)
            await stack.ask("update", "sys/org", {"egress": "allow"})
            reader, writer = await stack.tunnel(token, OTHER, stack.secure, tls=False)
            with pytest.raises(ssl.SSLCertVerificationError):
                await writer.start_tls(pinned(), server_hostname=OTHER)
            writer.close()
            reader, writer = await stack.tunnel(token, OTHER, stack.secure, tls=False)
            writer.write(b"SSH-2.0-x\r\n")
            said = await reader.read()
            urls = [f"{scheme}://{OTHER}:{stack.secure}" for scheme in ("tls", "ssh", "https")]
            why = [(await stack.ask("update", "sys/why", {"agent": "coder", "url": url}))["allowed"] for url in urls]
            return said, stack.upstream.received, why

    said, received, why = run(scene())
    assert said.startswith(b"HTTP/1.1 400 ")
    assert received == b""
    assert why == [False, False, True]


def test_a_tunnel_ends_with_the_token_that_opened_it(run):
    async def scene():
        async with Stack() as stack:
            token = await passing(stack)
            streams = await stack.tunnel(token, tls=False, port=stack.secure)
            await streams[1].start_tls(pinned(), server_hostname=HOST)
            assert (await stack.send(streams, "/v1/x", host=f"{HOST}:{stack.secure}")).status == 200
            await stack.ask("update", "auth/token/revoke", {"token": token})
            async with asyncio.timeout(60):
                with contextlib.suppress(ConnectionError):
                    await streams[0].read()
            return [r["result"] for r in await stack.records() if r["phase"] == "outcome"]

    assert run(scene()) == ["unauthenticated"]


def test_a_tunnel_has_a_time_of_its_own_to_be_silent():
    limits = bounds.streams(Config(websocket_idle_timeout=60, tunnel_idle_timeout=7200))
    connection = SimpleNamespace(loop=SimpleNamespace(time=lambda: 1000.0))
    stream = TunnelStream(connection, lambda _data: True, limits, lambda *_, **__: None)
    assert stream.overdue(1000.0 + 7199) is None
    assert "tunnel_idle_timeout" in stream.overdue(1000.0 + 7201).hint


def test_ssh_passes_where_it_is_ssh(run):
    async def server(reader, writer):
        writer.write(b"SSH-2.0-theirs\r\n")
        writer.write(b"got " + await reader.readline())
        await reader.read()
        writer.close()

    async def scene():
        async with Stack() as stack:
            listener = await asyncio.start_server(server, "127.0.0.1", 0)
            port = listener.sockets[0].getsockname()[1]
            token = await passing(stack, port=port, scheme="ssh")
            replies = []
            for begins in (b"SSH-2.0-ours\r\n", b"GET / HTTP/1.1\r\n"):
                reader, writer = await stack.tunnel(token, tls=False, port=port)
                writer.write(begins[:3])
                await writer.drain()
                writer.write(begins[3:])
                said = await reader.readline()
                replies.append((said, await reader.readline()))
                writer.close()
            listener.close()
            return replies

    assert run(scene()) == [(b"SSH-2.0-theirs\r\n", b"got SSH-2.0-ours\r\n"), (b"SSH-2.0-theirs\r\n", b"")]


def test_nothing_that_is_for_requests_can_be_said_of_such_a_service():
    good = {**PLAIN, "hosts": ["a.test"], "limits": {"concurrent": 3}}
    assert str(Service.from_data("x", good).hosts[0]) == "a.test:443"
    assert str(Service.from_data("x", {**good, "schemes": ["ssh"]}).hosts[0]) == "a.test:22"
    bad = [
        {"schemes": ["tls", "https"]},
        {"inject": {"kind": "bearer"}, "secret": "a/b"},
        {"paths": ["/x"]},
        {"methods": ["GET"]},
        {"placeholder": "x" * 30},
        {"approval": {"required": True}},
    ]
    for change in bad:
        with pytest.raises(InvalidRequest) as caught:
            Service.from_data("x", {**good, **change})
        assert caught.value.hint, change
