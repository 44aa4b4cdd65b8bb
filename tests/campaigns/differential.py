"""Send the whole product inputs that somebody may read in another way, with nginx behind it, and compare all readings.

    python tests/campaigns/differential.py --rounds 20000 --seed 1 [--only ROUND]

Requests: the corpora of smuggled requests and what a seed makes of them go through the proxy, in a tunnel, in absolute
form, and as HTTP/2. What the proxy sends on is written down on its way to nginx, and read by llhttp too, and by Node
where that is installed. All must find the same requests, each with the same method, target and body, each with an
intent in the journal; and no client gets an answer to the request of another.

Answers: bytes of the corpora of hostile answers, and what a seed makes of them, come from an upstream. What the proxy
gives its client as a whole answer must be what llhttp reads in them; and the next call gets its own answer.

A round is one input; ``--only`` plays it again, by itself. The first disagreement is printed and ends the run with 1.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import httptools

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from broker.stack import HOST, LOOPBACK, Received, Stack, Upstream, basic
from children import child
from faces.proxy.h2 import PREFACE, Client, settings
from fuzzing import corpora
from fuzzing.engine import Mutator
from fuzzing.http import Gate, by_llhttp
from keyhole.config import Config

BATCH = 200
_BODIES = (
    (b"", b""),
    (b"Content-Length: 5\r\n", b"hello"),
    (b"Content-Length: 0\r\nExpect: 100-continue\r\n", b""),
    (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
    (b"TE: trailers\r\nTransfer-Encoding: chunked\r\n", b"1;a=b\r\nh\r\n4\r\nello\r\n0\r\nX-T: 1\r\n\r\n"),
    (b"Connection: keep-alive, x-a\r\nX-A: 1\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n", b"\r\n"),
)
FORMS = ("tunnel", "absolute", "h2")
PATIENCE = 60.0
# White space behind the semicolon of a chunk is to be taken (RFC 9112 section 7.1.1), which llhttp does not.
_BAD_SPACE = re.compile(rb"(?<=\n)([0-9A-Fa-f]+);[\t ]+")
# llhttp reads nothing behind a 1xx that says `close`, which is about the final answer (RFC 9112 section 9.6).
_INTERIM = re.compile(rb"HTTP/1\.[01] 1(?!01)\d\d(?: [^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*\r\n")
_HOST_LINE = re.compile(rb"^Host:", re.IGNORECASE | re.MULTILINE)
_ORIGIN_LINE = re.compile(rb"^([A-Z]+) (/[^ \r\n]*) (HTTP/1\.[01])\r\n", re.MULTILINE)
_NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log crit;
events {{ worker_connections 1024; }}
http {{
  log_format seen escape=json '{{"port": $remote_port, "status": $status, "method": "$request_method",'
    ' "target": "$request_uri", "body": "$request_body"}}';
  access_log off; merge_slashes off; keepalive_requests 100000; client_max_body_size 0; client_body_buffer_size 256k;
  large_client_header_buffers 8 128k; client_body_temp_path {folder}/body; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port}; access_log {folder}/seen.log seen;
    location / {{ proxy_pass http://127.0.0.1:{behind}; proxy_http_version 1.1; proxy_set_header Connection ''; }}
  }}
  server {{ listen 127.0.0.1:{behind}; location / {{ return 200 'case=$http_x_case'; }} }}
}}
"""
_NODE = """
const server = require('http').createServer({maxHeaderSize: 1 << 20}, (request, answer) => {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    const body = Buffer.concat(pieces).toString('latin1');
    console.log(JSON.stringify({port: request.socket.remotePort, method: request.method, target: request.url, body}));
    answer.end();
  });
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
"""


class Disagreement(AssertionError):
    """Two readers found different things."""


def llhttp_rows(kind):
    """The messages of llhttp's own tests, where they are at hand."""
    folder = os.environ.get("KEYHOLE_VECTORS")
    if not folder:
        return []
    with tarfile.open(Path(folder) / "third-party" / "llhttp.tar.gz") as archive:
        lines = archive.extractfile("smuggling/llhttp_cases.jsonl").read().splitlines()
    rows = (row for row in map(json.loads, lines) if row["meta"]["type"].startswith(kind))
    return [base64.b64decode(row["raw_b64"]) for row in rows]


