"""``mcp``: the noun with all of its verbs."""

from __future__ import annotations

from keyhole.cli.mcp import approve, gateway, install, login, serve, servers
from keyhole.cli.mcp.noun import mcp

__all__ = ["approve", "gateway", "install", "login", "mcp", "serve", "servers"]
