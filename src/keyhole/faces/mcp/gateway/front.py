"""The gateway as a server of the Model Context Protocol, by the official SDK."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

import mcp_types as types
from mcp.server.connection import allowed_log_levels
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.lowlevel.server import NotificationOptions
from mcp.server.models import InitializationOptions
from mcp.server.session import ServerSession
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from keyhole import __version__
from keyhole.core.errors import KeyholeError
from keyhole.core.tool_server import PROMPTS, RESOURCES, split_shown
from keyhole.faces.mcp.gateway import changes
from keyhole.faces.mcp.gateway.changes import Change
from keyhole.faces.mcp.gateway.gateway import Asks, Gateway, Hidden, answered
from keyhole.faces.mcp.gateway.parked import Conversation, Stale, kinds_of
from keyhole.faces.mcp.gateway.questions import SAMPLING, Check, Question, QuestionLimits
from keyhole.faces.mcp.gateway.sides import Sides, no_prompt, no_resource, split_uri
from keyhole.faces.mcp.gateway.streams import Streams
from keyhole.faces.mcp.said import at_work
from keyhole.net.tasks import Tasks

Context = ServerRequestContext[Any, Any]
Paging = types.PaginatedRequestParams | None
Answer = TypeVar("Answer")
Found = TypeVar("Found", bound=types.Result)
_LEVELS: tuple[types.LoggingLevel, ...] = (
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
)
_MOST_WATCHED = 256
_REFUSED = types.ErrorData(code=types.INVALID_REQUEST, message="the client cannot be asked")


class Agent(Asks, Protocol):
    """The vault, asked as the agent that makes a request.

    Attributes:
        holder: the same for all requests with one token.
    """

    @property
    def holder(self) -> bytes: ...  # noqa: D102  # as above


class GatewayServer(Server[Any]):
    """A server whose lists change."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        """Say that they do, unless the caller says otherwise."""
        said = notification_options or NotificationOptions(
            prompts_changed=True, resources_changed=True, tools_changed=True
        )
        return super().create_initialization_options(said, experimental_capabilities, extensions)


class Client:
    """The client of one request, for the server that is called.

    Args:
        context: of the request.
        level: from which on it hears what is logged.
        limits: on what it is asked.
    """

    def __init__(self, context: Context, level: types.LoggingLevel, limits: QuestionLimits) -> None:
        self._context = context
        self._limits = limits
        self._rounds = 0
        self._check: Check | None = None
        self._levels = allowed_log_levels(context.protocol_version, context.meta)
        if not _is_modern(context):
            self._levels = frozenset(_LEVELS[_LEVELS.index(level) :])
        self.able = kinds_of(context.session.client_capabilities)
        self.report = context.session.report_progress

    def begun(self, check: Check) -> None:
        """See ``Listens``."""
        self._check = check

    async def log(self, level: types.LoggingLevel, logger: str, data: Any) -> None:
        """See ``Listens``."""
        if level in self._levels:
            params = types.LoggingMessageNotificationParams(level=level, logger=logger, data=data)
            await self._context.session.send_notification(
                types.LoggingMessageNotification(params=params), related_request_id=self._context.request_id
            )

    async def ask(self, server: str, questions: Sequence[Question]) -> list[Any]:
        """See ``Listens``."""
        self._rounds += 1
        if self._rounds > self._limits.rounds:
            return [_REFUSED]
        found = list[Any]()
        for question in questions:
            found.append(await self._ask(server, question))
            if isinstance(found[-1], types.ErrorData):
                return found
        if self._check is not None:
            await self._check()
        return found

    async def _ask(self, server: str, question: Question) -> Any:
        session = self._context.session
        if question.kind not in self.able or not session.can_send_request:
            return _REFUSED
        about = ServerMessageMetadata(related_request_id=self._context.request_id)
        said = types.CreateMessageResult if question.kind == SAMPLING else types.ElicitResult
        try:
            async with asyncio.timeout(self._limits.wait):
                return await session.send_request(question.request(server), said, metadata=about)
        except MCPError as error:
            return error.error
        except (ValueError, TimeoutError):
            return _REFUSED


class _Front:
    """Handlers of requests.

    Args:
        gateway: has the servers.
        agent_of: the vault, as the agent that makes a request.
    """

    def __init__(self, gateway: Gateway, agent_of: Callable[[Context], Agent]) -> None:
        self._gateway = gateway
        self._sides = Sides(gateway)
        self.streams = Streams(gateway, self._sides, agent_of)
        self._agent_of = agent_of
        self._level: types.LoggingLevel = "info"
        self._session: ServerSession | None = None
        self._watched: dict[tuple[str, str], str] = {}
        self._telling = Tasks()

    def _agent(self, context: Context) -> Agent:
        """Who asks. The one client of stdin and stdout is remembered, so that it hears of changes."""
        if context.request is None and not _is_modern(context):
            self._session = context.session
        return self._agent_of(context)

    async def list_tools(self, context: Context, _params: Paging) -> types.ListToolsResult:
        return types.ListToolsResult(tools=await _said(context, self._gateway.tools(self._agent(context))))

    async def call_tool(
        self, context: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        agent, arguments = self._agent(context), params.arguments or {}

        def make(client: Client | Conversation) -> Awaitable[types.CallToolResult]:
            return self._gateway.call(agent, params.name, arguments, client.report, client)

        made = self._made(context, agent, ("tools/call", params.name, arguments), params, make)
        return await _said(context, answered(params.name, made))

    async def list_resources(self, context: Context, _params: Paging) -> types.ListResourcesResult:
        return types.ListResourcesResult(resources=await _said(context, self._sides.resources(self._agent(context))))

    async def list_templates(self, context: Context, _params: Paging) -> types.ListResourceTemplatesResult:
        found = await _said(context, self._sides.templates(self._agent(context)))
        return types.ListResourceTemplatesResult(resource_templates=found)

    async def read_resource(
        self, context: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult | types.InputRequiredResult:
        agent, uri = self._agent(context), str(params.uri)

        def make(client: Client | Conversation) -> Awaitable[types.ReadResourceResult]:
            return self._sides.read(agent, uri, client)

        made = self._made(context, agent, ("resources/read", uri), params, make)
        return await _said(context, shown(no_resource(), made))

    async def list_prompts(self, context: Context, _params: Paging) -> types.ListPromptsResult:
        return types.ListPromptsResult(prompts=await _said(context, self._sides.prompts(self._agent(context))))

    async def get_prompt(
        self, context: Context, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult | types.InputRequiredResult:
        agent, arguments = self._agent(context), params.arguments or {}

        def make(client: Client | Conversation) -> Awaitable[types.GetPromptResult]:
            return self._sides.prompt(agent, params.name, arguments, client)

        made = self._made(context, agent, ("prompts/get", params.name, arguments), params, make)
        return await _said(context, shown(no_prompt(params.name), made))

    async def _made(
        self,
        context: Context,
        agent: Agent,
        about: Sequence[Any],
        params: types.InputResponseRequestParams,
        make: Callable[[Client | Conversation], Awaitable[Found]],
    ) -> Found | types.InputRequiredResult:
        """Make a request for its client, which is asked by a request where it can be, and else by an answer.

        ``about`` is the method, the name, and the arguments where it has some.
        """
        parking = self._gateway.parking
        client = Client(context, self._level, parking.limits)
        if not _is_modern(context) and params.request_state is None and not params.input_responses:
            return await make(client)
        try:
            return await parking.hold(agent.holder, [_is_modern(context), *about], client, params, make)
        except Stale:
            await self._gateway.note_stale(agent, *_place(*about[:2]))
            raise

    async def complete(self, context: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        return await _said(context, self._sides.complete(self._agent(context), params))

    async def set_level(self, context: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
        """Of the client of stdin and stdout; over HTTP there is no session to remember it for."""
        if context.request is None:
            self._level = params.level
        return types.EmptyResult()

    async def subscribe(self, context: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
        """Over HTTP there is no session that could hear of it."""
        agent, uri = self._agent(context), str(params.uri)
        if context.request is not None or len(self._watched) >= _MOST_WATCHED:
            raise MCPError(code=types.INVALID_REQUEST, message="this client cannot watch more resources")
        if uri not in self._watched.values():
            self._watched[await _said(context, self._sides.watch(agent, uri))] = uri
        return types.EmptyResult()

    async def unsubscribe(self, context: Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        for key, uri in list(self._watched.items()):
            if uri == str(params.uri) and context.request is None:
                del self._watched[key]
                await _said(context, self._sides.unwatch(*key))
        return types.EmptyResult()

    def heard(self, change: Change) -> None:
        """Tell the client of stdin and stdout of a change."""
        session, uri = self._session, self._watched.get((change.server, change.uri))
        if session is None or (change.kind == changes.UPDATED and uri is None):
            return
        told = {
            changes.TOOLS: session.send_tool_list_changed,
            changes.PROMPTS: session.send_prompt_list_changed,
            changes.RESOURCES: session.send_resource_list_changed,
        }.get(change.kind)
        work = told() if told is not None else session.send_resource_updated(uri or "")
        self._telling.begin(_quietly(work))


def build(gateway: Gateway, agent_of: Callable[[Context], Agent]) -> Server[Any]:
    """A server in front of the servers of a gateway.

    Args:
        gateway: has them.
        agent_of: the vault, as the agent that makes a request.
    """
    front = _Front(gateway, agent_of)

    @asynccontextmanager
    async def serving(_server: Server[Any]) -> AsyncIterator[dict[str, Any]]:
        end = gateway.changes.subscribe(front.heard)
        try:
            yield {}
        finally:
            end()

    server = GatewayServer(
        "keyhole-gateway",
        version=__version__,
        title="Keyhole",
        instructions="Tools of several servers, named SERVER__TOOL. Their credentials are kept from you.",
        lifespan=serving,
        on_list_tools=front.list_tools,
        on_call_tool=front.call_tool,
        on_list_resources=front.list_resources,
        on_list_resource_templates=front.list_templates,
        on_read_resource=front.read_resource,
        on_subscribe_resource=front.subscribe,
        on_unsubscribe_resource=front.unsubscribe,
        on_subscriptions_listen=front.streams.listen,
        on_list_prompts=front.list_prompts,
        on_get_prompt=front.get_prompt,
        on_completion=front.complete,
    )
    # The constructor warns that later revisions have no such request; clients of earlier ones send it.
    server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, front.set_level)
    return server


async def _said(context: Context, asking: Coroutine[Any, Any, Answer]) -> Answer:
    """An answer, for the work that the request belongs to; a refusal of the vault as an error of the protocol."""
    try:
        with at_work(context.meta):
            return await asking
    except KeyholeError as error:
        raise MCPError(code=types.INTERNAL_ERROR, message=str(error)) from None
    finally:
        asking.close()


async def shown(missing: MCPError, work: Awaitable[Answer]) -> Answer:
    """An answer; that there is nothing where the agent may not know of it."""
    try:
        return await work
    except Hidden:
        raise missing from None


def _place(method: str, name: str) -> tuple[str, str]:
    """The server of a request, and the tool that it uses there."""
    if method == "resources/read":
        return split_uri(name)[0], RESOURCES
    server, inner = split_shown(name)
    return server, inner if method == "tools/call" else PROMPTS


def _is_modern(context: Context) -> bool:
    return context.protocol_version in MODERN_PROTOCOL_VERSIONS


async def _quietly(work: Awaitable[None]) -> None:
    """Tell somebody who may have gone."""
    with contextlib.suppress(Exception):
        await work