def request_corpus():
    """Requests to begin with."""
    host = b"Host: " + HOST.encode() + b"\r\n"
    ours = [data for data in Gate().corpus() if data[:5] != b"HTTP/"]
    theirs = [re.sub(rb"(HTTP/1\.1\r\n)", rb"\1" + host, raw) for raw in llhttp_rows("request")]
    theirs = [re.sub(rb"\A([A-Z]+) (?:url|[^ /]+)(?= HTTP)", rb"\1 /url", raw) for raw in theirs]
    second = b"POST /b HTTP/1.1\r\n" + host + b"Content-Length: 3\r\n\r\nxyzGET /c?d=e HTTP/1.1\r\n" + host + b"\r\n"
    legal = [
        b"%b /a HTTP/1.1\r\n%b%b\r\n%b%b" % (method, host, framing, body, second)
        for method in (b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PROPFIND")
        for framing, body in _BODIES
    ]
    return ours + theirs + legal * 8  # so that as many of those that are made pass as are refused


def answer_corpus():
    """Answers to begin with."""
    more = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 304 Not Modified\r\nETag: a\r\n\r\n",
    ]
    return [*corpora.raw("smuggling/own_responses.jsonl"), *llhttp_rows("response"), *more * 16]


def made(corpus, words, seed, number):
    """The input of a round: one of the corpus as it is, while there are any, and then what the seed makes of them."""
    rng = random.Random(f"{seed}/{number}")
    if number < len(corpus):
        return corpus[number], rng
    return Mutator(rng, corpus, words).one(), rng


