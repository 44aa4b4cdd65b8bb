"""Programs of this machine that are asked instead of a server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence

from keyhole.core import EMPTY

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_PIECE = 64 * 1024


async def ask_program(
    argv: Sequence[str], *, seconds: float, most: int, given: bytes = b"", variables: Mapping[str, str] = EMPTY
) -> tuple[int, bytes | None]:
    """Run a program, and end it with all that it started.

    What it says on stderr may quote a value, and is read by nobody.

    Args:
        argv: its absolute path, and its arguments.
        seconds: that it may take.
        most: bytes that it may print.
        given: what it may read from stdin.
        variables: of its environment, besides ``PATH`` and ``LANG``.

    Returns:
        Its exit code, and what it prints; ``None`` where that is too much.

    Raises:
        OSError: it cannot be started.
        TimeoutError: it took too long.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE if given else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**_ENVIRONMENT, **variables},
        cwd="/",
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds):
            await _tell(process, given)
            output = await _heard(process, most)
            return await process.wait() if output is not None else -1, output
    finally:
        _end(process)
        await process.wait()


async def _tell(process: asyncio.subprocess.Process, given: bytes) -> None:
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it need not read it
            process.stdin.write(given)
            await process.stdin.drain()
        process.stdin.close()


async def _heard(process: asyncio.subprocess.Process, most: int) -> bytes | None:
    found = bytearray()
    while process.stdout is not None and (part := await process.stdout.read(_PIECE)):
        if len(found) > most:
            continue  # asyncio waits for the end of the pipe too, which a full buffer never sees
        found += part
        if len(found) > most:
            _end(process)
    return bytes(found) if len(found) <= most else None


def _end(process: asyncio.subprocess.Process) -> None:
    """End it with all that it started, whether it has ended by itself or not."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
