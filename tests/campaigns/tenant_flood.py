"""One tenant floods, another works on: what the quiet one notices.

    python tests/campaigns/tenant_flood.py --seconds 60 --clients 64
    python tests/campaigns/tenant_flood.py --flood kept
    python tests/campaigns/tenant_flood.py --flood tunnels

Org ``flood`` does all at once, as fast as it can: tunnels to new names, requests in tunnels, large bodies that have to
be held, bodies and heads that drip, connections that say nothing, logins with wrong passwords. Meanwhile the agent of
org ``quiet`` makes calls at a steady rate, on a kept tunnel and on new ones, and logs in now and then. Counted are its
failures, of which there must be none, and how long its calls took while nothing else went on and during the flood; and,
because that says more on a machine that is busy, how many calls of the flood were answered meanwhile.

``--flood kept`` makes nothing but calls on kept connections, ``--flood tunnels`` nothing but calls with a tunnel each.

The order of what each client does comes from ``--seed``. Keyhole, its upstream and all clients share one process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from broker.stack import HOST, Stack, Streams, basic
from keyhole.config import Config
from keyhole.core.errors import KeyholeError, RateLimited
from keyhole.core.request import Anonymous, Operation, Request

SIGNED = {"kind": "hmac", "message": "{body}", "header": "x-signature"}
PASSWORD = "correct horse battery staple"


@dataclass
class Report:
    """What came of it.

    Attributes:
        quiet: seconds of the quiet org's calls before the flood.
        during: the same during the flood.
        passed: by how many calls of the flood each of these was passed.
        failures: what went wrong for the quiet org, in words.
        logins: how many of its logins went well.
        flooded: what the flood did, and how it was answered.
        left: what was still counted for anybody at the end.
    """

    quiet: list[float] = field(default_factory=list)
    during: list[float] = field(default_factory=list)
    passed: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    logins: int = 0
    flooded: Counter[str] = field(default_factory=Counter)
    left: int = 0

    def ratio(self) -> float:
        """How many times longer the 99th percentile took."""
        return percentile(self.during) / max(percentile(self.quiet), 1e-9)

    def __str__(self) -> str:
        before, during = (percentile(times) * 1000 for times in (self.quiet, self.during))
        calls = f"{len(self.quiet)} before, {len(self.during)} during the flood"
        middle, last = percentile(self.passed, 0.5), percentile(self.passed)
        halves = (percentile(times, 0.5) * 1000 for times in (self.quiet, self.during))
        lines = [
            f"calls of the quiet org: {calls}, {self.logins} logins, {len(self.failures)} failures",
            f"p99: {before:.1f} ms before, {during:.1f} ms during: {self.ratio():.1f} times",
            "p50: {:.1f} ms before, {:.1f} ms during".format(*halves),
            f"calls of the flood that were answered during one of them: p50 {middle:g}, p99 {last:g}",
            "the flood: " + ", ".join(f"{number} {what}" for what, number in sorted(self.flooded.items())),
        ]
        return "\n".join([*lines, *self.failures[:10]])


def percentile(times: list[float], part: float = 0.99) -> float:
    """The value below which a part of them lies."""
    return sorted(times)[min(len(times) - 1, int(len(times) * part))] if times else 0.0


class Campaign:
    """A stack with both orgs."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self.stack = stack
        self.report = Report()
        self.dice = random.Random(seed)
        self.flood = self.quiet = ""
        self.stop = asyncio.Event()
        self._names = 0
        self.answered = 0  # calls of the flood

    async def prepare(self) -> None:
        """Two orgs, an agent in each, and users who can log in."""
        stack = self.stack
        owners = {}
        for org in ("flood", "quiet"):
            owner = owners[org] = str((await stack.ask("update", f"sys/namespaces/{org}"))["root_token"])
            await stack.secret("stripe/key", token=owner)
            await stack.service("pay", token=owner)
            await stack.trust(owner)
            await stack.ask("update", "sys/auth/userpass", {"type": "userpass"}, token=owner)
        await stack.service("wild", hosts=[f"*.wild.test:{stack.secure}"], token=owners["flood"])
        signing = {"inject": SIGNED, "hosts": [f"other.test:{stack.plain}"], "schemes": ["http"]}
        await stack.service("signed", token=owners["flood"], **signing)
        await stack.ask("update", "auth/userpass/users/ann", {"password": PASSWORD}, token=owners["quiet"])
        self.flood = await stack.agent("coder", "pay", "wild", "signed", token=owners["flood"])
        self.quiet = await stack.agent("coder", "pay", token=owners["quiet"])

    # The quiet org.

    async def call(self, times: list[float], streams: Streams | None = None) -> None:
        """One call, on a tunnel of its own unless there is one."""
        began, answered = time.perf_counter(), self.answered
        try:
            sending = self.stack.get(self.quiet) if streams is None else self.stack.send(streams)
            reply = await asyncio.wait_for(sending, 60)
        except (OSError, EOFError, AssertionError, TimeoutError) as error:
            self.report.failures.append(f"a call: {type(error).__name__} {error}")
            return
        times.append(time.perf_counter() - began)
        if times is self.report.during:
            self.report.passed.append(self.answered - answered)
        if (reply.status, reply.body) != (200, b"ok"):
            self.report.failures.append(f"a call was answered {reply.status}: {reply.body[:200]!r}")

    async def calls(self, times: list[float], number: int, pause: float) -> None:
        """Calls at a steady rate: every fifth on a new tunnel, and a login with every twentieth."""
        kept = await self.stack.tunnel(self.quiet)
        for count in range(number):
            await self.call(times, None if count % 5 == 4 else kept)
            if count % 20 == 19:
                await self.login("quiet", "ann", PASSWORD)
                self.report.logins += 1
            await asyncio.sleep(pause)
        kept[1].close()

    async def login(self, org: str, name: str, password: str) -> None:
        """Raises what refuses it."""
        data = {"password": password}
        remote = "192.0.2.1" if org == "flood" else "198.51.100.1"
        asked = Request(Anonymous(), Operation.UPDATE, f"auth/userpass/login/{name}", data, org, remote)
        await self.stack.keyhole.node.handle(asked)

    # The flood.

    async def new_names(self, _dice: random.Random) -> str:
        self._names += 1
        reply, (_, writer) = await self.stack.connect(self.flood, f"h{self._names}.wild.test:{self.stack.secure}")
        writer.close()
        return f"tunnels to new names {reply.status}"

    async def requests(self, dice: random.Random) -> str:
        streams = await self.stack.tunnel(self.flood)
        for _ in range(dice.randrange(1, 20)):
            writer = streams[1]
            writer.write(f"GET /x HTTP/1.1\r\nHost: {HOST}:{self.stack.secure}\r\n\r\n".encode() * 8)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(streams[0].readuntil(b"ok"), 5)
        streams[1].close()
        return "pipelined requests"

    async def large_bodies(self, dice: random.Random) -> str:
        url = f"http://other.test:{self.stack.plain}/"
        body = bytes(dice.randrange(100_000, 900_000))
        reader, writer = await self.stack.open()
        head = f"POST {url} HTTP/1.1\r\nHost: other.test:{self.stack.plain}\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + basic(self.flood) + b"\r\n" + body)
        line = await asyncio.wait_for(reader.readline(), 30)
        writer.close()
        return f"large bodies {line[9:12].decode()}"

    async def dripping(self, dice: random.Random) -> str:
        _, writer = await self.stack.open()
        url = f"http://other.test:{self.stack.plain}/"
        head = f"POST {url} HTTP/1.1\r\nHost: other.test:{self.stack.plain}\r\nContent-Length: 5000\r\n".encode()
        writer.write(head + (basic(self.flood) + b"\r\n" if dice.random() < 0.5 else b"X-Slow: "))
        for _ in range(dice.randrange(1, 10)):
            writer.write(b"d")
            await asyncio.sleep(0.01)
        writer.close()
        return "slow bodies and heads"

    async def silence(self, _dice: random.Random) -> str:
        writers = [(await self.stack.open())[1] for _ in range(20)]
        await asyncio.sleep(0.05)
        for writer in writers:
            writer.close()
        return "silent connections"

    async def logins(self, dice: random.Random) -> str:
        try:
            await self.login("flood", f"user{dice.randrange(1000)}", "wrong")
        except RateLimited:
            return "logins 429"
        except KeyholeError:
            return "logins 400"
        return "logins 200"

    async def kept(self, _dice: random.Random) -> str:
        streams = await self.stack.tunnel(self.flood)
        while not self.stop.is_set():
            await self.stack.send(streams)
            self.answered += 1
        streams[1].close()
        return "kept tunnels"

    async def tunnels(self, _dice: random.Random) -> str:
        await self.stack.get(self.flood)
        self.answered += 1
        return "calls with a tunnel each"

    async def client(self, seed: int, flood: str) -> None:
        """One of those who flood."""
        dice = random.Random(seed)
        everything: list[Callable[[random.Random], Awaitable[str]]] = [
            self.new_names,
            self.requests,
            self.large_bodies,
            self.dripping,
            self.silence,
            self.logins,
        ]
        acts = {"kept": [self.kept], "tunnels": [self.tunnels]}.get(flood, everything)
        while not self.stop.is_set():
            act = dice.choice(acts)
            try:
                self.report.flooded[await act(dice)] += 1
            except (OSError, EOFError, AssertionError, TimeoutError) as error:
                self.report.flooded[f"{act.__name__.replace('_', ' ')} cut off ({type(error).__name__})"] += 1

    async def run(self, *, clients: int, calls: int, pause: float, flood: str = "all") -> Report:
        """Before and during the flood."""
        await self.prepare()
        await self.calls(self.report.quiet, calls, pause)
        flooding = [asyncio.create_task(self.client(self.dice.randrange(2**32), flood)) for _ in range(clients)]
        try:
            await self.calls(self.report.during, calls, pause)
        finally:
            self.stop.set()
            await asyncio.gather(*flooding)
        self.report.left = await self.settled()
        return self.report

    async def settled(self) -> int:
        """What is counted for anybody once all of the flood has gone."""
        shares = self.stack.keyhole.node.open_vault().shares
        tenants = shares._tenants.values()
        for _ in range(600):
            left = sum(len(tenant.agents) for tenant in tenants)
            if not left:
                break
            await asyncio.sleep(0.05)
        return left


async def play(seed: int, *, clients: int, calls: int, pause: float, flood: str = "all", **settings: float) -> Report:
    """One run. ``settings`` are those of the server."""
    async with Stack(Config(**settings)) as stack:  # type: ignore[arg-type]
        return await Campaign(stack, seed).run(clients=clients, calls=calls, pause=pause, flood=flood)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each of the two halves")
    parser.add_argument("--clients", type=int, default=32, help="of the flood, side by side")
    parser.add_argument("--rate", type=float, default=20.0, help="calls a second of the quiet org")
    parser.add_argument("--flood", choices=("all", "kept", "tunnels"), default="all", help="what the flood does")
    asked = parser.parse_args()
    calls = max(1, int(asked.seconds * asked.rate))
    report = asyncio.run(play(asked.seed, clients=asked.clients, calls=calls, pause=1 / asked.rate, flood=asked.flood))
    print(report)
    return bool(report.failures or report.left)


if __name__ == "__main__":
    sys.exit(main())
