"""HTTP/2 between client and proxy: many requests at once, each with its own pace, none with less than HTTP/1 has."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

from faces.proxy.h2 import DATA, END_STREAM, HEADERS, Client, frame, request, reset, settings, window
from faces.proxy.rig import CREDENTIAL, HOST, OK, TOKEN, Received, Rig, until
from keyhole.core.errors import PolicyDenied
from keyhole.core.message import Answer, Call
from keyhole.net.http1.limits import ListenerLimits
from keyhole.net.http2.limits import Http2Limits

either_loop = pytest.mark.usefixtures("either_loop")
LIMITS = ListenerLimits(linger=0.2)


async def echo(received: Received, _writer: asyncio.StreamWriter) -> bytes:
    said = received.line + b"|" + received.body
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said)


def test_many_requests_at_once_get_each_its_own_answer() -> None:
    async def run() -> None:
        async with Rig(echo) as rig:
            client = await Client.tunnel(rig)
            streams = [client.ask(request(b"/n/%d" % n, b"POST"), b"body %d" % n) for n in range(20)]
            for number, stream in enumerate(streams):
                answer = await client.answer(stream)
                assert answer.status == 200
                assert answer.body == b"POST /n/%d HTTP/1.1|body %d" % (number, number)
            assert {call.http2 for call in rig.broker.calls} == {True}
            assert all(received.values(b"authorization") == [b"Bearer injected"] for received in rig.upstream.requests)

    asyncio.run(run())


def test_what_is_sent_upstream_is_the_request_as_it_was_judged() -> None:
    async def run() -> None:
        async with Rig() as rig:
            client = await Client.tunnel(rig)
            fields = request(b"/v1/a%20b?x=%00&y=1", b"GET", te=b"trailers", proxy_authorization=b"Bearer x")
            fields += [(b"cookie", b"a=1"), (b"x-note", "ü".encode()), (b"cookie", b"b=2"), (b"host", HOST.encode())]
            assert (await client.answer(client.ask(fields))).status == 200
            [received] = rig.upstream.requests
            assert received.line == b"GET /v1/a%20b?x=%00&y=1 HTTP/1.1"
            assert received.values(b"host") == [HOST.encode()]
            assert received.values(b"cookie") == [b"a=1; b=2"]
            assert received.values(b"x-note") == ["ü".encode()]
            assert received.values(b"via") == [b"2.0 keyhole-rig"]
            assert not received.values(b"proxy-authorization")
            assert not received.values(b"transfer-encoding") + received.values(b"content-length")

    asyncio.run(run())


def test_the_proxys_own_port_speaks_http2_with_prior_knowledge_and_asks_for_the_token() -> None:
    async def run() -> None:
        async with Rig() as rig:
            client = await Client.plain(rig)
            refused = await client.answer(client.ask(request(scheme=b"http")))
            assert refused.status == 407
            assert refused.head[b"proxy-authenticate"] == b'Basic realm="keyhole"'
            value = CREDENTIAL.split(b": ")[1].strip()
            answer = await client.answer(client.ask(request(scheme=b"http", proxy_authorization=value)))
            assert (answer.status, answer.body) == (200, b"ok")
            assert [call.token for call in rig.broker.calls] == [b"", TOKEN]
            assert rig.broker.calls[1].scheme == "http"
            assert len(rig.upstream.requests) == 1

    asyncio.run(run())


def test_plain_http2_inside_a_tunnel_passes_the_same_gate() -> None:
    async def run() -> None:
        async with Rig() as rig:
            client = Client(await rig.tunnel(port=80, tls=False))
            client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings())
            assert (await client.answer(client.ask(request(scheme=b"http")))).status == 200
            assert (await client.answer(client.ask(request(scheme=b"https")))).status == 400
            assert len(rig.upstream.requests) == 1

    asyncio.run(run())


def test_a_refusal_is_an_answer_on_its_stream_and_the_others_go_on() -> None:
    async def run() -> None:
        async with Rig() as rig:
            client = await Client.tunnel(rig)
            rig.broker.refuse = PolicyDenied("not granted", "ask for it")
            refused = await client.get(b"/v1/denied")
            assert refused.status == 403
            assert refused.head[b"x-keyhole-error"] == b"policy_denied"
            assert json.loads(refused.body)["error"]["hint"] == "ask for it"
            head = await client.answer(client.ask(request(b"/v1/denied", b"HEAD")))
            assert (head.status, head.body) == (403, b"")
            rig.broker.refuse = None
            assert (await client.get()).body == b"ok"

    asyncio.run(run())


def test_a_refusal_without_room_for_its_words_has_its_head() -> None:
    async def run() -> None:
        async with Rig() as rig:
            client = await Client.tunnel(rig, first=settings(window=0))
            rig.broker.refuse = PolicyDenied("not granted", "ask for it")
            answer = await client.get()
            assert (answer.status, answer.body, answer.ended) == (403, b"", True)
            assert answer.head[b"x-keyhole-error"] == b"policy_denied"
            assert b"content-length" not in answer.head

    asyncio.run(run())


@pytest.mark.parametrize(
    ("method", "status", "length"), [(b"HEAD", b"200 OK", b"10"), (b"GET", b"204 No", None), (b"GET", b"304 Not", b"7")]
)
def test_answers_without_a_body_end_with_their_head(method: bytes, status: bytes, length: bytes | None) -> None:
    async def respond(_received: Received, _writer: asyncio.StreamWriter) -> bytes:
        return b"HTTP/1.1 %b\r\n%b\r\n" % (status, b"Content-Length: %b\r\n" % length if length else b"")

    async def run() -> None:
        async with Rig(respond) as rig:
            client = await Client.tunnel(rig)
            answer = await client.answer(client.ask(request(method=method)))
            assert (answer.status, answer.body, answer.reset) == (int(status[:3]), b"", None)
            assert answer.head.get(b"content-length") == length
            assert (await client.answer(client.ask(request(method=method)))).status == int(status[:3])

    asyncio.run(run())


def test_trailers_pass_in_both_directions() -> None:
    async def respond(_received: Received, _writer: asyncio.StreamWriter) -> bytes:
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n"

    async def run() -> None:
        async with Rig(respond) as rig:
            client = await Client.tunnel(rig)
            stream = client.ask(request(method=b"POST", te=b"trailers"), b"hello", end=False)
            client.send(client.headers([(b"x-sum", b"5"), (b"authorization", b"Bearer x")], stream=stream))
            answer = await client.answer(stream)
            assert (answer.status, answer.body, answer.ended) == (200, b"ok", True)
            assert answer.trailers == {b"grpc-status": b"0"}
            [received] = rig.upstream.requests
            assert (received.body, received.trailers) == (b"hello", b"x-sum: 5\r\n")

    asyncio.run(run())


def test_a_client_that_waits_for_100_gets_it_when_the_body_is_wanted() -> None:
    async def run() -> None:
        async with Rig() as rig:
            client = await Client.tunnel(rig)
            stream = client.ask(request(method=b"POST", content_length=b"5", expect=b"100-continue"), end=False)
            await client.until(lambda: client.answers[stream].informational == [b"100"])
            assert not rig.upstream.requests
            client.send(frame(DATA, END_STREAM, stream, b"hello"))
            assert (await client.answer(stream)).status == 200
            assert rig.upstream.requests[0].body == b"hello"
            assert (await client.get(expect=b"the unexpected")).status == 417

    asyncio.run(run())


@either_loop
def test_an_early_answer_ends_its_stream_and_no_other() -> None:
    async def early(_received: Received, _writer: asyncio.StreamWriter) -> bytes | None:
        return b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    async def run() -> None:
        async with Rig() as rig:
            rig.differential = False
            rig.upstream.on_head = early
            client = await Client.tunnel(rig)
            stream = client.ask(request(method=b"POST", content_length=b"100000"), b"x" * 1000, end=False)
            await client.until(lambda: client.answers[stream].reset is not None)
            answer = client.answers[stream]
            assert (answer.status, answer.ended, answer.reset) == (413, True, 0)
            client.send(frame(DATA, 0, stream, b"x" * 1000) + frame(DATA, END_STREAM, stream, b"x"))
            rig.upstream.on_head = None
            assert (await client.get()).status == 200

    asyncio.run(run())


@either_loop
def test_a_client_that_reads_nothing_of_one_answer_holds_back_its_upstream_and_nothing_else() -> None:
    size = 30 * 1024 * 1024
    sent = 0

    async def respond(received: Received, writer: asyncio.StreamWriter) -> bytes | None:
        nonlocal sent
        if b"/big" not in received.line:
            return OK
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(bytes(65536))
            await writer.drain()
            sent += 65536
        return b""

    async def run() -> None:
        async with Rig(respond, LIMITS) as rig:
            rig.differential = False
            client = await Client.tunnel(rig, greedy=False)
            client.send(window(0, 1_000_000))
            stream = client.ask(request(b"/big"))
            await client.until(lambda: len(client.answers[stream].body) == 65_535)
            assert (await client.get(b"/small")).body == b"ok"
            held = sent
            assert held < 16 * 1024 * 1024  # what sockets of this system hold, and a few buffers
            client.greedy = True
            client.send(window(stream, 1_000_000) + window(0, 2**30))
            await client.until(lambda: len(client.answers[stream].body) > 1_000_000)
            client.send(reset(stream))
            await until(lambda: rig.upstream.open <= 1)

    asyncio.run(run())


@either_loop
def test_an_upstream_that_does_not_read_holds_back_the_client() -> None:
    async def run() -> None:
        async with Rig(limits=LIMITS) as rig:
            rig.differential = False
            released = asyncio.Event()

            async def wait(_received: Received, _writer: asyncio.StreamWriter) -> None:
                await released.wait()

            rig.upstream.on_head = wait
            client = await Client.tunnel(rig)
            stream = client.ask(request(method=b"POST"), end=False)
            await client.until(lambda: client.windows[0] > 65_535)
            left = room = client.settings[4]
            sent = 0
            while left:  # all that the windows allow, and no more; they are not opened for ever
                piece = min(left, 16_384)
                client.send(frame(DATA, 0, stream, bytes(piece)))
                left -= piece
                sent += piece
                if not left:
                    await client.until(lambda: True)
                    await asyncio.sleep(0)
                    left, client.windows[stream] = client.windows.get(stream, 0), 0
                    if not left:
                        break
            assert room <= sent < 16 * 1024 * 1024
            released.set()
            client.send(frame(DATA, END_STREAM, stream))
            rig.upstream.on_head = None
            assert (await client.answer(stream)).status == 200
            assert rig.upstream.body_bytes == sent

    asyncio.run(run())


def test_a_large_body_arrives_whole_in_both_directions() -> None:
    blob = os.urandom(3_000_000)

    async def respond(received: Received, _writer: asyncio.StreamWriter) -> bytes:
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
            len(received.body),
            received.body,
        )

    async def run() -> None:
        async with Rig(respond) as rig:
            client = await Client.tunnel(rig)
            stream = client.ask(request(method=b"PUT", content_length=b"%d" % len(blob)), end=False)
            await client.until(lambda: client.windows[0] > 65_535)
            allowed = client.settings[4]
            for start in range(0, len(blob), 16_384):
                piece = blob[start : start + 16_384]
                if start + len(piece) > allowed + client.windows.get(stream, 0):
                    wanted = start + len(piece)
                    await client.until(lambda wanted=wanted: wanted <= allowed + client.windows.get(stream, 0))
                client.send(frame(DATA, 0 if start + 16_384 < len(blob) else END_STREAM, stream, piece))
                await client.writer.drain()
            answer = await client.answer(stream)
            assert answer.body == blob
            assert rig.upstream.requests[0].body == blob

    asyncio.run(run())


def test_a_request_that_is_taken_back_ends_at_its_upstream() -> None:
    async def run() -> None:
        async with Rig(limits=LIMITS) as rig:
            released = asyncio.Event()

            async def late(_received: Received, _writer: asyncio.StreamWriter) -> bytes:
                await released.wait()
                return OK

            rig.upstream.respond = late
            client = await Client.tunnel(rig)
            stream = client.ask(request())
            await until(lambda: bool(rig.upstream.requests))
            client.send(reset(stream))
            rig.upstream.respond = echo
            assert (await client.get()).status == 200
            released.set()
            assert rig.upstream.accepted == 2  # the first connection is not used again

    asyncio.run(run())


@either_loop
def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one() -> None:
    async def run() -> None:
        async with Rig(limits=LIMITS) as rig:
            seen = asyncio.Event()

            async def respond(_received: Received, writer: asyncio.StreamWriter) -> None:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 10)
                await seen.wait()

            rig.upstream.respond = respond
            client = await Client.tunnel(rig)
            stream = client.ask(request())
            await client.until(lambda: client.answers[stream].body == b"x" * 10)
            seen.set()
            broken = await client.answer(stream)
            assert (broken.status, broken.ended, broken.reset) == (200, False, 2)
            rig.upstream.respond = echo
            assert (await client.get()).status == 200

    asyncio.run(run())


@either_loop
def test_a_listener_that_stops_lets_open_requests_end_and_takes_no_others() -> None:
    async def run() -> None:
        async with Rig(limits=LIMITS) as rig:
            released = asyncio.Event()

            async def late(_received: Received, _writer: asyncio.StreamWriter) -> bytes:
                await released.wait()
                return OK

            rig.upstream.respond = late
            idle = await Client.tunnel(rig)
            busy = await Client.tunnel(rig)
            stream = busy.ask(request())
            await until(lambda: bool(rig.upstream.requests))
            closing = asyncio.create_task(rig.server.close(10.0))
            await idle.end()
            await busy.until(lambda: busy.goaway is not None)
            assert (busy.goaway, busy.last_stream) == (0, stream)
            ignored = busy.ask(request(b"/too/late"))
            released.set()
            assert (await busy.answer(stream)).body == b"ok"
            await busy.end()
            assert not busy.answers[ignored].head
            await closing
            assert len(rig.upstream.requests) == 1

    asyncio.run(run())


def test_a_connection_goes_away_after_so_many_requests() -> None:
    async def run() -> None:
        limits = ListenerLimits(linger=0.2, http2=Http2Limits(requests=3))
        async with Rig(limits=limits) as rig:
            client = await Client.tunnel(rig)
            for _ in range(3):
                assert (await client.get()).status == 200
            await client.end()
            assert (client.goaway, client.last_stream) == (0, 5)

    asyncio.run(run())


def test_a_client_that_is_silent_is_told_to_go_away() -> None:
    async def run() -> None:
        async with Rig(limits=ListenerLimits(linger=0.2, idle_timeout=1.0)) as rig:
            client = await Client.tunnel(rig)
            assert (await client.get()).status == 200
            await client.end()
            assert client.goaway == 0

    asyncio.run(run())


def test_a_body_that_stalls_is_refused_and_the_connection_goes_on() -> None:
    async def run() -> None:
        async with Rig(limits=ListenerLimits(linger=0.2, body_timeout=0.2)) as rig:
            rig.differential = False
            client = await Client.tunnel(rig)
            answer = await client.answer(client.ask(request(method=b"POST", content_length=b"10"), b"x", end=False))
            assert answer.status == 400
            assert json.loads(answer.body)["error"]["code"] == "bad_request_framing"
            assert (await client.get()).status == 200
            assert [received.line[:4] for received in rig.upstream.requests] == [b"GET "]

    asyncio.run(run())


@either_loop
def test_answers_nobody_reads_are_given_up() -> None:
    async def respond(_received: Received, _writer: asyncio.StreamWriter) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000)

    async def run() -> None:
        async with Rig(respond, ListenerLimits(linger=0.2, write_timeout=0.2)) as rig:
            client = await Client.tunnel(rig, first=settings(window=0))
            streams = [client.ask(request()) for _ in range(20)]
            for stream in streams:
                answer = await client.answer(stream)
                assert (answer.status, answer.body, answer.reset) == (200, b"", 8)
            await until(lambda: rig.upstream.open == 0)

    asyncio.run(run())


class Chat:
    """A stream that says back what it hears."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.left = self.closed = False

    async def read(self) -> bytes:
        return await self.heard.get()

    async def write(self, data: bytes) -> None:
        await self.heard.put(data)

    def end(self) -> None:
        self.heard.put_nowait(b"")

    def leave(self) -> None:
        self.left = True
        self.heard.put_nowait(b"bye")
        self.end()

    async def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("how", ["end", "leave", "reset"])
