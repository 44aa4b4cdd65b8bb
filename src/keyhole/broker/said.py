"""What a record says of a call."""

from __future__ import annotations

from keyhole.core.host import Authority
from keyhole.core.message import Call
from keyhole.core.record import clip, parameter_names


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
