"""``tools/``: servers of tools, what was approved of them, and the uses of their tools.

Who may bind may leak: writing a server needs ``read`` on every secret that it names, and ``sudo`` for a command or a
private address. A gateway asks ``tools/own/`` with the token of the agent for whom it acts: what may be shown, then for
each call a begin, which is the decision on ``tools/SERVER/TOOL``, and an end, which is its outcome. Where a call waits
for something that its client says, the decision is made again with it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import Conflict, InvalidRequest, NotFound, PolicyDenied
from keyhole.core.numbers import parse_count
from keyhole.core.path import revealing
from keyhole.core.record import Intent
from keyhole.core.request import Operation, Reply, Request
from keyhole.core.times import format_time
from keyhole.core.tool_server import (
    FIELDS,
    SIDES,
    ToolServer,
    is_digest,
    is_tool_name,
    parse_server_name,
    tool_path,
)
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.keys import new_request_id
from keyhole.vault.lending import TOOLS
from keyhole.vault.storage import Storage
from keyhole.vault.tool_rules import check_rules
from keyhole.vault.tool_use import (
    MOUNT,
    Stamps,
    changed,
    load_pins,
    load_server,
    opened,
    refusals,
    renewed,
    use_goes_on,
    use_tool,
)
from keyhole.vault.vault import Vault

_MOST_TOOLS = 2000  # of one server
_MOST_SERVERS = 500
_TOLD = 4096
_RESULTS = frozenset({"ok", "failed", "aborted", "upstream_timeout", "upstream_unreachable", "invalid_request"})


class _Handlers:
    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._stamps = Stamps(vault.keys.token_key)
        self._told: OrderedDict[tuple[str, ...], None] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()

    def storage(self, context: Context) -> Storage:
        return self._vault.storage(context.caller.org_id, MOUNT)

    async def exists(self, context: Context, params: Mapping[str, str]) -> bool:
        return (await self.storage(context).get_one(f"s/{params['name']}")).data is not None

    async def names(self, context: Context, _call: Call) -> Reply:
        keys = await self.storage(context).list("s")
        if not keys:
            raise NotFound("there are no servers of tools", "keyhole mcp server add NAME …")
        return Reply({"keys": list(keys)})

    async def read(self, context: Context, call: Call) -> Reply:
        server = await load_server(self.storage(context), call.params["name"])
        pins = await load_pins(self.storage(context), server.name)
        return Reply({"name": server.name, **server.as_data(), "approved": sorted(pins)})

    async def write(self, context: Context, call: Call) -> None:
        storage, name = self.storage(context), parse_server_name(call.params["name"])
        server = ToolServer.from_data(name, call.data)
        check_rules(server.rules)
        for path, _ in server.secret_refs():
            if not context.caller.allows("read", revealing(path)):
                raise PolicyDenied(
                    f"binding a secret needs read on it, and you may not read {path!r}",
                    "ask its owner to make the server, or to grant you read",
                )
        if (server.command or server.allow_addresses) and not context.caller.allows("update", call.path, sudo=True):
            what = "a command" if server.command else "an address that the guard refuses"
            raise PolicyDenied(f"naming {what} needs sudo on the server", "ask an administrator")
        if server.agent and not context.caller.allows("update", f"agents/{server.agent}/token"):
            raise PolicyDenied(
                f"who lets a program act as {server.agent} needs update on its tokens", "ask an administrator"
            )
        state = await self._vault.compiled.state(context.caller.org_id)
        if server.oauth:
            await self._vault.sources.require_audience(state, context.caller, server.oauth, server.url)
        item, pins = await storage.get_one(f"s/{name}"), await storage.get_one(f"p/{name}")
        call.require_new(stored=item.data is not None)
        if item.data is None and len(await storage.list("s")) >= _MOST_SERVERS:
            raise InvalidRequest(f"an org has at most {_MOST_SERVERS} servers of tools", "remove one that is not used")
        writes = [(f"s/{name}", json.dumps(server.as_data()).encode(), item.revision)]
        deletes = []
        if pins.data is not None and item.data is not None:
            before = ToolServer.from_data(name, json.loads(item.data))
            if not server.same_program(before):  # what was approved was approved of another program
                deletes.append((f"p/{name}", pins.revision))
        await context.storage.change(writes, deletes)

    async def delete(self, context: Context, call: Call) -> None:
        storage, name = self.storage(context), call.params["name"]
        items = [(key, await storage.get_one(key)) for key in (f"s/{name}", f"p/{name}")]
        gone = [(key, item.revision) for key, item in items if item.data is not None]
        if gone:
            await context.storage.change((), gone)

    async def stamp(self, context: Context, call: Call) -> Reply:
        """Needs ``read`` on every secret of the server: who asks starts the program that gets them."""
        server = await self._readable(context, call)
        state = await self._vault.compiled.state(context.caller.org_id)
        return Reply({"stamp": self._stamps.of(server, await opened(self._vault, state, context.caller, server))})

    async def refused(self, context: Context, call: Call) -> Reply:
        """Needs the same. What is there by now is answered where it is not what was refused."""
        server = await self._readable(context, call)
        state = await self._vault.compiled.state(context.caller.org_id)
        secrets = await opened(self._vault, state, context.caller, server)
        stamp = self._stamps.of(server, secrets)
        if server.oauth and hmac.compare_digest(stamp.encode(), str(call.data.get("stamp", "")).encode()):
            secrets = await renewed(self._vault, state, context.caller, server, secrets)
        return Reply({"stamp": self._stamps.of(server, secrets)})

    async def _readable(self, context: Context, call: Call) -> ToolServer:
        server = await load_server(self.storage(context), call.params["name"])
        for path, _ in server.secret_refs():
            if not context.caller.allows("read", revealing(path)):
                raise PolicyDenied(
                    f"you may not read {path!r}", f"a gateway needs read on the secrets of {server.name}"
                )
        return server

    async def pins(self, context: Context, call: Call) -> Reply:
        server = await load_server(self.storage(context), call.params["name"])
        return Reply({"tools": await load_pins(self.storage(context), server.name)})

    async def approve(self, context: Context, call: Call) -> Reply:
        storage, name = self.storage(context), call.params["name"]
        await load_server(storage, name)
        if context.caller.name.startswith("agent/"):
            raise PolicyDenied("an agent approves no tools", "a person does: keyhole mcp server approve NAME")
        approved, forgotten = call.data.get("approve") or {}, call.data.get("forget") or []
        if not isinstance(approved, dict) or not isinstance(forgotten, list):
            raise InvalidRequest("approve is an object of digests by tool, forget a list of tools")
        item = await storage.get_one(f"p/{name}")
        found: dict[str, Any] = {} if item.data is None else json.loads(item.data)
        for tool, digest in approved.items():
            if not is_tool_name(tool) or not is_digest(digest):
                raise InvalidRequest("a tool or a digest is none", "keyhole mcp server approve NAME looks at them")
            found[tool] = {"digest": digest, "by": context.caller.name, "at": format_time(context.now)}
        for tool in forgotten:
            found.pop(tool, None)
        if len(found) > _MOST_TOOLS:
            raise InvalidRequest(f"a server has at most {_MOST_TOOLS} approved tools", "approve those that are used")
        await context.storage.change([(f"p/{name}", json.dumps(found).encode(), item.revision)])
        return Reply({"name": name, "tools": found})

    async def offered(self, context: Context, call: Call) -> Reply:
        """Which tools, of those that are there now, the caller may be shown."""
        state = await self._vault.compiled.state(context.caller.org_id)
        servers = call.data.get("servers")
        if not isinstance(servers, dict) or not all(isinstance(tools, dict) for tools in servers.values()):
            raise InvalidRequest("servers are an object: server to tools with their digests")
        found: dict[str, list[str]] = {}
        for name, tools in servers.items():
            try:
                server = await load_server(self.storage(context), name)
            except (NotFound, InvalidRequest):
                continue
            pins = await load_pins(self.storage(context), name)
            allowed = [
                tool
                for tool in tools
                if (tool in SIDES or is_tool_name(tool))
                and server.offers(tool)
                and context.caller.acl.decide("use", tool_path(name, tool))
            ]
            for tool in allowed:
                if tool in pins and pins[tool]["digest"] != tools[tool]:
                    await self._tell(state, context, name, tool, str(tools[tool]), pins[tool])
            found[name] = [tool for tool in allowed if tool in SIDES or _same(pins.get(tool), tools[tool])]
        return Reply({"servers": found})

    async def _tell(
        self, state: Any, context: Context, server: str, tool: str, digest: str, pin: Mapping[str, Any]
    ) -> None:
        """Record once that a tool is not any more what was approved."""
        key = (context.caller.org_id, server, tool, digest, pin["digest"])
        if key in self._told:
            return
        self._told[key] = None
        while len(self._told) > _TOLD:
            self._told.popitem(last=False)
        path = tool_path(server, tool)
        facts = {"target": changed(digest, pin)}
        request = Request(context.caller, Operation.USE, path, facts, id=new_request_id())
        error = PolicyDenied("the tool has changed since it was approved")
        await self._vault.record_refusal(state, context.caller, request, error, path=path)

    async def begin(self, context: Context, call: Call) -> Reply:
        if call.data.get("proof"):
            return await self._goes_on(context, call)
        state, request = await self._vault.compiled.state(context.caller.org_id), _use(context, call)
        loan = await use_tool(self._vault, state, context.caller, request)
        ticket = self._stamps.ticket(loan.intent, context.caller.accessor)
        return Reply(
            {
                "id": request.id,
                "call": base64.b64encode(loan.intent.encode()).decode(),
                "proof": ticket,
                "stamp": self._stamps.of(loan.server, loan.secrets),
            }
        )

    async def _goes_on(self, context: Context, call: Call) -> Reply:
        """Whether a use that waited for its client may go on: judged as a new one is, and not counted again."""
        state, request = await self._vault.compiled.state(context.caller.org_id), _use(context, call)
        async with refusals(self._vault, state, context.caller, request):
            intent, proof = self._begun(context, call)
            if proof in self._ended:
                raise Conflict("the call has ended")
        server, secrets = await use_goes_on(self._vault, state, context.caller, request, intent)
        return Reply({"stamp": self._stamps.of(server, secrets)})

    def _begun(self, context: Context, call: Call) -> tuple[Intent, str]:
        """The intent of a call that the caller began, and the proof of it. Raises ``InvalidRequest``."""
        try:
            intent = Intent(base64.b64decode(str(call.data.get("call", "")), validate=True))
        except (binascii.Error, ValueError):
            raise InvalidRequest("the call is none that was begun") from None
        proof = str(call.data.get("proof", ""))
        if not hmac.compare_digest(self._stamps.ticket(intent, context.caller.accessor).encode(), proof.encode()):
            raise InvalidRequest("the call is none that was begun by you")
        return intent, proof

    async def end(self, context: Context, call: Call) -> None:
        intent, proof = self._begun(context, call)
        if proof in self._ended:
            raise Conflict("the call has ended")
        self._ended[proof] = None
        while len(self._ended) > _TOLD:
            self._ended.popitem(last=False)
        result = str(call.data.get("result", ""))
        if result not in _RESULTS:
            raise InvalidRequest("the result is none", f"one of {', '.join(sorted(_RESULTS))}")
        numbers = {
            name: parse_count(call.data.get(name) or 0, name) for name in ("scrubbed", "received", "milliseconds")
        }
        state = await self._vault.compiled.state(context.caller.org_id)
        self._vault.conclude(state, intent, result, **numbers)


def _use(context: Context, call: Call) -> Request:
    server, tool = str(call.data.get("server", "")), str(call.data.get("tool", ""))
    facts = {"digest": call.data.get("digest", ""), "arguments": call.data.get("arguments") or {}}
    path = f"{TOOLS}{server}/{tool}"
    return Request(context.caller, Operation.USE, path, facts, remote=call.remote, id=new_request_id())


def _same(pin: Mapping[str, Any] | None, digest: object) -> bool:
    return pin is not None and pin["digest"] == digest


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault)
    return (
        Route("servers", {Operation.LIST: r.names}, help="Names of all servers of tools."),
        Route(
            "servers/{name}",
            {Operation.READ: r.read, Operation.CREATE: r.write, Operation.DELETE: r.delete},
            exists=r.exists,
            fields=tuple(Field(name, text) for name, text in FIELDS.items()),
            help="How a server of tools is reached, which secrets it gets, and which tools are offered.",
        ),
        Route("servers/{name}/stamp", {Operation.READ: r.stamp}, help="Another text when its secrets are others."),
        Route(
            "servers/{name}/refused",
            {Operation.CREATE: r.refused},
            fields=(Field("stamp", "of the secrets with which it was asked"),),
            help="The server has refused its token: another one is got, where there can be one.",
        ),
        Route(
            "servers/{name}/pins",
            {Operation.READ: r.pins, Operation.CREATE: r.approve},
            fields=(Field("approve", "object: tool to digest"), Field("forget", "list of tools")),
            help="The tools of a server that a person has approved, as they were then.",
        ),
        Route(
            "own/offered",
            {Operation.CREATE: r.offered},
            fields=(Field("servers", "object: server to an object of tool to digest"),),
            help="Which tools the caller may be shown.",
        ),
        Route(
            "own/begin",
            {Operation.CREATE: r.begin},
            fields=(
                Field("server", "its name"),
                Field("tool", "its name there"),
                Field("digest", "of the tool as it is now"),
                Field("arguments", "object; never recorded, but for the names"),
                Field("call", "of a use that has waited for its client, and goes on now; with its proof"),
                Field("proof", "of it"),
            ),
            help="Use of a tool by the caller: decided and recorded; or, with a proof, whether it may go on.",
            recorded=True,
        ),
        Route(
            "own/end",
            {Operation.CREATE: r.end},
            fields=(
                Field("call", "that was begun"),
                Field("proof", "of it"),
                Field("result", "how it ended"),
                Field("scrubbed", "places that were masked"),
                Field("received", "bytes"),
                Field("milliseconds", "that it took"),
            ),
            help="How a use ended.",
            recorded=True,
        ),
    )
