"""What a record says of a call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from keyhole.broker.directory import Match
from keyhole.core.host import Authority
from keyhole.core.identity import Caller
from keyhole.core.message import Call
from keyhole.core.record import Phase, Record, clip, parameter_names
from keyhole.core.request import Request


def egress(caller: Caller, request: Request, rule: str) -> Record:
    """The intent of a call to a host without any service, which the org's rule lets out."""
    fields: dict[str, Any] = {**request.data, **caller.run.as_data()}
    return Record(
        phase=Phase.INTENT,
        id=request.id,
        caller=caller.name,
        accessor=caller.accessor,
        operation="egress",
        path="services",
        rule=rule,
        remote=request.remote,
        **fields,
    )


def about(request: Request, match: Match) -> Request:
    """The request as the record of its refusal shows it: with the service that the refusal is about."""
    return replace(request, data={**request.data, "service": match.about})


def summary(call: Call, authority: Authority, *, target: bool) -> dict[str, object]:
    """What the audit record says of a call: of a query only the parameter names, without ``target`` neither."""
    if not target:
        return {"host": str(authority), "method": clip(call.method)}
    path, _, query = call.target.decode("latin-1").partition("?")
    return {
        "host": str(authority),
        "method": clip(call.method),
        "target": clip(path),
        "parameters": parameter_names(query),
    }