@dataclass
class Relay:
    """Stands before nginx and writes down what comes; each connection has its own bytes, and a port towards nginx."""

    port: int
    streams: dict[int, bytearray] = field(default_factory=dict)
    open: set = field(default_factory=set)

    async def serve(self, reader, writer):
        try:
            theirs, ours = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            writer.close()
            return
        local = ours.get_extra_info("sockname")[1]
        raw = self.streams[local] = bytearray()
        self.open.add(local)
        await asyncio.gather(self._copy(reader, ours, raw), self._copy(theirs, writer, None))
        self.open.discard(local)

    @staticmethod
    async def _copy(reader, writer, raw):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if raw is not None:
                    raw += data
                writer.write(data)
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def free_port():
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextlib.contextmanager
def nginx(folder):
    """Run nginx; its port, and the file where it says what it has read."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise FileNotFoundError("nginx is not installed")
    config, port = Path(folder) / "nginx.conf", free_port()
    config.write_text(_NGINX.format(folder=folder, port=port, behind=free_port()))
    command = [program, "-p", folder, "-c", str(config)]
    with child(command, stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + PATIENCE
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                if process.poll() is not None or time.monotonic() > until:
                    raise ChildProcessError("nginx did not start")
                time.sleep(0.02)
            yield port, Path(folder) / "seen.log"
        finally:
            process.terminate()
            process.wait(60)


def readings_of(lines, encoding):
    """What a reader says that it has read, for each connection."""
    found = defaultdict(list)
    for line in lines:
        row = json.loads(line.decode(encoding))
        found[row["port"]].append(row)
    return found


def shown(row):
    """Method, target and body of a row."""
    return row["method"].encode("latin-1"), row["target"].encode("latin-1"), row["body"].encode("latin-1")


@dataclass
class Message:
    """A message as llhttp has read it."""

    method: bytes = b""
    target: bytes = b""
    status: int = 0
    names: list = field(default_factory=list)
    body: bytes = b""
    whole: bool = False


class Reader:
    """What llhttp reads in some bytes, until it refuses something.

    Attributes:
        found: the messages; the last one need not be whole.
        refused: it did not take all.
    """

    def __init__(self, raw, kind):
        self.found, self.refused = [], False
        self._parser = kind(self)
        self._requests = kind is httptools.HttpRequestParser
        try:
            for at in range(len(raw)):  # a byte at a time: what was read before an error counts
                self._parser.feed_data(raw[at : at + 1])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.refused = True

    def on_message_begin(self):
        self.found.append(Message())

    def on_url(self, url):
        self.found[-1].target += url

    def on_header(self, name, _value):
        if not self.found[-1].status:
            self.found[-1].names.append(name.lower())

    def on_headers_complete(self):
        if self._requests:
            self.found[-1].method = self._parser.get_method()
        else:
            self.found[-1].status = self._parser.get_status_code()

    def on_body(self, body):
        self.found[-1].body += body

    def on_message_complete(self):
        self.found[-1].whole = True


def known(method):
    """Does llhttp know this method? It refuses others, which are methods all the same (RFC 9110 section 9.1)."""
    return not Reader(method + b" / HTTP/1.1\r\n\r\n", httptools.HttpRequestParser).refused


def whole_requests(raw):
    """Method, target and body of each request in what was sent on, up to the first whose method llhttp knows not."""
    reader = Reader(raw, httptools.HttpRequestParser)
    whole = [(each.method, each.target, each.body) for each in reader.found if each.whole]
    if len(whole) < len(reader.found) - 1:
        raise Disagreement(f"a request in the middle is not whole: {raw!r}")
    return whole, reader.refused


def compare(streams, nginx_rows):
    """Everybody reads the same requests on each connection. The methods of what was read."""
    all_read = Counter()
    for port, raw in streams.items():
        whole, refused = whole_requests(bytes(raw))
        rows = nginx_rows.get(port, [])
        broken = [index for index, row in enumerate(rows) if row["status"] in {400, 408, 414, 499}]
        taken = [shown(row) for row in (rows[: broken[0]] if broken else rows)]
        both = min(len(taken), len(whole))
        if taken[:both] != whole[:both] or (broken and len(rows) > broken[0] + 1):
            raise Disagreement(f"nginx read {rows} in {bytes(raw)!r}")
        if refused and not (broken and len(taken) == both) and (len(taken) == both or known(taken[both][0])):
            raise Disagreement(f"llhttp refuses what was sent on: {bytes(raw)!r}")
        if not broken and not refused and len(taken) != len(whole):
            raise Disagreement(f"nginx read {len(taken)} requests of {len(whole)} in {bytes(raw)!r}")
        all_read.update(method for method, _, _ in (taken if len(taken) > len(whole) else whole))
    return all_read


def compare_node(program, streams):
    """Node reads the same requests in what was sent on. How many it has read, without the last of each connection."""
    with child([program, "-e", _NODE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        port, sent = int(process.stdout.readline()), {}
        for raw in map(bytes, streams.values()):
            whole, refused = whole_requests(raw)
            if refused or Reader(raw, httptools.HttpRequestParser).found[len(whole) :]:
                continue
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
                sent[client.getsockname()[1]] = [*whole, (b"GET", b"/last", b"")], raw
                client.sendall(raw + b"GET /last HTTP/1.1\r\nHost: last\r\nConnection: close\r\n\r\n")
                with contextlib.suppress(OSError):
                    while client.recv(65536):
                        pass
        process.terminate()
        rows = readings_of(process.stdout.read().splitlines(), "utf-8")
    for local, (whole, raw) in sent.items():
        read = [shown(row) for row in rows.get(local, [])]
        if read != whole:
            at = next((at for at, pair in enumerate(zip(read, whole, strict=False)) if pair[0] != pair[1]), len(read))
            raise Disagreement(
                f"Node read {read[at : at + 1]} where {whole[at : at + 1]} was, of {len(whole)}: {raw!r}"
            )
    return sum(len(whole) - 1 for whole, _ in sent.values())


def marked(raw, number):
    """The same with a header that says which round it is."""
    return _HOST_LINE.sub(b"X-Case: %d\r\nHost:" % number, raw)


def in_absolute_form(raw, token):
    """The same as a proxy's own port expects it."""
    return _ORIGIN_LINE.sub(rb"\1 http://%b\2 \3\r\n%b" % (HOST.encode(), basic(token)), raw)


