"""``sys/leases/``: looking leases up, renewing them, taking them back. Shapes and texts are Vault's."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable
from typing import Any

from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound
from keyhole.core.lease import Lease, LeaseState, parse_duration
from keyhole.core.numbers import parse_flag
from keyhole.core.path import parse_path
from keyhole.core.request import Operation, Reply
from keyhole.core.times import format_time
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.compiled import OrgState
from keyhole.vault.expiry import mount_of
from keyhole.vault.leases import tidy
from keyhole.vault.mounts import AUTH
from keyhole.vault.renewal import renew
from keyhole.vault.sys.strays import look_for_strays, parse_named
from keyhole.vault.sys.sweep import Sweeper
from keyhole.vault.sys.tokens import end_tokens_where
from keyhole.vault.vault import Vault

_TIDY = "Tidy operation successfully started. Any information from the operation will be printed to the server's log."


class _Handlers:
    """Handlers of the lease routes of a vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def state(self, context: Context) -> OrgState:
        org_id = context.caller.org_id
        return self._vault.compiled.last(org_id) or await self._vault.compiled.state(org_id)

    async def lookup(self, context: Context, call: Call) -> Reply:
        lease = await self._vault.leases.find(context.caller.org_id, _lease_id(call))
        if lease is None or not _known(lease, context.now):
            raise InvalidRequest("invalid lease", "it is unknown, or it has ended")
        return Reply(_describe(lease, context.now))

    async def names(self, context: Context, call: Call) -> Reply:
        prefix = call.params.get("path", "").strip("/")
        keys = await self._vault.leases.names(context.caller.org_id, parse_path(prefix) if prefix else "")
        if not keys:
            raise NotFound("there are no leases here")
        return Reply({"keys": keys})

    async def renew(self, context: Context, call: Call) -> Reply:
        increment = parse_duration(call.data.get("increment") or 0, name="increment")
        lease = await renew(self._vault, await self.state(context), _lease_id(call), increment)
        return Reply(lease=lease, warnings=[lease.warning] if lease.warning else [])

    async def revoke(self, context: Context, call: Call) -> None:
        await self._vault.expiry.end(await self.state(context), [_lease_id(call)], wait=_sync(call))

    async def revoke_below(self, context: Context, call: Call, *, force: bool) -> None:
        state, prefix = await self.state(context), parse_path(call.params["path"].rstrip("/"))
        await self._vault.leases.bars.put(state.org.id, prefix, self._vault.clock.now())
        # Those that are being made are looked at first: meanwhile they may come to be among the others.
        queued = [lease.id for lease in await self._vault.leases.all_queued(state.org.id) if _below(lease, prefix)]
        ids = await self._vault.leases.below(state.org.id, prefix)
        await self._vault.expiry.end(state, dict.fromkeys([*queued, *ids, prefix]), wait=_sync(call), force=force)
        if f"{prefix}/".startswith(AUTH):
            # Vault counts tokens among its leases, by where they were made.
            await end_tokens_where(self._vault, state.org.id, lambda token: f"{token.path}/".startswith(f"{prefix}/"))

    async def revoke_prefix(self, context: Context, call: Call) -> None:
        await self.revoke_below(context, call, force=False)

    async def revoke_force(self, context: Context, call: Call) -> None:
        await self.revoke_below(context, call, force=True)

    async def tidy(self, context: Context, _call: Call) -> Reply:
        await self.soon(tidy(self._vault.leases, await self.state(context), self._vault.expiry.end))
        return Reply(warnings=[_TIDY], status=202)

    async def soon(self, job: Awaitable[Any]) -> None:
        """Do it later where somebody is there later, else now."""
        if not self._vault.expiry.background:
            await job
            return

        async def quietly() -> None:
            with contextlib.suppress(KeyholeError):
                await job

        self._vault.expiry.begin(quietly())

    async def sweep(self, context: Context, call: Call) -> Reply:
        state, expiry = await self.state(context), self._vault.expiry
        before = expiry.taken.get(state.org.id, 0)
        await Sweeper(self._vault).sweep()
        again = [each for each in await self._vault.leases.all_queued(state.org.id) if each.until <= context.now]
        await expiry.end(state, [lease.id for lease in again])
        await expiry.drain()
        left = await self._vault.leases.all_queued(state.org.id)
        waiting = sum(lease.state is LeaseState.REVOKING for lease in left)
        lost = sum(lease.state is LeaseState.IRREVOCABLE for lease in left)
        taken = expiry.taken.get(state.org.id, 0) - before
        data = {"revoked": taken, "waiting": waiting, "irrevocable": lost}
        drop = parse_named(call.data.get("drop"))
        if drop or parse_flag(call.data.get("strays") or False, "strays"):
            data |= await look_for_strays(self._vault, state, context.caller, drop)
        return Reply(data)

    async def count(self, context: Context, call: Call) -> Reply:
        state = await self.state(context)
        if call.data.get("type") != LeaseState.IRREVOCABLE:
            return Reply({"lease_count": len(await self._vault.leases.below(state.org.id, ""))})
        counts: dict[str, int] = {}
        for lease in await self.irrevocable(state):
            mount = mount_of(self._vault, state, lease.mount)
            name = mount.accessor if mount is not None else lease.mount
            counts[name] = counts.get(name, 0) + 1
        return Reply({"lease_count": sum(counts.values()), "counts": counts})

    async def listing(self, context: Context, call: Call) -> Reply:
        state = await self.state(context)
        if call.data.get("type") != LeaseState.IRREVOCABLE:
            raise InvalidRequest("type must be irrevocable", "the others: LIST sys/leases/lookup/PREFIX")
        found = [
            {"lease_id": lease.id, "mount_id": lease.mount, "error": lease.error, "attempts": lease.attempts}
            for lease in await self.irrevocable(state)
        ]
        return Reply({"lease_count": len(found), "leases": found})

    async def irrevocable(self, state: OrgState) -> list[Lease]:
        queued = await self._vault.leases.all_queued(state.org.id)
        return [lease for lease in queued if lease.state is LeaseState.IRREVOCABLE]


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault)
    write, sudo = Operation.CREATE, frozenset({Operation.UPDATE, Operation.LIST, Operation.READ})
    by = (Field("lease_id", "the lease, when the path does not name it", "string"),)
    more = (*by, Field("increment", "duration from now; its first one when it is not given", "duration"))
    sync = (Field("sync", "true to wait until it is taken back at its source, and to learn why when it cannot be"),)
    table = [
        Route("leases", {Operation.READ: r.listing}, sudo=sudo, help="Leases that could not be revoked."),
        Route("leases/count", {Operation.READ: r.count}, help="How many leases there are."),
        Route("leases/tidy", {write: r.tidy}, help="Remove what belongs to nothing any more."),
        Route(
            "leases/sweep",
            {write: r.sweep},
            sudo=sudo,
            fields=(
                Field("strays", "true to look for users of databases that no lease knows", "boolean"),
                Field("drop", "of these, mount, target and name of each that is to be taken away", "list"),
            ),
            help="Take back now what is due, and try again what could not be taken back.",
        ),
        Route("leases/lookup", {write: r.lookup, Operation.LIST: r.names}, sudo=_LISTING, fields=by, help="A lease."),
        Route("leases/lookup/{path...}", {Operation.LIST: r.names}, sudo=sudo, help="Names of leases below a path."),
    ]
    for base in ("leases/", ""):  # the second ones are those of old clients
        table += [
            Route(f"{base}renew", {write: r.renew}, fields=more, help="Extend a lease."),
            Route(f"{base}renew/{{path...}}", {write: r.renew}, fields=more, help="Extend a lease."),
            Route(f"{base}revoke", {write: r.revoke}, fields=by + sync, help="Take back what was leased."),
            Route(f"{base}revoke/{{path...}}", {write: r.revoke}, fields=by + sync, help="Take back what was leased."),
            Route(
                f"{base}revoke-prefix/{{path...}}",
                {write: r.revoke_prefix},
                sudo=sudo,
                fields=sync,
                help="Take back all that was leased below a path.",
            ),
            Route(
                f"{base}revoke-force/{{path...}}",
                {write: r.revoke_force},
                sudo=sudo,
                help="The same, and forget what cannot be taken back.",
            ),
        ]
    return tuple(table)


