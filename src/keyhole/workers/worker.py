"""A worker: a fresh interpreter, which is told over a socket what to serve and, where the vault is open, its key."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib
import logging
import os
import signal
import socket
from dataclasses import asdict
from typing import Any, NoReturn

from keyhole.config import ApiLimits, Config
from keyhole.core.errors import KeyholeError
from keyhole.core.value import Secret
from keyhole.process import harden_process
from keyhole.process.sandbox import die_with_parent
from keyhole.workers.channel import Channel, Data

START = "import sys; sys.path.append(sys.argv[1]); from keyhole.workers.worker import main; main(*sys.argv[2:])"
_log = logging.getLogger("keyhole")


def main(descriptor: str, parent: str) -> NoReturn:
    """Serve until the parent says to stop; ends the process.

    Args:
        descriptor: number of the socket on which the parent speaks.
        parent: its process id.
    """
    harden_process()
    die_with_parent()
    code = 1
    importlib.import_module("keyhole.app")  # while others start, too
    importlib.import_module("keyhole.workers.crew")
    if os.getppid() == int(parent):  # or it died before it could take this process with it
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            code = runner.run(_Worker(socket.socket(fileno=int(descriptor))).run())
    logging.shutdown()
    os._exit(code)


def loop_factory() -> Any:
    """What makes the loop of a server."""
    try:
        import uvloop  # noqa: PLC0415  # not on Windows
    except ImportError:
        return None
    return uvloop.new_event_loop


def pack(config: Config) -> Data:
    """Settings as a message."""
    return {**config._asdict(), "api": config.api._asdict()}


def unpack(data: Data) -> Config:
    """Settings of a message."""
    values: dict[str, Any] = {**data, "api": ApiLimits(**data["api"])}
    shapes = {name for name, default in Config._field_defaults.items() if type(default) is tuple}
    values |= {name: tuple(values[name]) for name in shapes}
    return Config(**values)


class _Worker:
    def __init__(self, sock: socket.socket) -> None:
        sock.set_inheritable(False)
        self._channel = Channel(sock, self._serve, _log.error)
        self._stack = contextlib.AsyncExitStack()
        self._stop = asyncio.Event()
        self._begun = asyncio.Event()
        self._crew: Any = None
        self._node: Any = None
        self._read_again: Any = None

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._look_again)
        await self._channel.open()
        self._channel.tell("hardened")  # before that, nobody sends a key
        speaking = loop.create_task(self._channel.run())
        stopping = loop.create_task(self._stop.wait())
        async with self._stack:
            await asyncio.wait([speaking, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not self._stop.is_set():
                os._exit(1)  # without a parent nobody could seal this process
            if self._node is not None:
                self._node.leave()
        speaking.cancel()
        return 0

    async def _serve(self, kind: str, data: Data) -> Data:
        if kind == "boot":
            try:
                return await self._boot(data)
            finally:
                self._begun.set()
        if kind == "stop":
            self._stop.set()
        elif kind == "reload":
            self._look_again()
        else:
            await self._begun.wait()
            if self._crew is None:
                raise KeyholeError("this worker did not start", "see the server's log")
            answer: Data = await self._crew.serve(kind, data)
            return answer
        return {}

    async def _boot(self, data: Data) -> Data:
        """Open the vault, if its key or what opens it was given, and then the listeners."""
        from keyhole import app  # noqa: PLC0415  # slow to import, and the process hides itself before
        from keyhole.process.pinned import pin_code  # noqa: PLC0415  # the same
        from keyhole.workers.crew import Crew  # noqa: PLC0415  # the same
        from keyhole.workers.tallies import SharedTallies  # noqa: PLC0415  # the same

        config, index, count = unpack(data["config"]), data["index"], data["count"]
        for descriptor in filter(None, (data["socket"], data["tallies"])):
            fcntl.fcntl(
                descriptor, fcntl.F_SETFD, fcntl.FD_CLOEXEC
            )  # programs that this process starts have no business there
        sock = socket.socket(fileno=data["socket"]) if data["socket"] is not None else None
        tallies = SharedTallies(data["tallies"], data["key"], index, count)
        crew = Crew(index, count, sock, tallies, self._channel.ask, data["epoch"])
        keyhole = await app.assemble(config, create=data["create"], crew=crew)
        self._stack.push_async_callback(keyhole.close)
        if data["root"] is not None:
            await keyhole.node.take(data["root"])
        elif data["open"] and not (data["create"] and await keyhole.node.header() is None):
            passphrase = Secret(data["passphrase"]) if data["passphrase"] is not None else None
            await app.unseal_at_start(keyhole, passphrase)
        started, self._read_again = await app.listening(keyhole, self._stack)
        await crew.captures.catch_up()
        pin_code()  # as the program itself does
        self._crew, self._node = crew, keyhole.node
        return asdict(started)

    def _look_again(self) -> None:
        if self._read_again is not None:
            self._read_again()
