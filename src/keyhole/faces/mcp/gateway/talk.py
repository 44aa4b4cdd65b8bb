"""What a server says and asks by itself while it is called: for the one client whose call goes on, or for nobody.

A message of a program does not say for whose call it is. So it is passed on only while a single call goes on there:
what one agent's call made a server say never comes to another agent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
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
from keyhole.faces.mcp.gateway.questions import ELICITATION, REFUSED, SAMPLING, Listens, Question, QuestionLimits
from keyhole.net.tasks import Tasks
from keyhole.scrub import Scrubber
from keyhole.vault.tool_rules import is_bounded

Say = Callable[[str, str], None]
Sampled = types.CreateMessageResult | types.CreateMessageResultWithTools | types.ErrorData
_PATIENCE = 1.0  # seconds that a client has to take a log message
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


class Patience:
    """The time that a server has for an answer, which does not pass while it waits for an answer itself.

    Args:
        timeout: that ends it.
    """

    def __init__(self, timeout: asyncio.Timeout) -> None:
        self._timeout = timeout
        self._held = 0
        self._left = 0.0

    @contextmanager
    def held(self) -> Iterator[None]:
        """While somebody else is waited for."""
        now = asyncio.get_running_loop().time
        if not self._held:
            self._left = (self._timeout.when() or now()) - now()
            self._set(None)
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if not self._held:
                self._set(now() + self._left)

    def _set(self, when: float | None) -> None:
        with contextlib.suppress(RuntimeError):  # it has ended
            self._timeout.reschedule(when)


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
        limits: on what it asks.
    """

    def __init__(self, life: Life, say: Say, watched: Iterable[str], limits: QuestionLimits) -> None:
        self._life = life
        self._limits = limits
        self._watched = watched
        self._say = say
        self._clients: list[tuple[Listens | None, Patience]] = []
        self._logged: Following | None = None
        self._following = Tasks()

    @asynccontextmanager
    async def with_client(self, client: Listens | None, patience: Patience) -> AsyncIterator[None]:
        """While a call goes on for a client."""
        here = (client, patience)
        self._clients.append(here)
        try:
            yield
        finally:
            self._clients.remove(here)

    def heard(self, message: Any) -> None:
        """A notification of the server."""
        for each, kind in _LISTS.items():
            if isinstance(message, each):
                self._say(kind, "")
        if isinstance(message, types.ResourceUpdatedNotification):
            self._say(changes.UPDATED, str(message.params.uri))

    async def logged(self, params: types.LoggingMessageNotificationParams) -> None:
        """A log message of the server."""
        client, _ = self._only()
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
        found: Sampled = await self._asked(SAMPLING, params)
        return found

    async def elicit(
        self, context: ClientRequestContext, params: types.ElicitRequestParams
    ) -> types.ElicitResult | types.ErrorData:
        """A request for something that the user says."""
        del context
        found: types.ElicitResult | types.ErrorData = await self._asked(ELICITATION, params)
        return found

    async def answers(self, asked: Mapping[str, types.InputRequest], client: Listens | None) -> dict[str, Any]:
        """The client's answers to what a server of the revision 2026-07-28 wants to know before it goes on.

        Raises:
            MCPError: there are none.
            KeyholeError: the call is refused by now, or what is asked cannot be shown.
        """
        if len(asked) > self._limits.at_once:
            raise MCPError(code=types.INVALID_REQUEST, message="the server asks too much at once")
        questions = [self._question(_kind(request), request.params) for request in asked.values()]
        wanted = [each for each in questions if each is not None]
        if client is None or len(wanted) < len(questions):
            raise MCPError.from_error_data(REFUSED)
        given = await client.ask(self._life.server.name, wanted)
        for each in given:
            if isinstance(each, types.ErrorData):
                raise MCPError(code=each.code, message=each.message)
        return dict(zip(asked, given, strict=True))

    async def listen(self, client: ClientSession, stop: asyncio.Event) -> None:
        """Until the end, hear what a server of the revision 2026-07-28 says of its lists, if it can say it."""
        has = client.server_capabilities
        modern = client.protocol_version in MODERN_PROTOCOL_VERSIONS and self._life.server.transport == "stdio"
        if modern and has is not None:
            wanted = {
                f"{name}_list_changed": bool(getattr(has, name) and getattr(has, name).list_changed)
                for name in ("tools", "prompts", "resources")
            }
            if any(wanted.values()):
                self._following.begin(self.follow(client, **wanted))
        try:
            for uri in list(self._watched):
                with contextlib.suppress(MCPError):
                    await asyncio.wait_for(self.subscribe(client, uri), _PATIENCE)
            await stop.wait()
        finally:
            await self._following.end()

    async def subscribe(self, client: ClientSession, uri: str) -> None:
        """Hear of changes of a resource until the server ends; nothing from one that says none."""
        has = client.server_capabilities
        if has is None or has.resources is None or not has.resources.subscribe:
            return
        if client.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            asked = types.SubscribeRequest(params=types.SubscribeRequestParams(uri=uri))
            await client.send_request(asked, types.EmptyResult)
        elif self._life.server.transport == "stdio":
            self._following.begin(self.follow(client, resource_subscriptions=[uri]))

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

    def _only(self) -> tuple[Listens | None, Patience | None]:
        """The client of the only call that goes on."""
        return self._clients[0] if len(self._clients) == 1 and self._life.calls == 1 else (None, None)

    async def _asked(self, kind: str, params: Any) -> Any:
        client, patience = self._only()
        if client is None or patience is None:
            return REFUSED
        try:
            question = self._question(kind, params)
            if question is None:
                return REFUSED
            with patience.held():
                (answer,) = await client.ask(self._life.server.name, [question])
        except KeyholeError:
            return REFUSED
        return answer

    def _question(self, kind: str, params: Any) -> Question | None:
        """What is asked, without credentials; nothing where the server may not. Raises ``ScrubFailedClosed``."""
        if kind not in self._life.server.asks:
            return None
        plain = params.model_dump(by_alias=True, mode="json", exclude_none=True)
        plain = {name: value for name, value in plain.items() if name not in _NOT_ASKED}
        if plain.get("mode", "form") != "form" or len(str(plain)) > self._limits.question:
            return None
        if not is_bounded(plain.get("requestedSchema")):  # a client tries its patterns on what its user says
            return None
        return Question(kind, Cleaner(self._life.scrubber).value(plain))


def _kind(request: types.InputRequest) -> str:
    if isinstance(request, types.CreateMessageRequest):
        return SAMPLING
    return ELICITATION if isinstance(request, types.ElicitRequest) else ""
