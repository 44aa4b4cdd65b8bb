"""``sys/honey``: which secrets are bait. They look and work like any other; touching one raises an alarm."""

from __future__ import annotations

from collections.abc import Mapping

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.path import parse_path
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.honey import HONEY
from keyhole.vault.vault import Vault

_MOST = 1024


class _Handlers:
    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def exists(self, context: Context, params: Mapping[str, str]) -> bool:
        storage = self._vault.storage(context.caller.org_id, HONEY, configures=True)
        return (await storage.get_one(parse_path(params["path"]))).data is not None

    async def write(self, context: Context, call: Call) -> Reply:
        name = parse_path(call.params["path"])
        storage = self._vault.storage(context.caller.org_id, HONEY, configures=True)
        names = await storage.list(recursive=True)
        if name not in names and len(names) >= _MOST:
            raise InvalidRequest(f"there are {_MOST} honey secrets already", "keyhole honey rm NAME")
        item = await storage.get_one(name)
        call.require_new(stored=item.data is not None)
        await storage.change([(name, b"{}", item.revision)])
        return Reply({"name": name, "honey": True})

    async def delete(self, context: Context, call: Call) -> None:
        name = parse_path(call.params["path"])
        storage = self._vault.storage(context.caller.org_id, HONEY, configures=True)
        item = await storage.get_one(name)
        if item.data is not None:
            await storage.change((), [(name, item.revision)])

    async def names(self, context: Context, _call: Call) -> Reply:
        keys = await self._vault.storage(context.caller.org_id, HONEY, configures=True).list(recursive=True)
        if not keys:
            raise NotFound("there are no honey secrets", "keyhole honey add NAME")
        return Reply({"keys": keys})


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table. Whoever may list the bait can step around it, so every operation needs ``sudo``."""
    r = _Handlers(vault)
    every = frozenset({Operation.LIST, Operation.CREATE, Operation.UPDATE, Operation.DELETE})
    return (
        Route("honey", {Operation.LIST: r.names}, sudo=every, help="Names of the secrets that are bait."),
        Route(
            "honey/{path...}",
            {Operation.CREATE: r.write, Operation.DELETE: r.delete},
            exists=r.exists,
            sudo=every,
            fields=(Field("path", "name of the secret, relative to secret/"),),
            help="Make a secret bait: whoever reads or lends it raises an alarm.",
        ),
    )
