"""A listener for clients of one kind of database: it counts, drains and closes connections, and decides nothing."""

from __future__ import annotations

import asyncio
import logging
import ssl

from keyhole.core.errors import fault_place
from keyhole.core.message import Stream
from keyhole.core.sql import SqlCall
from keyhole.faces.sql.face import SqlFace
from keyhole.net.http1.wire import Wire, WireGroup

_log = logging.getLogger("keyhole.sql")
_TICK = 0.5  # seconds between looks at deadlines


class _Client(Wire):
    """One connection, and the task that serves it."""

    __slots__ = ("_owner", "stream", "task")

    def __init__(self, owner: SqlServer) -> None:
        super().__init__(owner.group)
        self._owner = owner
        self.stream: Stream | None = None
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self._owner.opened(self):
            transport.close()
            return
        peer = transport.get_extra_info("peername")
        self.task = self.loop.create_task(self._run(str(peer[0]) if isinstance(peer, tuple) else ""))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._owner.closed(self)
        if self.task is not None:
            self.task.cancel()

    async def _run(self, remote: str) -> None:
        owner = self._owner
        try:
            call = SqlCall(b"", owner.scheme, remote=remote)
            await owner.face.serve(self, call, self._begun, tls=owner.tls)
        except (OSError, ssl.SSLError, asyncio.CancelledError):
            self.abort()
        except Exception as error:  # noqa: BLE001 - a fault of ours ends this connection only, and is logged
            _log.error("internal error: %s", fault_place(error))
            self.abort()
        finally:
            self.close(owner.face.limits.linger)

    def _begun(self, stream: Stream) -> None:
        self.stream = stream
        if self._owner.draining:
            stream.leave()


class SqlServer:
    """Serves one protocol on any number of sockets of one event loop.

    Args:
        face: serves each client.
        scheme: what they speak.
        tls: for a listener that offers TLS, and then takes tokens over it only.
    """

    def __init__(self, face: SqlFace, scheme: str, tls: ssl.SSLContext | None = None) -> None:
        self.face = face
        self.scheme = scheme
        self.tls = tls
        self.draining = False
        self.group = WireGroup(asyncio.get_running_loop(), _TICK)
        self._clients: set[_Client] = set()
        self._servers: list[asyncio.Server] = []

    async def listen(self, host: str = "127.0.0.1", port: int = 0, *, reuse_port: bool = False) -> tuple[str, int]:
        """Open a listening socket, of a port that other processes may share; its address. Port 0 picks a free one."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Client(self), host, port, reuse_port=reuse_port or None)
        self._servers.append(server)
        address = server.sockets[0].getsockname()
        return str(address[0]), int(address[1])

    async def close(self, grace: float = 10.0) -> None:
        """Stop listening, tell clients that this end goes away, and cut who is left after ``grace`` seconds."""
        self.draining = True
        for server in self._servers:
            server.close()
        for client in list(self._clients):
            if client.stream is not None:
                client.stream.leave()
        tasks = [client.task for client in self._clients if client.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for client in list(self._clients):
                client.abort()
            if late:
                await asyncio.wait(late, timeout=1.0)

    # What connections call.

    def opened(self, client: _Client) -> bool:
        """Count a connection; whether there is room for it."""
        if self.draining or len(self._clients) >= self.face.limits.connections:
            return False
        self._clients.add(client)
        self.group.add(client)
        return True

    def closed(self, client: _Client) -> None:
        """Forget a connection."""
        self._clients.discard(client)
        self.group.discard(client)
