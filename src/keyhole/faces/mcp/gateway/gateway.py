"""Many servers as one: what an agent may see of them, and its calls. The door decides; nothing is decided here."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, unquote

import mcp_types as types
from mcp.shared.exceptions import MCPError

from keyhole.client.core import Result
from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound, PolicyDenied, Unauthenticated
from keyhole.core.tool_server import RESOURCES, ToolServer, capability_path, parse_server_name, shown_name, split_shown
from keyhole.faces.mcp.gateway.cleaned import Cleaner
from keyhole.faces.mcp.gateway.upstream import Bound, Listed, Session, Upstream, Ways, faults
from keyhole.faces.mcp.gateway.wants import Wanted

Report = Callable[[float, float | None, str | None], Awaitable[None]]
_KNOWN = 2.0  # seconds for which the names of servers are good
_SCHEME = "mcp://"
_WAITING = 20.0  # seconds that a list waits for a server that is slow


class Asks(Protocol):
    """A vault, asked as somebody, from any thread."""

    def ask(self, operation: str, path: str, data: Mapping[str, Any] | None = None) -> Result:
        """Ask, and wait. Raises what the vault refuses."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """A use that was decided: what its end is said with, and the keys that it is made with."""

    call: str
    proof: str
    stamp: str
    at: float


class Gateway:
    """Servers of tools, for several agents.

    Args:
        own: the vault as whoever runs the gateway, who may read the bindings of servers and their secrets.
        ways: how servers are reached.
        only: names of the servers that it stands in front of; empty for all.
    """

    def __init__(self, own: Asks, ways: Ways, only: frozenset[str] = frozenset()) -> None:
        self._own = own
        self._ways = ways
        self._only = only
        self._upstreams: dict[str, Upstream] = {}
        self._known_until = 0.0
        self._lock = asyncio.Lock()

    async def tools(self, agent: Asks) -> list[types.Tool]:
        """The tools that an agent may use, under the names that it calls them by.

        Raises:
            KeyholeError: the vault refuses to say.
        """
        upstreams = await self._servers()
        found = dict(zip(upstreams, await asyncio.gather(*map(self._shown, upstreams.values())), strict=True))
        asked = {name: {tool: each.digest for tool, each in tools.items()} for name, tools in found.items() if tools}
        offered = await self._offered(agent, asked) if asked else {}
        return [
            found[name][tool].tool.model_copy(update={"name": shown_name(name, tool)})
            for name, tools in offered.items()
            for tool in tools
            if tool in found.get(name, {})
        ]

    async def call(self, agent: Asks, name: str, arguments: dict[str, Any], report: Report) -> types.CallToolResult:
        """Use a tool as an agent.

        Raises:
            MCPError: there is no such tool, or the agent may not know of it; or the server said so.
        """
        server, tool = split_shown(name)
        upstream = (await self._servers()).get(server)
        if upstream is None:
            raise _unknown(name)
        listed = upstream.known(tool)
        with contextlib.suppress(KeyholeError, MCPError):
            listed = (await upstream.tools()).get(tool)
        try:
            begun = await self._begin(agent, server, tool, listed, arguments)
        except (PolicyDenied, NotFound):
            raise _unknown(name) from None
        except KeyholeError as error:
            return _refused(error)
        cleaner: Cleaner | None = None
        result, received = "aborted", 0
        try:
            session = await upstream.session(begun.stamp)
            cleaner = Cleaner(session.scrubber)
            try:
                found = await self._send(session, tool, arguments, report, cleaner)
            except Wanted as wanted:  # it was refused, so nothing has been done
                session = await upstream.again(session, wanted)
                cleaner = Cleaner(session.scrubber)
                found = await self._send(session, tool, arguments, report, cleaner)
            result, received = "failed" if found.is_error else "ok", len(found.model_dump_json())
        except MCPError as error:
            result = "failed"
            raise _cleaned(error, cleaner) from None
        except KeyholeError as error:
            result = error.code if error.code.startswith("upstream_") else "failed"
            return _refused(error)
        finally:
            await self._end(agent, begun, result, cleaner.masked if cleaner else 0, received)
        return found

    async def resources(self, agent: Asks) -> list[types.Resource]:
        """What the servers show as resources, under URIs that say of which server each is."""
        upstreams = await self._servers()
        offered = await self._offered(agent, {name: {RESOURCES: ""} for name in upstreams}) if upstreams else {}
        names = [name for name, tools in offered.items() if tools]
        lists = await asyncio.gather(*(self._resources(upstreams[name]) for name in names))
        return [
            each.model_copy(update={"uri": f"{_SCHEME}{name}/{quote(str(each.uri), safe='')}"})
            for name, found in zip(names, lists, strict=True)
            for each in found
        ]

    async def read(self, agent: Asks, uri: str) -> types.ReadResourceResult:
        """A resource that its server lists. Raises ``MCPError`` for any other."""
        name, _, rest = uri.removeprefix(_SCHEME).partition("/")
        upstream = (await self._servers()).get(name) if uri.startswith(_SCHEME) else None
        missing = MCPError(code=types.INVALID_PARAMS, message="Resource not found")
        if upstream is None:
            raise missing
        inner = unquote(rest)
        try:
            begun = await self._begin(agent, name, RESOURCES, None, {})
        except KeyholeError:
            raise missing from None
        cleaner: Cleaner | None = None
        result = "failed"
        try:
            session = await upstream.session(begun.stamp)
            cleaner = Cleaner(session.scrubber)
            if inner not in {str(each.uri) for each in await upstream.resources()}:
                raise missing
            async with session.in_use() as client, faults(session):
                found = await client.read_resource(inner)
            plain = cleaner.value(found.model_dump(by_alias=True, mode="json", exclude_none=True))
            for each in plain["contents"]:
                each["uri"] = uri
            result = "ok"
            return types.ReadResourceResult(contents=types.ReadResourceResult.model_validate(plain).contents)
        except MCPError as error:
            raise _cleaned(error, cleaner) from None
        except KeyholeError as error:
            raise MCPError(code=types.INTERNAL_ERROR, message=str(error)) from None
        finally:
            await self._end(agent, begun, result, cleaner.masked if cleaner else 0, 0)

    async def listing(self, name: str) -> dict[str, Listed]:
        """What a server shows now, for the person who is to approve it. Raises what using it raises."""
        self._known_until = 0.0
        upstreams = await self._servers()
        if name not in upstreams:
            raise NotFound(f"there is no server {name!r}", "keyhole mcp server list")
        return await upstreams[name].tools(fresh=True)

    async def close(self) -> None:
        """End all servers."""
        await asyncio.gather(*(each.close() for each in self._upstreams.values()), return_exceptions=True)

    async def _servers(self) -> dict[str, Upstream]:
        async with self._lock:
            if time.monotonic() >= self._known_until:
                names = await asyncio.to_thread(self._names)
                for gone in self._upstreams.keys() - names:
                    await self._upstreams.pop(gone).close()
                for name in names - self._upstreams.keys():
                    self._upstreams[name] = Upstream(_Loading(self._own, name), self._ways)
                self._known_until = time.monotonic() + _KNOWN
            return dict(sorted(self._upstreams.items()))

    def _names(self) -> set[str]:
        try:
            names = set(self._own.ask("list", "tools/servers").data["keys"])
        except NotFound:
            return set()
        return names & self._only if self._only else names

    async def _shown(self, upstream: Upstream) -> dict[str, Listed]:
        """A server that cannot be used, or is slow, has no tools now; the others have theirs."""
        with contextlib.suppress(KeyholeError, MCPError, TimeoutError):
            return await asyncio.wait_for(upstream.tools(fresh=True), _WAITING)
        return {}

    async def _resources(self, upstream: Upstream) -> list[types.Resource]:
        with contextlib.suppress(KeyholeError, MCPError, TimeoutError):
            return await asyncio.wait_for(upstream.resources(), _WAITING)
        return []

    async def _offered(self, agent: Asks, servers: Mapping[str, Mapping[str, str]]) -> Mapping[str, list[str]]:
        found = await asyncio.to_thread(agent.ask, "update", "tools/own/offered", {"servers": servers})
        offered: Mapping[str, list[str]] = found.data["servers"]
        return offered

    async def _begin(
        self, agent: Asks, server: str, tool: str, listed: Listed | None, arguments: Mapping[str, Any]
    ) -> _Begun:
        facts = {"server": server, "tool": tool, "digest": listed.digest if listed else "", "arguments": arguments}
        data = (await asyncio.to_thread(agent.ask, "update", "tools/own/begin", facts)).data
        return _Begun(data["call"], data["proof"], data["stamp"], time.monotonic())

    async def _end(self, agent: Asks, begun: _Begun, result: str, scrubbed: int, received: int) -> None:
        """Say how a use ended, also when whoever called has gone. A token that was revoked meanwhile says nothing."""
        took = int((time.monotonic() - begun.at) * 1000)
        facts = {"call": begun.call, "proof": begun.proof, "result": result, "scrubbed": scrubbed}
        facts |= {"received": received, "milliseconds": took}
        work = asyncio.ensure_future(asyncio.to_thread(agent.ask, "update", "tools/own/end", facts))
        with contextlib.suppress(Unauthenticated, PolicyDenied):
            await asyncio.shield(work)

    async def _send(
        self, session: Session, tool: str, arguments: dict[str, Any], report: Report, cleaner: Cleaner
    ) -> types.CallToolResult:
        async def heard(progress: float, total: float | None, message: str | None) -> None:
            await report(progress, total, cleaner.text(message) if message else message)

        async with session.in_use() as client, faults(session):
            found = await client.call_tool(tool, arguments, progress_callback=heard)
        plain = cleaner.value(found.model_dump(by_alias=True, mode="json", exclude_none=True))
        plain.pop("_meta", None)
        return types.CallToolResult.model_validate(plain)


class _Loading:
    """Reads a server's binding and its secrets, as whoever runs the gateway."""

    def __init__(self, own: Asks, name: str) -> None:
        self._own = own
        self._name = parse_server_name(name)

    def __call__(self) -> Bound:
        """As of now: the stamp first, so that a value that changes meanwhile is noticed by the next call."""
        path = f"tools/servers/{self._name}"
        data = dict(self._own.ask("read", path).data)
        data.pop("approved", None)
        server = ToolServer.from_data(self._name, data)
        stamp = str(self._own.ask("read", f"{path}/stamp").data["stamp"])
        values, read = dict[tuple[str, str], str](), dict[str, Mapping[str, Any]]()
        for secret, name in server.secret_refs():
            if secret not in read:
                data = self._own.ask("read", capability_path(secret)).data
                read[secret] = {name: data.get("access_token")} if secret == server.oauth else data["data"]
            value = read[secret].get(name)
            if not isinstance(value, str) or "\0" in value:
                raise InvalidRequest(f"{secret}#{name} is no text that a server can be given")
            values[secret, name] = value
        return Bound(server, stamp, values)

    def renew(self, stamp: str) -> str:
        """See ``Loads``."""
        return str(self._own.ask("update", f"tools/servers/{self._name}/refused", {"stamp": stamp}).data["stamp"])


def _unknown(name: str) -> MCPError:
    return MCPError(code=types.INVALID_PARAMS, message=f"Unknown tool: {name[:200]}")


def _cleaned(error: MCPError, cleaner: Cleaner | None) -> MCPError:
    """What a server said of a failure. Its data are left out."""
    if cleaner is None:
        return MCPError(code=error.error.code, message="the server failed")
    return MCPError(code=error.error.code, message=cleaner.text(error.error.message)[:2000])


def _refused(error: KeyholeError) -> types.CallToolResult:
    text = f"{error.code}: {error.reason}" + (f"\nnext: {error.hint}" if error.hint else "")
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True)
