"""Let a server that is a process of its own have many peers at once, for long, and stop it in the middle of its work.

    python tests/campaigns/soak.py --streams 1000 --minutes 30 --tunnels 5000 --slow 2000

Three things are looked at. Streams: so many event streams at once, scrubbed, an event a second each; none may be lost
or come out of order, and memory must not grow after the first sixth of the time. A crowd: so many tunnels that are idle
and so many clients that drip their requests; somebody new is served within a second, and every file descriptor is free
again when they have gone. The end: SIGTERM while calls are under way; each of them ends well or visibly, the server
exits with 0 within ten seconds, and each intent in its journal has an outcome.
"""

import argparse
import asyncio
import base64
import contextlib
import resource
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cli_driver import environment, serving, spawn

HOST = "soak.test"
SECRET = "value-of-the-soak-4711"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DRAIN = 10.0
AT_ONCE = 64  # connections that are opened at the same time


@dataclass
class Upstream:
    """Answers ``/events/N`` with so many events, ``/slow`` after a moment, and everything else at once."""

    every: float
    held: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0

    async def serve(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                target = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1]
                if target.startswith(b"/events/"):
                    await self._events(writer, int(target.rpartition(b"/")[2]))
                    continue
                if target == b"/slow":
                    self.waiting += 1
                    await self.held.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                await writer.drain()
                break  # so that no connection is kept for later, and descriptors can be counted
        writer.close()

    async def _events(self, writer, number):
        writer.write(HEAD)
        begun = time.monotonic()
        for event in range(number):
            data = b"data: %d %s\n\n" % (event, SECRET.encode())
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await writer.drain()
            await asyncio.sleep(max(0.0, begun + (event + 1) * self.every - time.monotonic()))
        writer.write(b"0\r\n\r\n")
        await writer.drain()


class Server:
    """The process, and what a client of it needs."""

    def __init__(self, process, started, token):
        self.process = process
        self.env = environment(KEYHOLE_ADDR=started["api"], KEYHOLE_TOKEN=token)
        host, _, port = started["proxy"].rpartition("/")[2].rpartition(":")
        self.proxy, self.port, self.line = (host, int(port)), 0, b""

    def prepare(self, port):
        """Bind a service to the upstream and give an agent its token."""
        self.port, address = port, f"{HOST}:{port}"
        bound = ["--host", address, "--scheme", "http", "--secret", "soak/key", "--bearer"]
        for args in (
            ("set", "soak/key"),
            ("agent", "add", "soaked"),
            ("service", "add", "soak", *bound, "--allow-address", "127.0.0.1/32"),
            ("grant", "soaked", "soak"),
        ):
            done = spawn(*args, stdin=SECRET.encode(), env=self.env)
            assert done.code == 0, done
        token = spawn("agent", "token", "soaked", "--json", env=self.env).json["token"]
        self.line = b"Proxy-Authorization: Basic " + base64.b64encode(f"a:{token}".encode()) + b"\r\n"

    @property
    def memory(self):
        """Resident bytes."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024

    @property
    def files(self):
        """Open file descriptors."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def request(self, path):
        """A request for the proxy's own port."""
        said = f"GET http://{HOST}:{self.port}{path} HTTP/1.1\r\nHost: {HOST}:{self.port}\r\n".encode()
        return said + self.line + b"Connection: close\r\n\r\n"

    async def ask(self, path):
        """All that comes back."""
        reader, writer = await asyncio.open_connection(*self.proxy)
        writer.write(self.request(path))
        received = b""
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                received += piece
        writer.close()
        return received


