"""``sys/reports``: who can and did use which credential, and what lies there unused. An org sees its own only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from keyhole.core.errors import InvalidRequest, RateLimited
from keyhole.core.numbers import parse_count
from keyhole.core.path import parse_path
from keyhole.core.request import Operation, Reply
from keyhole.core.times import DAY, format_time, parse_moment
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.history import History
from keyhole.vault.reports.access import access
from keyhole.vault.reports.inventory import Inventory
from keyhole.vault.reports.stale import REASONS, stale
from keyhole.vault.reports.usage import Usage, named
from keyhole.vault.vault import Vault

_AT_ONCE = 2
_DAYS = 90
_ROWS, _MOST_ROWS = 1000, 100_000


class _Handlers:
    def __init__(self, vault: Vault, history: History) -> None:
        self._vault = vault
        self._history = history
        self._running = 0

    @contextlib.contextmanager
    def _one(self) -> Iterator[None]:
        if self._running >= _AT_ONCE:
            raise RateLimited(f"{_AT_ONCE} reports are being made already", "wait until they are ready")
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def _usage(self, context: Context, usage: Usage, after: float, before: float) -> Usage:
        await self._vault.journal.drain()
        async for row, record in self._history.records(context.caller.org_id, after, before):
            usage.add(record, row.time / 1e9)
        return usage

    async def _inventory(self, context: Context) -> Inventory:
        return Inventory(self._vault, await self._vault.compiled.state(context.caller.org_id), context)

    async def access(self, context: Context, call: Call) -> Reply:
        secret, caller = _secret(call.data.get("secret")), _caller(call.data.get("agent"))
        before = parse_moment(call.data.get("before")) or context.now
        after = parse_moment(call.data.get("after")) or before - _DAYS * DAY
        limit = parse_count(call.data.get("limit") or _ROWS, "limit", least=1, most=_MOST_ROWS)
        if after > before:
            raise InvalidRequest("after is later than before", "name the earlier time first")
        with self._one():
            inventory = await self._inventory(context)
            usage = Usage(inventory.reveals, await inventory.lent_by(), secret=secret, caller=caller)
            await self._usage(context, usage, after, before)
            found = await access(inventory, usage, secret=secret, caller=caller, limit=limit)
        window = {"from": format_time(after), "to": format_time(before)}
        told = {"records": usage.records, "complete": usage.complete, "more": found.more}
        return Reply({**window, "rows": found.rows, "everything": found.everything, **told})

    async def stale(self, context: Context, call: Call) -> Reply:
        days = parse_count(call.data.get("days") or _DAYS, "days", least=1, most=3660)
        limit = parse_count(call.data.get("limit") or _ROWS, "limit", least=1, most=_MOST_ROWS)
        wanted = _reasons(call.data.get("why"))
        rows: list[dict[str, Any]] = []
        more = False
        with self._one():
            inventory = await self._inventory(context)
            usage = Usage(inventory.reveals, await inventory.lent_by())
            await self._usage(context, usage, context.now - days * DAY, 0.0)
            async for row in stale(inventory, usage, now=context.now, days=days):
                if not wanted.isdisjoint(row["why"]):
                    more = len(rows) == limit
                    if more:
                        break
                    rows.append(row)
        told = {"records": usage.records, "complete": usage.complete, "more": more}
        return Reply({"days": days, "from": format_time(context.now - days * DAY), "rows": rows, **told})


def _secret(value: object) -> str:
    """The name of a credential, which is that of a secret, or of a source with a slash before it."""
    if not value:
        return ""
    text = str(value).partition("#")[0]
    path = parse_path(text.removeprefix("/"))
    return named(path) if text.startswith("/") else path


def _caller(value: object) -> str:
    """The name of a caller; of an agent's, the word before it may be left out."""
    text = str(value or "")
    return text if not text or "/" in text else f"agent/{text}"


def _reasons(value: object) -> frozenset[str]:
    found = frozenset(str(value).split(",")) if value else frozenset(REASONS)
    for name in found - REASONS.keys():
        raise InvalidRequest(f"there is no reason {name[:40]!r}", f"one of: {', '.join(REASONS)}")
    return found


def routes(vault: Vault, history: History) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault, history)
    sudo = frozenset({Operation.READ})
    return (
        Route(
            "reports/access",
            {Operation.READ: r.access},
            sudo=sudo,
            fields=(
                Field("secret", "of this secret, or of a source such as /database/creds/NAME"),
                Field("agent", "of this agent, or of user/NAME"),
                Field("after", "what was done from this time on; 90 days unless said"),
                Field("before", "up to this time"),
                Field("limit", "rows at most", "integer"),
            ),
            help="Who can use and read which credential, and who did.",
        ),
        Route(
            "reports/stale",
            {Operation.READ: r.stale},
            sudo=sudo,
            fields=(
                Field("days", "how long something must not have been used; 90 unless said", "integer"),
                Field("why", "list of reasons; all unless said"),
                Field("limit", "rows at most", "integer"),
            ),
            help="Secrets, services, tokens and agents that nobody uses, and secrets without an end or a new value.",
        ),
    )
