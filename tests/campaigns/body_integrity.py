"""Send bodies through the whole product in both directions, and compare hashes and memory.

    python tests/campaigns/body_integrity.py --megabytes 1024

For every way of attaching a secret that does not set a field of the body, and for placeholders in bodies: an upload,
declared and chunked, and a download of that many megabytes, with every byte value in them. Client, proxy and server
share one process, so what its memory grows by bounds what the proxy holds.
"""

import argparse
import asyncio
import hashlib
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from broker.stack import HOST, SECRET, Received, Stack, Upstream

TEXT = "sk-holder-0001"
PIECE = 1 << 20
ROOM = 64  # megabytes that memory may grow by, whatever the size of a body
WAYS = {
    "bearer": {"kind": "bearer"},
    "query": {"kind": "query", "name": "key"},
    "path": {"kind": "path", "text": TEXT},
    "cookie": {"kind": "cookie", "name": "sid"},
    "placeholder in a header": {"kind": "placeholder", "text": TEXT},
    "placeholder in a body": {"kind": "placeholder", "text": TEXT, "in": ["body"]},
}


@dataclass(frozen=True)
class Run:
    """What was measured of one body."""

    way: str
    what: str
    whole: bool
    megabytes: float
    seconds: float
    grown: float

    def __str__(self):
        rate = self.megabytes / self.seconds
        said = "equal" if self.whole else "DIFFERENT"
        return f"{self.way:24} {self.what:18} hash {said}  {rate:6.0f} MB/s  memory +{self.grown:.0f} MB"


class Hashing(Upstream):
    """Hashes what it receives, and answers with a long body where it is asked for one."""

    def __init__(self, answer):
        super().__init__()
        self.hash = hashlib.sha256()
        self.answer = answer

    async def _one(self, reader, writer, raw):
        request = Received(await reader.readuntil(b"\r\n\r\n"))
        self.requests = [request]
        self.hash = hashlib.sha256()
        async for piece in body_of(reader, request):
            self.hash.update(piece)
        if request.method == "POST":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (PIECE * self.answer.times))
            for piece in self.answer.pieces():
                writer.write(piece)
                await writer.drain()
        await writer.drain()
        return True


async def body_of(reader, request):
    """The pieces of a body."""
    fields = dict(request.headers)
    left = int(fields.get(b"content-length", b"0"))
    while left:
        piece = await reader.read(min(left, PIECE))
        assert piece, "the body broke off"
        left -= len(piece)
        yield piece
    if fields.get(b"transfer-encoding") == b"chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            while size:
                piece = await reader.read(min(size, PIECE))
                assert piece, "the body broke off"
                size -= len(piece)
                yield piece
            await reader.readexactly(2)
        await reader.readexactly(2)


@dataclass(frozen=True)
class Content:
    """A body of as many megabytes, with every byte value."""

    times: int
    marked: bytes = b""

    def pieces(self):
        """Its pieces, each of a megabyte; ``marked`` stands across the seam of two of them and in the middle."""
        plain = bytes(range(256)) * (PIECE // 256)
        for number in range(self.times):
            piece = plain
            if self.marked:
                half = len(self.marked) // 2
                tail = self.marked[:half] if number + 1 < self.times else b""
                head = self.marked[half:] if number else b""
                piece = head + piece[len(head) : PIECE - len(tail)] + tail
            yield piece


def memory():
    """Megabytes that the process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def upload(stack, streams, way, content, expected, *, chunked, headers=b""):
    """Send a body up, and compare."""
    reader, writer = streams
    before, start = memory(), time.monotonic()
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % (content.times * PIECE)
    head = f"POST /up/{TEXT} HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\n".encode()
    writer.write(head + headers + length + b"\r\n\r\n")
    for piece in content.pieces():
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        await writer.drain()
    if chunked:
        writer.write(b"0\r\n\r\n")
    answer = await reader.readuntil(b"\r\n\r\n")
    whole = answer.startswith(b"HTTP/1.1 200 ") and stack.upstream.hash.digest() == expected
    said = "upload, chunked" if chunked else "upload, declared"
    return Run(way, said, whole, content.times, time.monotonic() - start, memory() - before)


async def download(stack, streams, way, content, expected):
    """Ask for a body, and compare."""
    reader, writer = streams
    before, start = memory(), time.monotonic()
    writer.write(f"GET /down/{TEXT} HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\n\r\n".encode())
    answer = Received(await reader.readuntil(b"\r\n\r\n"))
    found = hashlib.sha256()
    async for piece in body_of(reader, answer):
        found.update(piece)
    whole = found.digest() == expected
    return Run(way, "download", whole, content.times, time.monotonic() - start, memory() - before)


def digest(pieces):
    """SHA-256 of pieces."""
    found = hashlib.sha256()
    for piece in pieces:
        found.update(piece)
    return found.digest()


def digest_replaced(content):
    """SHA-256 of a body with its marks replaced, made without the code under test."""
    found = hashlib.sha256()
    held = b""
    for piece in content.pieces():
        whole = (held + piece).replace(content.marked, SECRET.encode())
        keep = len(content.marked) - 1
        found.update(whole[:-keep])
        held = whole[-keep:]
    found.update(held)
    return found.digest()


async def campaign(megabytes, report=print, ways=tuple(WAYS)):
    """Run it; the runs."""
    content = Content(megabytes)
    expected = digest(content.pieces())
    marked = Content(megabytes, TEXT.encode())
    replaced = digest_replaced(marked)
    runs = []

    def add(run):
        runs.append(run)
        report(str(run))

    async with Stack(upstream=Hashing(content)) as stack:
        for number, way in enumerate(ways):
            name = f"s{number}"
            await stack.secret(f"{name}/key")
            await stack.service(name, secret=f"{name}/key", inject=WAYS[way])
            streams = await stack.tunnel(await stack.agent(name, name))
            for chunked in (False, True):
                add(await upload(stack, streams, way, content, expected, chunked=chunked))
            add(await download(stack, streams, way, content, expected))
            if way == "placeholder in a body":
                for chunked in (False, True):
                    add(await upload(stack, streams, "the same, replaced", marked, replaced, chunked=chunked))
            streams[1].close()
            await stack.ask("delete", f"services/{name}")
    return runs


def main():
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--way", action="append", choices=WAYS)
    chosen = parser.parse_args()
    runs = asyncio.run(campaign(chosen.megabytes, ways=tuple(chosen.way or WAYS)))
    wrong = [run for run in runs if not run.whole or run.grown > ROOM]
    print(f"{len(runs)} bodies, {len(wrong)} wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
