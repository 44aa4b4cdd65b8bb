"""The step of the door in which something is done: the engine answers; what it leased is given out or taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyhole.core.errors import Conflict, InternalError, KeyholeError, PolicyDenied, fault_place
from keyhole.core.identity import Caller
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context
from keyhole.vault.asked import Asked, call_of, decide
from keyhole.vault.compiled import OrgState
from keyhole.vault.mounts import Target

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

_ATTEMPTS = 20
WRITES = frozenset({Operation.CREATE, Operation.UPDATE})
_RETRIED = frozenset({Operation.CREATE, Operation.UPDATE, Operation.PATCH, Operation.DELETE})


async def told_apart(vault: Vault, state: OrgState, caller: Caller, asked: Asked) -> Asked:
    """A write as a create or an update, by what is there."""
    mount, route, _, params = asked.target
    there = route.exists is None or await route.exists(vault.context(state, caller, mount), params)
    return asked._replace(operation=Operation.UPDATE if there else Operation.CREATE)


async def dispatch(vault: Vault, state: OrgState, caller: Caller, asked: Asked) -> Reply:
    """The engine's reply. A write that lost a race is done again on what is there now, if it is still allowed."""
    target = asked.target
    call = call_of(asked)
    if asked.operation not in _RETRIED and target.mount.engine.revoke is None:  # as nearly all reads
        return await target.handler(vault.context(state, caller, target.mount), call) or Reply()
    for attempt in range(_ATTEMPTS):
        try:
            return await answer(vault, state, caller, target, call)
        except Conflict:
            if asked.operation not in _RETRIED or attempt == _ATTEMPTS - 1:
                raise
        context = vault.context(state, caller, target.mount)
        call = call.but(operation=await _still_allowed(caller, asked, target, context))
    raise InternalError("unreachable")


async def recorded_by_itself(vault: Vault, state: OrgState, caller: Caller, asked: Asked) -> Reply:
    """The reply of a route that records what it does before it does it, so that one use is one intent and not two.

    Raises:
        KeyholeError: the refusal, which is recorded.
    """
    try:
        if vault.devices.concern(state.generation):
            await vault.devices.asked(state, caller, asked)
        return await dispatch(vault, state, caller, asked)
    except KeyholeError as error:
        if not error.request_id:  # else it names the record of the refusal
            await vault.record_refusal(state, caller, asked.request, error, path=asked.path)
        raise
    except Exception as error:
        raise fault(error) from error


async def answer(vault: Vault, state: OrgState, caller: Caller, target: Target, call: Call) -> Reply:
    """What the engine of a target says to a call that was decided and recorded.

    Raises:
        Conflict: a write lost a race, and may be tried again.
        KeyholeError: what the engine raises; whatever it had leased is taken back.
    """
    context = vault.context(state, caller, target.mount)
    if target.mount.engine.revoke is None:
        return await target.handler(context, call) or Reply()
    from keyhole.vault.desk import Desk  # noqa: PLC0415  # few engines lease anything

    context.leases = desk = Desk(vault, state, caller, target.mount, call.path)
    try:
        reply = await desk.work(target.handler(context, call)) or Reply()
    except BaseException:
        await desk.give_up()
        raise
    await desk.settle(reply)
    return reply


async def _still_allowed(caller: Caller, asked: Asked, target: Target, context: Context) -> Operation:
    """What a write is after another one. Raises ``PolicyDenied`` when the caller may not do that."""
    operation = asked.operation
    if operation in WRITES and target.route.exists is not None:
        there = await target.route.exists(context, target.params)
        operation = Operation.UPDATE if there else Operation.CREATE
        decision = decide(caller, asked._replace(operation=operation))
        if not decision:
            raise PolicyDenied("permission denied", f"{decision.reason}; ask for a grant")
    return operation


def fault(error: Exception) -> InternalError:
    """What is said of a mistake of ours; where it was goes to the log."""
    import logging  # noqa: PLC0415 - a command on a local vault starts without it

    logging.getLogger("keyhole.vault").error("internal error: %s", fault_place(error))
    return InternalError("the request failed inside Keyhole", "see the server's log")
