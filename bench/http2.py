"""The load generator for HTTP/2: connections with several requests at once, each followed by the same one again."""

from __future__ import annotations

import ssl
import time

from hpack import Encoder

from bench.load import Generator, Job, _Client

_PIECE = 65536
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WINDOW = (2**31 - 1).to_bytes(4, "big")
# SETTINGS with an initial window that no answer fills, and the same for the connection.
_GREETING = _PREFACE + b"\0\0\6\4\0\0\0\0\0\0\4" + _WINDOW + b"\0\0\4\x08\0\0\0\0\0" + (2**30).to_bytes(4, "big")
_HEADERS, _DATA, _RST_STREAM, _GOAWAY = 1, 0, 3, 7
_END_STREAM = 1


class Http2Generator(Generator):
    """Runs a job whose request is ``METHOD scheme authority path``, ``count`` of them at once on each connection."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        method, scheme, authority, path = job.request.split(" ")
        fields = [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path)]
        encoder = Encoder()
        self.first, self.again = encoder.encode(fields), encoder.encode(fields)
        if self.context is not None:
            self.context.set_alpn_protocols(["h2"])
        self.streams: dict[_Client, int] = {}

    def ask(self, client: _Client) -> None:
        client.step = self._answered
        client.begun = time.perf_counter()
        self.streams[client] = 1
        frames = [_GREETING, _frame(self.first, 1)]
        frames += [self._next(client) for _ in range(self.job.count - 1)]
        client.sock.send(b"".join(frames))

    def _next(self, client: _Client) -> bytes:
        self.streams[client] += 2
        return _frame(self.again, self.streams[client])

    def _answered(self, client: _Client) -> None:
        try:
            data = client.sock.recv(_PIECE)
        except (ssl.SSLWantReadError, BlockingIOError):
            return
        if not data:
            self.streams.pop(client, None)
            self._fail(client)
            return
        data = client.buffer + data
        position, ended = 0, 0
        while len(data) - position >= 9:
            stop = position + 9 + int.from_bytes(data[position : position + 3], "big")
            if stop > len(data):
                break
            kind, flags = data[position + 3], data[position + 4]
            if kind in {_RST_STREAM, _GOAWAY} or (kind == _HEADERS and data[position + 9] != 0x88):
                raise SystemExit(f"the subject refuses: {data[position:stop]!r}")
            ended += kind in {_HEADERS, _DATA} and flags & _END_STREAM
            position = stop
        client.buffer = data[position:]
        if ended:
            self.done += ended
            now = time.perf_counter()
            self.latencies.append(now - client.begun)
            client.begun = now
            client.sock.send(b"".join(self._next(client) for _ in range(ended)))


def _frame(block: bytes, stream: int) -> bytes:
    return len(block).to_bytes(3, "big") + b"\1\5" + stream.to_bytes(4, "big") + block
