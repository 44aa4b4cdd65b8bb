"""The gateway as a server of the Model Context Protocol, by the official SDK."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError

from keyhole import __version__
from keyhole.core.errors import KeyholeError
from keyhole.faces.mcp.gateway.gateway import Asks, Gateway
from keyhole.faces.mcp.said import at_work

Context = ServerRequestContext[Any, Any]
Paging = types.PaginatedRequestParams | None


def build(gateway: Gateway, agent_of: Callable[[Context], Asks]) -> Server[Any]:
    """A server in front of the servers of a gateway.

    Args:
        gateway: has them.
        agent_of: the vault, as the agent that makes a request.
    """

    async def list_tools(context: Context, _params: Paging) -> types.ListToolsResult:
        try:
            return types.ListToolsResult(tools=await gateway.tools(agent_of(context)))
        except KeyholeError as error:
            raise MCPError(code=types.INTERNAL_ERROR, message=str(error)) from None

    async def call_tool(context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        report = context.session.report_progress
        try:
            with at_work(context.meta):
                return await gateway.call(agent_of(context), params.name, params.arguments or {}, report)
        except KeyholeError as error:
            raise MCPError(code=types.INTERNAL_ERROR, message=str(error)) from None

    async def list_resources(context: Context, _params: Paging) -> types.ListResourcesResult:
        try:
            return types.ListResourcesResult(resources=await gateway.resources(agent_of(context)))
        except KeyholeError as error:
            raise MCPError(code=types.INTERNAL_ERROR, message=str(error)) from None

    async def read_resource(context: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        try:
            with at_work(context.meta):
                return await gateway.read(agent_of(context), str(params.uri))
        except KeyholeError as error:
            raise MCPError(code=types.INTERNAL_ERROR, message=str(error)) from None

    return Server(
        "keyhole-gateway",
        version=__version__,
        title="Keyhole",
        instructions="Tools of several servers, named SERVER__TOOL. Their credentials are kept from you.",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_read_resource=read_resource,
    )