def test_an_extended_connect_is_a_websocket_on_a_stream(how: str) -> None:
    async def run() -> None:
        async with Rig(limits=LIMITS) as rig:
            chats: list[Chat] = []
            calls: list[Call] = []

            async def handle(call: Call) -> Answer:
                calls.append(call)
                chats.append(Chat())
                headers = [(b"sec-websocket-accept", b"x"), (b"sec-websocket-protocol", b"chat")]
                return Answer(101, b"", headers, None, chats[-1], "websocket")

            rig.broker.handle = handle
            client = await Client.tunnel(rig)
            await client.until(lambda: client.settings.get(8) == 1)
            fields = request(b"/socket", b"CONNECT", sec_websocket_version=b"13", sec_websocket_protocol=b"chat")
            fields.insert(1, (b":protocol", b"websocket"))
            stream = client.ask(fields, end=False)
            answer = client.answers[stream]
            client.send(frame(DATA, 0, stream, b"hello"))
            await client.until(lambda: answer.body == b"hello")
            assert answer.head == {
                b":status": b"200",
                b"sec-websocket-protocol": b"chat",
                b"via": b"1.1 keyhole-rig",
            }
            assert (calls[0].method, calls[0].upgrade, calls[0].target) == ("GET", "websocket", b"/socket")
            if how == "end":
                client.send(frame(DATA, END_STREAM, stream))
                assert (await client.answer(stream)).ended
            elif how == "leave":
                await rig.server.close(5.0)
                assert chats[0].left
                assert answer.body == b"hellobye"
                assert answer.ended
            else:
                client.send(reset(stream))
            await until(lambda: chats[0].closed)

    asyncio.run(run())


