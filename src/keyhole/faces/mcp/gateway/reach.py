"""How a server is reached: a program that is started with its grants, or an endpoint over HTTP that is sent them."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mcp.client._transport import TransportStreams

from keyhole.core.errors import UpstreamUnreachable
from keyhole.core.path import parse_secret_ref
from keyhole.core.tool_server import ToolServer, split_template
from keyhole.faces.mcp.gateway import child, remote
from keyhole.faces.mcp.gateway.gate import Gate, GateLimits
from keyhole.faces.mcp.gateway.questions import QuestionLimits
from keyhole.faces.mcp.gateway.wants import Wants
from keyhole.net.ask import Heeds
from keyhole.scrub import Scrubber


@dataclass(frozen=True, slots=True)
class Bound:
    """A server's binding, with the values of its secrets.

    Attributes:
        server: the binding.
        stamp: another text when the binding or a value is another.
        values: by ``(path, field)``.
    """

    server: ToolServer
    stamp: str
    values: Mapping[tuple[str, str], str] = field(repr=False)

    def value(self, reference: str) -> str:
        """The value of a reference."""
        return self.values[parse_secret_ref(reference)]


class Through(Protocol):
    """The way of one program to the broker, while it runs.

    Attributes:
        token: its own, which nobody else may see either.
        until: in the time of ``time.monotonic``; it is started anew before that.
    """

    token: str
    until: float

    def environment(self, base: Mapping[str, str]) -> Mapping[str, str]:
        """What leads it there, over an environment."""

    def started(self, process: int) -> None:
        """It and all that it starts descend from this process."""


Broker = Callable[[ToolServer], AbstractAsyncContextManager[Through]]


def _no_broker(_server: ToolServer) -> AbstractAsyncContextManager[Through]:
    raise UpstreamUnreachable("this gateway has no way to the broker")


@dataclass(frozen=True, slots=True)
class Ways:
    """How servers are reached.

    Attributes:
        asks: what asks a server over HTTP, for a time-out in seconds.
        limits: on what one may send.
        questions: on what one may ask, and on the calls that wait for it.
        broker: gives a program with an agent its way to services.
        hidden: the vault's own files and folders, out of reach for programs in a sandbox.
        tell: told in words what whoever runs the gateway should know.
    """

    asks: Callable[[float], Heeds]
    limits: GateLimits = field(default_factory=GateLimits)
    questions: QuestionLimits = field(default_factory=QuestionLimits)
    broker: Broker = _no_broker
    hidden: Sequence[Path] = ()
    tell: Callable[[str], None] = lambda _text: None


class Reach:
    """What one life of a server is reached by, and what it must not say.

    Args:
        bound: what it is started with.
        ways: how servers are reached.
        closed: called when it speaks no more.

    Attributes:
        known: all that it was given.
        scrubber: of that.
        said: the end of what a program says on stderr.
        until: in the time of ``time.monotonic``; what it was given is good no longer. 0 for no such time.
    """

    def __init__(self, bound: Bound, ways: Ways, closed: Callable[[], None]) -> None:
        self._bound = bound
        self._ways = ways
        self._closed = closed
        self.wants = Wants(bound.server.name, authorized=bool(bound.server.oauth))
        self.until = 0.0
        self._know()

    @property
    def worn(self) -> bool:
        """Whether it has to be begun anew."""
        return 0 < self.until <= time.monotonic()

    def _know(self, *more: str) -> None:
        self.known = frozenset([*self._bound.values.values(), *more])
        self.scrubber = Scrubber.compile(value.encode() for value in self.known)
        self.said = child.Said(self.scrubber)

    def connected(self) -> AbstractAsyncContextManager[TransportStreams]:
        """Speak with it."""
        return self._program() if self._bound.server.transport == "stdio" else self._endpoint()

    @asynccontextmanager
    async def _program(self) -> AsyncIterator[TransportStreams]:
        server, ways = self._bound.server, self._ways
        env = child.environment({}, os.environ)
        given = {**server.settings, **{name: self._bound.value(ref) for name, ref in server.env.items()}}
        shut = child.Shut(
            server.sandbox, ways.hidden, server.memory, lambda text: ways.tell(f"the server {server.name}: {text}")
        )
        async with AsyncExitStack() as stack:
            started: Callable[[int], None] = lambda _process: None  # noqa: E731  # until there is somebody to be told
            if server.agent:
                through = await stack.enter_async_context(ways.broker(server))
                self._know(through.token)
                self.until, started = through.until, through.started
                env = {**through.environment(env)}
            argv, gate = [server.command, *server.args], Gate(ways.limits)
            connecting = child.connected(argv, {**env, **given}, gate, self.said, self._closed, shut, started)
            yield await stack.enter_async_context(connecting)

    def _endpoint(self) -> AbstractAsyncContextManager[TransportStreams]:
        server = self._bound.server
        headers = []
        for name, text in server.headers.items():
            before, ref, after = split_template(text)
            headers.append((name, f"{before}{self._bound.value(ref)}{after}"))
        if server.oauth:
            headers.append(("Authorization", f"Bearer {self._bound.value(server.oauth)}"))
        limits = self._ways.questions
        patience = limits.wait * limits.rounds if server.asks else 0.0  # while whom it asks is waited for
        asks, gate = self._ways.asks(server.timeout + patience), Gate(self._ways.limits)
        may_ask = bool(server.asks)
        return remote.connected(
            asks, server.url, headers, server.allow_addresses, gate, self._closed, self.wants, may_ask=may_ask
        )
