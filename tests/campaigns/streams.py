"""Keep event streams open through the proxy, for long, and look at its memory and at each event.

    python tests/campaigns/streams.py --streams 1000 --minutes 30

Each stream is a tunnel of its own with TLS on both sides, and gets an event a second, which has its number. Each minute
says what the proxy's process holds. Lost is an event whose number was passed over, or a stream that ended; memory is
flat when the proxy holds no more at the end than `ROOM` above what it held when all streams had been open for a while.
"""

import argparse
import asyncio
import contextlib
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from campaigns.stand import standing

ROOM = 8.0  # megabytes
FEWEST = 2  # events of a stream, however soon all are told to end
_AT_ONCE = 20  # streams that are opened at the same time
_SETTLED = 60.0  # seconds after which memory is looked at first, at most a quarter of the whole


@dataclass
class Found:
    """What was seen.

    Attributes:
        events: received in all.
        lost: what was passed over.
        broken: streams that ended.
        held: megabytes of the proxy: when all streams had been open for a while, and then each time.
    """

    events: int = 0
    lost: int = 0
    broken: int = 0
    held: list[float] = field(default_factory=list)

    @property
    def grown(self):
        """Megabytes at the end above those at first."""
        return self.held[-1] - self.held[0]

    @property
    def good(self):
        """Nothing is lost, and memory is flat."""
        return not self.lost and not self.broken and self.grown <= ROOM


async def campaign(streams, seconds, *, gap=1.0, every=60.0, real=True, report=print):
    """Run it.

    Args:
        streams: how many.
        seconds: for how long all of them are open.
        gap: seconds between two events of a stream.
        every: seconds between two looks at memory.
        real: the server is started as users start it.
        report: told what is seen.
    """
    found, ending = Found(), asyncio.Event()

    async def answer(_head, _reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        number = 0
        while number < FEWEST or not ending.is_set():
            writer.write(b"data: %d\n\n" % number)
            await writer.drain()
            number += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), gap)
        writer.write(b"data: end\n\n")
        await writer.drain()
        raise ConnectionResetError

    async with standing(answer, real=real) as stand:
        room, opened = asyncio.Semaphore(_AT_ONCE), []

        async def follow():
            async with room:
                reader, writer = await stand.connect()
                writer.write(stand.head("GET", "/events", "Accept: text/event-stream"))
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 "), head
                pieces = _events(reader, chunked=b"chunked" in head.lower())
                expected = 0
                first = await anext(pieces)
                opened.append(writer)
            try:
                async for event in _after(first, pieces):
                    if event == b"data: end":
                        return
                    number = int(event.removeprefix(b"data: "))
                    found.lost += number - expected
                    expected = number + 1
                    found.events += 1
                found.broken += 1
            except (ConnectionError, asyncio.IncompleteReadError):
                found.broken += 1
            finally:
                writer.close()

        following = [asyncio.create_task(follow()) for _ in range(streams)]
        while len(opened) < streams:
            failed = [task for task in following if task.done() and task.exception()]
            assert not failed, failed[0].exception()
            await asyncio.sleep(0.05)
        report(f"{streams} streams are open")
        begun = time.monotonic()
        await asyncio.sleep(min(_SETTLED, seconds / 4))
        while True:
            found.held.append(stand.rss())
            passed = time.monotonic() - begun
            report(
                f"{passed:6.0f} s  {found.held[-1]:7.1f} MB  {found.events} events  {found.lost} lost  "
                f"{found.broken} broken"
            )
            if passed >= seconds:
                break
            await asyncio.sleep(min(every, seconds - passed))
        ending.set()
        await asyncio.gather(*following)
    return found


async def _after(first, rest):
    yield first
    async for each in rest:
        yield each


async def _events(reader, *, chunked):
    """The events of a body, without what ends them."""
    kept = b""
    while True:
        if chunked:
            size = int(await reader.readuntil(b"\r\n"), 16)
            piece = await reader.readexactly(size)
            await reader.readexactly(2)
        else:
            piece = await reader.read(65536)
        if not piece:
            return
        *events, kept = (kept + piece).split(b"\n\n")
        for event in events:
            yield event


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--gap", type=float, default=1.0, help="seconds between two events of a stream")
    options = parser.parse_args()
    found = asyncio.run(campaign(options.streams, options.minutes * 60, gap=options.gap))
    print(f"memory {found.grown:+.1f} MB, {found.events} events, {found.lost} lost, {found.broken} streams broken")
    sys.exit(0 if found.good else 1)


if __name__ == "__main__":
    main()
