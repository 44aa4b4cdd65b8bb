"""The dialer connects to judged addresses and to nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from keyhole.core.errors import AddressDenied, InvalidRequest, LoopDetected, UpstreamTimeout, UpstreamUnreachable
from keyhole.core.url import Authority
from keyhole.core.value import Secret
from keyhole.net.dial import Dialer, _is_local, _plain
from keyhole.net.guard import Guard
from keyhole.net.resolve import Resolver
from keyhole.net.via import Spared, Via

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


def via(proxy, host, guard, *, static=(), scheme="http", names=False, credentials=None):
    async def main():
        async with listener(proxy) as (port, _):
            there = Via(scheme, Authority("127.0.0.1", port), names, credentials)
            dialer = Dialer(Resolver("127.0.0.1:1", static, timeout=0.2), via=there)
            (await dialer.dial(host, 443, guard, timeout=5)).close()

    asyncio.run(main())


def test_a_corporate_proxy_is_asked_for_the_judged_address():
    proxy = CorporateProxy()
    via(proxy, "api.test", Guard(), static=["api.test:93.184.215.14"], credentials=Secret("user:pass"))
    request = b"CONNECT 93.184.215.14:443 HTTP/1.1\r\nHost: 93.184.215.14:443\r\n"
    assert proxy.asked == [request + b"Proxy-Authorization: Basic dXNlcjpwYXNz\r\n\r\n"]


@pytest.mark.parametrize("names", [False, True])
def test_the_guard_holds_behind_a_corporate_proxy(names):
    proxy = CorporateProxy()
    with pytest.raises(AddressDenied):
        via(proxy, "rebind.test", Guard(), static=["rebind.test:10.0.0.1"], names=names)
    assert proxy.asked == []


def test_a_name_that_only_the_corporate_proxy_knows_needs_the_setting():
    proxy = CorporateProxy()
    with pytest.raises(UpstreamUnreachable):
        via(proxy, "unknown.test", Guard())
    assert proxy.asked == []
    via(proxy, "unknown.test", Guard(), names=True)
    assert proxy.asked == [b"CONNECT unknown.test:443 HTTP/1.1\r\nHost: unknown.test:443\r\n\r\n"]


@pytest.mark.parametrize(
    ("host", "static", "spared"),
    [
        ("api.test", ["api.test:127.0.0.1"], ("api.test",)),
        ("api.test", ["api.test:127.0.0.1"], ("API.test.",)),
        ("deep.api.test", ["deep.api.test:127.0.0.1"], (".test",)),
        ("deep.api.test", ["deep.api.test:127.0.0.1"], ("x.test", "*.api.test")),
        ("api.test", ["api.test:127.0.0.1"], ("127.0.0.0/8",)),
        ("127.0.0.1", [], ("127.0.0.1",)),
    ],
)
@pytest.mark.parametrize("names", [False, True])
def test_what_is_spared_is_reached_without_the_corporate_proxy(host, static, spared, names):
    assert _dialled(host, static, spared, names=names) == ["direct"]


@pytest.mark.parametrize(
    ("host", "static", "spared"),
    [
        ("api.test", ["api.test:127.0.0.1"], ()),
        ("api.test", ["api.test:127.0.0.1"], (".api.test", "pi.test", "x.api.test")),
        ("evilapi.test", ["evilapi.test:127.0.0.1"], ("api.test", ".api.test")),
        ("api.test", ["api.test:127.0.0.1", "api.test:127.0.0.2"], ("127.0.0.1/32",)),
    ],
)
def test_what_is_not_spared_goes_through_the_corporate_proxy(host, static, spared):
    assert _dialled(host, static, spared) == ["proxy"]


def test_the_guard_holds_for_what_is_spared():
    with pytest.raises(AddressDenied):
        _dialled("api.test", ["api.test:127.0.0.1"], ("api.test",), guard=Guard())


def test_a_spared_name_is_not_left_to_the_corporate_proxy():
    with pytest.raises(UpstreamUnreachable):
        _dialled("unknown.test", [], (".test",), names=True)


@pytest.mark.parametrize("part", ["*", "a b", "10.0.0.0/99", "", "http://api.test"])
def test_what_is_no_destination_cannot_be_spared(part):
    with pytest.raises(InvalidRequest):
        Spared.parse([part])


def _dialled(host, static, spared, *, names=False, guard=LOOPBACK):
    """Who took the connection: the host itself or the corporate proxy."""

    async def main():
        proxy = CorporateProxy()
        async with listener(proxy) as (corporate, _), listener() as (port, reached):
            over = Via("http", Authority("127.0.0.1", corporate), names, None, Spared.parse(spared))
            dialer = Dialer(Resolver("127.0.0.1:1", static, timeout=0.2), via=over)
            sock = await dialer.dial(host, port, guard, timeout=5)
            if not proxy.asked:
                await asyncio.get_running_loop().sock_recv(sock, 1)
            sock.close()
        return [name for name, used in (("proxy", proxy.asked), ("direct", reached)) if used]

    return asyncio.run(main())


@pytest.mark.parametrize("host", ["metadata.google.internal", "metadata.goog", "instance-data"])
@pytest.mark.parametrize("names", [False, True])
def test_a_metadata_service_is_refused_by_name_though_it_does_not_resolve_here(host, names):
    with pytest.raises(AddressDenied):
        _dialled(host, [], (), names=names, guard=Guard())


def test_a_container_may_be_called_metadata():
    assert _dialled("metadata", ["metadata:127.0.0.1"], ("metadata",)) == ["direct"]


def test_a_corporate_proxy_that_is_down_is_named_as_such():
    async def main():
        dialer = Dialer(Resolver("", ()), via=Via("http", Authority("127.0.0.1", 1)))
        with pytest.raises(UpstreamUnreachable, match="corporate proxy"):
            await dialer.dial("93.184.215.14", 443, Guard(), timeout=5)

    asyncio.run(main())


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
        via(close_early, "93.184.215.14", Guard(), credentials=Secret("user:pass"))
    assert "pass" not in str(caught.value).replace("bypass", "")


class SocksProxy:
    """A SOCKS 5 server (RFC 1928) of these tests, which notes what it is asked and connects nowhere."""

    def __init__(self, *, login=None, answer=b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50", method=None):
        self.login, self.answer, self.method = login, answer, method
        self.asked = []

    async def __call__(self, reader, writer):
        _, number = await reader.readexactly(2)
        offered = await reader.readexactly(number)
        method = (2 if self.login else 0) if self.method is None else self.method
        writer.write(bytes((5, method)))
        if method == 2 and 2 in offered:
            _, size = await reader.readexactly(2)
            user = await reader.readexactly(size)
            password = await reader.readexactly((await reader.readexactly(1))[0])
            writer.write(b"\x01\x00" if user + b":" + password == self.login else b"\x01\x01")
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readexactly(4)
            size = {1: 4, 4: 16}.get(head[3]) or (await reader.readexactly(1))[0]
            self.asked.append((head[1], head[3], await reader.readexactly(size), await reader.readexactly(2)))
            writer.write(self.answer)
            await writer.drain()
            await reader.read()


def test_a_socks_proxy_is_asked_for_the_judged_address_and_logged_in_to():
    proxy = SocksProxy(login=b"user:pass")
    via(proxy, "api.test", Guard(), static=["api.test:93.184.215.14"], scheme="socks5", credentials=Secret("user:pass"))
    assert proxy.asked == [(1, 1, bytes((93, 184, 215, 14)), b"\x01\xbb")]
    proxy = SocksProxy()
    via(proxy, "2606:2800:21f::1", Guard(), scheme="socks5")
    assert proxy.asked == [(1, 4, socket.inet_pton(socket.AF_INET6, "2606:2800:21f::1"), b"\x01\xbb")]
    proxy = SocksProxy(answer=b"\x05\x00\x00\x03\x04host\x00\x50")
    via(proxy, "unknown.test", Guard(), scheme="socks5", names=True)
    assert proxy.asked == [(1, 3, b"unknown.test", b"\x01\xbb")]
    with pytest.raises(AddressDenied):
        via(proxy, "rebind.test", Guard(), static=["rebind.test:10.0.0.1"], scheme="socks5", names=True)
    assert len(proxy.asked) == 1


@pytest.mark.parametrize(
    "proxy",
    [
        SocksProxy(login=b"user:other"),
        SocksProxy(method=0xFF),
        SocksProxy(method=1),
        SocksProxy(answer=b"\x05\x02\x00\x01\0\0\0\0\0\0"),
        SocksProxy(answer=b"\x05\x63\x00\x01\0\0\0\0\0\0"),
        SocksProxy(answer=b"\x05\x00\x00\x02\0\0\0\0\0\0"),
        SocksProxy(answer=b"\x04\x00\x00\x01\0\0\0\0\0\0"),
    ],
)
def test_a_socks_proxy_that_does_not_connect_is_an_unreachable_upstream(proxy):
    with pytest.raises(UpstreamUnreachable) as caught:
        via(proxy, "93.184.215.14", Guard(), scheme="socks5", credentials=Secret("user:pass"))
    assert "user:pass" not in str(caught.value)


def test_a_proxy_that_breaks_off_is_an_unreachable_upstream():
    async def silent(reader, _writer):
        await reader.read(1)

    for scheme in ("http", "socks5"):
        with pytest.raises(UpstreamUnreachable):
            via(silent, "93.184.215.14", Guard(), scheme=scheme)


def test_the_address_of_a_proxy_is_read_or_refused(tmp_path):
    assert Via.parse("proxy.corp.example:3128") == Via("http", Authority("proxy.corp.example", 3128))
    assert Via.parse("http://proxy.corp.example/") == Via("http", Authority("proxy.corp.example", 8080))
    assert Via.parse("socks5://[::1]", names=True) == Via("socks5", Authority("::1", 1080), names=True)
    file = tmp_path / "login"
    file.write_text("user:pa:ss\n")
    found = Via.parse("socks5://a.test", credentials_file=str(file))
    assert found.credentials == Secret("user:pa:ss")
    assert "pa:ss" not in repr(found)
    for wrong in ("https://a.test", "socks4://a.test", "socks5://u:p@a.test", "u:p@a.test:1", "http://a.test/x", "://"):
        with pytest.raises(InvalidRequest) as caught:
            Via.parse(wrong)
        assert "u:p" not in str(caught.value)
    for content in ("", "user", ":x", "user:", "a:b\nc:d", "a:" + "x" * 256):
        file.write_text(content)
        with pytest.raises(InvalidRequest):
            Via.parse("socks5://a.test", credentials_file=str(file))
    with pytest.raises(InvalidRequest):
        Via.parse("socks5://a.test", credentials_file=str(tmp_path / "none"))
