"""``mcp``: the noun with all of its verbs."""

from __future__ import annotations

from keyhole.cli.mcp import install, serve
from keyhole.cli.mcp.noun import mcp

__all__ = ["install", "mcp", "serve"]