def as_http2(raw, rng):
    """Fields and body of the first request in some bytes, as a client of HTTP/2 could say them."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    method, _, rest = first.partition(b" ")
    fields = [(b":method", method), (b":scheme", b"http"), (b":path", rest.rpartition(b" HTTP/")[0] or rest)]
    fields.insert(2, (b":authority", HOST.encode()))
    for line in lines:
        name, _, value = line.partition(b":")
        name = name if rng.random() < 0.05 else name.lower()
        if name == b"host" and rng.random() < 0.5:
            continue
        if name in {b"transfer-encoding", b"connection", b"content-length", b"upgrade"} and rng.random() < 0.9:
            continue
        fields.append((name, value if rng.random() < 0.05 else value.strip()))
    return fields, body


async def converse(streams, raw, *, end=True):
    """Send, end our side, which bounds how long is waited for an answer, and take what comes."""
    reader, writer = streams
    received = b""
    try:
        writer.write(raw)
        if end:
            writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            while data := await reader.read(65536):
                received += data
    except TimeoutError:
        raise Disagreement(f"it never came to an end: {raw!r} {received!r}") from None
    except ConnectionError:
        pass
    finally:
        writer.close()
    return received


class Requests:
    """Inputs of clients, with nginx as the upstream."""

    def __init__(self, seed, port, log):
        self.seed, self.port, self.log, self.corpus = seed, port, log, request_corpus()
        self.outcomes, self.read, self._at = Counter(), 0, 0

    async def batch(self, numbers, *, together=8):
        """Play some rounds; then compare what everybody has read. Raises ``Disagreement``."""
        relay, gate = Relay(self.port), asyncio.Semaphore(together)
        async with Stack(Config()) as stack:
            server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
            stack.keyhole.dialer.dial = _dials(server.sockets[0].getsockname()[1])
            await stack.secret("stripe/key")
            await stack.service("plain", hosts=[f"{HOST}:80"], schemes=["http"], allow_addresses=LOOPBACK)
            token = await stack.agent("coder", "plain")

            async def one(number):
                async with gate:
                    await self._play(stack, token, number)

            async with asyncio.TaskGroup() as group:
                for number in numbers:
                    group.create_task(one(number))
            stack.keyhole.pool.distrust()  # nobody keeps a connection, so nginx has read all of each
            async with asyncio.timeout(PATIENCE):
                while relay.open:  # noqa: ASYNC110 - sockets of many tasks
                    await asyncio.sleep(0.01)
            records = await stack.records()
            server.close()
        read = compare(relay.streams, readings_of(self._new(), "latin-1"))
        intents = Counter(record["method"].encode() for record in records if record["phase"] == "intent")
        if read - intents:
            raise Disagreement(f"requests without an intent: {read - intents}")
        self.read += read.total()
        return relay.streams

    async def _play(self, stack, token, number):
        raw, rng = made(self.corpus, Gate.words, self.seed, number)
        form = FORMS[(number + self.seed) % len(FORMS)]
        raw = marked(raw, number)
        if form == "h2":
            received = await _http2(await stack.tunnel(token, port=80, tls=False), raw, rng)
        elif form == "absolute":
            received = await converse(await stack.open(), in_absolute_form(raw, token))
        else:
            received = await converse(await stack.tunnel(token, port=80, tls=False), raw)
        for case in re.findall(rb"case=(\d+)", received):
            if int(case) != number:
                raise Disagreement(f"round {number} got the answer of {int(case)}: {raw!r}")
        status = re.match(rb"(?:HTTP/1\.1 )?(\d+)", received)
        self.outcomes[form, status[1].decode() if status else "ended"] += 1

    def _new(self):
        data = self.log.read_bytes() if self.log.exists() else b""
        lines, self._at = data[self._at :].splitlines(), len(data)
        return lines


def _dials(port):
    async def dial(_host, _port, _guard, *, timeout):  # noqa: ASYNC109 - as the dialler has it
        sock = socket.socket()
        sock.setblocking(False)
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return sock

    return dial


async def _http2(streams, raw, rng):
    fields, body = as_http2(raw, rng)
    client = Client(streams)
    client.send(PREFACE + settings())
    stream = client.ask(fields, body or None)
    with contextlib.suppress(ConnectionError):
        await client.answer(stream)
    client.writer.transport.abort()
    await client.end()
    answer = client.answers[stream]
    return b"%d %b" % (answer.status, answer.body) if answer.head else b""


class Hostile(Upstream):
    """Answers each request with the bytes of its round, and ends a moment later; ``/good/`` is answered well."""

    def __init__(self, of):
        super().__init__()
        self.of = of

    async def _one(self, reader, writer, raw):
        target = Received(await reader.readuntil(b"\r\n\r\n")).target
        number = int(target.rpartition(b"/")[2])
        if target.startswith(b"/good/"):
            body = b"mine%d" % number
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
            return True
        writer.write(self.of(number))
        await writer.drain()
        with contextlib.suppress(TimeoutError):  # long enough to be taken for another call's, short enough to wait for
            async with asyncio.timeout(0.03):
                return await self._one(reader, writer, raw)
        return False


class Answers:
    """Inputs of upstreams, and what becomes of them at a client."""

    def __init__(self, seed):
        self.seed, self.corpus = seed, answer_corpus()
        self.outcomes = Counter()

    async def batch(self, numbers, *, together=8):
        """Play some rounds. Raises ``Disagreement``."""
        gate = asyncio.Semaphore(together)
        async with Stack(Config(), upstream=Hostile(self.of)) as stack:
            await stack.secret("stripe/key")
            await stack.service("plain", hosts=[f"{HOST}:{stack.plain}"], schemes=["http"])
            token = await stack.agent("coder", "plain")

            async def one(number):
                async with gate:
                    await self._play(stack, token, number)

            async with asyncio.TaskGroup() as group:
                for number in numbers:
                    group.create_task(one(number))

    def of(self, number):
        """The bytes of a round."""
        return made(self.corpus, _ANSWER_WORDS, self.seed, number)[0]

    async def _play(self, stack, token, number):
        raw = self.of(number)
        self._judge(raw, await self._ask(stack, token, f"/{number}"), number)
        mine = await self._ask(stack, token, f"/good/{number}")
        if not mine.endswith(b"mine%d" % number) or not mine.startswith(b"HTTP/1.1 200 "):
            raise Disagreement(f"round {number}: the next call got {mine!r} after {raw!r}")

    @staticmethod
    async def _ask(stack, token, path):
        said = f"GET {path} HTTP/1.1\r\nHost: {HOST}:{stack.plain}\r\nConnection: close\r\n\r\n".encode()
        return await converse(await stack.tunnel(token, port=stack.plain, tls=False), said, end=False)

    def _judge(self, raw, received, number):
        got = by_llhttp(received, httptools.HttpResponseParser)
        if not got or len(got) > 1:
            raise Disagreement(f"round {number}: the client got {received!r} for {raw!r}")
        if b"\r\nX-Keyhole-Error: " in received or not got[0].whole:
            self.outcomes["refused" if got[0].whole else "broken off"] += 1
            return
        final = first_final(raw)
        if final is None:
            raise Disagreement(f"round {number}: llhttp refuses what the client got as a whole: {raw!r} {received!r}")
        status, body, headers = final
        if got[0].start != (status,) or (got[0].body != body and b"content-encoding" not in headers):
            raise Disagreement(f"round {number}: the client got {received!r} for {raw!r}, where llhttp reads {final}")
        self.outcomes["whole", status] += 1


_ANSWER_WORDS = (*Gate.words, b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 No\r\n")


def first_final(raw):
    """Status, body and names of headers of the first answer that is no 1xx, as llhttp reads it; ``None`` for none."""
    while interim := _INTERIM.match(raw):
        raw = raw[interim.end() :]
    for said in (raw, _BAD_SPACE.sub(rb"\1;", raw)):
        for answer in Reader(said, httptools.HttpResponseParser).found:
            framed = {b"content-length", b"transfer-encoding"}.intersection(answer.names)
            if answer.status >= 200 and (answer.whole or not framed):
                return answer.status, answer.body, answer.names
    return None


def _flat(group):
    for error in group.exceptions:
        yield from _flat(error) if isinstance(error, BaseExceptionGroup) else (error,)


def campaign(seed, rounds, *, start=0, batch=BATCH, node=True, report=lambda _: None):
    """Play so many rounds of each kind. Returns both kinds. Raises ``Disagreement``."""
    program = shutil.which("node") if node else None
    with tempfile.TemporaryDirectory() as folder, nginx(folder) as (port, log):
        requests, answers = Requests(seed, port, log), Answers(seed)
        for first in range(start, start + rounds, batch):
            numbers = range(first, min(first + batch, start + rounds))
            try:
                streams = asyncio.run(requests.batch(numbers))
                if program:
                    compare_node(program, streams)
                asyncio.run(answers.batch(numbers))
            except* Disagreement as errors:
                first_error = next(iter(_flat(errors)))
                first_error.add_note(f"seed {seed}, rounds {numbers.start} to {numbers.stop - 1}")
                raise first_error from None
            report(f"{numbers.stop:,} rounds, {requests.read:,} requests were sent on")
    return requests, answers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", type=int, help="one round")
    options = parser.parse_args()
    start, rounds = (0, options.rounds) if options.only is None else (options.only, 1)
    try:
        kinds = campaign(options.seed, rounds, start=start, report=lambda line: print(line, flush=True))
    except Disagreement as error:
        print(error, *getattr(error, "__notes__", ()), sep="\n")
        return 1
    for kind in kinds:
        print({str(key): number for key, number in kind.outcomes.most_common()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
