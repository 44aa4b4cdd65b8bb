"""CONNECT on a stream of HTTP/2: several tunnels through one connection, each as on a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
from collections.abc import AsyncIterator

import h2.config
import h2.connection
import h2.events
import pytest

from faces.proxy.h2 import DATA, END_STREAM, Answer, Client, Fields, frame, request, reset
from faces.proxy.rig import (
    CREDENTIAL,
    HOST,
    TOKEN,
    Received,
    Rig,
    Streams,
    client_context,
    get,
    read_answer,
    server_context,
    until,
)
from faces.proxy.test_http2_clients import ca as ca  # noqa: PLC0414 - a fixture
from faces.proxy.test_http2_clients import echo, output
from keyhole.core.message import Answer as Passed
from keyhole.core.passthrough import PASSTHROUGH
from keyhole.net.http1.limits import ListenerLimits
from keyhole.net.http2.limits import Http2Limits

PROXY_AUTHORIZATION = CREDENTIAL.split(b": ")[1].strip()


def connect(port: int = 443, host: str = HOST, token: bytes = PROXY_AUTHORIZATION) -> Fields:
    fields = [(b":method", b"CONNECT"), (b":authority", f"{host}:{port}".encode())]
    return [*fields, (b"proxy-authorization", token)] if token else fields


@contextlib.asynccontextmanager
async def inside(client: Client, *, tls: bool = True, alpn: str = "") -> AsyncIterator[Streams]:
    """The inside of a tunnel on a stream of its own, with or without TLS in it."""
    number = client.ask(connect(443 if tls else 80), end=False)
    answer = client.answers[number]
    await client.until(lambda: answer.status or answer.over)
    assert answer.status == 200
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    back, forth = await asyncio.open_connection(sock=theirs)

    async def down() -> None:
        while True:
            await client.until(lambda: answer.body or answer.over)
            said, answer.body = answer.body, b""
            forth.write(said)
            if answer.over:
                forth.write_eof()
                return

    async def up() -> None:
        while data := await back.read(16_000):
            client.send(frame(DATA, 0, number, data))
        client.send(frame(DATA, END_STREAM, number))

    tasks = [asyncio.ensure_future(down()), asyncio.ensure_future(up())]
    try:
        if tls:
            await writer.start_tls(client_context(alpn), server_hostname=HOST)
        yield reader, writer
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in (writer, forth):
            each.transport.abort()
        await asyncio.sleep(0)


async def ask(streams: Streams, path: str = "/v1/public/a") -> tuple[int, bytes]:
    streams[1].write(get(path, absolute=False))
    status, _, body = await read_answer(streams[0])
    return status, body


def test_tunnels_on_one_connection_each_carry_requests_that_pass_the_same_gate() -> None:
    async def run() -> None:
        async with Rig(echo) as rig:
            client = await Client.plain(rig)
            async with inside(client) as first, inside(client) as second, inside(client, tls=False) as plain:
                for number, streams in enumerate((first, second, plain, first)):
                    assert await ask(streams, f"/n/{number}") == (200, f"/n/{number} ".encode())
                first[1].write(b"GET / HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n")
                assert (await read_answer(first[0]))[0] == 400
                assert (await ask(second))[0] == 200
            assert [(host, port) for _, host, port in rig.broker.tunnels] == [(HOST, 443), (HOST, 443), (HOST, 80)]
            assert {call.token for call in rig.broker.calls} == {TOKEN}
            assert [call.scheme for call in rig.broker.calls].count("http") == 1

    asyncio.run(run())


def test_http2_inside_of_a_tunnel_on_a_stream() -> None:
    async def run() -> None:
        async with Rig(echo) as rig:
            client = await Client.plain(rig)
            async with inside(client, alpn="h2") as streams:
                inner = Client(streams)
                inner.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4))
                said = await asyncio.gather(*(inner.get(b"/%d" % number) for number in range(9)))
                assert [answer.body for answer in said] == [b"/%d " % number for number in range(9)]
                again = inner.ask(connect(), end=False)
                assert (await inner.answer(again)).status == 400, "a tunnel in a tunnel"
            assert len(rig.broker.tunnels) == 1

    asyncio.run(run())


@pytest.mark.parametrize(
    ("fields", "status", "opened"),
    [
        (connect(token=b""), 407, 1),
        (connect(token=b"Bearer hvs.somebodyelse0123456789"), 407, 1),
        (connect(host="elsewhere.test"), 403, 1),
        ([*connect(), (b"content-length", b"5")], 400, 0),
        ([(b":method", b"CONNECT"), (b":authority", HOST.encode())], 400, 0),
        ([(b":method", b"CONNECT"), (b":scheme", b"https"), (b":authority", HOST.encode() + b":443")], 400, 0),
    ],
)
def test_a_tunnel_that_is_refused_is_an_answer_on_its_stream(fields: Fields, status: int, opened: int) -> None:
    async def run() -> None:
        async with Rig() as rig:
            client = await Client.plain(rig)
            answer = await client.answer(client.ask(fields, end=False))
            assert answer.status == status
            assert b'"errors"' in answer.body
            assert len(rig.broker.tunnels) == opened
            async with inside(client) as streams:
                assert (await ask(streams))[0] == 200

    asyncio.run(run())


def test_a_token_that_was_revoked_serves_no_tunnel_that_is_open() -> None:
    async def run() -> None:
        async with Rig() as rig:
            client = await Client.plain(rig)
            async with inside(client) as streams:
                assert (await ask(streams))[0] == 200
                rig.broker.revoked = True
                assert (await ask(streams))[0] == 407
                assert (await client.answer(client.ask(connect(), end=False))).status == 407

    asyncio.run(run())


def test_a_client_that_ends_its_side_still_gets_its_answer_and_one_that_resets_gets_none() -> None:
    async def run() -> None:
        held = asyncio.Event()
        seen: list[bytes] = []

        async def slow(received: Received, _writer: asyncio.StreamWriter) -> bytes:
            seen.append(received.line)
            await held.wait()
            return b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate"

        async with Rig(slow) as rig:
            client = await Client.plain(rig)
            number = client.ask(connect(80), end=False)
            client.send(frame(DATA, END_STREAM, number, get("/x", absolute=False)))
            other = client.ask(connect(80), end=False)
            client.send(frame(DATA, 0, other, get("/y", absolute=False)))
            await until(lambda: len(seen) == 2)
            client.send(reset(other))
            await until(lambda: rig.server.connections == 2)
            held.set()
            answer = await client.answer(number)
            assert answer.ended
            assert answer.body.endswith(b"late")
            await until(lambda: rig.server.connections == 1)

    asyncio.run(run())


def test_a_tunnel_counts_as_a_connection_and_too_many_are_refused_so_that_they_can_be_tried_again() -> None:
    async def run() -> None:
        async with Rig(limits=ListenerLimits(linger=0.2, connections=3)) as rig:
            client = await Client.plain(rig)
            first, second = (client.ask(connect(), end=False) for _ in range(2))
            await client.until(lambda: client.answers[first].status and client.answers[second].status)
            third = await client.answer(client.ask(connect(), end=False))
            assert (third.status, third.reset) == (0, 7)
            assert len(rig.server.group) == 3, "what was turned away is kept nowhere"
            client.send(reset(first))
            await until(lambda: rig.server.connections == 2)
            fourth = client.ask(connect(), end=False)
            await client.until(lambda: client.answers[fourth].status == 200)

    asyncio.run(run())


def test_an_idle_tunnel_and_one_whose_client_says_nothing_end() -> None:
    async def run() -> None:
        limits = ListenerLimits(tunnel_timeout=1.5, idle_timeout=1.5, linger=0.1)
        async with Rig(limits=limits) as rig:
            client = await Client.plain(rig)
            silent = client.ask(connect(), end=False)
            talked = client.ask(connect(80), end=False)
            client.send(frame(DATA, 0, talked, get("/x", absolute=False)))
            assert (await client.answer(silent)).reset is not None
            assert (await client.answer(talked)).ended
            assert client.answers[talked].body.endswith(b"ok")

    asyncio.run(run())


def test_a_client_that_reads_nothing_of_one_tunnel_is_held_back_there_and_nowhere_else() -> None:
    async def run() -> None:
        sent = 0

        async def endless(_received: Received, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
            for _ in range(500):
                writer.write(bytes(100_000))
                sent += 100_000
                await writer.drain()

        async with Rig(endless) as rig:
            rig.differential = False
            client = await Client.plain(rig)
            client.greedy = False
            number = client.ask(connect(80), end=False)
            client.send(frame(DATA, 0, number, get("/x", absolute=False)))
            await client.until(lambda: len(client.answers[number].body) >= 65_000)
            refused = await client.answer(client.ask(connect(token=b""), end=False))
            assert refused.status == 407
            assert len(client.answers[number].body) <= 65_535
            assert sent < 20_000_000
            client.send(reset(number))
            await until(lambda: rig.server.connections == 1)

    asyncio.run(run())


class _Echo:
    """A tunnel that is passed on: it says back what it hears, and one word after the client has ended its side."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.over = False

    async def read(self) -> bytes:
        if self.over:
            return b""
        data = await self.heard.get()
        self.over = data == b"bye"
        return data

    async def write(self, data: bytes) -> None:
        self.heard.put_nowait(data)

    def end(self) -> None:
        self.heard.put_nowait(b"bye")

    def leave(self) -> None:
        self.end()

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("cut", [False, True])
def test_a_tunnel_that_is_passed_on_is_carried_cut_and_half_closed(cut: bool) -> None:
    async def run() -> None:
        async with Rig(limits=ListenerLimits(linger=0.2, http2=Http2Limits())) as rig:
            answers = []

            async def passed(*_args: object) -> str:
                return "ssh"

            async def handle(call: object) -> Passed:
                assert call.upgrade == PASSTHROUGH  # type: ignore[attr-defined]
                answers.append(Passed(200, b"", [], None, _Echo(), PASSTHROUGH))
                return answers[0]

            rig.broker.open_tunnel, rig.broker.handle = passed, handle  # type: ignore[method-assign,assignment]
            client = await Client.plain(rig)
            number = client.ask(connect(22), end=False)
            client.send(frame(DATA, 0, number, b"SSH-2.0-x\r\n"))
            answer: Answer = client.answers[number]
            await client.until(lambda: answer.body == b"SSH-2.0-x\r\n")
            if cut:
                answers[0].on_cut()
                assert (await client.answer(number)).reset is not None
                return
            client.send(frame(DATA, END_STREAM, number))
            assert (await client.answer(number)).ended
            assert answer.body == b"SSH-2.0-x\r\nbye"

    asyncio.run(run())