def test_a_request_within_which_its_connection_ends_is_refused_and_those_that_were_asked_are_answered() -> None:
    async def run() -> None:
        gate = asyncio.Event()

        async def slow(_received: Received, _writer: asyncio.StreamWriter) -> bytes:
            await gate.wait()
            return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

        async with Rig(slow, limits=ListenerLimits(linger=20)) as rig:
            client = await Client.plain(rig)
            client.greedy = False  # it says nothing more, not even that it has read
            await client.until(lambda: bool(client.settings))
            shown = {"proxy_authorization": CREDENTIAL.split(b": ")[1].strip()}
            asked = client.ask(request(scheme=b"http", **shown))
            broken = client.ask(request(b"/b", b"POST", scheme=b"http", **shown), b"part", end=False)
            await until(lambda: len(rig.broker.calls) == 2)
            client.writer.write_eof()
            assert (await client.answer(broken)).status == 400
            gate.set()
            assert (await client.answer(asked)).body == b"ok"

    asyncio.run(run())


def test_a_connect_on_a_stream_inside_of_a_tunnel_opens_no_other() -> None:
    async def run() -> None:
        async with Rig() as rig:
            client = await Client.tunnel(rig)
            fields = [(b":method", b"CONNECT"), (b":authority", HOST.encode() + b":443")]
            assert (await client.answer(client.ask(fields, end=False))).status == 400
            assert len(rig.broker.tunnels) == 1
            assert not rig.dialler.dialled

    asyncio.run(run())


