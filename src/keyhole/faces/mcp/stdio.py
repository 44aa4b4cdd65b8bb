"""MCP over stdin and stdout: one JSON text a line, in UTF-8, of bounded length."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from typing import Any, cast

import anyio
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

LONGEST = 8 * 1024 * 1024  # bytes of a message
_PIECE = 65536
_TOO_LONG = "{"  # what the reader is given in place of such a line: no JSON, which is answered as such


class Lines:
    """The lines of a descriptor, of which none is kept that is longer than the bound.

    Args:
        descriptor: to read from.
        longest: bytes.
    """

    def __init__(self, descriptor: int, longest: int = LONGEST) -> None:
        self._descriptor = descriptor
        self._longest = longest

    async def __aiter__(self) -> AsyncIterator[str]:
        kept, dropping = bytearray(), False
        while piece := await anyio.to_thread.run_sync(os.read, self._descriptor, _PIECE, abandon_on_cancel=True):
            *ended, rest = piece.split(b"\n")
            for part in ended:
                kept += part
                line = _TOO_LONG if dropping or len(kept) > self._longest else kept.decode(errors="replace")
                kept, dropping = bytearray(), False
                if line.strip():
                    yield line
            kept += rest
            if len(kept) > self._longest:
                kept, dropping = bytearray(), True


async def serve(server: Server[Any]) -> None:
    """Serve until stdin ends."""
    lines = cast("anyio.AsyncFile[str]", Lines(sys.stdin.fileno()))
    async with stdio_server(stdin=lines) as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options())
