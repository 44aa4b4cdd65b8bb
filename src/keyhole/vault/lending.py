"""Opens the secrets of a service for one loan. There is no route to it: only the door calls it, after the decision."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from keyhole.core.errors import InternalError, KeyholeError, NotFound
from keyhole.core.path import CERTIFICATE
from keyhole.core.record import Intent
from keyhole.core.request import Reply, Request
from keyhole.core.value import Secret

if TYPE_CHECKING:
    from keyhole.core.identity import Caller
    from keyhole.core.service import Service
    from keyhole.vault.captured import Kept
    from keyhole.vault.compiled import OrgState
    from keyhole.vault.vault import Vault

Lend = Callable[[str, str], Awaitable[Secret]]
"""``(path, field)`` of a reference to its value."""
TOOLS = "tools/"


class Lent(NamedTuple):
    """What the door gives for one use.

    Attributes:
        secrets: by field; only the road may have them.
        intent: to be concluded when the use ends.
        service: as it was when it was used.
        durable: done when the intent is; fails with ``AuditUnavailable``, and then there is no outcome to record.
        leases: of what was made for this use alone; whoever has used it ends them.
        former: by field, values that are never sent, and masked in answers: of what is being rotated, and such as the
            refresh token of an access token.
    """

    secrets: dict[str, Secret]
    intent: Intent
    service: Service
    durable: asyncio.Future[None]
    leases: tuple[str, ...] = ()
    former: Mapping[str, tuple[Secret, ...]] = MappingProxyType({})


async def used(vault: Vault, state: OrgState, caller: Caller, request: Request) -> Reply:
    """The door's answer to a ``use``: of a tool its loan, of a service what is lent through it."""
    if request.path.startswith(TOOLS):
        from keyhole.vault.tool_use import use_tool  # noqa: PLC0415  # most vaults have no tools

        loan = await use_tool(vault, state, caller, request)
        return Reply(data={"record": loan.intent, "tool": loan})
    lent = await vault.use(state, caller, request, request.path)
    return Reply(lent=lent.secrets, data={"record": lent.intent, "service": lent.service})


async def open_loan(lend: Lend, service: Service) -> dict[str, Secret]:
    """The secrets by field, those of a client's certificate with ``CERTIFICATE`` before their names.

    Raises:
        NotFound, Expired: one is not there, or not any more.
    """
    lent = await _first_there(lend, service.secret_choices())
    if service.certified:
        found = await _first_there(lend, service.certificate_choices())
        lent |= {CERTIFICATE + name: secret for name, secret in found.items()}
    return lent


async def _first_there(lend: Lend, choices: list[list[tuple[str, str]]]) -> dict[str, Secret]:
    """The first of several sets of fields that is there in full."""
    missing: NotFound | None = None
    for refs in choices:
        lent = {}
        try:
            for path, field in refs:
                lent[field] = await lend(path, field)
            return lent  # noqa: TRY300 - the loop goes on after what is caught
        except NotFound as error:
            missing = missing or error
    raise missing or InternalError("a service without a secret")


async def names_of(vault: Vault, state: OrgState, service: str) -> tuple[str, ...]:
    """The names of the secrets that a service lends; none where there is no such service, or it cannot be read now."""
    try:
        found = (await vault.services(state)).get(service) if service else None
    except KeyholeError:
        return ()
    return tuple(sorted({secret for secret, _ in found.secret_refs()})) if found is not None else ()


def lent_by(
    service: Service, secrets: tuple[str, ...], kept: Kept | None, *, closed: bool
) -> tuple[Service, tuple[str, ...]]:
    """As what a service lends in one use, and the names of the secrets that this opens.

    Args:
        service: as it is.
        secrets: what it binds.
        kept: the credential that is meant instead.
        closed: nothing is opened.
    """
    if closed:
        return service.closed(), ()
    if kept is not None:
        return kept.captured.as_service(service), (kept.captured.name,)
    return service, secrets
