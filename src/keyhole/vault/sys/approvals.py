"""``approvals/``: requests that wait for a person, and what was decided about them.

Nobody approves what they ask for themselves: neither with their own token, nor with one that was made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied
from keyhole.core.lease import parse_duration
from keyhole.core.request import Operation, Reply
from keyhole.core.times import format_time
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault import approvals
from keyhole.vault.identity.places import AGENTS
from keyhole.vault.storage import Storage
from keyhole.vault.sys.agents import grant_service, require_agent
from keyhole.vault.tokens import MOUNT as TOKENS
from keyhole.vault.vault import Vault

_INSIDE = ("target_digest", "path_digest", "ttl", "entity")
_TIMES = ("created", "expires", "decided")
_DEEPEST = 64  # tokens above one another


class _Handlers:
    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def storage(self, context: Context) -> Storage:
        return self._vault.storage(context.caller.org_id, approvals.MOUNT)

    async def names_of(self, context: Context) -> set[str]:
        """The caller, and everybody whose token the caller's was made from: names, and ids of entities."""
        names, token_id = {context.caller.name, context.caller.entity.id}, context.caller.holder
        storage = self._vault.storage(context.caller.org_id, TOKENS)
        for _ in range(_DEEPEST):
            token = await self._vault.tokens.get(storage, token_id) if token_id else None
            if token is None:
                break
            names |= {token.name, token.entity_id}
            token_id = token.parent
        return names - {""}

    async def list_requests(self, context: Context, _call: Call) -> Reply:
        return _listing(await approvals.requests(self.storage(context), context.now), "nothing waits for an approval")

    async def list_standing(self, context: Context, _call: Call) -> Reply:
        return _listing(await approvals.standing(self.storage(context), context.now), "there are no standing approvals")

    async def read(self, context: Context, call: Call) -> Reply:
        data, _, _ = await approvals.one(self.storage(context), call.params["id"], context.now)
        return Reply(_shown(data))

    async def approve(self, context: Context, call: Call) -> Reply:
        storage, request_id = self.storage(context), call.params["id"]
        data, _, _ = await approvals.one(storage, request_id, context.now)
        approvals.require_other(data, await self.names_of(context))
        by = context.caller.name
        if data.get("kind") == approvals.ACCESS:
            return await self._give_access(context, call, data)
        kind = str(call.data.get("kind") or "exact")
        if kind not in approvals.KINDS:
            raise InvalidRequest(f"kind is one of {', '.join(approvals.KINDS)}", "keyhole approve ID --same-path")
        if call.data.get("for"):
            seconds = parse_duration(call.data["for"], name="for")
            return Reply(
                _shown(await approvals.stand(storage, request_id, context.now, by=by, kind=kind, seconds=seconds))
            )
        if kind != "exact":
            raise InvalidRequest("an approval of more than this request needs an end", "say for how long: --for 1h")
        return Reply(_shown(await approvals.decide(storage, request_id, context.now, approved=True, by=by)))

    async def _give_access(self, context: Context, call: Call, data: dict[str, Any]) -> Reply:
        """A grant, which takes the place of the request for it; it takes what ``keyhole grant`` takes."""
        if call.data.get("for"):
            raise InvalidRequest("access to a service is granted until it is revoked", "leave --for out")
        name = str(data["agent"]).removeprefix("agent/")
        await require_agent(self._vault, context.caller.org_id, name)
        granting = f"{AGENTS}{name}/services/{data['service']}"
        if not context.caller.allows("update", granting) and not context.caller.allows("create", granting):
            raise PolicyDenied("approving this grants a service, which you may not", f"ask for update on {granting}")
        await grant_service(self._vault, context.caller, name, str(data["service"]))
        await approvals.end(self.storage(context), data["id"], context.now)
        return Reply(_shown({**data, "state": approvals.APPROVED, "by": context.caller.name}))

    async def deny(self, context: Context, call: Call) -> Reply:
        by = context.caller.name
        return Reply(
            _shown(await approvals.decide(self.storage(context), call.params["id"], context.now, approved=False, by=by))
        )

    async def take_back(self, context: Context, call: Call) -> Reply:
        return Reply(_shown(await approvals.take_back(self.storage(context), call.params["id"], context.now)))


def _listing(found: list[dict[str, Any]], nothing: str) -> Reply:
    if not found:
        raise NotFound(nothing, "keyhole requests --watch shows what comes")
    return Reply({"keys": [data["id"] for data in found], "key_info": {data["id"]: _shown(data) for data in found}})


def _shown(data: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in data.items() if name not in _INSIDE}
    return shown | {name: format_time(shown[name]) for name in _TIMES if name in shown}


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault)
    return (
        Route("requests", {Operation.LIST: r.list_requests}, help="Requests that wait for a person, or were decided."),
        Route("requests/{id}", {Operation.READ: r.read}, help="What one of them asks."),
        Route(
            "requests/{id}/approve",
            {Operation.CREATE: r.approve},
            fields=(
                Field("for", "duration: a standing approval; without it this request may be made once"),
                Field("kind", "exact; target: any headers and body; path: any query as well"),
            ),
            help="Let the request through.",
        ),
        Route("requests/{id}/deny", {Operation.CREATE: r.deny}, help="Refuse it for as long as it might have waited."),
        Route("standing", {Operation.LIST: r.list_standing}, help="Standing approvals."),
        Route("standing/{id}", {Operation.DELETE: r.take_back}, help="Take one back."),
    )
