"""``sys/reach``: whether the hosts of a service can be connected to from here. No credential and no request is sent."""

from __future__ import annotations

import asyncio
from typing import Any

from keyhole.broker.connections import Origin
from keyhole.broker.upstream import Pool
from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound, PolicyDenied
from keyhole.core.request import Operation, Reply
from keyhole.core.service import Service
from keyhole.engines import Call, Context, Field, Route
from keyhole.net.guard import Guard
from keyhole.vault.vault import Vault

_AT_ONCE = 8
_LIMIT = 64  # of a service's hosts, times its schemes


class _Reach:
    def __init__(self, pool: Pool, vault: Vault) -> None:
        self._pool = pool
        self._vault = vault

    async def reach(self, context: Context, call: Call) -> Reply:
        name = str(call.data.get("service") or "")
        if not name:
            raise InvalidRequest("service is missing", "keyhole doctor --service NAME")
        if not context.caller.allows("read", f"services/{name}"):
            raise PolicyDenied(f"looking at the service {name!r} needs read on it", "ask an administrator")
        state = await self._vault.compiled.state(context.caller.org_id)
        service = (await self._vault.services(state)).get(name)
        if service is None:
            raise NotFound(f"there is no service {name!r}", "keyhole service list")
        turn = asyncio.Semaphore(_AT_ONCE)
        places = [(scheme, host) for scheme in service.schemes for host in service.hosts][:_LIMIT]
        found = await asyncio.gather(*(self._look(service, scheme, host, turn) for scheme, host in places))
        return Reply({"service": name, "hosts": found})

    async def _look(self, service: Service, scheme: str, host: Any, turn: asyncio.Semaphore) -> dict[str, Any]:
        """What becomes of one connection: name, address guard, TCP and TLS, in that order."""
        about = {"host": str(host), "scheme": scheme}
        if host.wildcard:
            return {**about, "result": "pattern", "reason": "it stands for many names", "hint": ""}
        origin = Origin(("reach", service.name), scheme, host.host, host.port)
        try:
            async with turn:
                connection = await self._pool.dial(origin, Guard(service.allow_addresses))
        except KeyholeError as error:
            return {**about, "result": error.code, "reason": error.reason, "hint": error.hint}
        connection.abort()
        return {**about, "result": "ok", "reason": "", "hint": ""}


def routes(pool: Pool, vault: Vault) -> tuple[Route, ...]:
    """The table."""
    return (
        Route(
            "reach",
            {Operation.CREATE: _Reach(pool, vault).reach},
            fields=(Field("service", "whose hosts are meant"),),
            help="Whether a service's hosts resolve to allowed addresses, connect and prove themselves by TLS.",
        ),
    )
