"""The tools as a server of the Model Context Protocol, by the official SDK."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakKeyDictionary

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server

from keyhole import __version__
from keyhole.core.errors import InvalidRequest
from keyhole.faces.mcp.said import at_work
from keyhole.faces.mcp.tools import Asker, Outcome, Shelf, refused

_INSTRUCTIONS = (
    "Keyhole attaches credentials to your requests on the way, so that you never hold one. list_services shows what "
    "you may use, call makes a request, why explains a refusal, request_access asks a person for more. Never ask "
    "anybody for a key, and never write one into a request."
)
AskerOf = Callable[["ServerRequestContext[Any, Any]"], Asker]
_THREADS = 64
_EACH = 16  # of them for one agent; what it asks on top waits


def build(shelf: Shelf, asker_of: AskerOf) -> Server[Any]:
    """A server with the tools of a shelf.

    Args:
        shelf: of tools.
        asker_of: the vault, as the agent that makes a request.
    """
    bench = _Bench()

    async def list_tools(
        _context: ServerRequestContext[Any, Any], _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(
            tools=[
                types.Tool(
                    name=tool.name,
                    description=tool.description,
                    input_schema=tool.schema(),
                    annotations=types.ToolAnnotations(read_only_hint=tool.reads),
                )
                for tool in shelf.tools.values()
            ]
        )

    async def call_tool(
        context: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        asker = asker_of(context)
        try:
            with at_work(context.meta, f"mcp/{params.name[:60]}"):
                return _result(await bench.work(asker, lambda: shelf.use(asker, params.name, params.arguments or {})))
        except InvalidRequest as error:
            return _result(refused(error))

    return Server(
        "keyhole",
        version=__version__,
        title="Keyhole",
        instructions=_INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


class _Bench:
    """Threads in which tools work, which wait for hosts far away and for the vault.

    They are none of the loop's own: the vault may be on this loop and need one of those to answer a tool, and a call
    that hangs is not to keep other agents, or the server, from theirs.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, "keyhole-mcp")
        self._turns: WeakKeyDictionary[Asker, asyncio.Semaphore] = WeakKeyDictionary()

    async def work(self, asker: Asker, tool: Callable[[], Outcome]) -> Outcome:
        """Do it in a thread, when it is this agent's turn. Whoever stops waiting does not get the turn back early."""
        turn = self._turns.setdefault(asker, asyncio.Semaphore(_EACH))
        loop = asyncio.get_running_loop()
        await turn.acquire()
        try:
            future = self._threads.submit(contextvars.copy_context().run, tool)
        except BaseException:
            turn.release()
            raise

        def release(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(turn.release)

        future.add_done_callback(release)
        return await asyncio.wrap_future(future)


def _result(outcome: Outcome) -> types.CallToolResult:
    data = json.loads(json.dumps(outcome.data, default=str))
    return types.CallToolResult(
        content=[types.TextContent(text=outcome.text)], structured_content=data, is_error=outcome.failed
    )
