"""The vault of this process, asked as the holder of a token from the threads in which tools run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from keyhole.client import context, local, travel
from keyhole.client.core import Result
from keyhole.client.holder import holder_of
from keyhole.client.road import Road
from keyhole.core.request import Operation, Reply, Request
from keyhole.core.stated import Stated
from keyhole.faces.mcp.beside import Application, Beside, Known
from keyhole.faces.mcp.tools import Asker
from keyhole.vault.node import Node


class Listener(Protocol):
    """A proxy that listens."""

    async def close(self, grace: float) -> None:
        """Stop."""


Listen = Callable[[], Awaitable[tuple[Listener, str]]]


class Door:
    """A node as clients ask a vault, with a proxy of its own for their calls.

    The listeners of a server may speak TLS under names that this process cannot know, so its own calls have a port of
    loopback, which is opened by the first of them.

    Args:
        node: unsealed or not.
        listen: opens that port; the proxy and its URL.
    """

    def __init__(self, node: Node, listen: Listen) -> None:
        self._node = node
        self._listen = listen
        self._lock = asyncio.Lock()
        self._proxy: tuple[Listener, str] | None = None
        self.loop = asyncio.get_running_loop()

    async def ask(
        self,
        operation: str,
        path: str,
        data: Mapping[str, Any],
        *,
        token: str,
        org: str,
        remote: str = "",
        stated: Stated | None = None,
    ) -> Reply:
        """Ask the door."""
        asked = Request(token.encode(), Operation(operation), path, dict(data), org, remote=remote, stated=stated)
        return await self._node.handle(asked)

    async def road(self, token: str) -> Road:
        """The way to the broker for the holder of a token."""
        reply = await self.ask("read", "sys/keyhole", {}, token=token, org="")
        async with self._lock:
            if self._proxy is None:
                self._proxy = await self._listen()
        return Road.at(self._proxy[1], str((reply.data or {})["ca"]), token)

    async def close(self) -> None:
        """Close the port."""
        if self._proxy is not None:
            await self._proxy[0].close(0)
            self._proxy = None


class Inside:
    """One caller of a vault in this process.

    Args:
        door: of the vault.
        token: of the caller.

    Attributes:
        holder: the same for all that ask with this token in this process.
    """

    def __init__(self, door: Door, token: str) -> None:
        self._door = door
        self._token = token
        self.holder = holder_of(token)

    def __repr__(self) -> str:
        return "Inside()"

    def ask(self, operation: str, path: str, data: Mapping[str, Any] | None = None) -> Result:
        """Ask from another thread than the vault's, and wait. Raises what the vault refuses."""
        work = local.ask(self._door, operation, path, data or {}, token=self._token, stated=context.said())
        return asyncio.run_coroutine_threadsafe(work, self._door.loop).result()

    def call(self, trip: travel.Trip) -> travel.Answered:
        """Make a call through the broker. Raises what the broker refuses."""
        service = travel.resolve(self.ask, trip)
        road = asyncio.run_coroutine_threadsafe(self._door.road(self._token), self._door.loop).result()
        return travel.send(road, trip, service, stated=context.said() or Stated())


def beside(other: Application, node: Node, hosts: frozenset[str], listen: Listen) -> Beside:
    """The endpoint for MCP on the listener of another application.

    Args:
        other: that application.
        node: of the vault.
        hosts: names under which the endpoint may be asked; empty for any.
        listen: opens a proxy for its calls.
    """
    door = Door(node, listen)
    known = Known(lambda token: Inside(door, token))

    async def enter(token: str, remote: str) -> Asker:
        await door.ask("read", "auth/token/lookup-self", {}, token=token, org="", remote=remote)
        return known.of(token)

    return Beside(other, enter, hosts, node.note_refusal, ended=door.close)
