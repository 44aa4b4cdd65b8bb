"""MCP over stdin and stdout: one JSON text a line, in UTF-8, of bounded length."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, cast

import anyio
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage

from keyhole.faces.mcp.envelope import fault

LONGEST = 8 * 1024 * 1024  # bytes of a message
_PIECE = 65536
_TOO_LONG = b"{"  # what is judged in place of such a line: no JSON
Answer = Callable[[types.JSONRPCError], Awaitable[None]]


class Lines:
    """The messages of a descriptor, one a line; what is none is answered, and none is kept that is too long.

    Args:
        descriptor: to read from.
        longest: bytes.

    Attributes:
        answer: is given the answer to what is no message.
    """

    def __init__(self, descriptor: int, longest: int = LONGEST) -> None:
        self._descriptor = descriptor
        self._longest = longest
        self.answer: Answer = _nobody

    async def __aiter__(self) -> AsyncIterator[str]:
        kept, dropping = bytearray(), False
        while piece := await anyio.to_thread.run_sync(os.read, self._descriptor, _PIECE, abandon_on_cancel=True):
            *ended, rest = piece.split(b"\n")
            for part in ended:
                kept += part
                line = _TOO_LONG if dropping or len(kept) > self._longest else bytes(kept)
                kept, dropping = bytearray(), False
                if not line.strip():
                    continue
                if (wrong := fault(line)) is not None:
                    await self.answer(wrong)
                else:
                    yield line.decode()
            kept += rest
            if len(kept) > self._longest:
                kept, dropping = bytearray(), True


async def serve(server: Server[Any]) -> None:
    """Serve until stdin ends, or somebody tells this process to: what it holds is then given back as well."""
    lines = Lines(sys.stdin.fileno())
    with _ended_by_signals():
        await _serve(server, lines)


async def _serve(server: Server[Any], lines: Lines) -> None:
    async with stdio_server(stdin=cast("anyio.AsyncFile[str]", lines)) as (reading, writing):

        async def answer(wrong: types.JSONRPCError) -> None:
            with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):  # it ends just now
                await writing.send(SessionMessage(wrong))

        lines.answer = answer
        await server.run(reading, writing, server.create_initialization_options())


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Clients that end a server close its stdin, and send SIGTERM where that takes too long (MCP, stdio transport)."""
    loop, task, told = asyncio.get_running_loop(), asyncio.current_task(), []

    def end() -> None:
        told.append(True)
        if task is not None:
            task.cancel()

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # Windows, or no main thread
        for number in numbers:
            loop.add_signal_handler(number, end)
    try:
        yield
    except asyncio.CancelledError:
        if not told:
            raise
    finally:
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            for number in numbers:
                loop.remove_signal_handler(number)


async def _nobody(_wrong: types.JSONRPCError) -> None:
    """Nobody is told before there is a way to answer."""
