"""``sys/capture``: an operator switches captures on, reads what they hold, and switches them off."""

from __future__ import annotations

from typing import Any

from keyhole.broker.broker import Broker
from keyhole.broker.capture import Capture, Captures, masked
from keyhole.core.errors import InvalidRequest
from keyhole.core.lease import parse_duration
from keyhole.core.numbers import parse_count
from keyhole.core.request import Operation, Reply
from keyhole.core.times import format_time
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.vault import Vault

LONGEST = 3600  # seconds; who needs more prolongs it
_USUAL = 600
_PAGE = 200  # calls of one answer


class _Handlers:
    def __init__(self, broker: Broker, vault: Vault) -> None:
        self._broker = broker
        self._vault = vault
        self._captures = Captures(vault.clock.now, broker.known_values, broker.watched_by)

    async def begin(self, context: Context, call: Call) -> Reply:
        seconds = _seconds(call)
        accessor = call.data.get("accessor") or ""
        if not isinstance(accessor, str):
            raise InvalidRequest("accessor is the one of a token", "leave it out for all calls of the org")
        state = await self._vault.compiled.state(context.caller.org_id)
        await self._broker.learn_values(self._vault, state)  # so that they are masked from the first call on
        capture = self._captures.begin(context.caller.org_id, accessor, seconds)
        return Reply(_said(capture, context.now + seconds))

    async def prolong(self, context: Context, call: Call) -> Reply:
        capture = self._captures.get(context.caller.org_id, call.params["id"])
        seconds = _seconds(call)
        self._captures.prolong(capture, seconds)
        return Reply(_said(capture, context.now + seconds))

    async def read(self, context: Context, call: Call) -> Reply:
        org_id = context.caller.org_id
        capture = self._captures.get(org_id, call.params["id"])
        after = parse_count(call.data.get("after") or 0, "after")
        state = await self._vault.compiled.state(org_id)
        values = await self._broker.learn_values(self._vault, state)
        held = [(number, entry) for number, entry in capture.calls if number > after][:_PAGE]
        calls = [{"number": number, **masked(entry, values)} for number, entry in held]
        first = held[0][0] if held else after + 1
        return Reply({"calls": calls, "missed": max(0, first - after - 1), "count": capture.count})

    async def names(self, context: Context, _call: Call) -> Reply:
        return Reply({"keys": [capture.id for capture in self._captures.of(context.caller.org_id)]})

    async def end(self, context: Context, call: Call) -> None:
        self._captures.end(self._captures.get(context.caller.org_id, call.params["id"]))


def _seconds(call: Call) -> int:
    seconds = parse_duration(call.data.get("for") or _USUAL, name="for")
    if not 1 <= seconds <= LONGEST:
        raise InvalidRequest(f"a capture lasts from 1 to {LONGEST} seconds", "prolong it for more: POST sys/capture/ID")
    return seconds


def _said(capture: Capture, until: float) -> dict[str, Any]:
    return {"id": capture.id, "until": format_time(until), "accessor": capture.accessor}


def routes(broker: Broker, vault: Vault) -> tuple[Route, ...]:
    """The table. A capture says where calls go and how, so every operation needs ``sudo``."""
    r = _Handlers(broker, vault)
    every = frozenset({Operation.READ, Operation.LIST, Operation.CREATE, Operation.UPDATE, Operation.DELETE})
    how_long = Field("for", f"how long, 10m unless said, at most {LONGEST}s")
    return (
        Route(
            "capture",
            {Operation.CREATE: r.begin, Operation.LIST: r.names},
            sudo=every,
            fields=(how_long, Field("accessor", "of the token whose calls are wanted; all of the org without one")),
            help="Note on this node what calls look like, without bodies and values, for a limited time.",
        ),
        Route(
            "capture/{id}",
            {Operation.READ: r.read, Operation.CREATE: r.prolong, Operation.DELETE: r.end},
            sudo=every,
            fields=(Field("after", "number of the last call that was read"), how_long),
            help="The calls noted so far; prolong it; end it.",
        ),
    )
