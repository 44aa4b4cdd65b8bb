"""Many servers as one: what an agent may see of them, and its calls. The door decides; nothing is decided here."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

import mcp_types as types
from mcp.shared.exceptions import MCPError
from pydantic import TypeAdapter, ValidationError

from keyhole.client.core import Result
from keyhole.core.errors import (
    ApprovalRequired,
    InvalidRequest,
    KeyholeError,
    NotFound,
    PolicyDenied,
    ScrubFailedClosed,
    Unauthenticated,
)
from keyhole.core.path import revealing
from keyhole.core.tool_server import SIDES, ToolServer, parse_server_name, shown_name, split_shown
from keyhole.faces.mcp.gateway.changes import Changes
from keyhole.faces.mcp.gateway.cleaned import Cleaner
from keyhole.faces.mcp.gateway.parked import Parking
from keyhole.faces.mcp.gateway.questions import Listens
from keyhole.faces.mcp.gateway.reach import Bound, Ways
from keyhole.faces.mcp.gateway.rounds import exchanged
from keyhole.faces.mcp.gateway.upstream import Listed, Upstream
from keyhole.faces.mcp.gateway.use import Begun, Use

Report = Callable[[float, float | None, str | None], Awaitable[None]]
Answer = TypeVar("Answer")
_KNOWN = 2.0  # seconds for which the names of servers are good
_LOOK = 1.0  # seconds between two looks at whether a person has decided
_MOST_WAITING = 64
_ANSWER = TypeAdapter[types.CallToolResult | types.InputRequiredResult](
    types.CallToolResult | types.InputRequiredResult
)
_WAITING = 20.0  # seconds that a list waits for a server that is slow


class Asks(Protocol):
    """A vault, asked as somebody, from any thread."""

    def ask(self, operation: str, path: str, data: Mapping[str, Any] | None = None) -> Result:
        """Ask, and wait. Raises what the vault refuses."""


async def nothing_said(_progress: float, _total: float | None, _message: str | None) -> None:
    """Nobody is told of progress."""


class Hidden(Exception):  # no error: it is told as that there is nothing
    """The agent may not know that it is there."""


class Gateway:
    """Servers of tools, for several agents.

    Args:
        own: the vault as whoever runs the gateway, who may read the bindings of servers and their secrets.
        ways: how servers are reached.
        only: names of the servers that it stands in front of; empty for all.

    Attributes:
        changes: of the servers, for who wants to hear of them.
        parking: of calls that wait for their clients.
    """

    def __init__(self, own: Asks, ways: Ways, only: frozenset[str] = frozenset()) -> None:
        self._own = own
        self._ways = ways
        self._only = only
        self._upstreams: dict[str, Upstream] = {}
        self.changes = Changes()
        self.parking = Parking(ways.questions)
        self._waiting = 0
        self._known_until = 0.0
        self._lock = asyncio.Lock()

    async def tools(self, agent: Asks) -> list[types.Tool]:
        """The tools that an agent may use, under the names that it calls them by.

        Raises:
            KeyholeError: the vault refuses to say.
        """
        upstreams = await self.servers()
        found = dict(zip(upstreams, await asyncio.gather(*map(self._shown, upstreams.values())), strict=True))
        asked = {name: {tool: each.digest for tool, each in tools.items()} for name, tools in found.items() if tools}
        offered = await self.offered(agent, asked) if asked else {}
        return [
            found[name][tool].tool.model_copy(update={"name": shown_name(name, tool)})
            for name, tools in offered.items()
            for tool in tools
            if tool in found.get(name, {})
        ]

    async def call(
        self,
        agent: Asks,
        name: str,
        arguments: dict[str, Any],
        report: Report,
        client: Listens | None = None,
    ) -> types.CallToolResult:
        """Use a tool as an agent.

        Args:
            agent: the vault as the agent.
            name: of the tool, as it was shown.
            arguments: of the call.
            report: is told of progress.
            client: hears what the server logs meanwhile, and is asked what it may ask; nobody where it is left out.

        Raises:
            MCPError: there is no such tool, or the agent may not know of it; or the server said so.
        """
        server, tool = split_shown(name)
        upstream = (await self.servers()).get(server)
        if upstream is None:
            raise unknown(name)
        return await answered(name, self._make(agent, upstream, server, tool, arguments, report, client))

    async def use(
        self, agent: Asks, server: str, tool: str, arguments: dict[str, Any], report: Report
    ) -> types.CallToolResult:
        """As ``call``, for who may know why not.

        Raises:
            KeyholeError: the door refuses it, or the server cannot be used.
            MCPError: the server said so.
        """
        upstream = (await self.servers()).get(server)
        if upstream is None:
            raise NotFound(f"there is no server {server!r}", "keyhole mcp server list")
        try:
            return await self._make(agent, upstream, server, tool, arguments, report, None)
        except Hidden as hidden:
            raise hidden.__cause__ or NotFound(f"there is no tool {server}/{tool}") from None

    async def _make(
        self,
        agent: Asks,
        upstream: Upstream,
        server: str,
        tool: str,
        arguments: dict[str, Any],
        report: Report,
        client: Listens | None,
    ) -> types.CallToolResult:
        """Make one use, whatever becomes of it. Raises ``Hidden`` and what ``use`` raises."""
        listed = await _listed(upstream, tool)
        asked = types.CallToolRequest(params=types.CallToolRequestParams(name=tool, arguments=arguments))
        async with self.using(agent, upstream, server, tool, listed, arguments, report, client) as use:
            # The SDK's own call_tool would judge the answer by the server's schema, whose patterns may take for ever.
            found = await exchanged(upstream, use, asked, _ANSWER, client, report)
            found = await asyncio.to_thread(_shown, found, use.cleaner)  # which may take long; others wait for nothing
            use.result, use.received = "failed" if found.is_error else "ok", len(found.model_dump_json())
        return found

    async def note_stale(self, agent: Asks, server: str, tool: str) -> None:
        """Have it recorded that an agent comes back to a call that does not wait for it. Raises ``Unauthenticated``."""
        facts = {"server": server, "tool": tool, "proof": "none"}
        with contextlib.suppress(InvalidRequest):
            await asyncio.to_thread(agent.ask, "update", "tools/own/begin", facts)

    async def listing(self, name: str) -> dict[str, Listed]:
        """What a server shows now, for the person who is to approve it. Raises what using it raises."""
        self._known_until = 0.0
        upstreams = await self.servers()
        if name not in upstreams:
            raise NotFound(f"there is no server {name!r}", "keyhole mcp server list")
        return await upstreams[name].tools(fresh=True)

    async def refused(self, name: str) -> tuple[str, ...]:
        """Names of tools that a server showed when it was last asked, and that are not offered for their names."""
        upstream = (await self.servers()).get(name)
        return upstream.refused if upstream is not None else ()

    async def close(self) -> None:
        """Give up the calls that go on, and end all servers."""
        await self.parking.close()
        await asyncio.gather(*(each.close() for each in self._upstreams.values()), return_exceptions=True)

    async def servers(self) -> dict[str, Upstream]:
        """The servers that there are, by name."""
        async with self._lock:
            if time.monotonic() >= self._known_until:
                names = await asyncio.to_thread(self._names)
                for gone in self._upstreams.keys() - names:
                    await self._upstreams.pop(gone).close()
                for name in names - self._upstreams.keys():
                    self._upstreams[name] = Upstream(_Loading(self._own, name), self._ways, self.changes.of(name))
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

    async def offered(self, agent: Asks, servers: Mapping[str, Mapping[str, str]]) -> Mapping[str, list[str]]:
        """Of tools with their digests, by server, those that an agent may be shown."""
        found = await asyncio.to_thread(agent.ask, "update", "tools/own/offered", {"servers": servers})
        offered: Mapping[str, list[str]] = found.data["servers"]
        return offered

    @asynccontextmanager
    async def using(
        self,
        agent: Asks,
        upstream: Upstream,
        server: str,
        tool: str,
        listed: Listed | None,
        arguments: Mapping[str, Any],
        report: Report,
        client: Listens | None = None,
    ) -> AsyncIterator[Use]:
        """One use of a tool: decided first, and its outcome said at the end, whatever that is.

        Where a client is given, it is told what judges the use again before it goes on with what it is asked.

        Raises:
            Hidden: the agent may not know that there is such a tool.
            MCPError: what the server says, scrubbed.
            KeyholeError: the refusal.
        """
        digest = listed.digest if listed else ""
        try:
            begun = await self._begin(agent, server, tool, digest, arguments, report)
        except (PolicyDenied, NotFound) as error:
            await self._require_known(agent, server, tool, digest, error)
            raise
        use = Use(begun.stamp)
        if client is not None:
            client.begun(partial(self._goes_on, agent, upstream, server, tool, begun, use, arguments))
        try:
            use.session = await upstream.session(begun.stamp)
            yield use
        except MCPError as error:
            use.result = "failed"
            raise _cleaned(error, use) from None
        except KeyholeError as error:
            use.result = error.code if error.code.startswith("upstream_") else "failed"
            raise
        finally:
            await self._end(agent, begun, use.result, use.masked, use.received)

    async def _require_known(self, agent: Asks, server: str, tool: str, digest: str, error: KeyholeError) -> None:
        """Raises ``Hidden`` for the refusal of a tool that the agent may not even know of."""
        if tool not in (await self.offered(agent, {server: {tool: digest}})).get(server, ()):
            raise Hidden from error

    async def _goes_on(
        self,
        agent: Asks,
        upstream: Upstream,
        server: str,
        tool: str,
        begun: Begun,
        use: Use,
        arguments: Mapping[str, Any],
    ) -> None:
        """Ask the door about a use that has waited for its client. Raises what ``using`` raises."""
        listed = None
        if tool not in SIDES:  # a server that waits for an answer itself may not be able to say what it has
            listed = upstream.known(tool) if use.asking else await _listed(upstream, tool)
        digest = listed.digest if listed else ""
        facts = {"server": server, "tool": tool, "digest": digest, "arguments": arguments}
        facts |= {"call": begun.call, "proof": begun.proof}
        try:
            data = (await asyncio.to_thread(agent.ask, "update", "tools/own/begin", facts)).data
        except (PolicyDenied, NotFound) as error:
            await self._require_known(agent, server, tool, digest, error)
            raise
        use.require_bound(await asyncio.to_thread(_binding, self._own, server))
        use.stamp = data["stamp"]

    async def _begin(
        self, agent: Asks, server: str, tool: str, digest: str, arguments: Mapping[str, Any], report: Report
    ) -> Begun:
        """Ask the door, again when a person has decided, for as long as the rules of the tool let a call wait."""
        facts = {"server": server, "tool": tool, "digest": digest, "arguments": arguments}
        until = 0.0
        while True:
            try:
                data = (await asyncio.to_thread(agent.ask, "update", "tools/own/begin", facts)).data
                return Begun(data["call"], data["proof"], data["stamp"], time.monotonic())
            except ApprovalRequired as error:
                until = until or time.monotonic() + await self._wait(server, tool)
                if not error.approval or not await self._decided(agent, error.approval, until, report):
                    raise

    async def _wait(self, server: str, tool: str) -> float:
        """Seconds for which a call of a tool waits for a person."""
        data = await asyncio.to_thread(_binding, self._own, server)
        wanted = [each for rule in data.rules_of(tool) if rule.checks for each in rule.checks.approvals]
        return float(min((each.wait for each in wanted), default=0))

    async def _decided(self, agent: Asks, approval: str, until: float, report: Report) -> bool:
        """Whether a person has decided within the time; at most so many calls wait at once."""
        if time.monotonic() >= until or self._waiting >= _MOST_WAITING:
            return False
        self._waiting += 1
        try:
            await report(0.0, None, f"waits for a person: keyhole approve {approval}")
            while (left := until - time.monotonic()) > 0:
                await asyncio.sleep(min(_LOOK, left))
                asked = (await asyncio.to_thread(agent.ask, "read", "sys/own/requests")).data["requests"]
                if not any(each["id"] == approval and each["state"] == "pending" for each in asked):
                    return True
            return False
        finally:
            self._waiting -= 1

    async def _end(self, agent: Asks, begun: Begun, result: str, scrubbed: int, received: int) -> None:
        """Say how a use ended, also when whoever called has gone. A token that was revoked meanwhile says nothing."""
        took = int((time.monotonic() - begun.at) * 1000)
        facts = {"call": begun.call, "proof": begun.proof, "result": result, "scrubbed": scrubbed}
        facts |= {"received": received, "milliseconds": took}
        work = asyncio.ensure_future(asyncio.to_thread(agent.ask, "update", "tools/own/end", facts))
        with contextlib.suppress(Unauthenticated, PolicyDenied):
            await asyncio.shield(work)


def _shown(found: types.CallToolResult, cleaner: Cleaner) -> types.CallToolResult:
    """A result without credentials. Raises ``ScrubFailedClosed`` where nothing can be shown in place of one."""
    plain = cleaner.value(found.model_dump(by_alias=True, mode="json", exclude_none=True))
    plain.pop("_meta", None)
    for each in plain.get("content", ()):
        each.pop("_meta", None)
        if isinstance(each.get("resource"), dict):
            each["resource"].pop("_meta", None)
    try:
        return types.CallToolResult.model_validate(plain)
    except ValidationError:
        raise ScrubFailedClosed("the answer of the server has a credential where only a number may stand") from None


def _binding(own: Asks, name: str) -> ToolServer:
    data = dict(own.ask("read", f"tools/servers/{parse_server_name(name)}").data)
    data.pop("approved", None)
    return ToolServer.from_data(name, data)


class _Loading:
    """Reads a server's binding and its secrets, as whoever runs the gateway."""

    def __init__(self, own: Asks, name: str) -> None:
        self._own = own
        self._name = parse_server_name(name)

    def __call__(self) -> Bound:
        """As of now: the stamp first, so that a value that changes meanwhile is noticed by the next call."""
        path = f"tools/servers/{self._name}"
        server = _binding(self._own, self._name)
        stamp = str(self._own.ask("read", f"{path}/stamp").data["stamp"])
        values, read = dict[tuple[str, str], str](), dict[str, Mapping[str, Any]]()
        for secret, name in server.secret_refs():
            if secret not in read:
                data = self._own.ask("read", revealing(secret)).data
                read[secret] = {name: data.get("access_token")} if secret == server.oauth else data["data"]
            value = read[secret].get(name)
            if not isinstance(value, str) or "\0" in value:
                raise InvalidRequest(f"{secret}#{name} is no text that a server can be given")
            values[secret, name] = value
        return Bound(server, stamp, values)

    def renew(self, stamp: str) -> str:
        """See ``Loads``."""
        return str(self._own.ask("update", f"tools/servers/{self._name}/refused", {"stamp": stamp}).data["stamp"])


