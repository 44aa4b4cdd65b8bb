"""What is a risk for lying there: secrets nobody uses or never renewed, services, tokens and agents without a use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from keyhole.core.times import DAY, format_time, parse_time
from keyhole.vault.reports.inventory import Inventory
from keyhole.vault.reports.usage import Usage

REASONS = {
    "expired": "its date has passed: nobody gets it any more",
    "rotation_due": "a new value is due, by how often there should be one",
    "unused": "nobody used or read it within the days",
    "never_used": "a token that nobody has shown since it was made",
    "inactive": "an agent that asked for nothing within the days",
    "never_rotated": "it has its first value, and is older than the days",
    "no_expiry": "it has no date after which it is refused",
}
"""Why something is listed, with what it means."""
_SETTLING = DAY  # a token that was made within it may still be on its way
Row = dict[str, Any]


async def stale(inventory: Inventory, usage: Usage, *, now: float, days: int) -> AsyncIterator[Row]:
    """A row for each thing that has a reason to be listed; ``usage`` is of the days up to now."""
    start = now - days * DAY
    async for name, about in inventory.secrets():
        row = _secret(name, about, usage, now, start)
        if row["why"]:
            yield row
    for name in sorted(await inventory.services()):
        if name not in usage.services.at and name not in usage.bound.at:
            yield _row("service", name, ["unused"])
    async for token in inventory.tokens():
        if token.accessor not in usage.accessors.at and token.created < now - _SETTLING:
            why = "never_used" if token.created >= start else "unused"
            more = {"owner": token.name, "created": format_time(token.created)}
            yield _row("token", token.accessor, [why], **more, expires_at=_time(token.expires))
    for name, created in sorted((await inventory.agents()).items()):
        if f"agent/{name}" not in usage.callers.at and created < start:
            yield _row("agent", name, ["inactive"], created=format_time(created))


def _secret(name: str, about: Mapping[str, Any], usage: Usage, now: float, start: float) -> Row:
    created, last = parse_time(about["created_time"]), usage.credentials.at.get(name, 0.0)
    expires, rotated, every = about["expires_at"], about["rotated_at"], about["rotate_every"]
    why = []
    if expires and parse_time(expires) <= now:
        why.append("expired")
    if every and rotated and parse_time(rotated) + every <= now:
        why.append("rotation_due")
    if not last and created < start:
        why.append("unused")
    if about["current_version"] <= 1 and created < start:
        why.append("never_rotated")
    if not expires:
        why.append("no_expiry")
    more = {"owner": about["owner"] or None, "created": about["created_time"], "expires_at": expires}
    return _row("secret", name, why, **more, rotated_at=rotated, last=_time(last))


def _row(kind: str, name: str, why: list[str], **more: Any) -> Row:
    row = dict.fromkeys(("owner", "created", "rotated_at", "expires_at", "last"))
    return {"kind": kind, "name": name, "why": why, **row, **more}


def _time(seconds: float) -> str | None:
    return format_time(seconds) if seconds else None
