"""What members share that reach servers which somebody named."""

from __future__ import annotations

from keyhole.engines import Call, Context


def is_trusted(context: Context, call: Call) -> bool:
    """Whether the caller may name servers at private addresses: that needs ``sudo`` on the path of the settings."""
    return bool(context.caller.allows("update", call.path, sudo=True))
