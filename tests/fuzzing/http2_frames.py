"""Connections of HTTP/2 whose peer sends whatever it likes: frames in any order, of any size, at any time.

An input is a script. Each step begins with ``STEP``; then come what is done (the type of a frame, or one of ``WAYS``),
flags, the number of a stream, and the payload. A payload of HEADERS or CONTINUATION that has ``FIELD`` in it is written
as HPACK.
"""

import asyncio
import contextlib
import struct

import hpack

from fuzzing import ticking
from fuzzing.engine import Target
from keyhole.core.errors import KeyholeError, UpstreamUnreachable
from keyhole.core.message import Answer, Message
from keyhole.faces.proxy.gate import Tunnel
from keyhole.faces.proxy.inside import StreamTunnel
from keyhole.faces.proxy.streams import StreamFace
from keyhole.net.guests import Guests
from keyhole.net.http1.limits import ListenerLimits, WireLimits
from keyhole.net.http1.wire import HIGH_WATER, Wire
from keyhole.net.http2.client import Http2Connection
from keyhole.net.http2.frames import ConnectionFault
from keyhole.net.http2.limits import Http2Limits

STEP, FIELD, VALUE = b"\xfe", b"\xfc", b"\xfd"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
WAYS = b"LRTBPQEGOCXA"  # besides frames, what a script does: see Script.bytes_of, Peer.step and Client.step
LIMITS = Http2Limits(
    streams=4,
    requests=12,
    header_list_bytes=4096,
    header_block_bytes=1024,
    continuations=3,
    frame_bytes=16384,
    stream_window=2000,
    connection_window=70_000,
    resets=6,
    noise=40,
)
HOST = b"api.allowed.test"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_MOST_STEPS = 120


def step(what, flags=0, stream=0, payload=b""):
    return STEP + bytes((what, flags, stream)) + payload


def go(way, payload=b""):
    return step(ord(way), 0, 0, payload)


def fields(*pairs):
    return b"".join(FIELD + name + VALUE + value for name, value in pairs)


def ask(stream, path=b"/echo", method=b"GET", *more, flags=END_STREAM | END_HEADERS):
    head = ((b":method", method), (b":scheme", b"https"), (b":authority", HOST), (b":path", path))
    return step(HEADERS, flags, stream, fields(*head, *more))


def say(stream, *more, status=b"200", flags=END_HEADERS):
    return step(HEADERS, flags, stream, fields((b":status", status), *more))


def frame(kind, flags, stream, payload=b"", size=None):
    size = len(payload) if size is None else size
    return struct.pack(">I", size)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def tunnel(stream, port=80):
    return step(HEADERS, END_HEADERS, stream, fields((b":method", b"CONNECT"), (b":authority", HOST + b":%d" % port)))


_GREETING = step(SETTINGS)
_INSIDE = b"GET /echo HTTP/1.1\r\nHost: " + HOST + b"\r\n\r\n"


class Script:
    """The steps of an input."""

    def __init__(self, data):
        parts = [part for part in data.split(STEP)[1:] if len(part) >= 3]
        self.steps = [(part[0], part[1], part[2], part[3:]) for part in parts[:_MOST_STEPS]]
        self.encoder = hpack.Encoder()

    def bytes_of(self, what, flags, stream, payload):
        """What is sent; ``None`` where nothing is."""
        if what in {HEADERS, CONTINUATION} and FIELD in payload:
            pairs = [part.partition(VALUE)[::2] for part in payload.split(FIELD)[1:]]
            payload = self.encoder.encode(pairs, huffman=bool(flags & 0x40))
        first = payload[0] if payload else 0
        if what < 0x20:
            return frame(what, flags, stream, payload)
        if what == ord("L"):  # a wrong length
            return frame(first % 10, flags, stream, payload[1:], size=first * 3)
        if what == ord("R"):  # no frame at all
            return payload
        if what == ord("B"):  # much DATA
            return frame(DATA, flags, stream, bytes(first * 64))
        return None


