"""What members share that reach servers which somebody named."""

from __future__ import annotations

from keyhole.core.identity import ROOT_ORG
from keyhole.engines import Call, Context


def is_trusted(context: Context, call: Call) -> bool:
    """Whether the caller may name servers at private addresses: that needs ``sudo`` on the path of the settings."""
    return bool(context.caller.allows("update", call.path, sudo=True))


def is_of_server(context: Context, call: Call) -> bool:
    """Whether the caller may name what the server's machine has: that needs the same, and the org root.

    Files, sockets and programs of the machine are reached as the server, which is trusted with every org.
    """
    return context.caller.org == ROOT_ORG and is_trusted(context, call)
