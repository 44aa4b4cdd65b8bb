"""Asking a person: a call whose service wants an approval is refused, or held, until there is one for its digest.

Nothing of it is lent or sent meanwhile. A held call ends when it is decided, when its time is over, when its token is
revoked, and when its client hangs up; the request that it left in the store can be approved all the same, and is then
good for one call with the same digest.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keyhole.broker.late import require_still
from keyhole.core.checks.approval import Approval, Subject, preview, shape
from keyhole.core.checks.conditions import Asked
from keyhole.core.checks.documents import content_type
from keyhole.core.errors import ApprovalRequired, Conflict, KeyholeError, PolicyDenied
from keyhole.core.host import Authority
from keyhole.core.identity import Caller
from keyhole.core.inject import KINDS
from keyhole.core.record import Phase, Record, clip
from keyhole.core.request import Request
from keyhole.core.service import Service
from keyhole.vault import approvals
from keyhole.vault.approvals import DENIED, Found, Wish
from keyhole.vault.compiled import OrgState
from keyhole.vault.storage import Storage
from keyhole.vault.vault import Vault

POLL = 0.5  # seconds between two looks at the store
_RETRIES = 20
_HELD = 256  # calls that are held at once, each with its body
_HELD_EACH = 16  # of one agent


@dataclass(frozen=True, slots=True)
class Case:
    """A call that needs an approval.

    Attributes:
        wait: seconds for which it may be held.
    """

    vault: Vault
    state: OrgState
    caller: Caller
    service: Service
    request: Request
    wish: Wish
    wait: int

    @property
    def storage(self) -> Storage:
        """Where approvals of its org are."""
        return self.vault.storage(self.state.org.id, approvals.MOUNT)

    async def find(self) -> Found:
        """What was decided so far. Raises ``PolicyDenied`` when it was denied."""
        found = await approvals.find(self.storage, self.wish, self.vault.clock.now())
        if found.standing is None and found.request is not None and found.request["state"] == DENIED:
            raise PolicyDenied(f"{found.request['by']} denied this request", f"keyhole requests {found.request['id']}")
        return found


class Desk:
    """Where calls wait."""

    def __init__(self) -> None:
        self._held: Counter[tuple[str, str]] = Counter()

    async def require(self, case: Case) -> Found:
        """Return once the call is approved; the approval is not used up yet.

        Raises:
            ApprovalRequired: it is not, and is not held (any longer).
            PolicyDenied: it was denied.
            Unauthenticated: the token was revoked meanwhile.
        """
        found = await case.find()
        if found.approved:
            return found
        request_id = str(found.request["id"]) if found.request is not None else await self._ask(case, found)
        key = (case.state.org.id, case.caller.name)
        if case.wait and self._held[key] < _HELD_EACH and self._held.total() < _HELD:
            self._held[key] += 1
            try:
                found = await self._wait(case)
            finally:
                self._held[key] -= 1
                self._held += Counter()  # forget those that hold nothing
            if found.approved:
                return found
        raise _required(request_id)

    async def _ask(self, case: Case, found: Found) -> str:
        """Store the request and record that it was made; whoever asked for the same meanwhile did it for this one."""
        for _ in range(_RETRIES):
            try:
                request_id = await approvals.ask(case.storage, case.wish, case.vault.clock.now(), found)
            except Conflict:
                found = await case.find()
                if found.request is not None:
                    return str(found.request["id"])
            else:
                await case.vault.journal.intend(_record(case, request_id), case.state.org.id)
                return request_id
        raise Conflict("the request is being asked for by many at once", "try again")

    @staticmethod
    async def _wait(case: Case) -> Found:
        """Look again whenever something was written, until there is an answer or the time is over."""
        loop = asyncio.get_running_loop()
        end = loop.time() + case.wait
        seen = -1
        while True:
            generation = await case.vault.store.generation()
            if generation != seen:
                seen = generation
                found = await case.find()
            if found.approved or loop.time() >= end:
                await require_still(case.vault, case.caller, case.service)
                return found
            await require_still(case.vault, case.caller, case.service)
            await asyncio.sleep(min(POLL, max(0.01, end - loop.time())))


async def use_up(case: Case, found: Found) -> str:
    """Use an approval; returns its id. Raises ``ApprovalRequired`` when another call did. Standing ones stay."""
    hint = "send the request again to ask for another"
    return await approvals.use_up(case.storage, case.wish, found, case.find, hint)


def case_of(
    vault: Vault,
    state: OrgState,
    caller: Caller,
    service: Service,
    wanted: Sequence[Approval],
    request: Request,
    asked: Asked,
    origin: tuple[str, Authority],
    content: bytes,
) -> Case:
    """The case of a call.

    Args:
        vault: the open vault.
        state: of the caller's org.
        caller: who asks.
        service: to which the call was matched.
        wanted: what asks for an approval of this call.
        request: the call as its record shows it.
        asked: the call.
        origin: scheme and authority.
        content: its whole body.
    """
    subject = Subject.of(
        (state.org.id, service.name, service.secret),
        asked.method,
        f"{origin[0]}://{origin[1]}",
        asked.target,
        asked.headers,
        content,
        signed=KINDS[service.inject.kind].signs,
    )
    data = request.data
    facts: dict[str, Any] = {
        "service": service.name,
        "method": clip(asked.method),
        "host": str(origin[1]),
        "target": data.get("target", ""),
        "parameters": list(data.get("parameters", ())),
        "size": len(content),
        "body_sha256": hashlib.sha256(content).hexdigest(),
        "request_id": request.id,
        **caller.run.as_data(),
    }
    if content:
        facts |= _shown(asked, content, whole=all(each.preview for each in wanted))
    wish = Wish(caller.name, subject, min(each.ttl for each in wanted), facts, caller.entity.id)
    return Case(vault, state, caller, service, request, wish, min(each.wait for each in wanted))


def _shown(asked: Asked, content: bytes, *, whole: bool) -> dict[str, Any]:
    try:
        kind = content_type(asked.headers)
    except KeyholeError:  # it is encoded: its digest has to do
        return {}
    return {
        "content_type": clip(kind)[:100],
        "shape": shape(kind, content),
        **({"preview": preview(content)} if whole else {}),
    }


def _required(request_id: str) -> ApprovalRequired:
    return ApprovalRequired(
        "a person has to approve this request", f"keyhole approve {request_id}, then send it again", approval=request_id
    )


def _record(case: Case, request_id: str) -> Record:
    fields: dict[str, Any] = {
        name: case.request.data[name] for name in ("host", "method", "target", "parameters", "service")
    }
    fields |= case.caller.run.as_data()
    return Record(
        phase=Phase.EVENT,
        id=case.request.id,
        caller=case.caller.name,
        accessor=case.caller.accessor,
        operation="approval",
        path=f"approvals/requests/{request_id}",
        approval=request_id,
        remote=case.request.remote,
        **fields,
    )


def noted(request: Request, approval: str) -> Request:
    """The request as its record shows it: with the approval that it is made by, or waits for."""
    return request.but(data={**request.data, "approval": approval})
