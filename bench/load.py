"""The load generator: one epoll loop, sockets and TLS used directly, the same code for every subject.

Runs as a process of its own: ``python -m bench.load`` reads a ``Job`` as JSON from standard input and writes what it
saw as JSON to standard output.
"""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: (\d+)\r\n")
_PIECE = 65536
_LONGEST = 60.0
NUMBER = b"NUMBER"
_EVENT = re.compile(rb"data: (\d+)\n\n")


@dataclass
class Job:
    """What to do.

    Attributes:
        mode: ``keepalive``, ``fresh`` (a connection for each request), ``http2``, ``stream``, ``download``, ``idle`` or
            ``steady`` (a request now and then).
        address: host and port to connect to.
        request: what is sent for each request, as text; ``NUMBER`` in it becomes two digits, the connection's own.
        connect: head of a CONNECT that is sent first; empty for none.
        ca: PEM file to verify a TLS server with; empty for plain TCP.
        name: server name for TLS.
        connections: how many at once.
        seconds: how long.
        count: of requests, for ``stream`` and ``download``, and on each connection at once for ``http2``.
        pause: seconds between two requests, for ``steady``.
    """

    mode: str
    address: tuple[str, int]
    request: str
    connect: str = ""
    ca: str = ""
    name: str = ""
    connections: int = 1
    seconds: float = 1.0
    count: int = 1
    pause: float = 0.0

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()


class _Client:
    """One connection and the request that is under way on it."""

    __slots__ = ("begun", "buffer", "need", "request", "sock", "step")

    def __init__(self, sock: socket.socket, step: Callable[[_Client], None], request: bytes) -> None:
        self.sock = sock
        self.request = request
        self.step = step
        self.buffer = b""
        self.need = 0
        self.begun = time.perf_counter()


