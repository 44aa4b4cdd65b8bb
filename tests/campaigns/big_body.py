"""Send one body of many gigabytes up and one down through the proxy, and look at its memory and at each byte.

    python tests/campaigns/big_body.py --gigabytes 10 --seed 1

Both go through a tunnel with TLS on both sides. In the one that comes down the upstream says the secret that it was
given, also across the seams of what it writes at once; it must come masked, and everything else as it is. What the
proxy's process holds is looked at ten times a second; client and upstream are in another one.
"""

import argparse
import asyncio
import contextlib
import hashlib
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from campaigns.stand import SECRET, standing

PIECE = 1 << 20
ROOM = 16.0  # megabytes that memory may grow by, whatever the size of a body
_BLOCKS = 8
_SAID_EVERY = 16  # pieces


@dataclass(frozen=True)
class Run:
    """What was measured of one body."""

    what: str
    whole: bool
    megabytes: int
    seconds: float
    first: float
    highest: float

    @property
    def good(self):
        return self.whole and self.highest - self.first <= ROOM

    def __str__(self):
        said = "equal" if self.whole else "DIFFERENT"
        rate = self.megabytes / self.seconds
        held = f"{self.first:.1f} MB before, {self.highest:.1f} MB at most"
        return f"{self.what:9} {self.megabytes} MiB  digest {said}  {rate:.0f} MiB/s  the proxy held {held}"


class Content:
    """A body of as many pieces of a mebibyte, the same for the same seed; nothing in it can be compressed."""

    def __init__(self, seed, count):
        chance = random.Random(seed)  # to be had again
        self._blocks = [chance.randbytes(PIECE) for _ in range(_BLOCKS)]
        self._order = [chance.randrange(_BLOCKS) for _ in range(count)]
        self.length = count * PIECE

    def pieces(self, said=b""):
        """Its pieces; in some of them ``said`` stands in the middle and across the seam to the next."""
        half, left = len(said) // 2, b""
        for number, block in enumerate(self._order):
            piece, tells = self._blocks[block], said and number % _SAID_EVERY == 0
            if left:
                piece, left = left + piece[len(left) :], b""
            if tells:
                middle = PIECE // 2
                piece = piece[:middle] + said + piece[middle + len(said) :]
                if number + 1 < len(self._order):
                    piece, left = piece[:-half] + said[:half], said[half:]
            yield piece

    def digest(self, said=b""):
        found = hashlib.sha256()
        for piece in self.pieces(said):
            found.update(piece)
        return found.digest()


@contextlib.asynccontextmanager
async def _watching(stand):
    """What the proxy holds: at first, and at most until now."""
    held = [stand.rss()]

    async def look():
        while True:
            held.append(stand.rss())
            await asyncio.sleep(0.1)

    looking = asyncio.create_task(look())
    try:
        yield held
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def campaign(count, seed, *, real=True, report=print):
    """Send bodies of ``count`` mebibytes; what was measured of each."""
    content, got = Content(seed, count), []

    async def answer(head, reader, writer):
        if head.startswith(b"POST"):
            got.append(await _digest(reader, content.length))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % content.length)
        for piece in content.pieces(SECRET.encode()):
            writer.write(piece)
            await writer.drain()

    async with standing(answer, real=real) as stand:
        reader, writer = await stand.connect()
        runs = []
        async with _watching(stand) as held:
            start = time.monotonic()
            writer.write(stand.head("POST", "/up", f"Content-Length: {content.length}"))
            for piece in content.pieces():
                writer.write(piece)
                await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            whole = head.startswith(b"HTTP/1.1 200 ") and got == [content.digest()]
            runs.append(Run("upload", whole, count, time.monotonic() - start, held[0], max(held)))
            report(str(runs[-1]))
        async with _watching(stand) as held:
            start = time.monotonic()
            writer.write(stand.head("GET", "/down"))
            head = await reader.readuntil(b"\r\n\r\n")
            digest = await _digest(reader, content.length)
            seconds = time.monotonic() - start
            masked = content.digest(b"*" * len(SECRET))
            runs.append(Run("download", digest == masked, count, seconds, held[0], max(held)))
            report(str(runs[-1]))
        writer.close()
    return runs


async def _digest(reader, length):
    found, left = hashlib.sha256(), length
    while left:
        piece = await reader.read(min(left, PIECE))
        assert piece, "the body broke off"
        found.update(piece)
        left -= len(piece)
    return found.digest()


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    runs = asyncio.run(campaign(int(options.gigabytes * 1024), options.seed))
    sys.exit(0 if all(run.good for run in runs) else 1)


if __name__ == "__main__":
    main()
