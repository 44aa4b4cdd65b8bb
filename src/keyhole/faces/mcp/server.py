"""The tools as a server of the Model Context Protocol, by the official SDK."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

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


def build(shelf: Shelf, asker_of: AskerOf) -> Server[Any]:
    """A server with the tools of a shelf.

    Args:
        shelf: of tools.
        asker_of: the vault, as the agent that makes a request.
    """

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
                return _result(await asyncio.to_thread(shelf.use, asker, params.name, params.arguments or {}))
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


def _result(outcome: Outcome) -> types.CallToolResult:
    data = json.loads(json.dumps(outcome.data, default=str))
    return types.CallToolResult(
        content=[types.TextContent(text=outcome.text)], structured_content=data, is_error=outcome.failed
    )
