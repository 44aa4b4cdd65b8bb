"""``sys/capture``: an operator switches captures on, reads what they hold, and switches them off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from operator import itemgetter
from typing import Any, Protocol

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


class Others(Protocol):
    """The other processes that serve together with this one.

    Attributes:
        here: number of this process.
        told: answers what they ask.
    """

    here: int
    told: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]] | None

    async def tell(self, op: str, **data: Any) -> list[dict[str, Any]]:
        """Ask all of them; what those answer that are there."""

    async def ask(self, home: int, op: str, **data: Any) -> dict[str, Any]:
        """Ask one. Raises what it refuses."""


class _Handlers:
    def __init__(self, broker: Broker, vault: Vault, others: Others | None) -> None:
        self._broker = broker
        self._vault = vault
        self._captures = Captures(vault.clock.now, broker.known_values, broker.watched_by)
        self._others = others
        self._here = 0
        if others is not None:
            others.told, self._here = self.told, others.here

    async def begin(self, context: Context, call: Call) -> Reply:
        seconds = _seconds(call)
        accessor = call.data.get("accessor") or ""
        if not isinstance(accessor, str):
            raise InvalidRequest("accessor is the one of a token", "leave it out for all calls of the org")
        capture = await self._begin(context.caller.org_id, accessor, seconds, home=self._here)
        if self._others is not None:
            await self._others.tell("begin", **_described(capture, seconds))
        return Reply(_said(capture, context.now + seconds))

    async def prolong(self, context: Context, call: Call) -> Reply:
        capture = self._captures.get(context.caller.org_id, call.params["id"])
        seconds = _seconds(call)
        self._captures.prolong(capture, seconds)
        if self._others is not None:
            await self._others.tell("prolong", org=capture.org_id, id=capture.id, seconds=seconds)
        return Reply(_said(capture, context.now + seconds))

    async def read(self, context: Context, call: Call) -> Reply:
        org_id = context.caller.org_id
        capture = self._captures.get(org_id, call.params["id"])
        after = parse_count(call.data.get("after") or 0, "after")
        if self._others is None or capture.home == self._here:
            found = await self._held(capture, after)
        else:
            found = await self._others.ask(capture.home, "read", org=org_id, id=capture.id, after=after)
        state = await self._vault.compiled.state(org_id)
        values = await self._broker.learn_values(self._vault, state)
        calls = [{"number": number, **masked(entry, values)} for number, entry in found["held"]]
        first = calls[0]["number"] if calls else after + 1
        return Reply({"calls": calls, "missed": max(0, first - after - 1), "count": found["count"]})

    async def names(self, context: Context, _call: Call) -> Reply:
        return Reply({"keys": [capture.id for capture in self._captures.of(context.caller.org_id)]})

    async def end(self, context: Context, call: Call) -> None:
        capture = self._captures.get(context.caller.org_id, call.params["id"])
        self._captures.end(capture)
        if self._others is not None:
            await self._others.tell("end", org=capture.org_id, id=capture.id)

    async def told(self, data: dict[str, Any]) -> dict[str, Any]:
        """Do what another process asks. Raises ``NotFound`` for a capture that is not on here."""
        op = data["op"]
        if op == "list":
            loop = asyncio.get_running_loop()
            return {"on": [_described(each, max(1.0, each.until - loop.time())) for each in self._captures.on()]}
        if op == "begin":
            await self._begin(data["org"], data["accessor"], data["seconds"], name=data["id"], home=data["home"])
            return {}
        capture = self._captures.get(data["org"], data["id"])
        if op == "read":
            return await self._held(capture, data["after"])
        if op == "take":
            return {"calls": capture.take()}
        if op == "prolong":
            self._captures.prolong(capture, data["seconds"])
        elif op == "end":
            self._captures.end(capture)
        return {}

    async def _begin(self, org_id: str, accessor: str, seconds: float, *, home: int, name: str = "") -> Capture:
        state = await self._vault.compiled.state(org_id)
        await self._broker.learn_values(self._vault, state)  # so that they are masked from the first call on
        return self._captures.begin(org_id, accessor, seconds, name=name, home=home)

    async def _held(self, capture: Capture, after: int) -> dict[str, Any]:
        """The page of calls behind a number, with those that others have noted since they were asked last."""
        if self._others is not None:
            answers = await self._others.tell("take", org=capture.org_id, id=capture.id)
            for entry in sorted((each for answer in answers for each in answer["calls"]), key=itemgetter("started")):
                capture.note(entry)
        held = [(number, entry) for number, entry in capture.calls if number > after][:_PAGE]
        return {"held": held, "count": capture.count}


def _described(capture: Capture, seconds: float) -> dict[str, Any]:
    return {
        "org": capture.org_id,
        "id": capture.id,
        "accessor": capture.accessor,
        "home": capture.home,
        "seconds": seconds,
    }


def _seconds(call: Call) -> int:
    seconds = parse_duration(call.data.get("for") or _USUAL, name="for")
    if not 1 <= seconds <= LONGEST:
        raise InvalidRequest(f"a capture lasts from 1 to {LONGEST} seconds", "prolong it for more: POST sys/capture/ID")
    return seconds


def _said(capture: Capture, until: float) -> dict[str, Any]:
    return {"id": capture.id, "until": format_time(until), "accessor": capture.accessor}


def routes(broker: Broker, vault: Vault, others: Others | None = None) -> tuple[Route, ...]:
    """The table. A capture says where calls go and how, so every operation needs ``sudo``."""
    r = _Handlers(broker, vault, others)
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
