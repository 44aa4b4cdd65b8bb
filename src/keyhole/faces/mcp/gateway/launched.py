"""Launchers of servers' programs, as the gateway sees them; see ``forkserver``."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from io import FileIO
from pathlib import Path

import keyhole
from keyhole.core.errors import UpstreamUnreachable
from keyhole.faces.mcp.gateway.forkserver import KILL, LAUNCH, NUMBER, START
from keyhole.process.pinned import current

_PIECE = 65536
_PATIENCE = 20.0  # seconds
_SOON = 0.01


class _Forks:
    """The process that launchers are forked from, as long as this one lives."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_PATIENCE)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  # our own interpreter
                [
                    *(sys.executable, "-I", "-S", "-c", START),
                    *(str(Path(keyhole.__file__).parent.parent), str(theirs.fileno())),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env={name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            )
        self._lock = threading.Lock()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def launch(self, descriptors: list[int]) -> int:
        """The process of a new launcher with these.

        Raises:
            OSError: there is none. Where the answer did not come in time there never is another, as it would be taken
                for the answer to the next request.
        """
        with self._lock:
            try:
                socket.send_fds(self._control, [LAUNCH], descriptors)
                process = int.from_bytes(self._control.recv(NUMBER, socket.MSG_WAITALL))
            except OSError:
                self._control.close()
                raise
        if not process:
            raise OSError("no process could be started")
        return process

    def kill(self, process: int) -> None:
        """End one at once, if it is there."""
        with self._lock, suppress(OSError):
            self._control.sendall(KILL + process.to_bytes(NUMBER))


_forks: list[_Forks] = []
_forks_lock = threading.Lock()


def _started() -> _Forks:
    """The one of this process. Where code is pinned there is never another, because its files may not be ours now."""
    with _forks_lock:
        if _forks and not _forks[0].alive and current() is None:
            _forks.clear()
        if not _forks:
            _forks.append(_Forks())
        return _forks[0]


class Launched:
    """One launcher.

    Attributes:
        pid: its process.
        stdin: of the program.
        stdout: of the program.
        stderr: of the program.
        lifeline: the launcher's socket; it ends the program when this end is closed.
    """

    def __init__(
        self,
        forks: _Forks,
        pid: int,
        stdin: asyncio.StreamWriter,
        outputs: tuple[asyncio.StreamReader, asyncio.StreamReader],
        closing: ExitStack,
        lifeline: socket.socket,
    ) -> None:
        self._forks = forks
        self.pid = pid
        self.stdin = stdin
        self.stdout, self.stderr = outputs
        self._closing = closing
        self.lifeline = lifeline

    async def gone(self, seconds: float) -> bool:
        """Wait for its end, and not for that of the pipes, which may be full; whether it has come."""
        until = asyncio.get_running_loop().time() + seconds
        while not (gone := self._is_gone()) and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110  # no event
            await asyncio.sleep(_SOON)
        return gone

    def _is_gone(self) -> bool:
        """Whether nobody has the other end of its socket, which the program never gets."""
        try:
            return not self.lifeline.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    async def end(self, grace: float) -> None:
        """Let the program end by itself, now that its stdin does; then take it and all that it started away."""
        self.stdin.close()
        if not await self.gone(grace):
            self.lifeline.shutdown(socket.SHUT_WR)
            if not await self.gone(grace * 5):
                await asyncio.to_thread(self._forks.kill, self.pid)
        self.lifeline.close()
        if self.stdin.transport.get_write_buffer_size():
            self.stdin.transport.abort()  # nobody reads what is left
        self._closing.close()


async def launch() -> Launched:
    """A launcher that waits for its plan.

    Raises:
        UpstreamUnreachable: there can be none any more.
    """
    with ExitStack() as theirs, ExitStack() as ours:
        lifeline, other = socket.socketpair()
        ours.callback(lifeline.close)
        theirs.callback(other.close)
        pairs = [os.pipe(), os.pipe(), os.pipe()]
        reading, writing = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        given = [reading[0], writing[1], writing[2]]
        for each in given:
            theirs.callback(os.close, each)
        kept = [FileIO(writing[0], "wb"), FileIO(reading[1], "rb"), FileIO(reading[2], "rb")]
        for pipe in kept:
            ours.callback(pipe.close)
        try:
            forks = await asyncio.to_thread(_started)
            pid = await asyncio.to_thread(forks.launch, [*given, other.fileno()])
        except OSError as error:
            raise UpstreamUnreachable(
                f"no program can be started ({error.strerror or error})", "start the gateway again"
            ) from None
        lifeline.setblocking(False)  # noqa: FBT003  # the method takes nothing else
        held = ExitStack()
        stdin = await _writer(kept[0])
        outputs = await _reader(kept[1], held), await _reader(kept[2], held)
        ours.pop_all()
        return Launched(forks, pid, stdin, outputs, held, lifeline)


async def _reader(pipe: FileIO, held: ExitStack) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=_PIECE)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    held.callback(transport.close)
    return reader


async def _writer(pipe: FileIO) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), pipe
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)