def test_more_requests_at_once_than_allowed_are_refused_in_a_way_that_they_can_be_repeated() -> None:
    async def run() -> None:
        async with Rig(limits=ListenerLimits(linger=0.2, http2=Http2Limits(streams=2))) as rig:
            released = asyncio.Event()

            async def late(_received: Received, _writer: asyncio.StreamWriter) -> bytes:
                await released.wait()
                return OK

            rig.upstream.respond = late
            client = await Client.tunnel(rig)
            streams = [client.ask(request(b"/%d" % number)) for number in range(3)]
            assert (await client.answer(streams[2])).reset == 7
            released.set()
            assert [(await client.answer(stream)).status for stream in streams[:2]] == [200, 200]
            assert (await client.get()).status == 200
            assert client.settings[3] == 2

    asyncio.run(run())


def test_header_sections_in_parts_and_padding_are_read() -> None:
    async def run() -> None:
        async with Rig(echo) as rig:
            client = await Client.tunnel(rig)
            block = client.encoder.encode(request(b"/parts", b"POST"))
            stream = client.new()
            client.send(frame(HEADERS, 8, stream, b"\x03" + block[:5] + b"pad"))
            client.send(frame(9, 0, stream, block[5:9]) + frame(9, 4, stream, block[9:]))
            client.send(frame(DATA, 8, stream, b"\x02hello--") + frame(DATA, 8 | END_STREAM, stream, b"\x00"))
            assert (await client.answer(stream)).body == b"POST /parts HTTP/1.1|hello"

    asyncio.run(run())
