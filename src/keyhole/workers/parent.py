"""The parent: reserves the ports, starts the workers, and keeps them going. See the package for what it promises."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keyhole.config import Config
from keyhole.core.errors import IntegrityError, InternalError, InvalidRequest, KeyholeError
from keyhole.core.value import Secret
from keyhole.net.sockets import bind_path
from keyhole.process import harden_process
from keyhole.workers.channel import Channel, Data
from keyhole.workers.ports import reserve
from keyhole.workers.tallies import new_memory
from keyhole.workers.worker import START, pack

_SOON, _LATE = 0.1, 10.0  # seconds before another worker is started, at first and at most
_STEADY = 30.0  # seconds after which a worker counts as one that runs
_SEALING = 10.0  # seconds that a worker gets to seal before it is killed
_ANSWERING = 5.0  # seconds that a worker gets to say what it has counted
_BEYOND = 5.0  # seconds beyond the drain that a worker gets to end
_PACKAGE = str(Path(__file__).resolve().parents[2])
_log = logging.getLogger("keyhole")


def count(config: Config) -> int:
    """How many workers the settings ask for."""
    if config.workers:
        return config.workers
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1


def require_possible(config: Config, *, dev: bool) -> None:
    """Raises ``InvalidRequest`` where several workers cannot serve one vault."""
    if sys.platform != "linux":
        raise InvalidRequest("only Linux spreads the connections of a port over workers", "leave --workers out")
    if dev or config.vault.startswith("memory:"):
        raise InvalidRequest(
            "a vault in memory is that of one process", "leave --workers out, or name a store: --vault sqlite:PATH"
        )


class _Slot:
    """A worker's place: the process that has it now, and the way to it.

    Attributes:
        told: the process has been told what to serve, and so of the key.
        ready: it serves.
        hardened: it is closed to other processes of its user.
        started: what the first process here said when it served.
    """

    def __init__(self, index: int, serve: Callable[[_Slot, str, Data], Any]) -> None:
        self.index = index
        self.told = False
        self.ready = False
        self.started: asyncio.Future[Data] = asyncio.get_running_loop().create_future()
        self.hardened = asyncio.Event()
        self.process: asyncio.subprocess.Process | None = None
        self.channel: Channel
        self._serve = serve
        self._speaking: asyncio.Task[None] | None = None

    async def start(self, descriptors: Sequence[int]) -> None:
        """Start a process here, which inherits the descriptors. Raises ``InternalError`` when the system does not."""
        self.hardened.clear()
        try:
            ours = await self._spawn(descriptors)
        except OSError as error:
            reason = f"the system starts no worker: {error.strerror}"
            raise InternalError(reason, "look at its limits of processes, open files and memory") from None
        self.channel = Channel(ours, lambda kind, data: self._serve(self, kind, data), _log.error)
        await self.channel.open()
        self._speaking = asyncio.get_running_loop().create_task(self.channel.run())

    async def _spawn(self, descriptors: Sequence[int]) -> socket.socket:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self.process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",  # no module of the working directory
                    *(["-s"] if sys.flags.no_user_site else []),
                    *(["-E"] if sys.flags.ignore_environment else []),
                    "-c",
                    START,
                    _PACKAGE,
                    str(theirs.fileno()),
                    str(os.getpid()),
                    pass_fds=(theirs.fileno(), *descriptors),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
        except BaseException:
            ours.close()
            raise
        return ours

    async def hidden(self) -> None:
        """Wait until the process has closed itself to others of its user, or has ended: only then it is told a key."""
        if self._speaking is not None:
            hiding = asyncio.get_running_loop().create_task(self.hardened.wait())
            await asyncio.wait([hiding, self._speaking], return_when=asyncio.FIRST_COMPLETED)
            hiding.cancel()

    async def ended(self) -> int:
        """Wait for the end of the process; its exit code."""
        if self.process is None:
            return 0
        code = await self.process.wait()
        self.told = self.ready = False
        if self._speaking is not None:
            self._speaking.cancel()
            await asyncio.wait([self._speaking])
        return code

    def kill(self) -> None:
        """End the process at once."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()


