"""Audit devices on a network: who collects the lines gets them all, and nothing is dialled that the guard refuses."""

import asyncio
import json
import socket

import pytest

from keyhole.vault.devices import NoDeviceWrote
from vault.test_audit_devices import enable
from vault.world import CANARY, play

LOCAL = "127.0.0.1/32"


def paths(lines):
    return [(e["type"], e["request"]["path"]) for e in map(json.loads, lines)]


ASKED = [("request", "secret/data/a"), ("response", "secret/data/a")]


class Collector:
    """Listens on TCP and keeps what it gets."""

    def __init__(self, answer=None):
        self.received = b""
        self.answer = answer
        self.connections = 0
        self._writers = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        self.hang_up()
        await self._server.wait_closed()

    def hang_up(self):
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader, writer):
        self.connections += 1
        self._writers.append(writer)
        if self.answer is None:
            while data := await reader.read(65536):
                self.received += data
        else:
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            self.received += await reader.readexactly(size)
            writer.write(self.answer)
            await writer.drain()
        writer.close()

    async def lines(self, count):
        while self.received.count(b"\n") < count:  # noqa: ASYNC110 - a socket has no event
            await asyncio.sleep(0)
        return self.received.decode().splitlines()


def test_tcp_collector_gets_each_line_also_after_it_hung_up():
    async def scenario(vault):
        async with Collector() as collector:
            address = f"127.0.0.1:{collector.port}"
            await enable(vault, "s", "socket", address=address, allow_addresses=LOCAL, prefix="@cee: ")
            await vault.ask("update", "secret/data/a", {"data": {"v": CANARY}})
            lines = await collector.lines(2)
            assert paths(line.removeprefix("@cee: ") for line in lines) == ASKED
            assert CANARY not in collector.received.decode()
            collector.hang_up()
            while not _over(vault, "s"):  # noqa: ASYNC110 - nor has the end of its peer
                await asyncio.sleep(0)
            await vault.ask("update", "secret/data/b", {"data": {"v": "x"}})
            assert len(await collector.lines(4)) == 4
            assert collector.connections == 2

    play(scenario)


def _over(vault, name):
    try:
        return vault.vault.devices._devices[name].made.way._socket.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_udp_collector_gets_a_datagram_for_each_line():
    async def scenario(vault):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.setblocking(False)
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            await enable(vault, "s", "socket", address=address, socket_type="udp", allow_addresses=LOCAL)
            await vault.ask("update", "secret/data/a", {"data": {"v": "x"}})
            loop = asyncio.get_running_loop()
            assert paths([(await loop.sock_recv(listener, 65536)).decode() for _ in range(2)]) == ASKED

    play(scenario)


def test_syslog_gets_facility_severity_tag_and_the_entry(tmp_path):
    async def scenario(vault):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(tmp_path / "log"))
            listener.setblocking(False)
            await enable(vault, "s", "syslog", address=str(tmp_path / "log"), facility="local3", tag="vault")
            await vault.ask("update", "secret/data/a", {"data": {"v": "x"}})
            loop = asyncio.get_running_loop()
            heads, lines = zip(
                *[(await loop.sock_recv(listener, 65536)).decode().split(": ", 1) for _ in range(2)], strict=True
            )
            assert all(head.startswith("<158>vault[") for head in heads)  # 19 * 8 + 6
            assert paths(lines) == ASKED

    play(scenario)


def test_http_collector_gets_lines_and_has_to_say_that_it_took_them():
    async def scenario(vault):
        async with Collector(answer=b"HTTP/1.1 204 No Content\r\n\r\n") as collector:
            uri = f"http://127.0.0.1:{collector.port}/in?x=1"
            await enable(vault, "h", "http", uri=uri, allow_addresses=LOCAL)
            await vault.ask("update", "secret/data/a", {"data": {"v": "x"}})
            assert paths(await collector.lines(2)) == ASKED
            collector.answer = b"HTTP/1.1 500 Sorry\r\n\r\n"
            with pytest.raises(NoDeviceWrote):
                await vault.ask("update", "secret/data/b", {"data": {"v": "x"}})

    play(scenario)


@pytest.mark.parametrize("kind", ["socket", "http"])
def test_private_address_is_not_dialled_unless_it_is_named(kind):
    async def scenario(vault):
        async with Collector() as collector:
            address = f"127.0.0.1:{collector.port}"
            options = {"address": address} if kind == "socket" else {"uri": f"http://{address}/"}
            await enable(vault, "s", kind, **options)
            with pytest.raises(NoDeviceWrote):
                await vault.ask("update", "secret/data/a", {"data": {"v": "x"}})
            assert collector.connections == 0

    play(scenario)


def test_collector_that_is_gone_is_not_asked_for_each_request():
    async def scenario(vault):
        async with Collector() as collector:
            address = f"127.0.0.1:{collector.port}"
        await enable(vault, "s", "socket", address=address, allow_addresses=LOCAL)
        for _ in range(20):
            with pytest.raises(NoDeviceWrote):
                await vault.ask("read", "secret/data/a")
        device = vault.vault.devices._devices["s"]
        assert device.state == "failing"
        assert device.lane.lost >= 20

    play(scenario)