NODE = """
const [port, ca, authority, credential] = process.argv.slice(1);
const fs = require('fs'), http2 = require('http2'), tls = require('tls');
const trust = fs.readFileSync(ca);
const session = http2.connect('https://localhost:' + port, {ca: trust});
const ask = (number, ALPNProtocols) => new Promise((done) => {
  const tunnel = session.request({':method': 'CONNECT', ':authority': authority + ':443',
                                  'proxy-authorization': credential});
  tunnel.on('response', (headers) => {
    const socket = tls.connect({socket: tunnel, servername: authority, ALPNProtocols, ca: trust}, () => {
      if (socket.alpnProtocol === 'h2') {
        const inner = http2.connect('https://' + authority, {createConnection: () => socket});
        let said = '';
        inner.request({':path': '/n/' + number}).on('data', (piece) => said += piece)
          .on('end', () => { done('h2 ' + said); inner.destroy(); });
      } else {
        socket.on('data', (piece) => { done('h1 ' + String(piece).split('\\r\\n\\r\\n')[1]); socket.destroy(); });
        socket.write('GET /n/' + number + ' HTTP/1.1\\r\\nHost: ' + authority + '\\r\\n\\r\\n');
      }
    });
  });
});
Promise.all([0, 1, 2, 3].map((number) => ask(number, number % 2 ? ['h2'] : ['http/1.1']))).then((said) => {
  console.log(session.alpnProtocol, JSON.stringify(said));
  session.destroy();
});
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
def test_node_opens_tunnels_at_a_proxy_with_tls(ca: str) -> None:
    async def run() -> None:
        async with Rig(echo) as rig:
            _, port = await rig.server.listen(tls=server_context("localhost"))
            said = await output("node", "-e", NODE, str(port), ca, HOST, PROXY_AUTHORIZATION.decode())
            assert said.split(" ", 1) == ["h2", '["h1 /n/0 ","h2 /n/1 ","h1 /n/2 ","h2 /n/3 "]\n']
            assert len(rig.broker.tunnels) == 4

    asyncio.run(run())


def test_a_proxy_with_tls_speaks_http2_with_whoever_offers_it_alone(ca: str) -> None:
    async def run() -> None:
        async with Rig(echo) as rig:
            address = await rig.server.listen(tls=server_context("localhost"))
            context = ssl.create_default_context(cafile=ca)
            for offered, spoken in ((["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), ([], None)):
                if offered:
                    context.set_alpn_protocols(offered)
                reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname="localhost")
                assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == spoken
                if spoken != "h2":
                    writer.write(get("/one"))
                    assert (await read_answer(reader))[2] == b"/one "
                writer.close()
                context = ssl.create_default_context(cafile=ca)
            reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname="localhost")
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4))
            assert (await read_answer(reader))[0] == 400
            writer.close()

    asyncio.run(run())


def test_the_library_h2_opens_a_tunnel() -> None:
    async def run() -> None:
        async with Rig(echo) as rig:
            reader, writer = await rig.open()
            theirs = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
            theirs.initiate_connection()
            theirs.send_headers(1, connect(80))
            theirs.send_data(1, get("/lib", absolute=False))
            writer.write(theirs.data_to_send())
            body = b""
            async with asyncio.timeout(20):
                while not body.endswith(b"/lib "):
                    for event in theirs.receive_data(await reader.read(65536)):
                        assert not isinstance(event, h2.events.StreamReset)
                        body += event.data if isinstance(event, h2.events.DataReceived) else b""
            theirs.end_stream(1)
            writer.write(theirs.data_to_send())
            await until(lambda: rig.server.connections == 1)

    asyncio.run(run())


def test_requests_and_tunnels_share_a_connection() -> None:
    async def run() -> None:
        async with Rig(echo) as rig:
            client = await Client.plain(rig)
            async with inside(client) as streams:
                plain = request(b"/own", scheme=b"http", proxy_authorization=PROXY_AUTHORIZATION)
                number = client.ask(plain)
                assert await ask(streams, "/in") == (200, b"/in ")
                assert (await client.answer(number)).body == b"/own "

    asyncio.run(run())
