"""Streams of changes that clients of the revision 2026-07-28 open; each ends with its agent's token, or its rights."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import (
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)

from keyhole.core.errors import KeyholeError
from keyhole.faces.mcp.gateway import changes
from keyhole.faces.mcp.gateway.changes import Change
from keyhole.faces.mcp.gateway.gateway import Asks, Gateway
from keyhole.faces.mcp.gateway.sides import Sides

Context = ServerRequestContext[Any, Any]
_AGAIN = 3.0  # seconds after which it is asked again whether the agent may listen
_MOST = 64  # streams
_MOST_WATCHED = 64  # resources of one stream
_BACKLOG = 256  # events of one that are not read yet
_LISTS: dict[str, Callable[[], ServerEvent]] = {
    changes.TOOLS: ToolsListChanged,
    changes.PROMPTS: PromptsListChanged,
    changes.RESOURCES: ResourcesListChanged,
}


class Streams:
    """The streams of a gateway.

    Args:
        gateway: has the servers.
        sides: their resources.
        agent_of: the vault, as the agent that makes a request.
    """

    def __init__(self, gateway: Gateway, sides: Sides, agent_of: Callable[[Context], Asks]) -> None:
        self._gateway = gateway
        self._sides = sides
        self._agent_of = agent_of
        self._open = 0

    async def listen(
        self, context: Context, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        """Say changes until the client goes, or the agent may not listen any more. Raises ``MCPError``."""
        agent, wanted = self._agent_of(context), params.notifications
        uris = list(dict.fromkeys(map(str, wanted.resource_subscriptions or ())))
        if self._open >= _MOST or len(uris) > _MOST_WATCHED:
            raise MCPError(code=types.INVALID_REQUEST, message="too many changes are listened to")
        self._open += 1
        watched: dict[tuple[str, str], str] = {}
        try:
            await self._may(agent, watched)
            for uri in uris:
                watched[await self._sides.watch(agent, uri)] = uri
            handler = ListenHandler(_Bus(self._gateway, watched), max_buffered_events=_BACKLOG)
            looking = asyncio.create_task(self._look(agent, watched, handler))
            try:
                return await handler(context, params)
            finally:
                looking.cancel()
        except KeyholeError as error:
            raise MCPError(code=types.INTERNAL_ERROR, message=str(error)) from None
        finally:
            self._open -= 1
            for key in watched:
                with contextlib.suppress(KeyholeError):
                    await self._sides.unwatch(*key)

    async def _may(self, agent: Asks, watched: dict[tuple[str, str], str]) -> bool:
        """Whether the agent may listen. Raises what the vault refuses."""
        servers = {server for server, _ in watched}
        return await self._sides.allowed(agent, servers) == servers

    async def _look(self, agent: Asks, watched: dict[tuple[str, str], str], handler: ListenHandler) -> None:
        with contextlib.suppress(KeyholeError):
            while await self._may(agent, watched):  # noqa: ASYNC110  # the vault tells nobody
                await asyncio.sleep(_AGAIN)
        handler.close()


class _Bus:
    """What one stream hears of the changes of all servers."""

    def __init__(self, gateway: Gateway, watched: dict[tuple[str, str], str]) -> None:
        self._gateway = gateway
        self._watched = watched

    async def publish(self, event: ServerEvent) -> None:
        """Nobody says anything here but the servers."""

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """See ``SubscriptionBus``."""

        def hears(change: Change) -> None:
            if change.kind in _LISTS:
                listener(_LISTS[change.kind]())
            elif (uri := self._watched.get((change.server, change.uri))) is not None:
                listener(ResourceUpdated(uri=uri))

        return self._gateway.changes.subscribe(hears)
