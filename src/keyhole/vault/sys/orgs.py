"""``sys/namespaces``: orgs. The org root creates and deletes them and has no capability inside them."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied
from keyhole.core.identity import ROOT_ORG
from keyhole.core.path import parse_name
from keyhole.core.policy import ROOT
from keyhole.core.request import Operation, Reply
from keyhole.core.times import format_time
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.orgs import Org
from keyhole.vault.sys.leaving import remove_org
from keyhole.vault.tokens import MOUNT, Grant
from keyhole.vault.vault import Vault

# The beginnings of paths: an org of such a name could not be told from one.
_RESERVED = frozenset({"sys", "audit", "auth", "cubbyhole", "identity", "secret", "services", "agents", "approvals"})
_INFO = ("id", "path", "uuid", "custom_metadata")
_MOST, _LONGEST_NAME, _LONGEST = 64, 128, 512
_LEAVING = "The namespace is closed. It is removed as soon as all that it leased is taken back."


class _Handlers:
    """Handlers of the org routes of a vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def create(self, context: Context, call: Call) -> Reply:
        _root_only(context)
        name = parse_name(call.params["name"])
        if name in _RESERVED:
            raise InvalidRequest(
                f'"{name}" is a reserved path and cannot be used as a namespace name', "choose another"
            )
        egress = str(call.data.get("egress") or self._vault.default_egress)
        metadata = parse_metadata(call.data.get("custom_metadata"), {})
        org = await self._vault.orgs.create(name, egress=egress, now=context.now, metadata=metadata)
        grant = Grant(name="user/admin", policies=(ROOT,), endless=True)
        storage = self._vault.storage(org.id, MOUNT)
        clear, token, _ = await self._vault.tokens.create(storage, grant, now=context.now, org_id=org.id)
        return Reply({**_namespace(org), "root_token": clear, "accessor": token.accessor})

    async def read(self, context: Context, call: Call) -> Reply:
        _root_only(context)
        return Reply(_namespace(await self._vault.orgs.by_name(call.params["name"])))

    async def patch(self, context: Context, call: Call) -> Reply:
        _root_only(context)
        org = await self._vault.orgs.by_name(call.params["name"])
        metadata = parse_metadata(call.data.get("custom_metadata"), org.metadata)
        return Reply(_namespace(await self._vault.orgs.describe(org, metadata)))

    async def configure(self, context: Context, call: Call) -> Reply:
        org = await self._vault.orgs.by_id(context.caller.org_id)
        wanted = {name: str(call.data.get(name) or "") for name in ("egress", "tripwire")}
        if not any(wanted.values()):
            raise InvalidRequest("no setting is named", "send egress or tripwire")
        return Reply(_describe(await self._vault.orgs.configure(org, **wanted)))

    async def own(self, context: Context, _call: Call) -> Reply:
        return Reply(_describe(await self._vault.orgs.by_id(context.caller.org_id)))

    async def delete(self, context: Context, call: Call) -> Reply | None:
        _root_only(context)
        try:
            org = await self._vault.orgs.by_name(call.params["name"])
        except NotFound:
            return None
        await self._vault.orgs.leave(org)
        return None if await remove_org(self._vault, org.id) else Reply(warnings=[_LEAVING], status=202)

    async def names(self, context: Context, _call: Call) -> Reply:
        _root_only(context)
        orgs = [org for org in await self._vault.orgs.all() if org.name != ROOT_ORG]
        if not orgs:
            raise NotFound("there are no orgs but root", "make one: keyhole org add NAME")
        about = {f"{org.name}/": {name: _namespace(org)[name] for name in _INFO} for org in orgs}
        return Reply({"keys": sorted(about), "key_info": about})


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault)
    fields = (Field("egress", "deny, allow or log calls to hosts without a service", "string"),)
    every = frozenset({Operation.CREATE, Operation.UPDATE, Operation.PATCH, Operation.DELETE})
    return (
        Route("namespaces", {Operation.LIST: r.names}, help="Names of orgs."),
        Route(
            "namespaces/{name}",
            {
                Operation.READ: r.read,
                Operation.CREATE: r.create,
                Operation.PATCH: r.patch,
                Operation.DELETE: r.delete,
            },
            sudo=every,
            fields=(*fields, Field("custom_metadata", "object of texts, for people", "map")),
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


def _namespace(org: Org) -> dict[str, Any]:
    digest = hashlib.sha256(f"namespace/{org.id}".encode()).digest()
    shown = str(uuid.UUID(bytes=digest[:16], version=4))
    return {**_describe(org), "uuid": shown, "custom_metadata": dict(org.metadata)}


def parse_metadata(value: Any, before: Mapping[str, str]) -> dict[str, str]:
    """Texts by name after a merge patch (RFC 7396). Raises ``InvalidRequest``."""
    if not isinstance(value or {}, dict):
        raise InvalidRequest("custom_metadata is an object of texts", 'send {"custom_metadata": {"team": "shop"}}')
    after = {**before, **(value or {})}
    found = {name: text for name, text in after.items() if text is not None}
    if len(found) > _MOST or not all(
        isinstance(text, str) and len(name) <= _LONGEST_NAME and len(text) <= _LONGEST and f"{name}{text}".isprintable()
        for name, text in found.items()
    ):
        raise InvalidRequest(
            f"custom_metadata is at most {_MOST} printable texts of {_LONGEST} characters",
            f"their names have at most {_LONGEST_NAME}",
        )
    return found
