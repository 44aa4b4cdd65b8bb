"""The gateway as steps of a workflow use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.strict_json import JsonBounds, parse_json
from keyhole.faces.workflow.acting import Party, ToolAnswer

if TYPE_CHECKING:
    import mcp_types as types

    from keyhole.cli.base import Session
    from keyhole.faces.mcp.gateway.gateway import Asks, Gateway

_LONGEST = 200  # characters of a message
_BOUNDS = JsonBounds(items=200_000)


class GatewayTools:
    """See ``faces.workflow.acting.Tools``.

    Args:
        own: the vault as whoever runs the workflow, who may read the bindings of servers and their secrets.
        servers: the only ones that steps name.
        session: of the command; it says what a tool tells of its progress, such as that a person is waited for.
    """

    def __init__(self, own: Asks, servers: frozenset[str], session: Session) -> None:
        self._own = own
        self._session = session
        self._servers = servers
        self._gateway: Gateway | None = None

    async def use(self, party: Party, server: str, tool: str, arguments: Mapping[str, Any]) -> ToolAnswer:
        """Use a tool as an agent. Raises ``KeyholeError``."""
        from mcp.shared.exceptions import MCPError  # noqa: PLC0415  # the SDK is slow to import

        async def report(_progress: float, _total: float | None, message: str | None) -> None:
            if message:
                self._session.out.say(f"  {server}/{tool}: {message[:_LONGEST]}")

        try:
            return _read(await self._made().use(party, server, tool, dict(arguments), report))
        except MCPError as error:
            return ToolAnswer(failed=True, body=error.error.message)

    async def close(self) -> None:
        """End the servers."""
        if self._gateway is not None:
            await self._gateway.close()

    def _made(self) -> Gateway:
        if self._gateway is None:
            from keyhole.cli.mcp.gateway import quiet, ways  # noqa: PLC0415  # as above
            from keyhole.faces.mcp.gateway.gateway import Gateway  # noqa: PLC0415  # as above

            quiet()
            self._gateway = Gateway(self._own, ways(self._session), self._servers)
        return self._gateway


def _read(found: types.CallToolResult) -> ToolAnswer:
    """Its structured content; else its texts, which are often JSON."""
    if found.structured_content is not None:
        return ToolAnswer(bool(found.is_error), found.structured_content)
    texts = [each.text for each in found.content if each.type == "text"]
    text = "\n".join(texts)
    if text.lstrip().startswith(("{", "[")):
        try:
            return ToolAnswer(bool(found.is_error), parse_json(text.encode(), _BOUNDS))
        except (InvalidRequest, UnicodeEncodeError):
            pass
    return ToolAnswer(bool(found.is_error), text)
