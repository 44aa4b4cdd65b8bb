"""``sys/namespaces``: orgs. The org root creates and deletes them and has no capability inside them."""

from __future__ import annotations

from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied
from keyhole.core.identity import ROOT_ORG
from keyhole.core.path import parse_name
from keyhole.core.policy import ROOT
from keyhole.core.request import Operation, Reply
from keyhole.core.times import format_time
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.orgs import Org
from keyhole.vault.tokens import MOUNT, Grant
from keyhole.vault.vault import Vault


class _Handlers:
    """Handlers of the org routes of a vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def create(self, context: Context, call: Call) -> Reply:
        _root_only(context)
        name = parse_name(call.params["name"])
        egress = str(call.data.get("egress") or self._vault.default_egress)
        org = await self._vault.orgs.create(name, egress=egress, now=context.now)
        grant = Grant(name="user/admin", policies=(ROOT,), endless=True)
        storage = self._vault.storage(org.id, MOUNT)
        clear, token, _ = await self._vault.tokens.create(storage, grant, now=context.now, org_id=org.id)
        return Reply({**_describe(org), "root_token": clear, "accessor": token.accessor})

    async def read(self, context: Context, call: Call) -> Reply:
        _root_only(context)
        return Reply(_describe(await self._vault.orgs.by_name(call.params["name"])))

    async def configure(self, context: Context, call: Call) -> Reply:
        org = await self._vault.orgs.by_id(context.caller.org_id)
        wanted = {name: str(call.data.get(name) or "") for name in ("egress", "tripwire")}
        if not any(wanted.values()):
            raise InvalidRequest("no setting is named", "send egress or tripwire")
        return Reply(_describe(await self._vault.orgs.configure(org, **wanted)))

    async def own(self, context: Context, _call: Call) -> Reply:
        return Reply(_describe(await self._vault.orgs.by_id(context.caller.org_id)))

    async def delete(self, context: Context, call: Call) -> None:
        _root_only(context)
        try:
            await self._vault.orgs.delete(await self._vault.orgs.by_name(call.params["name"]))
        except NotFound:
            return

    async def names(self, context: Context, _call: Call) -> Reply:
        _root_only(context)
        keys = await self._vault.orgs.names()
        return Reply({"keys": keys, "key_info": {}})


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault)
    fields = (Field("egress", "deny, allow or log calls to hosts without a service"),)
    every = frozenset({Operation.CREATE, Operation.UPDATE, Operation.DELETE})
    return (
        Route("namespaces", {Operation.LIST: r.names}, help="Names of orgs."),
        Route(
            "namespaces/{name}",
            {Operation.READ: r.read, Operation.CREATE: r.create, Operation.DELETE: r.delete},
            sudo=every,
            fields=fields,
            help="An org; making one answers its administrator's token.",
        ),
        Route(
            "org",
            {Operation.READ: r.own, Operation.CREATE: r.configure},
            sudo=frozenset({Operation.UPDATE}),
            fields=(
                *fields,
                Field("tripwire", "stop requests that carry what must not leave; revoke their token besides; or off"),
            ),
            help="Settings of the caller's own org.",
        ),
    )


def _root_only(context: Context) -> None:
    if context.caller.org != ROOT_ORG:
        raise PolicyDenied("orgs are made and deleted in the org root", "use a token of the org root")


def _describe(org: Org) -> dict[str, Any]:
    return {
        "id": org.id,
        "name": org.name,
        "path": f"{org.name}/",
        "egress": org.egress,
        "tripwire": org.tripwire,
        "created": format_time(org.created),
    }