async def answered(name: str, work: Awaitable[Answer]) -> Answer | types.CallToolResult:
    """The answer to a call of a tool: a refusal is one too. Raises ``MCPError``."""
    try:
        return await work
    except Hidden:
        raise unknown(name) from None
    except KeyholeError as error:
        return _refused(error)


async def _listed(upstream: Upstream, tool: str) -> Listed | None:
    """A tool as its server shows it now; as it showed it last where it cannot say."""
    with contextlib.suppress(KeyholeError, MCPError):
        return (await upstream.tools()).get(tool)
    return upstream.known(tool)


def unknown(name: str) -> MCPError:
    """What is said of a tool that is not there, or that the agent may not know of."""
    return MCPError(code=types.INVALID_PARAMS, message=f"Unknown tool: {name[:200]}")


def _cleaned(error: MCPError, use: Use) -> MCPError:
    """What a server said of a failure. Its data are left out."""
    if not use.begun:
        return MCPError(code=error.error.code, message="the server failed")
    code = error.error.code if use.cleaner.number(error.error.code) is not None else types.INTERNAL_ERROR
    return MCPError(code=code, message=use.cleaner.text(error.error.message)[:2000])


def _refused(error: KeyholeError) -> types.CallToolResult:
    text = f"{error.code}: {error.reason}" + (f"\nnext: {error.hint}" if error.hint else "")
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True)