_LISTING = frozenset({Operation.LIST})


def _lease_id(call: Call) -> str:
    """The lease that is meant; what cannot be the id of one comes out as one that nobody has."""
    there = call.params.get("path") or ""
    named = call.data.get("lease_id") or there
    if not named or not isinstance(named, str):
        raise InvalidRequest("lease_id must be specified", 'send {"lease_id": "…"}')
    if there and named.strip("/") != there.strip("/"):  # the path is what a policy allowed
        raise InvalidRequest("the lease_id is not that of the path", "send it once")
    try:
        return parse_path(named.strip("/"))
    except InvalidRequest:
        return "-"


def _known(lease: Lease, now: float) -> bool:
    """Whether a lookup shows it: it was given out and has not ended, or it ought to have ended and cannot."""
    if lease.state is LeaseState.ACTIVE:
        return lease.expires > now
    return lease.state is LeaseState.IRREVOCABLE


def _below(lease: Lease, prefix: str) -> bool:
    return f"{lease.id}/".startswith(f"{prefix}/")


def _sync(call: Call) -> bool:
    return parse_flag(call.data.get("sync") or False, "sync")


def _describe(lease: Lease, now: float) -> dict[str, Any]:
    return {
        "id": lease.id,
        "issue_time": format_time(lease.issued),
        "expire_time": format_time(lease.expires),
        "last_renewal": format_time(lease.renewed) if lease.renewed else None,
        "renewable": lease.renewable and lease.state is LeaseState.ACTIVE,
        "ttl": lease.remaining(now),
    }
