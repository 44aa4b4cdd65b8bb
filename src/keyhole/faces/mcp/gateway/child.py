"""A server that is a program: its environment holds its grants only, and it is gone when the gateway is."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from mcp.client._transport import TransportStreams
from mcp.shared.message import SessionMessage

from keyhole.core.errors import KeyholeError, UpstreamUnreachable
from keyhole.faces.mcp.gateway.gate import Gate
from keyhole.faces.mcp.gateway.launched import Launched, launch
from keyhole.process.hide import cover
from keyhole.process.pinned import current
from keyhole.scrub import Scrubber

PASSED = ("PATH", "HOME", "LANG", "TMPDIR")
_PIECE = 65536
_TAIL = 2048  # bytes of what it says on stderr that are kept
_BREATH = 0.01  # seconds after a piece of what is dropped anyway
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


@dataclass(frozen=True, slots=True)
class Shut:
    """How a program is shut in.

    Attributes:
        wish: ``auto``, ``require`` or ``off``.
        hidden: the vault's own files and folders.
        memory: bytes that it and all that it starts may take.
        tell: told in words when it is not shut in although it was to be.
    """

    wish: str
    hidden: Sequence[Path]
    memory: int
    tell: Callable[[str], None]

    def plan(self) -> dict[str, Any]:
        """For the launcher."""
        if sys.platform != "linux":
            if self.wish == "require":
                raise UpstreamUnreachable("the sandbox that was required needs Linux", "--sandbox auto")
            return {"modes": ["none"], "vault": [], "others": [], "code": [], "whole": False, "memory": 0}
        from keyhole.process.sandbox import has_pid_namespace, modes  # noqa: PLC0415  # Linux only

        covered = cover(self.hidden, os.environ)
        whole = self.wish == "require"
        # Programs tell others their process ids, which count nowhere else from a pid namespace: only where it is asked.
        tried = [mode for mode in modes(self.wish) if whole or not has_pid_namespace(mode)]
        return {
            "modes": tried,
            "vault": covered.vault,
            "others": covered.others,
            "code": pinned.parts() if (pinned := current()) is not None else ((), ()),
            "whole": whole,
            "memory": self.memory,
        }

    def heard(self, said: Mapping[str, Any]) -> None:
        """Act on the launcher's answer. Raises ``UpstreamUnreachable``."""
        if "refused" in said:
            raise UpstreamUnreachable(
                f"the sandbox that was required is not to be had here: {said['refused']}", "--sandbox auto"
            )
        if said.get("sandbox") == "none" and said.get("tried"):
            self.tell(f"it is not shut in: {'; '.join(said['tried'])}")


@asynccontextmanager
async def connected(
    argv: Sequence[str],
    env: Mapping[str, str],
    gate: Gate,
    said: Said,
    closed: Callable[[], None],
    shut: Shut,
    started: Callable[[int], None],
) -> AsyncIterator[TransportStreams]:
    """Start a program, and speak with it over its stdin and stdout.

    Args:
        argv: the program and its arguments; no shell reads them.
        env: its whole environment.
        gate: what it may send.
        said: takes what it says on stderr.
        closed: called when it speaks no more.
        shut: how it is shut in.
        started: called with the process from which all of it descends.

    Raises:
        UpstreamUnreachable: it cannot be shut in as it has to be.
    """
    plan = {**shut.plan(), "argv": list(argv), "env": dict(env)}
    program = await _running(plan, shut, started)
    to_session, reading = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    writing, from_session = anyio.create_memory_object_stream[SessionMessage](0)

    async def read() -> None:
        dropped = 0
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, KeyholeError, OSError):
            while data := await program.stdout.read(_PIECE):
                for message in gate.feed(data):
                    await to_session.send(message)
                await asyncio.sleep(_BREATH if gate.dropped > dropped else 0)  # a flood waits in its pipe
                dropped = gate.dropped
        closed()
        to_session.close()

    async def write() -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            async for message in from_session:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                program.stdin.write(text.encode(errors="replace") + b"\n")
                await program.stdin.drain()

    async with anyio.create_task_group() as group:
        for work in (read, write):
            group.start_soon(work)
        group.start_soon(_listen, program.stderr, said)
        try:
            yield reading, writing
        finally:
            for stream in (to_session, reading, writing, from_session):
                stream.close()
            with anyio.CancelScope(shield=True):
                await program.end(_GRACE)
            group.cancel_scope.cancel()


async def _listen(stderr: asyncio.StreamReader, said: Said) -> None:
    while data := await stderr.read(_PIECE):
        said.feed(data)


async def _running(plan: Mapping[str, Any], shut: Shut, started: Callable[[int], None]) -> Launched:
    """The launcher after it has done what the plan says. Raises ``UpstreamUnreachable``."""
    launched = await launch()
    started(launched.pid)
    try:
        shut.heard(await _plan(launched.lifeline, plan))
    except BaseException:
        with anyio.CancelScope(shield=True):
            await launched.end(_GRACE)
        raise
    return launched


async def _plan(lifeline: socket.socket, plan: Mapping[str, Any]) -> Mapping[str, Any]:
    """Tell the launcher what to do; what it says of it, which is nothing where it has ended."""
    loop, text = asyncio.get_running_loop(), b""
    with suppress(OSError):
        await loop.sock_sendall(lifeline, json.dumps(plan).encode() + b"\n")
        while not text.endswith(b"\n") and (piece := await loop.sock_recv(lifeline, _PIECE)):
            text += piece
    found: dict[str, Any] = json.loads(text) if text.endswith(b"\n") else {}
    return found
