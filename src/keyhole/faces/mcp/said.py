"""What a request of an MCP client says of the work that it belongs to, in its ``_meta``.

``traceparent`` stands there by itself: the specification of MCP reserves that key, with ``tracestate`` and ``baggage``,
for W3C trace context (SEP-414, OpenTelemetry's conventions for MCP). ``keyhole/context`` is ours: an object with
``workflow``, ``run``, ``step``, ``tool``, ``on_behalf_of``. Baggage is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from keyhole.client import context
from keyhole.core.errors import InvalidRequest
from keyhole.core.stated import TRACEPARENT, Stated

KEY = "keyhole/context"


def at_work(meta: Mapping[str, Any] | None, tool: str = "") -> AbstractContextManager[None]:
    """A block in which the vault is asked for the work that a request belongs to.

    Args:
        meta: ``_meta`` of the request.
        tool: that was called; stands in the records unless the request names one.

    Raises:
        InvalidRequest: ``keyhole/context`` cannot be read.
    """
    claims, parent = (meta or {}).get(KEY) or {}, (meta or {}).get(TRACEPARENT)
    if not isinstance(claims, Mapping):
        raise InvalidRequest(f"{KEY} in _meta is no object", 'write {"run": "4711", "step": "charge"}')
    said = {"tool": tool, **claims} if tool else claims
    return context.within(Stated.of(said, parent))
