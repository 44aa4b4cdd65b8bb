"""Who can use and read which credential, and who did: a row for each credential and caller of whom either is true."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from keyhole.core.times import format_time
from keyhole.vault.callers import OWNER
from keyhole.vault.reports.inventory import Holder, Inventory
from keyhole.vault.reports.usage import Usage, Use

_NEVER = Use()


@dataclass(slots=True)
class Access:
    """The report.

    Attributes:
        rows: JSON-ready, by credential and caller.
        everything: callers who may do all there is; they have rows only for what they did.
        more: there are further rows.
    """

    rows: list[dict[str, Any]]
    everything: list[str]
    more: bool


async def access(inventory: Inventory, usage: Usage, *, secret: str, caller: str, limit: int) -> Access:
    """The report on one credential or all, and one caller or all."""
    holders = await inventory.holders(caller)
    binding: dict[str, list[str]] = {}
    for service, lent in (await inventory.lent_by()).items():
        for name in lent:
            binding.setdefault(name, []).append(service)
    everything = sorted(name for name, holder in holders.items() if holder.everything)
    limited = {name: holder for name, holder in holders.items() if name not in everything}
    names = {name for name, _ in usage.pairs} | binding.keys()
    if secret:
        names.add(secret)
    else:
        names |= {name async for name, _ in inventory.secrets()}
    found: list[dict[str, Any]] = []
    did: dict[str, list[str]] = {}
    for name, who in usage.pairs:
        did.setdefault(name, []).append(who)
    for name in sorted({secret} if secret else names):
        for row in _rows(name, sorted(binding.get(name, ())), did.get(name, []), limited, usage):
            if len(found) == limit:
                return Access(found, everything, more=True)
            row["active"] = row["caller"] in holders or row["caller"] == OWNER
            found.append(row)
        await asyncio.sleep(0)  # others are answered meanwhile
    return Access(found, everything, more=False)


def _rows(
    name: str, binding: list[str], did: list[str], holders: dict[str, Holder], usage: Usage
) -> Iterator[dict[str, Any]]:
    for caller in sorted({*did, *holders}):
        holder, use = holders.get(caller), usage.pairs.get((name, caller))
        rights = holder.rights(name, binding) if holder is not None else None
        if not (rights or use):
            continue
        done = use or _NEVER
        yield {
            "secret": name,
            "caller": caller,
            "uses_through": rights.uses_through if rights else [],
            "may": rights.may if rights else [],
            "used_through": sorted(done.through),
            "uses": max(0, done.uses),
            "reads": max(0, done.reads),
            "changes": max(0, done.changes),
            "refused": done.refused,
            "first": format_time(done.first) if done.first else None,
            "last": format_time(done.last) if done.last else None,
        }