class Parent:
    """Runs the workers of one server.

    Args:
        config: the settings.
        passphrase: opens the vault, once.
        await_init: where there is no vault, serve all the same.
    """

    def __init__(self, config: Config, *, passphrase: Secret | None, await_init: bool) -> None:
        self._config = config
        self._passphrase = passphrase
        self._create = await_init
        self._root: bytes | None = None
        self._epoch = 0
        self._slots: list[_Slot] = []
        self._socket: socket.socket | None = None
        self._memory = -1
        self._key = os.urandom(32)
        self._stopping = False
        self._leaving = asyncio.Event()

    async def run(self, on_ready: Callable[[Data], None]) -> None:
        """Serve until SIGTERM or SIGINT, then let all workers drain.

        Args:
            on_ready: called with what the first worker says of itself, once all serve.

        Raises:
            KeyholeError: why they cannot.
        """
        harden_process()
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            self._prepare(stack)
            stop = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop.set)
            loop.add_signal_handler(signal.SIGHUP, self._look_again)
            self._slots = [_Slot(index, self._serve) for index in range(count(self._config))]
            keeping = [loop.create_task(self._keep(slot)) for slot in self._slots]
            starting = asyncio.gather(*(slot.started for slot in self._slots))
            stopping = loop.create_task(stop.wait())
            try:
                both: list[asyncio.Future[Any]] = [starting, stopping]
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if not stop.is_set():
                    on_ready((await starting)[0])
                    await stopping
            finally:
                stopping.cancel()
                starting.cancel()
                await self._stop(keeping)
                await asyncio.gather(starting, stopping, return_exceptions=True)

    def _prepare(self, stack: contextlib.ExitStack) -> None:
        self._config = reserve(self._config, stack)
        self._memory = new_memory()
        stack.callback(os.close, self._memory)
        if self._config.proxy_socket:
            path = Path(self._config.proxy_socket)
            self._socket = stack.enter_context(bind_path(path))
            stack.callback(path.unlink, missing_ok=True)

    async def _keep(self, slot: _Slot) -> None:
        """Have a process at a place, and another one when that ends."""
        loop = asyncio.get_running_loop()
        inherited = [self._memory, *([self._socket.fileno()] if self._socket is not None else [])]
        wait = _SOON
        while not self._stopping:
            begun = loop.time()
            try:
                await slot.start(inherited)
                if self._stopping:
                    slot.kill()
                said = await self._boot(slot)
                slot.ready = True
                if not slot.started.done():
                    slot.started.set_result(said)
            except KeyholeError as error:
                slot.kill()
                if not slot.started.done():
                    await slot.ended()
                    slot.started.set_exception(error)
                    return
                _log.error("worker %d did not start: %s", slot.index, error)
            code = await slot.ended()
            if self._stopping:
                return
            wait = _SOON if loop.time() - begun >= _STEADY else wait
            _log.warning("worker %d ended with %d; another one is started in %.1f s", slot.index, code, wait)
            with contextlib.suppress(TimeoutError):  # nobody who ends this server waits for another worker
                await asyncio.wait_for(self._leaving.wait(), wait)
            wait = min(2 * wait, _LATE)

    async def _boot(self, slot: _Slot) -> Data:
        """Tell a new process what to serve; what it says once it does."""
        first = not slot.started.done()
        if first and slot.index:
            await asyncio.shield(self._slots[0].started)  # who has the passphrase opens the vault
        await slot.hidden()
        opens = first and not slot.index
        passphrase, self._passphrase = (self._passphrase, None) if opens else (None, self._passphrase)
        slot.told = True
        return await slot.channel.ask(
            "boot",
            config=pack(self._config),
            index=slot.index,
            count=len(self._slots),
            socket=self._socket.fileno() if self._socket is not None else None,
            tallies=self._memory,
            key=self._key,
            create=self._create,
            open=opens,
            passphrase=passphrase.reveal() if passphrase is not None else None,
            root=self._root,
            epoch=self._epoch,
        )

    async def _serve(self, slot: _Slot, kind: str, data: Data) -> Data:
        """Answer what a worker asks."""
        others = [each for each in self._slots if each is not slot and each.told]
        if kind == "hardened":
            slot.hardened.set()
        elif kind == "root":
            if data["epoch"] == self._epoch:  # or the vault was sealed since
                self._root = data["root"]
                await asyncio.gather(*(self._open(each) for each in others))
        elif kind == "seal":
            self._root = None
            self._epoch += 1
            await asyncio.gather(*(self._seal(each) for each in others))
            return {"epoch": self._epoch}
        elif kind == "gather":
            asked = [self._ask(each, data["what"], data.get("about", {})) for each in others if each.ready]
            said = await asyncio.gather(*asked, return_exceptions=True)
            return {"answers": [each for each in said if not isinstance(each, BaseException)]}
        elif kind == "one":
            return await self._slots[data["index"]].channel.ask(data["what"], **data["about"])
        elif kind == "ceremony":
            holder = next((each for each in self._slots if each.ready), slot)
            return await holder.channel.ask("ceremony", **data)
        return {}

    async def _ask(self, slot: _Slot, what: str, about: Data) -> Data:
        """Raises ``TimeoutError`` where a worker stands still: the others do not wait for it."""
        async with asyncio.timeout(_ANSWERING):
            return await slot.channel.ask(what, **about)

    async def _open(self, slot: _Slot) -> None:
        try:
            await slot.channel.ask("root", root=self._root)
        except IntegrityError as error:
            _log.error("worker %d cannot open the vault: %s", slot.index, error)
        except KeyholeError:
            pass  # it has ended, and the next one here is told

    async def _seal(self, slot: _Slot) -> None:
        """Nobody says that the vault is sealed while some process has its key."""
        try:
            async with asyncio.timeout(_SEALING):
                await slot.channel.ask("seal", epoch=self._epoch)
        except (KeyholeError, TimeoutError):
            slot.kill()
            await slot.ended()

    def _look_again(self) -> None:
        for slot in self._slots:
            if slot.ready:
                slot.channel.tell("reload")

    async def _stop(self, keeping: Sequence[asyncio.Task[None]]) -> None:
        """Let all drain, and end those that do not."""
        self._stopping = True
        self._leaving.set()
        for slot in self._slots:
            if slot.ready:
                slot.channel.tell("stop")
            else:
                slot.kill()
        waiting = [task for task in keeping if not task.done()]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=self._config.drain + _BEYOND)
            for slot in self._slots:
                slot.kill()
            for task in late:
                task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
        for slot in self._slots:
            slot.kill()
            await slot.ended()
