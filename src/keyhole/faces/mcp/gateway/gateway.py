"""Many servers as one: what an agent may see of them, and its calls. The door decides; nothing is decided here."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

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
    UpstreamUnreachable,
)
from keyhole.core.tool_server import ToolServer, capability_path, parse_server_name, shown_name, split_shown
from keyhole.faces.mcp.gateway.changes import Changes
from keyhole.faces.mcp.gateway.cleaned import Cleaner, Following
from keyhole.faces.mcp.gateway.reach import Bound, Ways
from keyhole.faces.mcp.gateway.talk import Listens
from keyhole.faces.mcp.gateway.upstream import Listed, Session, Upstream, faults
from keyhole.faces.mcp.gateway.wants import Wanted

Report = Callable[[float, float | None, str | None], Awaitable[None]]
_KNOWN = 2.0  # seconds for which the names of servers are good
_LOOK = 1.0  # seconds between two looks at whether a person has decided
_MOST_WAITING = 64
_MOST_ROUNDS = 8  # in which a server asks before it answers
_ANSWER = TypeAdapter[types.CallToolResult | types.InputRequiredResult](
    types.CallToolResult | types.InputRequiredResult
)
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


async def nothing_said(_progress: float, _total: float | None, _message: str | None) -> None:
    """Nobody is told of progress."""


class Hidden(Exception):  # no error: it is told as that there is nothing
    """The agent may not know that it is there."""


class Use:
    """One use of a server.

    Attributes:
        result: how it ends.
        received: bytes of its answer.
    """

    def __init__(self) -> None:
        self.result = "aborted"
        self.received = 0
        self._session: Session | None = None
        self._cleaner: Cleaner | None = None

    @property
    def session(self) -> Session:
        """The life of the server with which it is made."""
        if self._session is None:
            raise UpstreamUnreachable("the server is not there yet")
        return self._session

    @session.setter
    def session(self, session: Session) -> None:
        self._session = session
        self._cleaner = Cleaner(session.scrubber)

    @property
    def cleaner(self) -> Cleaner:
        """Of that life's credentials."""
        return self._cleaner or Cleaner(self.session.scrubber)

    @property
    def masked(self) -> int:
        """Texts that had a credential in them."""
        return self._cleaner.masked if self._cleaner is not None else 0

    @property
    def begun(self) -> bool:
        """Whether there is a server yet."""
        return self._session is not None


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
        self.changes = Changes()
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
        try:
            return await self._make(agent, upstream, server, tool, arguments, report, client)
        except Hidden:
            raise unknown(name) from None
        except KeyholeError as error:
            return _refused(error)

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
        listed = upstream.known(tool)
        with contextlib.suppress(KeyholeError, MCPError):
            listed = (await upstream.tools()).get(tool)
        async with self.using(agent, upstream, server, tool, listed, arguments, report) as use:
            try:
                found = await self._send(use, tool, arguments, report, client)
            except Wanted as wanted:  # it was refused, so nothing has been done
                use.session = await upstream.again(use.session, wanted)
                found = await self._send(use, tool, arguments, report, client)
            use.result, use.received = "failed" if found.is_error else "ok", len(found.model_dump_json())
        return found

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
        """End all servers."""
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
    ) -> AsyncIterator[Use]:
        """One use of a tool: decided first, and its outcome said at the end, whatever that is.

        Raises:
            Hidden: the agent may not know that there is such a tool.
            MCPError: what the server says, scrubbed.
            KeyholeError: the refusal.
        """
        digest = listed.digest if listed else ""
        try:
            begun = await self._begin(agent, server, tool, digest, arguments, report)
        except (PolicyDenied, NotFound) as error:
            if tool in (await self.offered(agent, {server: {tool: digest}})).get(server, ()):
                raise
            raise Hidden from error
        use = Use()
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

    async def _begin(
        self, agent: Asks, server: str, tool: str, digest: str, arguments: Mapping[str, Any], report: Report
    ) -> _Begun:
        """Ask the door, again when a person has decided, for as long as the rules of the tool let a call wait."""
        facts = {"server": server, "tool": tool, "digest": digest, "arguments": arguments}
        until = 0.0
        while True:
            try:
                data = (await asyncio.to_thread(agent.ask, "update", "tools/own/begin", facts)).data
                return _Begun(data["call"], data["proof"], data["stamp"], time.monotonic())
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

    async def _end(self, agent: Asks, begun: _Begun, result: str, scrubbed: int, received: int) -> None:
        """Say how a use ended, also when whoever called has gone. A token that was revoked meanwhile says nothing."""
        took = int((time.monotonic() - begun.at) * 1000)
        facts = {"call": begun.call, "proof": begun.proof, "result": result, "scrubbed": scrubbed}
        facts |= {"received": received, "milliseconds": took}
        work = asyncio.ensure_future(asyncio.to_thread(agent.ask, "update", "tools/own/end", facts))
        with contextlib.suppress(Unauthenticated, PolicyDenied):
            await asyncio.shield(work)

    async def _send(
        self, use: Use, tool: str, arguments: dict[str, Any], report: Report, listens: Listens | None
    ) -> types.CallToolResult:
        session = use.session
        following, cleaner = Following(session.scrubber), use.cleaner

        async def heard(progress: float, total: float | None, message: str | None) -> None:
            shown = cleaner.number(progress), cleaner.number(total) if total is not None else None
            await report(shown[0] or 0.0, shown[1], following.text(message) if message else message)

        async with session.in_use() as client, faults(session), session.talk.with_client(listens):
            # The SDK's own call_tool would judge the answer by the server's schema, whose patterns may take for ever.
            asked = types.CallToolRequestParams(name=tool, arguments=arguments)
            for _ in range(_MOST_ROUNDS):
                found = await client.send_request(types.CallToolRequest(params=asked), _ANSWER, progress_callback=heard)
                if isinstance(found, types.CallToolResult):
                    break
                answers = await session.talk.answers(found.input_requests or {}, listens)
                more = {"input_responses": answers or None, "request_state": found.request_state}
                asked = asked.model_copy(update=more)
            else:
                raise UpstreamUnreachable("the server asks again and again, and gives no answer")
        return await asyncio.to_thread(_shown, found, cleaner)  # which may take long, and others wait for nothing


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
