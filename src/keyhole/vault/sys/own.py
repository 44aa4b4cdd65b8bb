"""``sys/own/``: what a caller may know of itself whatever else it may do: its records, its leases, what it asked for.

An agent asks these to find its way; nothing of anybody else is in an answer, and no value is.
"""

from __future__ import annotations

import hashlib
from typing import Any

from keyhole.core.errors import Conflict, InvalidRequest, KeyholeError
from keyhole.core.fields import parse_text
from keyhole.core.path import parse_name
from keyhole.core.request import Operation, Reply
from keyhole.core.times import format_time
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault import approvals
from keyhole.vault.approvals import ACCESS
from keyhole.vault.history import CONTEXT, Filter, History
from keyhole.vault.vault import Vault

_MOST = 1000  # records of one answer
_TTL = 7 * 86_400  # seconds for which a wish for access waits
_FIELDS = ("secret", "service", "accessor", *CONTEXT, "result", "after", "before", "limit")
_REASON = 500  # characters


class _Handlers:
    def __init__(self, vault: Vault, history: History) -> None:
        self._vault = vault
        self._history = history

    async def records(self, context: Context, call: Call) -> Reply:
        caller = context.caller
        wanted = Filter.from_data({name: value for name, value in call.data.items() if name in _FIELDS})
        exact = {**wanted.exact, "caller": caller.name}
        wanted = wanted._replace(exact=exact, limit=min(wanted.limit, _MOST), own=True)
        await self._vault.journal.drain()
        records, _ = await self._history.query(caller.org_id, wanted)
        return Reply({"records": records})

    async def leases(self, context: Context, _call: Call) -> Reply:
        caller, found = context.caller, []
        for lease_id in await self._vault.leases.of_token(caller.org_id, caller.holder) if caller.holder else ():
            lease = await self._vault.leases.find(caller.org_id, lease_id)
            if lease is not None and lease.expires > context.now:
                found.append(
                    {
                        "lease_id": lease.id,
                        "issued": format_time(lease.issued),
                        "expires": format_time(lease.expires),
                        "renewable": lease.renewable,
                    }
                )
        return Reply({"leases": sorted(found, key=lambda lease: lease["expires"])})

    async def drift(self, context: Context, _call: Call) -> Reply:
        caller, found = context.caller, []
        state = await self._vault.compiled.state(caller.org_id)
        services = [
            s for s in (await self._vault.services(state)).values() if caller.allows("use", f"services/{s.name}")
        ]
        for service in services[:_MOST]:
            try:
                await self._vault.check_loan(state, caller, service)
            except KeyholeError as error:
                about = {"service": service.name, "secret": service.secret}
                found.append(about | {"code": error.code, "reason": error.reason, "hint": error.hint})
        return Reply({"drift": found})

    async def ask(self, context: Context, call: Call) -> Reply:
        from keyhole.core.checks.approval import Subject  # noqa: PLC0415  # loaded where somebody asks alone

        caller, service = context.caller, parse_name(parse_text(call.data.get("service"), "service"))
        reason = parse_text(call.data.get("reason"), "reason", most=_REASON)
        if not caller.name.startswith("agent/"):
            raise InvalidRequest("access is asked for by agents", f"keyhole grant AGENT {service}")
        if caller.allows("use", f"services/{service}"):
            raise Conflict(f"{caller.name} may use {service} already", "keyhole what-can")
        digest = hashlib.sha256(f"{ACCESS}\0{service}".encode()).hexdigest()
        facts = {"kind": ACCESS, "service": service, "reason": reason}
        wish = approvals.Wish(caller.name, Subject(digest, digest, digest), _TTL, facts, caller.entity.id)
        storage = self._vault.storage(caller.org_id, approvals.MOUNT)
        found = await approvals.find(storage, wish, context.now)
        if found.request is None:
            await approvals.ask(storage, wish, context.now, found)
            found = await approvals.find(storage, wish, context.now)
        return Reply(_shown(found.request or {}))

    async def asked(self, context: Context, _call: Call) -> Reply:
        storage = self._vault.storage(context.caller.org_id, approvals.MOUNT)
        found = await approvals.requests_of(storage, context.caller.name, context.now)
        return Reply({"requests": [_shown(request) for request in found]})


def _shown(request: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "state", "kind", "service", "method", "host", "target", "reason", "by")
    shown = {name: request[name] for name in names if name in request}
    return shown | {name: format_time(request[name]) for name in ("created", "expires") if name in request}


def routes(vault: Vault, history: History) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault, history)
    return (
        Route(
            "own/audit-log",
            {Operation.READ: r.records},
            fields=tuple(Field(name, "as for sys/audit-log") for name in _FIELDS),
            help="The caller's own records.",
        ),
        Route(
            "own/drift",
            {Operation.READ: r.drift},
            help="Services of the caller whose secret is gone, has expired, or cannot be had.",
        ),
        Route("own/leases", {Operation.READ: r.leases}, help="What was leased to the caller's token and lives."),
        Route(
            "own/requests",
            {Operation.READ: r.asked, Operation.CREATE: r.ask},
            fields=(Field("service", "that the caller wants to use"), Field("reason", "for who decides")),
            help="What the caller waits for; asks a person for access to a service.",
        ),
    )
