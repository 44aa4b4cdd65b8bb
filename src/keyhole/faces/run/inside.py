"""What listens inside the network of one command, as seen from ``keyhole run``.

The launcher opens the sockets there and hands them over (see ``shut``); this process accepts on them. Whoever connects
is in that namespace, which only the command and what it started are: the namespace stands for the question whose
process it is. Outside nothing listens for the command then.

=================== =========================================================================================
the proxy's port    the broker: it accepts by itself where it is in this process, else bytes are carried to it
ports of the command see ``port``, ``databases``, ``agentsecrets``
``local``           the port of the same number on this machine's loopback, which was asked for by name
``every``           see ``transparent``
=================== =========================================================================================
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from keyhole.core.errors import InvalidRequest
from keyhole.faces.run.plan import RunPlan
from keyhole.faces.run.port import SessionPort, serving
from keyhole.faces.run.shut import MOST

if TYPE_CHECKING:
    from keyhole.faces.run.transparent import Transparent

_HERE = "127.0.0.1"
_PATIENCE = 10.0  # seconds; the sockets were sent before we ask for them
_CONNECTIONS = 512  # at a time, to one port

_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class Inside:
    """The sockets of one command's network.

    Args:
        plan: what is to be run.
        ports: of the command's own; they listen outside already.
        on_message: told what the command should know.
        folder: for files of the command, which ends with it.

    Attributes:
        wanted: what the launcher is to open.
        resolver: a file for the place of ``/etc/resolv.conf``; empty for none.
    """

    def __init__(
        self, plan: RunPlan, ports: Sequence[SessionPort], on_message: Callable[[str], None], folder: Path
    ) -> None:
        self._plan = plan
        self._ports = ports
        self._stack = AsyncExitStack()
        parts = urlsplit(plan.proxy_url)
        self._there = (parts.hostname or "", parts.port or 80)
        taken = [self._there[1], *(port.address[1] for port in ports)]
        self._local = [port for port in dict.fromkeys(plan.local) if port not in taken]
        listen = [(_HERE, port) for port in (*taken, *self._local)]
        self.wanted: dict[str, Any] = {"listen": listen}
        self.resolver = ""
        self._transparent: Transparent | None = None
        if plan.transparent:
            from keyhole.faces.run.transparent import Transparent  # noqa: PLC0415  # few commands want it

            self._transparent = Transparent(plan, on_message)
            self.wanted["every"] = [port for port in self._transparent.ports if port not in {n for _, n in listen}]
            self.resolver = self._transparent.write_resolver(folder)
        if len(listen) + len(self.wanted.get("every", ())) > MOST:
            raise InvalidRequest(f"a command has {MOST} ports at most", "name fewer with --allow-local")

    @property
    def plan(self) -> RunPlan:
        """The plan as it is for the command: the broker is on loopback."""
        parts = urlsplit(self._plan.proxy_url)
        login = parts.netloc.rpartition("@")[0]
        return replace(self._plan, proxy_url=f"http://{login}@{_HERE}:{self._there[1]}")

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def take(self, handover: socket.socket) -> None:
        """Receive the sockets, and serve them.

        Raises:
            OSError: they did not come.
        """
        sockets = _received(handover)
        for each in sockets:
            self._stack.callback(each.close)
        left = iter(sockets)
        await self._serve_proxy(next(left))
        for port, sock in zip(self._ports, left, strict=False):
            port.only_inside()
            await self._stack.enter_async_context(serving(port.serve_inside, sock=sock))
        rest = sockets[1 + len(self._ports) :]
        for number, sock in zip(self._local, rest, strict=False):
            await self._stack.enter_async_context(serving(carrier("localhost", number), sock=sock))
        if self._transparent is not None:
            await self._stack.enter_async_context(self._transparent.serving(rest[len(self._local) :]))

    async def _serve_proxy(self, sock: socket.socket) -> None:
        if self._plan.adopt is not None:
            own = socket.socket(fileno=os.dup(sock.fileno()))
            await asyncio.to_thread(self._plan.adopt, own)
        else:
            await self._stack.enter_async_context(serving(carrier(*self._there), sock=sock))


def _received(handover: socket.socket) -> list[socket.socket]:
    handover.settimeout(_PATIENCE)
    said, descriptors, flags, _ = socket.recv_fds(handover, 1, 253, socket.MSG_CMSG_CLOEXEC)
    sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    if not said or flags & socket.MSG_CTRUNC:
        for each in sockets:
            each.close()
        raise OSError("the sockets of the command's network did not arrive: too many files are open")
    return sockets


def carrier(host: str, port: int) -> _Serve:
    """What carries connections to a port outside."""
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        try:
            if count <= _CONNECTIONS:
                with suppress(OSError):  # nobody is there: the command sees its connection end
                    back, forth = await asyncio.open_connection(host, port)
                    try:
                        await SessionPort.carry(reader, writer, back, forth)
                    finally:
                        forth.close()
        finally:
            count -= 1
            writer.close()

    return serve
