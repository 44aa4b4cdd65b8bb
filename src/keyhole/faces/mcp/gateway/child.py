"""A server that is a program: its environment holds its grants only, and it is gone when the gateway is."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
from mcp.client._transport import TransportStreams
from mcp.shared.message import SessionMessage

import keyhole
from keyhole.core.errors import KeyholeError
from keyhole.faces.mcp.gateway.gate import Gate
from keyhole.faces.mcp.gateway.launcher import START
from keyhole.scrub import Scrubber

PASSED = ("PATH", "HOME", "LANG", "TMPDIR")
_PIECE = 65536
_TAIL = 2048  # bytes of what it says on stderr that are kept
_GRACE = 1.0  # seconds between the end of its stdin and its own


def environment(given: Mapping[str, str], base: Mapping[str, str]) -> dict[str, str]:
    """The environment of a server: what it was given, and what every program needs."""
    return {**{name: base[name] for name in PASSED if name in base}, **given}


class Said:
    """The end of what a server says on stderr, without its credentials.

    Args:
        scrubber: of them.
    """

    def __init__(self, scrubber: Scrubber) -> None:
        self._stream = scrubber.stream()
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """Take a piece."""
        self._tail = (self._tail + self._stream.feed(data))[-_TAIL:]

    @property
    def text(self) -> str:
        """Its last lines, as printable text."""
        lines = self._tail.decode(errors="replace").splitlines()[-5:]
        return "; ".join("".join(char if char.isprintable() else "?" for char in line)[:200] for line in lines)


@asynccontextmanager
async def connected(
    argv: Sequence[str], env: Mapping[str, str], gate: Gate, said: Said, closed: Callable[[], None]
) -> AsyncIterator[TransportStreams]:
    """Start a program, and speak with it over its stdin and stdout.

    Args:
        argv: the program and its arguments; no shell reads them.
        env: its whole environment.
        gate: what it may send.
        said: takes what it says on stderr.
        closed: called when it speaks no more.
    """
    process, lifeline = await _start(argv, env)
    to_session, reading = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    writing, from_session = anyio.create_memory_object_stream[SessionMessage](0)

    async def read() -> None:
        assert process.stdout is not None  # noqa: S101  # it was started with a pipe
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, KeyholeError, OSError):
            while data := await process.stdout.read(_PIECE):
                for message in gate.feed(data):
                    await to_session.send(message)
                await asyncio.sleep(0)
        closed()
        to_session.close()

    async def write() -> None:
        assert process.stdin is not None  # noqa: S101  # as above
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            async for message in from_session:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                process.stdin.write(text.encode(errors="replace") + b"\n")
                await process.stdin.drain()

    async def listen() -> None:
        assert process.stderr is not None  # noqa: S101  # as above
        while data := await process.stderr.read(_PIECE):
            said.feed(data)

    async with anyio.create_task_group() as group:
        for work in (read, write, listen):
            group.start_soon(work)
        try:
            yield reading, writing
        finally:
            for stream in (to_session, reading, writing, from_session):
                stream.close()
            with anyio.CancelScope(shield=True):
                await _end(process, lifeline)
            group.cancel_scope.cancel()


async def _start(argv: Sequence[str], env: Mapping[str, str]) -> tuple[asyncio.subprocess.Process, int]:
    theirs, ours = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-S", "-c", START, str(Path(keyhole.__file__).parent.parent), str(theirs)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(theirs,),
            start_new_session=True,
            env={name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            limit=_PIECE,
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    plan = json.dumps({"argv": list(argv), "env": dict(env)}).encode() + b"\n"
    await asyncio.to_thread(_send, ours, plan)
    return process, ours


def _send(descriptor: int, data: bytes) -> None:
    with suppress(BrokenPipeError):
        while data:
            data = data[os.write(descriptor, data) :]


async def _end(process: asyncio.subprocess.Process, lifeline: int) -> None:
    """Let it end by itself when its stdin does; then take it and all that it started away."""
    if process.stdin is not None:
        process.stdin.close()
    await _gone(process, _GRACE)
    os.close(lifeline)
    await _gone(process, _GRACE * 5)
    transport = process._transport  # type: ignore[attr-defined]  # noqa: SLF001  # nothing else closes its pipes
    transport.close()  # which kills a launcher that is still there, and with it the program


async def _gone(process: asyncio.subprocess.Process, seconds: float) -> None:
    """Wait for its end, and not, as ``Process.wait`` does, for that of its pipes, which may be full."""
    until = asyncio.get_running_loop().time() + seconds
    while process.returncode is None and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110  # there is none
        await asyncio.sleep(0.01)
