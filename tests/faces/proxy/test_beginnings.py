"""How a connection and a tunnel begin: with their first bytes, and not before."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from tests.faces.proxy.rig import CREDENTIAL, HOST, Rig, client_context, get, read_answer, until

from keyhole.core.errors import Sealed
from keyhole.net.http1.limits import ListenerLimits

NAME = HOST.encode()


async def _connected(rig: Rig) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    streams = await rig.open()
    await until(lambda: rig.server.connections > 0)
    return streams


def _working() -> set[str]:
    return {task.get_coro().__qualname__ for task in asyncio.all_tasks()}


def test_a_client_that_has_said_nothing_has_no_task_yet() -> None:
    async def run() -> None:
        async with Rig() as rig:
            reader, writer = await _connected(rig)
            assert "ProxyConnection._run" not in _working()
            writer.write(get())
            assert (await read_answer(reader))[0] == 200
            assert "ProxyConnection._run" in _working()

    asyncio.run(run())


def test_a_client_that_says_nothing_is_not_waited_for_for_ever() -> None:
    async def run() -> None:
        async with Rig(limits=ListenerLimits(linger=0.1, idle_timeout=0.2)) as rig:
            reader, _ = await _connected(rig)
            assert await reader.read() == b""
            await until(lambda: rig.server.connections == 0)

    asyncio.run(run())


def test_a_client_that_ends_its_side_without_a_word_is_forgotten() -> None:
    async def run() -> None:
        async with Rig() as rig:
            reader, writer = await _connected(rig)
            writer.write_eof()
            assert await reader.read() == b""
            await until(lambda: rig.server.connections == 0)

    asyncio.run(run())


@pytest.mark.parametrize("at_once", [True, False])
def test_a_handshake_begins_when_it_is_the_clients_turn(*, at_once: bool) -> None:
    async def run() -> None:
        async with Rig() as rig:
            turn, waited = asyncio.Event(), []

            async def in_turn(seat: object, remote: str) -> None:
                waited.append((seat, remote))
                await turn.wait()

            rig.broker.may_go_on = lambda _seat, _remote: at_once  # type: ignore[method-assign]
            rig.broker.in_turn = in_turn  # type: ignore[method-assign]
            reader, writer = await rig.tunnel(tls=False)
            shaking = asyncio.create_task(writer.start_tls(client_context(), server_hostname=HOST))
            if not at_once:
                await until(lambda: bool(waited))
                assert not shaking.done()
            turn.set()
            await shaking
            writer.write(get(absolute=False))
            assert (await read_answer(reader))[0] == 200
            assert len(waited) == (not at_once)

    asyncio.run(run())


def test_the_first_bytes_of_a_handshake_may_come_one_by_one() -> None:
    async def run() -> None:
        async with Rig() as rig:
            reader, writer = await rig.tunnel(tls=False)
            into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = client_context().wrap_bio(into, out, server_hostname=HOST)
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            for byte in out.read():
                writer.write(bytes((byte,)))
                await asyncio.sleep(0)
            while True:
                into.write(await reader.read(65536))
                try:
                    client.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                break
            client.write(get(absolute=False))
            writer.write(out.read())
            into.write(await reader.read(65536))
            assert client.read(65536).startswith(b"HTTP/1.1 200 ")

    asyncio.run(run())


async def _known(rig: Rig) -> None:
    """A tunnel was there and is gone, so that the next one is like one that there was."""
    _, writer = await rig.tunnel(tls=False)
    writer.close()
    await until(lambda: rig.server.connections == 0)


def test_a_tunnel_like_one_that_there_was_has_no_task_before_its_first_request() -> None:
    async def run() -> None:
        async with Rig() as rig:
            await _known(rig)
            reader, writer = await rig.tunnel()
            assert "ProxyConnection._run" not in _working()
            writer.write(get(absolute=False))
            assert (await read_answer(reader))[0] == 200
            assert "ProxyConnection._run" in _working()
            assert [call.scheme for call in rig.broker.calls] == ["https"]

    asyncio.run(run())


def test_in_such_a_tunnel_nobody_shakes_hands_out_of_turn() -> None:
    async def run() -> None:
        async with Rig() as rig:
            await _known(rig)
            waited = asyncio.Event()

            async def in_turn(_seat: object, _remote: str) -> None:
                waited.set()

            rig.broker.may_go_on = lambda _seat, _remote: False  # type: ignore[method-assign]
            rig.broker.in_turn = in_turn  # type: ignore[method-assign]
            await rig.tunnel()
            assert waited.is_set()

    asyncio.run(run())


def test_in_such_a_tunnel_a_handshake_for_another_host_is_refused_and_recorded() -> None:
    async def run() -> None:
        async with Rig() as rig:
            await _known(rig)
            with pytest.raises(ssl.SSLError):
                await rig.tunnel(sni="other.test")
            await until(lambda: rig.server.connections == 0)
            assert rig.broker.noted == [("bad_request_framing", "127.0.0.1")]

    asyncio.run(run())


def test_in_such_a_tunnel_http2_is_spoken_without_waiting_for_the_client() -> None:
    async def run() -> None:
        async with Rig() as rig:
            await _known(rig)
            reader, _ = await rig.tunnel(alpn="h2")
            settings = await reader.readexactly(9)
            assert settings[3] == 4  # RFC 9113 section 6.5

    asyncio.run(run())


@pytest.mark.parametrize("tls", [True, False])
def test_in_such_a_tunnel_silence_ends_as_in_any_other(*, tls: bool) -> None:
    limits = {"idle_timeout": 0.2, "tunnel_timeout": 60.0} if tls else {"idle_timeout": 60.0, "tunnel_timeout": 0.2}

    async def run() -> None:
        async with Rig(limits=ListenerLimits(linger=0.1, **limits)) as rig:
            await _known(rig)
            reader, _ = await rig.tunnel(tls=tls)
            assert await reader.read() == b""
            await until(lambda: rig.server.connections == 0)

    asyncio.run(run())


def test_a_fault_while_such_a_tunnel_is_judged_is_told() -> None:
    async def run() -> None:
        async with Rig() as rig:
            await _known(rig)

            def fail(*_details: object) -> None:
                raise Sealed("the vault was sealed", "unseal it")

            rig.broker.tunnel_at_once = fail  # type: ignore[method-assign]
            rig.broker.revoked = True
            reader, writer = await rig.open()
            writer.write(b"CONNECT %b:443 HTTP/1.1\r\nHost: %b:443\r\n%b\r\n" % (NAME, NAME, CREDENTIAL))
            assert (await read_answer(reader, "CONNECT"))[0] == 407

    asyncio.run(run())
