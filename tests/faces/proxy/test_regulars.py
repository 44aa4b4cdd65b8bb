"""Clients that say the same again: it is read once, and judged each time."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import pytest
from tests.faces.proxy.rig import CREDENTIAL, HOST, TOKEN, Rig, client_context, get, read_answer, until

from keyhole.core.errors import NoService
from keyhole.core.host import Authority
from keyhole.faces.proxy import connection, regulars
from keyhole.faces.proxy.regulars import Connect, Regulars

RAW = b"CONNECT %b:8443 HTTP/1.1\r\nHost: %b:8443\r\n%b\r\n" % (HOST.encode(), HOST.encode(), CREDENTIAL)


def _counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """Calls of a function of the connection."""
    act, calls = getattr(connection, name), []

    def count(*args: Any) -> Any:
        calls.append(args)
        return act(*args)

    monkeypatch.setattr(connection, name, count)
    return calls


async def _ask(rig: Rig, *, tls: bool = True) -> int:
    rig.broker.refuse = NoService("nothing is sent on", "look at the calls")
    reader, writer = await rig.tunnel(port=8443, tls=tls)
    writer.write(get(absolute=False).replace(HOST.encode(), b"%b:8443" % HOST.encode()))
    status, _, _ = await read_answer(reader)
    writer.close()
    return status


@pytest.mark.parametrize("tls", [True, False])
def test_the_same_tunnel_and_request_are_read_once_and_judged_each_time(
    monkeypatch: pytest.MonkeyPatch, *, tls: bool
) -> None:
    connects, admitted = _counted(monkeypatch, "read_connect"), _counted(monkeypatch, "admit")

    async def run() -> None:
        async with Rig() as rig:
            assert [await _ask(rig, tls=tls) for _ in range(3)] == [NoService.status] * 3
            assert (len(connects), len(admitted)) == (1, 1)
            assert rig.broker.tunnels == [(TOKEN, HOST, 8443)] * 3
            assert len({id(call) for call in rig.broker.calls}) == 3
            assert len({id(call.seat) for call in rig.broker.calls}) == 3  # each counts for its own connection
            assert {(call.scheme, call.token) for call in rig.broker.calls} == {("https" if tls else "http", TOKEN)}

    asyncio.run(run())


def test_what_is_said_under_tls_is_not_taken_for_the_same_without() -> None:
    async def run() -> None:
        async with Rig() as rig:
            for tls in (True, False, True, False):
                assert await _ask(rig, tls=tls) == NoService.status
            assert [call.scheme for call in rig.broker.calls] == ["https", "http"] * 2

    asyncio.run(run())


def test_a_tunnel_that_is_known_is_refused_once_its_token_is_revoked() -> None:
    async def run() -> None:
        async with Rig() as rig:
            assert await _ask(rig) == NoService.status
            rig.broker.revoked = True
            reader, writer = await rig.open()
            writer.write(RAW)
            status, _, _ = await read_answer(reader, "CONNECT")
            assert status == 407

    asyncio.run(run())


def test_who_was_refused_is_not_remembered() -> None:
    async def run() -> None:
        async with Rig() as rig:
            for raw in (RAW.replace(HOST.encode(), b"other.test"), RAW.replace(b"Host: ", b"Host: x"), RAW[:-2] + b"a"):
                _, writer = await rig.open()
                writer.write(raw + b"\r\n\r\n")
                await asyncio.sleep(0.05)
            assert len(rig.server.regulars) == 0
            await _ask(rig)
            assert len(rig.server.regulars) == 1
        assert len(rig.server.regulars) == 0

    asyncio.run(run())


def test_what_is_forgotten_while_a_tunnel_is_judged_is_not_remembered_afterwards() -> None:
    async def run() -> None:
        async with Rig() as rig:
            judge = rig.broker.open_tunnel

            async def seal(*args: Any) -> Any:
                rig.server.regulars.forget()
                return await judge(*args)

            rig.broker.open_tunnel = seal  # type: ignore[method-assign]
            await rig.tunnel()
            assert len(rig.server.regulars) == 0

    asyncio.run(run())


def _tunnel_of_a_thread(rig: Rig, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSession | None:
    """A call in a tunnel of its own; the session with the ticket that came, if one did."""
    with socket.create_connection(rig.address, 30) as raw:
        raw.sendall(RAW)
        assert b" 200 " in raw.recv(4096)
        with context.wrap_socket(raw, server_hostname=HOST, session=session) as tls:
            tls.sendall(get(absolute=False).replace(HOST.encode(), b"%b:8443" % HOST.encode()))
            assert tls.recv(4096).startswith(b"HTTP/1.1 ")
            assert tls.session_reused == (session is not None)
            return tls.session if tls.session is not None and tls.session.has_ticket else None


def test_who_resumes_no_session_gets_a_ticket_now_and_then_until_it_resumes_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(regulars, "_UNRESUMED", 2)
    monkeypatch.setattr(regulars, "_AGAIN", 4)

    async def run() -> None:
        async with Rig() as rig:
            rig.broker.refuse = NoService("nothing is sent on", "look at the calls")
            context, session, given = client_context(), None, []
            for _ in range(9):
                session = await asyncio.to_thread(_tunnel_of_a_thread, rig, context, None)
                given.append(session is not None)
            assert given == [True, True, False, False, True, False, False, False, True]
            assert session is not None
            for _ in range(2):
                assert await asyncio.to_thread(_tunnel_of_a_thread, rig, context, session) is not None
            assert await asyncio.to_thread(_tunnel_of_a_thread, rig, context, None) is not None

    asyncio.run(run())


def test_another_address_and_other_bytes_are_somebody_else() -> None:
    async def run() -> None:
        known, connect = Regulars(), Connect(Authority(HOST, 443), TOKEN)
        known.keep(RAW, "127.0.0.1", connect)
        assert known.find(RAW, "127.0.0.1") is connect
        assert known.find(RAW, "127.0.0.2") is None
        assert known.find(RAW + b" ", "127.0.0.1") is None
        known.forget()
        assert known.find(RAW, "127.0.0.1") is None
        known.keep(RAW, "127.0.0.1", connect, known.forgotten - 1)  # it was being judged meanwhile
        assert known.find(RAW, "127.0.0.1") is None
        known.keep(RAW, "127.0.0.1", connect, known.forgotten)
        assert known.find(RAW, "127.0.0.1") is connect

    asyncio.run(run())


def test_few_are_remembered_and_none_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regulars, "_MOST", 4)
    monkeypatch.setattr(regulars, "_TURN", 0.0)

    async def run() -> None:
        known, connect = Regulars(), Connect(Authority(HOST, 443), TOKEN)
        for number in range(50):
            known.keep(b"%d" % number, "", connect)
            known.find(b"%d" % (number - 3), "")
            assert len(known) <= 8
        assert known.find(b"49", "") is connect
        known.keep(bytes(4097), "", connect)
        assert known.find(bytes(4097), "") is None
        await until(lambda: not len(known))

    asyncio.run(run())
