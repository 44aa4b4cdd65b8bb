"""``mcp``: Keyhole for clients of the Model Context Protocol."""

from __future__ import annotations

from keyhole.cli.base import group


@group(
    "mcp",
    examples="""
    keyhole mcp install
    keyhole mcp serve --agent coder
    keyhole mcp serve --http 127.0.0.1:8230
    """,
)
def mcp() -> None:
    """Keyhole for clients of the Model Context Protocol."""