async def streams(server, number, events, report):
    """So many event streams at once; how much memory was held after the first sixth, and at the end."""
    held = []

    async def one():
        reader, writer = await asyncio.open_connection(*server.proxy)
        writer.write(server.request(f"/events/{events}"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        expected, pending = 0, b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            pending += await reader.readexactly(size)
            await reader.readexactly(2)
            *whole, pending = pending.split(b"\n\n")
            for event in whole:
                assert event == b"data: %d %s" % (expected, b"*" * len(SECRET)), event
                expected += 1
                if expected in {max(1, events // 6), events}:
                    held.append(server.memory)
        assert (expected, pending) == (events, b"")
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(number):
            group.create_task(one())
    early, late = max(held[:number]), max(held[number:])
    report(f"streams: {number} of {events} events; memory {early / 1e6:.1f} MB, at the end {late / 1e6:.1f} MB")
    return early, late


async def crowd(server, tunnels, slow, report):
    """So many idle tunnels and dripping clients; seconds until somebody new was served, and descriptors left over."""
    await server.ask("/")
    before, gate, writers = server.files, asyncio.Semaphore(AT_ONCE), []

    async def tunnel():
        async with gate:
            reader, writer = await asyncio.open_connection(*server.proxy)
            writers.append(writer)
            authority = f"{HOST}:{server.port}".encode()
            writer.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (authority, authority, server.line))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            writer.write(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % authority)  # one call, and then nothing
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")

    async def drip():
        async with gate:
            _, writer = await asyncio.open_connection(*server.proxy)
            writers.append(writer)
        with contextlib.suppress(OSError):
            for byte in b"GET http://soak.test/ HTTP/1.1\r\nX: " + b"a" * 10_000:
                writer.write(bytes((byte,)))
                await writer.drain()
                await asyncio.sleep(1)

    dripping = [asyncio.ensure_future(drip()) for _ in range(slow)]
    await asyncio.gather(*(tunnel() for _ in range(tunnels)))
    begun = time.monotonic()
    answer = await server.ask("/")
    seconds = time.monotonic() - begun
    assert answer.endswith(b"ok"), answer
    for task in dripping:
        task.cancel()
    await asyncio.gather(*dripping, return_exceptions=True)
    for writer in writers:
        writer.transport.abort()
    until = time.monotonic() + 60
    while (left := server.files - before) > 0 and time.monotonic() < until:  # noqa: ASYNC110 - of another process
        await asyncio.sleep(0.05)
    report(f"crowd: {tunnels} tunnels, {slow} dripping; served in {seconds * 1000:.0f} ms; {left} descriptors left")
    return seconds, left


async def end(server, upstream, number, report):
    """SIGTERM while so many calls are under way; the exit code, seconds, and how the calls ended."""
    calls = [asyncio.ensure_future(server.ask("/slow" if call % 2 else "/events/100000")) for call in range(number)]
    async with asyncio.timeout(60):
        while upstream.waiting < number // 2:  # noqa: ASYNC110 - sockets of many tasks
            await asyncio.sleep(0.01)
    begun = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    upstream.held.set()
    code = await asyncio.to_thread(server.process.wait, 60)
    seconds, answers = time.monotonic() - begun, await asyncio.gather(*calls)
    for answer in answers:
        head, _, body = answer.partition(b"\r\n\r\n")
        chunked = b"chunked" in head
        assert SECRET.encode() not in answer
        assert not (chunked and body.endswith(b"0\r\n\r\n")), "a stream that was cut looks whole"
    well = sum(answer.endswith(b"ok") for answer in answers)
    report(f"end: exit {code} after {seconds:.1f} s; {well} of {number // 2} short calls ended well")
    return code, seconds, well


def open_intents(env):
    """How many calls the journal has, and how many of them have no outcome."""
    done = spawn("audit", "query", "--operation", "use", "--limit", "100000", "--json", env=env)
    assert done.code == 0, done
    records = done.json
    ends = {record["id"] for record in records if record["phase"] == "outcome"}
    begun = {record["id"] for record in records if record["phase"] == "intent"}
    return len(begun), len(begun - ends)


def campaign(number, events, tunnels, slow, calls, *, every=1.0, drain=DRAIN, report=print):
    """Run all three; what they found, and what the journal says of it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with tempfile.TemporaryDirectory() as home:
            env = environment(
                KEYHOLE_HOME=home, KEYHOLE_VAULT=f"sqlite:{home}/vault.db", KEYHOLE_SEAL=f"keyfile:{home}/key"
            )
            made = spawn("init", "--seal", f"keyfile:{home}/key", "--make-keyfile", "--json", env=env)
            assert made.code == 0, made
            limits = {
                "KEYHOLE_RESOLVE": f"{HOST}:127.0.0.1",
                "KEYHOLE_HEAD_TIMEOUT": "600",
                "KEYHOLE_DRAIN": f"{drain:g}",
            }
            with serving(env=env | limits, real=True) as (process, started):
                server = Server(process, started, made.json["root_token"])
                found = asyncio.run(_all(server, number, events, tunnels, slow, calls, every, report))
            begun, without = open_intents(env)
            report(f"journal: {begun} calls, {without} without an outcome")
            return *found, (begun, without)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _all(server, number, events, tunnels, slow, calls, every, report):
    upstream = Upstream(every)
    listener = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, backlog=4096)
    await asyncio.to_thread(server.prepare, listener.sockets[0].getsockname()[1])
    found = (
        await streams(server, number, events, report),
        await crowd(server, tunnels, slow, report),
        await end(server, upstream, calls, report),
    )
    listener.close()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--tunnels", type=int, default=5000)
    parser.add_argument("--slow", type=int, default=2000)
    parser.add_argument("--calls", type=int, default=200)
    options = parser.parse_args()
    found = campaign(options.streams, int(options.minutes * 60), options.tunnels, options.slow, options.calls)
    (early, late), (seconds, left), (code, drained, well), (_, without) = found
    ended = code == 0 and drained <= DRAIN + 1 and well and not without
    return not (late <= early * 1.05 and seconds <= 1 and left <= 0 and ended)


if __name__ == "__main__":
    sys.exit(main())