class Peer:
    """What is known of the other side by what was sent to it, and a judge of what it sends."""

    def __init__(self, *, of_client):
        self.of_client = of_client  # whether it is our client that sends to it
        self.at = len(_PREFACE) if of_client else 0
        self.pending = b""
        self.window = 65_535
        self.start = [65_535]
        self.windows = {}
        self.ended = set()
        self.reset = set()
        self.opened = {}
        self.sent = {}
        self.section = None
        self.decoder = hpack.Decoder()
        self.goaways = 0
        self.answers = []
        self.acks = self.settings = 0

    def fed(self, data):
        """Frames that go to the side under test: what they allow it to send."""
        self.pending += data
        data, at = self.pending, 0
        while len(data) - at >= 9 and len(data) - at >= 9 + int.from_bytes(data[at : at + 3]):
            size = int.from_bytes(data[at : at + 3])
            kind, _flags, number = struct.unpack(">BBI", data[at + 3 : at + 9])
            number &= 0x7FFFFFFF
            payload = data[at + 9 : at + 9 + size]
            if kind == WINDOW and len(payload) == 4:
                increment = int.from_bytes(payload) & 0x7FFFFFFF
                self.windows[number] = self.windows.get(number, 0) + increment
            elif kind == SETTINGS:
                self.start += [
                    value for name, value in struct.iter_unpack(">HI", payload[: size // 6 * 6]) if name == 4
                ]
            elif kind == HEADERS:
                self.opened.setdefault(number, True)
            at += 9 + size
        self.pending = data[at:]

    def judge(self, written):
        """Everything that was sent so far is what RFC 9113 allows."""
        while len(written) - self.at >= 9:
            size = int.from_bytes(written[self.at : self.at + 3])
            assert size <= 16384, "a frame that is larger than anybody asked for"
            kind, flags, number = struct.unpack(">BBI", written[self.at + 3 : self.at + 9])
            if len(written) - self.at < 9 + size:
                return
            payload = bytes(written[self.at + 9 : self.at + 9 + size])
            self.at += 9 + size
            assert self.section is None or (kind == CONTINUATION and number == self.section[0]), "a frame in a section"
            self._frame(kind, flags, number, payload)

    def _frame(self, kind, flags, number, payload):
        if kind == SETTINGS:
            assert not number
            self.acks += flags & 1
        elif kind == PING:
            assert not number
            assert len(payload) == 8
        elif kind == GOAWAY:
            assert not number
            self.goaways += 1
        elif kind == WINDOW:
            assert int.from_bytes(payload) > 0, "a window update of nothing"
            assert not number or number in self.opened
        elif kind == RST:
            assert number in self.opened, "a reset of a stream that is not open"
            assert number not in self.reset, "a second reset"
            self.reset.add(number)
        else:
            self._content(kind, flags, number, payload)

    def _content(self, kind, flags, number, payload):
        assert kind in {DATA, HEADERS, CONTINUATION}, f"a frame of type {kind}"
        if self.of_client and kind == HEADERS:
            self.opened[number] = True
        assert number in self.opened, "a frame on a stream that is not open"
        assert number not in self.reset, "a frame after a reset"
        assert number not in self.ended, "a frame after the end of its stream"
        if kind == DATA:
            self.sent[number] = self.sent.get(number, 0) + len(payload)
            assert self.sent[number] <= max(self.start) + self.windows.get(number, 0), "a stream's window is overrun"
            assert sum(self.sent.values()) <= self.window + self.windows.get(0, 0), "the window is overrun"
        elif kind == HEADERS:
            self.section = (number, bytearray(payload), flags & END_STREAM)
        else:
            self.section[1].extend(payload)
        if kind != DATA and flags & END_HEADERS:
            _, block, ends = self.section
            self.section = None
            self.answers.append((number, dict(self.decoder.decode(bytes(block), raw=True))))
            if ends:
                self.ended.add(number)
        if kind == DATA and flags & END_STREAM:
            self.ended.add(number)


class _Chunks:
    """A body that comes in pieces, after a while."""

    def __init__(self, pieces, *, length=None, trailers=(), wait=0.0, fails=False):
        self.pieces, self.length, self.trailers = list(pieces), length, list(trailers)
        self.wait, self.fails = wait, fails

    async def read(self):
        if self.wait:
            await asyncio.sleep(self.wait)
        if self.pieces:
            return self.pieces.pop(0)
        if self.fails:
            raise UpstreamUnreachable("it broke off", "again")
        return b""


class _Echo:
    """A body that is what comes in, and a stream that says what it hears."""

    length = None

    def __init__(self, body):
        self.body = body
        self.trailers = []
        self.heard = asyncio.Queue(4)

    async def read(self):
        if self.body is None:
            return await self.heard.get()
        data = await self.body.read()
        if not data:
            self.trailers = self.body.trailers
        return data

    async def write(self, data):
        await self.heard.put(data)

    def end(self):
        with contextlib.suppress(asyncio.QueueFull):
            self.heard.put_nowait(b"")

    def leave(self):
        self.end()

    async def close(self):
        pass


class _Broker:
    """Answers by the path, and writes down what it is asked."""

    def __init__(self):
        self.calls = []
        self.refused = self.tunnels = 0
        self.own_port = False

    def note_refusal(self, error, _remote):
        assert isinstance(error, KeyholeError)
        self.refused += 1

    def tunnel_at_once(self, _credential, _authority, _service, _seat):
        return None

    def may_go_on(self, _seat, _remote):
        return True

    async def in_turn(self, _seat, _remote):
        pass

    async def open_tunnel(self, _credential, host, port, _remote, _service, _seat):
        if (host, port) != (HOST.decode(), 80):
            raise UpstreamUnreachable("no way", "none")
        self.tunnels += 1

    async def handle(self, call):
        if self.own_port and call.host != HOST.decode():
            raise UpstreamUnreachable("no service", "none")
        assert call.host == HOST.decode(), "it leads out of its tunnel"
        assert self.own_port or call.port == 443, "it leads out of its tunnel"
        assert call.http2 or call.scheme == "http"
        self.calls.append(call)
        marked = [(b"x-judged", b"%d" % len(self.calls))]
        way = call.target.split(b"?")[0].strip(b"/")
        if call.upgrade:
            return Answer(101, b"", marked, None, stream=_Echo(None), upgrade=call.upgrade)
        if way == b"late":
            await asyncio.sleep(3)
        if way == b"refused":
            raise UpstreamUnreachable("no way", "none")
        if way == b"large":
            return Answer(200, b"", marked, _Chunks([bytes(9000)] * 3, length=27000))
        if way == b"short":
            return Answer(200, b"", marked, _Chunks([b"abc"], length=9))
        if way == b"broken":
            return Answer(200, b"", marked, _Chunks([b"abc"], wait=1, fails=True))
        if way == b"odd":
            return Answer(200, b"", [*marked, (b"x-odd", b"a\r\nb")], None)
        if call.body is None:
            return Answer(200, b"", marked, _Chunks([b"hello"], trailers=[(b"x-sum", b"1")], wait=0.5))
        return Answer(200, b"", marked, _Echo(call.body))


class _Owner:
    """A listener."""

    databases = agents = None
    draining = False
    via = b"Via: 1.1 us\r\n"
    via_value = b"1.1 us"
    pseudonym = b"us"

    def __init__(self):
        self.broker = _Broker()
        self.limits = ListenerLimits(http2=LIMITS, head_timeout=5, idle_timeout=5, body_timeout=5, write_timeout=5)
        self.group = ticking.group()
        self.open = 0
        self.lines = set()
        self.guests = Guests(3)

    def opened(self, connection, remote):
        seat = self.guests.enter(remote, connection.abort)
        if seat is not None:
            self.lines.add(connection)
        self.group.add(connection)
        return seat

    def closed(self, connection):
        if connection.seat is not None:
            connection.seat.leave()
        self.lines.discard(connection)
        self.group.discard(connection)

    async def tunnel(self, stream, authority, service, credential, remote):
        await StreamTunnel(self, stream, authority, service, credential).last(remote)

    def admit_stream(self):
        self.open += 1
        return True

    def forget_stream(self):
        self.open -= 1
        assert self.open >= 0


async def _feed(wire, pipe, data):
    """Bytes arrive, unless nobody reads for long."""
    for _ in range(200):
        if pipe.reading or pipe.gone:
            break
        await asyncio.sleep(0.2)
    if pipe.reading and not pipe.gone and not wire.eof:
        wire.data_received(data)
    for _ in range(3):
        await asyncio.sleep(0)


async def _common(what, payload, wire, pipe):
    """What either side may live to see."""
    if what == ord("T"):
        await asyncio.sleep((payload[0] if payload else 1) / 16)
    elif what == ord("P"):
        wire.pause_writing()
    elif what == ord("Q"):
        wire.resume_writing()
    elif what == ord("E") and not pipe.gone and not wire.eof:
        wire.input_ended()
    await asyncio.sleep(0)


_WORDS = (
    *(
        STEP,
        FIELD,
        VALUE,
        _GREETING,
        step(SETTINGS, 1),
        step(PING, 0, 0, bytes(8)),
        step(SETTINGS, 0, 0, b"\0\4\0\0\0\5"),
    ),
    *(step(RST, 0, 1, b"\0\0\0\x08"), step(RST, 0, 3, b"\0\0\0\x07"), step(WINDOW, 0, 1, b"\0\0\4\0")),
    *(step(WINDOW, 0, 0, b"\0\0\xff\0"), step(DATA, 1, 1), step(DATA, 0, 3, b"more"), go("T", b"\x20")),
    *(step(ord("B"), 0, 1, b"\x1e"), step(ord("B"), 1, 3, b"\x10"), go("P"), go("Q"), go("E")),
    *(
        step(CONTINUATION, 4, 1),
        step(GOAWAY, 0, 0, bytes(8)),
        step(ord("L"), 0, 1, b"\x40"),
        step(PRIORITY, 0, 3, bytes(5)),
    ),
    *(
        step(SETTINGS, 0, 0, b"\0\4\x7f\xff\xff\xff"),
        step(SETTINGS, 0, 0, b"\0\5\0\0\x40\0"),
        step(PUSH, 4, 1, bytes(4)),
    ),
    *(step(WINDOW, 0, 1, b"\x7f\xff\xff\xff"), step(0x0B, 0, 0, b"unknown"), FIELD + b"content-length" + VALUE + b"5"),
    *(step(HEADERS, 5, 1, fields((b"x-trailer", b"a"))), FIELD + b"te" + VALUE + b"trailers"),
)


class Server(Target):
    """A client of the proxy that sends any frames it likes."""

    words = (
        *_WORDS,
        *(ask(number, path) for number, path in ((1, b"/echo"), (3, b"/late"), (5, b"/large"), (7, b"/broken"))),
        *(ask(3, b"/echo", b"POST", flags=END_HEADERS), ask(5, b"/odd"), ask(9, b"/short"), ask(2, b"/echo")),
        *(
            b"/echo",
            b"/late",
            b"/large",
            b"/refused",
            b"/broken",
            b"/odd",
            b":path",
            HOST,
            go("O"),
            tunnel(1),
            b"https",
            b"CONNECT",
        ),
    )

    def corpus(self):
        length = (b"content-length", b"5")
        socket = (b":protocol", b"websocket"), (b"sec-websocket-version", b"13")
        return [
            _GREETING + ask(1) + ask(3, b"/late") + go("T", b"\x80"),
            _GREETING + ask(1, b"/echo", b"POST", length, flags=END_HEADERS) + step(DATA, END_STREAM, 1, b"12345"),
            _GREETING + ask(1, b"/large") + step(WINDOW, 0, 1, b"\0\0\xff\0") + step(WINDOW, 0, 0, b"\0\0\xff\0"),
            _GREETING
            + ask(1, b"/echo", b"CONNECT", *socket, flags=END_HEADERS)
            + step(DATA, 0, 1, b"hi")
            + step(DATA, 1, 1),
            _GREETING + ask(1, b"/late", b"POST", flags=END_HEADERS) + step(RST, 0, 1, b"\0\0\0\x08") + ask(3),
            _GREETING
            + step(HEADERS, 0, 1, fields((b":method", b"GET")))
            + step(CONTINUATION, 4, 1, fields((b":path", b"/"))),
            step(SETTINGS, 0, 0, b"\0\4\0\0\0\5") + ask(1, b"/large") + go("P") + ask(3) + go("Q"),
            _GREETING + ask(1, b"/echo", b"POST", flags=END_HEADERS) + step(ord("B"), 0, 1, b"\x1e") * 3,
            go("O") + _GREETING + tunnel(1) + step(DATA, 0, 1, _INSIDE) + tunnel(3, 443) + step(DATA, END_STREAM, 1),
            go("O")
            + _GREETING
            + tunnel(1)
            + step(DATA, 0, 1, _INSIDE * 2)
            + tunnel(3)
            + step(RST, 0, 1, b"\0\0\0\x08"),
            _GREETING + ask(1, b"/broken") + ask(3, b"/odd") + ask(5, b"/refused") + step(GOAWAY, 0, 0, bytes(8)),
        ]

    def check(self, data, rng):
        with ticking.loop() as loop:
            return loop.run_until_complete(self._talk(Script(data), rng))

    async def _talk(self, script, rng):
        owner = _Owner()
        wire, peer = Wire(owner.group), Peer(of_client=False)
        pipe = ticking.Pipe(wire)
        wire.connection_made(pipe)
        owner.group.add(wire)
        own_port = script.steps[:1] == [(ord("O"), 0, 0, b"")]  # a tunnel else
        owner.broker.own_port = own_port
        face = StreamFace(wire, owner, None if own_port else Tunnel("https", HOST.decode(), 443, b""), "", None)
        session = face._session
        running = asyncio.ensure_future(_ended(face))
        paths, said = set(), b""
        wire.data_received(_PREFACE)
        for what, flags, stream, payload in script.steps:
            if running.done():
                break
            paths.update(part.partition(VALUE)[2] for part in payload.split(FIELD))
            said += payload
            data = script.bytes_of(what, flags, stream, payload)
            if data is None:
                await _common(what, payload, wire, pipe)
            else:
                peer.fed(data)
                at = rng.randint(0, len(data))
                for piece in (data[:at], data[at:]):
                    await _feed(wire, pipe, piece)
            self._look(session, peer, pipe, running.done())
        wire.resume_writing()
        if not pipe.gone and not wire.eof:
            wire.input_ended()
        outcome = await running
        wire.close()
        await asyncio.sleep(1)
        wire.flush()
        peer.judge(pipe.written)
        assert not session._streams, "a stream is left"
        assert not owner.open, "a stream is counted that has ended"
        assert not owner.lines, "a tunnel is left"
        assert not owner.guests.all, "a tunnel is counted that has ended"
        self._judged(owner.broker, peer, paths, said)
        owner.group.discard(wire)
        await asyncio.sleep(2)
        assert pipe.gone
        statuses = sorted({fields.get(b":status", b"-") for _, fields in peer.answers})
        return f"{outcome} {b' '.join(statuses).decode()} {bool(peer.reset)} {len(owner.broker.calls)}"

    @staticmethod
    def _look(session, peer, pipe, ended):
        peer.judge(pipe.written)
        assert session.window >= 0, "more was sent than its window allowed"
        assert len(session._streams) <= LIMITS.streams
        held = sum(len(stream._unread) for stream in session._streams.values())
        assert held <= LIMITS.connection_window
        assert all(len(stream._unread) <= LIMITS.stream_window for stream in session._streams.values())
        assert len(session._abandoned) <= 1024
        if not ended:
            assert session._in_window >= 0
            assert session._section is None or len(session._section.block) <= LIMITS.frame_bytes + 1024
        assert len(session._wire.buffer) <= HIGH_WATER + LIMITS.frame_bytes  # a read on top of what stops reading

    @staticmethod
    def _judged(broker, peer, paths, said):
        """Whatever was answered in an upstream's name is a request that was judged, as it was sent."""
        marks = [fields[b"x-judged"] for _, fields in peer.answers if b"x-judged" in fields]
        assert len(marks) == len(set(marks)), "a request was answered twice"
        assert all(1 <= int(mark) <= len(broker.calls) for mark in marks)
        asked = [call.target in paths or (not call.http2 and call.target in said) for call in broker.calls]
        assert all(asked), "what nobody asked for was judged"
        begun = [fields for _, fields in peer.answers if fields.get(b":status") not in {None, b"100"}]
        others = [fields for fields in begun if b"x-judged" not in fields]
        opened = [fields for fields in others if fields == {b":status": b"200"}]
        assert len(opened) <= broker.tunnels, "a tunnel that nobody granted"
        assert all(b"x-keyhole-error" in fields for fields in others if fields not in opened)


async def _ended(face):
    try:
        await face.run()
    except ConnectionFault as fault:
        return fault.reason
    except OSError as error:
        return type(error).__name__
    return "ended"


class _Times:
    answer = body = write = 4.0
    rate, window = 0.0, 4.0


class Client(Target):
    """An upstream that sends any frames it likes."""

    words = (
        *_WORDS,
        *(step(way) for way in b"GOC"),
        *(
            say(1),
            say(3, flags=5),
            say(1, status=b"103"),
            say(5, status=b"404", flags=5),
            say(1, status=b"204", flags=5),
        ),
        *(
            go("X", b"\x01"),
            go("A", b"\x01"),
            b":status",
            b"200",
            b"content-length",
            b"grpc-status",
        ),
    )

    def corpus(self):
        length = (b"content-length", b"5")
        goaway = step(GOAWAY, 0, 0, b"\0\0\0\1\0\0\0\0")
        return [
            _GREETING + go("G") + say(1, length) + step(DATA, END_STREAM, 1, b"12345"),
            _GREETING + go("O") + go("G") + say(3, flags=5) + say(1) + step(DATA, 1, 1, b"x"),
            _GREETING
            + go("C")
            + say(1)
            + step(DATA, 0, 1, b"\0\0\0\0\1x")
            + step(HEADERS, 5, 1, fields((b"grpc-status", b"0"))),
            go("G") * 3 + _GREETING + goaway + say(1, flags=5),
            _GREETING + go("O") + step(RST, 0, 1, b"\0\0\0\x07") + go("G") + go("E"),
            step(SETTINGS, 0, 0, b"\0\4\0\0\0\5") + go("O") + step(WINDOW, 0, 1, b"\0\0\xff\0") + say(1, flags=5),
            _GREETING + go("G") + say(1) + step(ord("B"), 0, 1, b"\x1e") * 2 + go("X", b"\x01"),
            _GREETING + go("G") + step(PING, 0, 0, bytes(8)) + say(1, status=b"100") * 3 + go("T", b"\xff"),
        ]

    def check(self, data, rng):
        with ticking.loop() as loop:
            return loop.run_until_complete(self._talk(Script(data), rng))

    async def _talk(self, script, rng):
        group, lost = ticking.group(), []
        connection = Http2Connection(
            group, HOST, WireLimits(), LIMITS, on_free=lambda _: None, on_lost=lambda _: lost.append(1)
        )
        before, peer, asked = Wire(group), Peer(of_client=True), {}
        pipe = ticking.Pipe(connection)
        before.connection_made(pipe)
        connection.begin(before)
        group.add(connection)
        for what, flags, stream, payload in script.steps:
            data = script.bytes_of(what, flags, stream, payload)
            first = payload[0] if payload else 0
            if what in b"GOC" and connection.usable:
                connection.reserved += 1
                asked[len(asked)] = asyncio.ensure_future(_asking(connection, chr(what)))
                await asyncio.sleep(0)
            elif what == ord("X") and first in asked:
                asked[first].cancel()
                await asyncio.sleep(0)
            elif data is None:
                await _common(what, payload, connection, pipe)
            else:
                peer.fed(data)
                at = rng.randint(0, len(data))
                for piece in (data[:at], data[at:]):
                    await _feed(connection, pipe, piece)
            self._look(connection, peer, pipe)
        came = await asyncio.gather(*asked.values(), return_exceptions=True)
        connection.leave()
        await asyncio.sleep(6)
        connection.abort()
        await asyncio.sleep(0)
        group.discard(connection)
        await asyncio.sleep(2)
        peer.judge(pipe.written)
        assert lost == [1], "the pool is told once that a connection is gone"
        assert not connection.open, "a request is counted that has ended"
        for each in came:
            if isinstance(each, BaseException) and not isinstance(each, asyncio.CancelledError):
                raise each
        outcomes = sorted({str(each) for each in came})
        return f"{' / '.join(outcomes)} {peer.goaways} {len(peer.reset)}"

    @staticmethod
    def _look(connection, peer, pipe):
        peer.judge(pipe.written)
        assert connection.window >= 0, "more was sent than its window allowed"
        assert connection.open <= LIMITS.streams
        assert connection.reserved >= 0
        assert all(len(stream._unread) <= LIMITS.stream_window for stream in connection._streams.values())
        assert len(connection.buffer) <= 4 * LIMITS.frame_bytes
        assert connection.leaving or connection._in_window >= 0


async def _asking(connection, way):
    """Ask, and read the answer to its end; what came of it."""
    grpc = [(b"content-type", b"application/grpc")] if way == "C" else []
    message = Message("GET" if way == "G" else "POST", "https", HOST.decode(), 443, b"/v1", grpc, http2=True)
    body = None if way == "G" else _Chunks([b"some", bytes(900)], wait=0.5 if way == "C" else 0.0)
    try:
        answer = await connection.exchange(message, body, None if way == "C" else b"begin" if body else b"", _Times())
        assert 200 <= answer.status <= 599
        size = 0
        while answer.body is not None and (data := await answer.body.read()):
            size += len(data)
    except KeyholeError as error:
        return error.reason
    assert answer.length in {None, size} or answer.body is None, "a body that is not as long as it says"
    return f"{answer.status} {bool(size)}"