class Generator:
    """Runs a job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.request = job.request.encode()
        self.opened = 0
        self.context: ssl.SSLContext | None = None
        if job.ca:
            self.context = ssl.create_default_context(cafile=job.ca)
        self.poll = select.epoll()
        self.clients: dict[int, _Client] = {}
        self.done = 0
        self.refused = 0
        self.broken = 0
        self.latencies: list[float] = []
        self.after: Callable[[_Client], None] = self._again

    # Connections.

    def open(self) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = b"%02d" % (self.opened % self.job.connections)
        self.opened += 1
        client = _Client(sock, self._connected, self.request.replace(NUMBER, number))
        sock.connect(self.job.address)
        sock.settimeout(0)
        self._watch(client)
        if self.job.connect:
            client.step = self._connected
            sock.send(self.job.connect.encode())
        else:
            self._secure(client)

    def _watch(self, client: _Client) -> None:
        self.clients[client.sock.fileno()] = client
        self.poll.register(client.sock.fileno(), select.EPOLLIN)

    def _connected(self, client: _Client) -> None:
        client.buffer += client.sock.recv(_PIECE)
        if not client.buffer:
            self._fail(client)
        elif b"\r\n\r\n" in client.buffer:
            if client.buffer[9:12] != b"200":
                self.refused += 1
                raise SystemExit(f"CONNECT was refused: {client.buffer[:500]!r}")
            client.buffer = b""
            self._secure(client)

    def _secure(self, client: _Client) -> None:
        if self.context is None:
            self.ask(client)
            return
        client.sock = self.context.wrap_socket(
            client.sock, do_handshake_on_connect=False, server_hostname=self.job.name
        )
        client.step = self._handshake
        self._handshake(client)

    def _handshake(self, client: _Client) -> None:
        assert isinstance(client.sock, ssl.SSLSocket)
        try:
            client.sock.do_handshake()
        except ssl.SSLWantReadError:
            return
        self.ask(client)

    def close(self, client: _Client) -> None:
        fd = client.sock.fileno()
        self.poll.unregister(fd)
        del self.clients[fd]
        client.sock.close()

    def _fail(self, client: _Client) -> None:
        self.broken += 1
        self.close(client)
        if self.broken > 1000:
            raise SystemExit("the subject closes every connection")
        self.open()

    # Requests.

    def ask(self, client: _Client) -> None:
        client.step = self._answered
        if self.job.mode != "fresh":
            client.begun = time.perf_counter()
        client.sock.send(client.request)

    def _answered(self, client: _Client) -> None:
        try:
            data = client.sock.recv(_PIECE)
        except (ssl.SSLWantReadError, BlockingIOError):
            return
        if not data:
            self._fail(client)
            return
        if client.need:
            client.need -= len(data)
        else:
            data = client.buffer + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                client.buffer = data
                return
            if data[9:12] != b"200":
                self.refused += 1
                if self.refused > 100:
                    raise SystemExit(f"the subject refuses: {data[:500]!r}")
            client.buffer = b""
            length = _LENGTH.search(data, 0, end + 2)
            if length is None:
                raise SystemExit(f"an answer without a length: {data[:500]!r}")
            client.need = int(length[1]) - (len(data) - end - 4)
        if client.need <= 0:
            client.need = 0
            self.done += 1
            self.latencies.append(time.perf_counter() - client.begun)
            self.after(client)

    def _again(self, client: _Client) -> None:
        client.begun = time.perf_counter()
        client.sock.send(client.request)

    def _anew(self, client: _Client) -> None:
        self.close(client)
        self.open()

    def step(self, timeout: float = 0.1) -> None:
        for fd, _ in self.poll.poll(timeout):
            client = self.clients.get(fd)
            if client is not None:
                try:
                    client.step(client)
                except (ConnectionError, ssl.SSLError):
                    self._fail(client)

    def flood(self) -> dict[str, float]:
        """``keepalive`` and ``fresh``: as many requests as can be answered."""
        job = self.job
        self.after = self._anew if job.mode == "fresh" else self._again
        for _ in range(job.connections):
            self.open()
        while self.done < job.connections:
            self.step()
        warm = time.perf_counter() + min(0.3, job.seconds / 4)
        while time.perf_counter() < warm:
            self.step()
        before = self.done
        self.done = self.refused = 0
        self.latencies.clear()
        busy = time.process_time()
        begin = time.perf_counter()
        # On a machine that is very busy a moment may pass without an answer: the measurement lasts until there is one.
        while (took := time.perf_counter() - begin) < job.seconds or (not self.done and took < _LONGEST):
            self.step()
        self.latencies.sort()
        return {
            "rate": (self.done - self.refused) / took,
            "p50": self.latencies[len(self.latencies) // 2] if self.latencies else 0.0,
            "p99": self.latencies[len(self.latencies) * 99 // 100] if self.latencies else 0.0,
            "refused": self.refused,
            "broken": self.broken,
            "count": self.done,
            "all": self.done + before,
            "busy": (time.process_time() - busy) / took,
        }

    def idle(self) -> Iterator[dict[str, float]]:
        """``idle``: open connections, send one request on each, then hold them until standard input ends."""
        self.after = lambda _client: None
        for number in range(self.job.connections):
            self.open()
            while len(self.clients) - self.done > 20:
                self.step()
            _ = number
        deadline = time.perf_counter() + 60
        while self.done < self.job.connections and time.perf_counter() < deadline:
            self.step()
        yield {"count": self.done, "refused": self.refused}
        sys.stdin.read()
        yield {"broken": self.broken}

    # One blocking connection at a time.

    def _blocking(self) -> socket.socket:
        sock = socket.create_connection(self.job.address, timeout=30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.job.connect:
            sock.sendall(self.job.connect.encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += sock.recv(4096)
            if head[9:12] != b"200":
                raise SystemExit(f"CONNECT was refused: {head[:500]!r}")
        return self.context.wrap_socket(sock, server_hostname=self.job.name) if self.context is not None else sock

    def stream(self) -> dict[str, float]:
        """``stream``: seconds from the request to the first event, and of each event on its way."""
        firsts, delays = [], []
        with contextlib.closing(self._blocking()) as sock:
            for _ in range(self.job.count):
                begin = time.monotonic_ns()
                sock.sendall(self.request)
                text, seen = b"", 0
                while b"data: end\n\n" not in text:
                    data = sock.recv(_PIECE)
                    now = time.monotonic_ns()
                    if not data:
                        raise SystemExit(f"the stream broke off: {text[:300]!r}")
                    text += data
                    stamps = _EVENT.findall(text)
                    if stamps and not seen:
                        firsts.append((now - begin) / 1e9)
                    delays += [(now - int(stamp)) / 1e9 for stamp in stamps[seen:]]
                    seen = len(stamps)
                while not text.endswith(b"0\r\n\r\n"):
                    text += sock.recv(_PIECE)
        return {"first": sorted(firsts)[len(firsts) // 2], "delay": sorted(delays)[len(delays) // 2]}

    def steady(self) -> dict[str, float]:
        """``steady``: seconds of a request on a kept connection, and, for every fourth, with a new connection."""
        kept: list[float] = []
        new: list[float] = []
        deadline = time.perf_counter() + self.job.seconds
        with contextlib.closing(self._blocking()) as sock:
            while time.perf_counter() < deadline:
                begin = time.perf_counter()
                if len(kept) % 4 == 3 and len(new) <= len(kept) // 4:
                    with contextlib.closing(self._blocking()) as one:
                        self._once(one)
                    new.append(time.perf_counter() - begin)
                else:
                    self._once(sock)
                    kept.append(time.perf_counter() - begin)
                time.sleep(self.job.pause)
        found: dict[str, float] = {"count": len(kept) + len(new)}
        for name, times in (("kept", sorted(kept)), ("new", sorted(new))):
            if times:
                found[f"{name}_p50"] = times[len(times) // 2]
                found[f"{name}_p99"] = times[len(times) * 99 // 100]
        return found

    def _once(self, sock: socket.socket) -> None:
        sock.sendall(self.request)
        answer = b""
        while (end := answer.find(b"\r\n\r\n")) < 0:
            piece = sock.recv(_PIECE)
            if not piece:
                raise SystemExit("the subject closed a connection")
            answer += piece
        length = _LENGTH.search(answer, 0, end + 2)
        if answer[9:12] != b"200" or length is None:
            raise SystemExit(f"the subject refuses: {answer[:500]!r}")
        while len(answer) < end + 4 + int(length[1]):
            answer += sock.recv(_PIECE)

    def download(self) -> dict[str, float]:
        """``download``: megabytes a second of one large answer after the other."""
        into = bytearray(1 << 18)
        got = 0
        with contextlib.closing(self._blocking()) as sock:
            begin = time.perf_counter()
            for _ in range(self.job.count):
                sock.sendall(self.request)
                head = b""
                while b"\r\n\r\n" not in head:
                    head += sock.recv(_PIECE)
                if head[9:12] != b"200":
                    raise SystemExit(f"the download was refused: {head[:500]!r}")
                end = head.find(b"\r\n\r\n")
                match = _LENGTH.search(head, 0, end + 2)
                assert match is not None
                left = int(match[1]) - (len(head) - end - 4)
                got += int(match[1])
                while left > 0:
                    size = sock.recv_into(into)
                    if not size:
                        raise SystemExit("the download broke off")
                    left -= size
            return {"megabytes": got / 1e6 / (time.perf_counter() - begin)}


def _of_http2(job: Job) -> Generator:
    from bench.http2 import Http2Generator  # noqa: PLC0415 - it extends what stands here

    return Http2Generator(job)


def main() -> None:
    """Run the job that stands on the first line of standard input."""
    data = json.loads(sys.stdin.readline())
    data["address"] = tuple(data["address"])
    job = Job(**data)
    mode = job.mode
    generator = _of_http2(job) if mode == "http2" else Generator(job)
    if mode == "idle":
        for state in generator.idle():
            print(json.dumps(state), flush=True)
        return
    run = {"stream": generator.stream, "download": generator.download, "steady": generator.steady}.get(
        mode, generator.flood
    )
    print(json.dumps(run()), flush=True)


if __name__ == "__main__":
    main()
