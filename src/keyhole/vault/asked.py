"""A request whose path was read: what it is called in policies and records, and what they say of it. Pure."""

from __future__ import annotations

from typing import NamedTuple

from keyhole.core.identity import Caller
from keyhole.core.policy import Decision
from keyhole.core.record import Intent
from keyhole.core.request import Operation, Request
from keyhole.engines import Call
from keyhole.vault.mounts import Target
from keyhole.vault.recording import intent_of


class Asked(NamedTuple):
    """A request after its path was read: what it is called in policies and records, and who answers it."""

    request: Request
    path: str
    target: Target
    operation: Operation


def decide(caller: Caller, asked: Asked) -> Decision:
    """What the caller's policies say of it."""
    if caller.scope == "proxy":
        return Decision(allowed=False, reason="this token can do nothing but make calls through the proxy")
    if asked.target.route.open:
        return Decision(allowed=True)  # anybody gets the answer; what it says may depend on who asks
    sudo = asked.request.operation in asked.target.route.sudo or asked.operation in asked.target.route.sudo
    data, wrap_ttl = asked.request.data, asked.request.wrap_ttl
    decision = caller.acl.decide(asked.operation, asked.path, parameters=data, sudo=sudo, wrap_ttl=wrap_ttl)
    if not decision.allowed and asked.operation is Operation.CREATE:
        # Whoever may neither create nor update must not learn from the reason whether there is anything.
        update = caller.acl.decide("update", asked.path, parameters=data, sudo=sudo, wrap_ttl=wrap_ttl)
        return decision if update else update
    return decision


def call_of(asked: Asked) -> Call:
    """What its handler is given."""
    request, target = asked.request, asked.target
    token = request.credential if target.route.sees_token and isinstance(request.credential, bytes) else b""
    return Call(asked.operation, asked.path, target.params, request.data, request.remote, request.wrap_ttl, token)


def intent_for(caller: Caller, asked: Asked, decision: Decision) -> Intent:
    """The intent to be recorded of it."""
    return intent_of(caller, asked.request, asked.operation, asked.path, decision.rule, secrets_of(asked))


def secrets_of(asked: Asked) -> tuple[str, ...]:
    """The names of the secrets that it is about, as its records have them."""
    target = asked.target
    named = target.params.get("path", "") if target.mount.engine.lend is not None else ""
    return (named,) if named else ()
