"""The dialer connects to judged addresses and to nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from keyhole.core.errors import AddressDenied, LoopDetected, UpstreamTimeout, UpstreamUnreachable
from keyhole.core.url import Authority
from keyhole.core.value import Secret
from keyhole.net.dial import Dialer, _is_local, _plain
from keyhole.net.guard import Guard
from keyhole.net.resolve import Resolver

LOOPBACK = Guard(allow=["127.0.0.0/8", "::1/128"])


@contextlib.asynccontextmanager
async def listener(handle=None, host="127.0.0.1"):
    """A server; yields its port and the peers that connected."""
    peers, tasks = [], []

    async def accept(reader, writer):
        peers.append(writer.get_extra_info("sockname")[0])
        tasks.append(asyncio.current_task())
        if handle:
            await handle(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(accept, host, 0)
    try:
        yield server.sockets[0].getsockname()[1], peers
    finally:
        server.close()
        await asyncio.gather(*tasks)


def closed_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_the_connection_is_made_to_the_judged_address():
    async def hello(_reader, writer):
        writer.write(b"hello")
        await writer.drain()

    async def main():
        async with listener(hello) as (port, _):
            sock = await Dialer(Resolver(static=["api.test:127.0.0.1"])).dial("api.test", port, LOOPBACK, timeout=5)
            with sock:
                assert sock.getpeername() == ("127.0.0.1", port)
                assert not sock.getblocking()
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert await asyncio.get_running_loop().sock_recv(sock, 5) == b"hello"

    asyncio.run(main())


def test_a_refused_address_sees_no_connection():
    async def main():
        async with listener() as (port, peers):
            for guard in (Guard(), Guard(allow=["127.0.0.2/32"])):
                with pytest.raises(AddressDenied):
                    await Dialer(Resolver(static=["api.test:127.0.0.1", "api.test:127.0.0.2"])).dial(
                        "api.test", port, guard, timeout=5
                    )
            await asyncio.sleep(0)
            assert peers == []

    asyncio.run(main())


def test_proxy_variables_and_netrc_do_not_reach_the_dialer(monkeypatch, tmp_path):
    async def main():
        async with listener() as (trap, trapped), listener() as (port, _):
            for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{trap}")
            monkeypatch.setenv("HOME", str(tmp_path))
            (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
            (await Dialer(Resolver()).dial("127.0.0.1", port, LOOPBACK, timeout=5)).close()
            await asyncio.sleep(0)
            assert trapped == []

    asyncio.run(main())


def test_the_next_address_is_tried_when_one_does_not_answer():
    async def main():
        async with listener() as (port, _):  # nothing listens on 127.0.0.2
            dialer = Dialer(Resolver(static=["api.test:127.0.0.2", "api.test:127.0.0.1"]))
            with await dialer.dial("api.test", port, LOOPBACK, timeout=5) as sock:
                assert sock.getpeername()[0] == "127.0.0.1"

    asyncio.run(main())


def test_a_slow_address_does_not_hold_up_the_next_one(monkeypatch):
    from keyhole.net import dial

    cancelled = []
    real = dial._connect

    async def connect(address, port):
        if address == "127.0.0.9":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append(address)
                raise
        return await real(address, port)

    monkeypatch.setattr(dial, "_connect", connect)
    monkeypatch.setattr(dial, "ATTEMPT_DELAY", 0.01)

    async def main():
        async with listener() as (port, _):
            dialer = Dialer(Resolver(static=["api.test:127.0.0.9", "api.test:127.0.0.1"]))
            (await dialer.dial("api.test", port, LOOPBACK, timeout=30)).close()
        assert cancelled == ["127.0.0.9"]
        with pytest.raises(UpstreamTimeout):
            await Dialer(Resolver(static=["api.test:127.0.0.9"])).dial("api.test", 1, LOOPBACK, timeout=0.05)
        slow = Dialer(Resolver(static=["api.test:127.0.0.9", "api.test:127.0.0.9"]))
        with pytest.raises(UpstreamTimeout):
            await slow.dial("api.test", 1, LOOPBACK, timeout=0.05)

    asyncio.run(main())


def test_a_closed_port_is_unreachable():
    async def main():
        port = closed_port()
        for static in (["api.test:127.0.0.1"], ["api.test:127.0.0.1", "api.test:127.0.0.2"]):
            with pytest.raises(UpstreamUnreachable, match="refused"):
                await Dialer(Resolver(static=static)).dial("api.test", port, LOOPBACK, timeout=5)

    asyncio.run(main())


@pytest.mark.parametrize("own", ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "::"])
def test_our_own_listeners_are_never_dialled(own):
    async def main():
        async with listener() as (port, peers):
            dialer = Dialer(Resolver(static=["keyhole.test:127.0.0.1", "mapped.test:::ffff:127.0.0.1"]))
            dialer.own.add((own, port))
            for host in ("127.0.0.1", "keyhole.test", "mapped.test", "localhost", "0.0.0.0"):
                with pytest.raises(LoopDetected):
                    await dialer.dial(host, port, Guard(allow=["127.0.0.0/8", "0.0.0.0/32"]), timeout=5)
            await asyncio.sleep(0)
            assert peers == []

    asyncio.run(main())


def test_another_port_of_this_machine_is_no_loop():
    async def main():
        async with listener() as (port, _):
            dialer = Dialer(Resolver())
            dialer.own.update({("0.0.0.0", closed_port()), ("127.0.0.3", port)})
            (await dialer.dial("127.0.0.1", port, LOOPBACK, timeout=5)).close()

    asyncio.run(main())
    assert not _is_local(_plain("192.0.2.1"))


class CorporateProxy:
    def __init__(self, answer=b"HTTP/1.1 200 Connection established\r\n\r\n"):
        self.answer = answer
        self.asked = []

    async def __call__(self, reader, writer):
        self.asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self.answer)
        await writer.drain()
        await reader.read()


def via(proxy, host, guard, *, static=(), **options):
    async def main():
        async with listener(proxy) as (port, _):
            dialer = Dialer(Resolver("127.0.0.1:1", static, timeout=0.2), via=Authority("127.0.0.1", port), **options)
            (await dialer.dial(host, 443, guard, timeout=5)).close()

    asyncio.run(main())


def test_a_corporate_proxy_is_asked_for_the_judged_address():
    proxy = CorporateProxy()
    via(proxy, "api.test", Guard(), static=["api.test:93.184.215.14"], via_credentials=Secret("user:pass"))
    request = b"CONNECT 93.184.215.14:443 HTTP/1.1\r\nHost: 93.184.215.14:443\r\n"
    assert proxy.asked == [request + b"Proxy-Authorization: Basic dXNlcjpwYXNz\r\n\r\n"]


@pytest.mark.parametrize("via_names", [False, True])
def test_the_guard_holds_behind_a_corporate_proxy(via_names):
    proxy = CorporateProxy()
    with pytest.raises(AddressDenied):
        via(proxy, "rebind.test", Guard(), static=["rebind.test:10.0.0.1"], via_names=via_names)
    assert proxy.asked == []


def test_a_name_that_only_the_corporate_proxy_knows_needs_the_setting():
    proxy = CorporateProxy()
    with pytest.raises(UpstreamUnreachable):
        via(proxy, "unknown.test", Guard())
    assert proxy.asked == []
    via(proxy, "unknown.test", Guard(), via_names=True)
    assert proxy.asked == [b"CONNECT unknown.test:443 HTTP/1.1\r\nHost: unknown.test:443\r\n\r\n"]


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nextra", b"", b"garbage\r\n\r\n",
     b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 2000, b"HTTP/1.1 2000\r\n\r\n"],
)  # fmt: skip
def test_a_corporate_proxy_that_does_not_tunnel_is_an_unreachable_upstream(answer):
    proxy = CorporateProxy(answer)

    async def close_early(reader, writer):
        proxy.asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)

    with pytest.raises(UpstreamUnreachable) as caught:
        via(close_early, "93.184.215.14", Guard(), via_credentials=Secret("user:pass"))
    assert "pass" not in str(caught.value).replace("bypass", "")
