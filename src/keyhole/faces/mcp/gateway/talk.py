"""What a server says and asks by itself while it is called: for the one client whose call goes on, or for nobody.

A message of a program does not say for whose call it is. So it is passed on only while a single call goes on there:
what one agent's call made a server say never comes to another agent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import mcp_types as types
from mcp.client.session import ClientRequestContext, ClientSession
from mcp.client.subscriptions import listen
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import PromptsListChanged, ResourcesListChanged, ResourceUpdated, ToolsListChanged
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from keyhole.core.errors import KeyholeError
from keyhole.core.tool_server import ToolServer
from keyhole.faces.mcp.gateway import changes
from keyhole.faces.mcp.gateway.cleaned import Cleaner, Following
from keyhole.scrub import Scrubber

Say = Callable[[str, str], None]
Sampled = types.CreateMessageResult | types.CreateMessageResultWithTools | types.ErrorData
_PATIENCE = 1.0  # seconds that a client has to take a log message
_LARGEST = 256 * 1024  # characters of what a server asks
_MOST_ASKED = 8  # at once
_REFUSED = types.ErrorData(code=types.INVALID_REQUEST, message="the gateway passes this on to nobody")
_NOT_ASKED = ("_meta", "tools", "toolChoice", "metadata", "includeContext")
_LISTS = {
    types.ToolListChangedNotification: changes.TOOLS,
    types.PromptListChangedNotification: changes.PROMPTS,
    types.ResourceListChangedNotification: changes.RESOURCES,
}
_EVENTS = {
    ToolsListChanged: changes.TOOLS,
    PromptsListChanged: changes.PROMPTS,
    ResourcesListChanged: changes.RESOURCES,
}


class Listens(Protocol):
    """The client whose call goes on."""

    async def log(self, level: types.LoggingLevel, logger: str, data: Any) -> None:
        """Hear what a server logs."""

    async def ask(self, kind: str, server: str, params: Mapping[str, Any]) -> Any:
        """Answer what a server asks: ``sampling`` or ``elicitation``. ``ErrorData`` where it cannot be asked."""


class Life(Protocol):
    """The life of a server that talks."""

    @property
    def scrubber(self) -> Scrubber:
        """Of its credentials."""

    @property
    def calls(self) -> int:
        """How many go on."""

    @property
    def server(self) -> ToolServer:
        """Its binding."""

    stale: bool


def nobody(_kind: str, _uri: str) -> None:
    """Nobody is told."""


class Talk:
    """What one life of a server says and asks.

    Args:
        life: of the server.
        say: is told what changes.
        watched: URIs of resources of which a client wants to hear.
    """

    def __init__(self, life: Life, say: Say, watched: Iterable[str]) -> None:
        self._life = life
        self._watched = watched
        self._say = say
        self._clients: list[Listens | None] = []
        self._logged: Following | None = None
        self._following: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def with_client(self, client: Listens | None) -> AsyncIterator[None]:
        """While a call goes on for a client."""
        self._clients.append(client)
        try:
            yield
        finally:
            self._clients.remove(client)

    def heard(self, message: Any) -> None:
        """A notification of the server."""
        for each, kind in _LISTS.items():
            if isinstance(message, each):
                self._say(kind, "")
        if isinstance(message, types.ResourceUpdatedNotification):
            self._say(changes.UPDATED, str(message.params.uri))

    async def logged(self, params: types.LoggingMessageNotificationParams) -> None:
        """A log message of the server."""
        client = self._only()
        if client is None:
            return
        cleaner = Cleaner(self._life.scrubber)
        with contextlib.suppress(KeyholeError, TimeoutError):
            data = cleaner.value({"logger": params.logger or "", "data": params.data})
            logger = f"{self._life.server.name}/{data['logger'][:100]}".rstrip("/")
            if isinstance(params.data, str):
                self._logged = self._logged or Following(self._life.scrubber)
                data["data"] = self._logged.text(params.data)
            await asyncio.wait_for(client.log(params.level, logger, data["data"]), _PATIENCE)

    async def sample(self, context: ClientRequestContext, params: types.CreateMessageRequestParams) -> Sampled:
        """A request for a completion of the client's model."""
        del context
        found: Sampled = await self._asked("sampling", params, self._only())
        return found

    async def elicit(
        self, context: ClientRequestContext, params: types.ElicitRequestParams
    ) -> types.ElicitResult | types.ErrorData:
        """A request for something that the user says."""
        del context
        found: types.ElicitResult | types.ErrorData = await self._asked("elicitation", params, self._only())
        return found

    async def answers(self, asked: Mapping[str, Any], client: Listens | None) -> dict[str, Any]:
        """The client's answers to what a server wants to know before it goes on. Raises ``MCPError`` for none."""
        found = {}
        if len(asked) > _MOST_ASKED:
            raise MCPError(code=types.INVALID_REQUEST, message="the server asks too much at once")
        for name, request in asked.items():
            kind = "sampling" if isinstance(request, types.CreateMessageRequest) else ""
            kind = "elicitation" if isinstance(request, types.ElicitRequest) else kind
            answer = await self._asked(kind, request.params, client)
            if isinstance(answer, types.ErrorData):
                raise MCPError(code=answer.code, message=answer.message)
            found[name] = answer
        return found

    async def listen(self, client: ClientSession, stop: asyncio.Event) -> None:
        """Until the end, hear what a server of the revision 2026-07-28 says of its lists, if it can say it."""
        has = client.server_capabilities
        modern = client.protocol_version in MODERN_PROTOCOL_VERSIONS and self._life.server.transport == "stdio"
        if modern and has is not None:
            wanted = {
                f"{name}_list_changed": bool(getattr(has, name) and getattr(has, name).list_changed)
                for name in ("tools", "prompts", "resources")
            }
            task = asyncio.create_task(self.follow(client, **wanted)) if any(wanted.values()) else None
        else:
            task = None
        try:
            for uri in list(self._watched):
                with contextlib.suppress(MCPError):
                    await asyncio.wait_for(self.subscribe(client, uri), _PATIENCE)
            await stop.wait()
        finally:
            tasks = [*self._following, *([task] if task is not None else [])]
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def subscribe(self, client: ClientSession, uri: str) -> None:
        """Hear of changes of a resource until the server ends; nothing from one that says none."""
        has = client.server_capabilities
        if has is None or has.resources is None or not has.resources.subscribe:
            return
        if client.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            asked = types.SubscribeRequest(params=types.SubscribeRequestParams(uri=uri))
            await client.send_request(asked, types.EmptyResult)
        elif self._life.server.transport == "stdio":
            task = asyncio.create_task(self.follow(client, resource_subscriptions=[uri]))
            self._following.add(task)
            task.add_done_callback(self._following.discard)

    async def follow(self, client: ClientSession, **wanted: Any) -> None:
        """Hear of some changes until the server ends that, or this is cancelled."""
        with contextlib.suppress(MCPError, RuntimeError, TimeoutError):
            async with listen(client, **wanted) as events:
                async for event in events:
                    if isinstance(event, ResourceUpdated):
                        self._say(changes.UPDATED, event.uri)
                    else:
                        kind = _EVENTS[type(event)]
                        self._life.stale = self._life.stale or kind == changes.TOOLS
                        self._say(kind, "")

    def _only(self) -> Listens | None:
        """The client of the only call that goes on."""
        return self._clients[0] if len(self._clients) == 1 and self._life.calls == 1 else None

    async def _asked(self, kind: str, params: Any, client: Listens | None) -> Any:
        server = self._life.server
        if client is None or kind not in server.asks:
            return _REFUSED
        plain = params.model_dump(by_alias=True, mode="json", exclude_none=True)
        plain = {name: value for name, value in plain.items() if name not in _NOT_ASKED}
        if plain.get("mode", "form") != "form" or len(str(plain)) > _LARGEST:
            return _REFUSED
        try:
            return await client.ask(kind, server.name, Cleaner(self._life.scrubber).value(plain))
        except KeyholeError:
            return _REFUSED
