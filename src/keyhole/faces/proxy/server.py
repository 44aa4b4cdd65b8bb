"""The proxy's listener: it counts, drains and closes connections, and decides nothing."""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path

from keyhole.core.errors import InvalidRequest
from keyhole.core.host import Authority
from keyhole.faces.proxy.connection import ProxyConnection
from keyhole.faces.proxy.inside import StreamTunnel
from keyhole.faces.proxy.owner import Agents, Broker, Databases
from keyhole.faces.proxy.regulars import Regulars
from keyhole.net.guests import Guest, Guests
from keyhole.net.http1.limits import ListenerLimits
from keyhole.net.http1.wire import WireGroup
from keyhole.net.http2.stream import ServerStream
from keyhole.net.sockets import bind_path

_BACKLOG = 1024
_LINGERING = 64
_PSEUDONYM = re.compile(r"[A-Za-z0-9.-]{1,64}")


class ProxyServer:
    """Serves the proxy on any number of sockets of one event loop.

    Args:
        broker: decides and acts.
        limits: bounds on clients.
        databases: serves their clients inside tunnels.
        agents: serves the clients of SSH agents there.
        noted: called with what a connection was let go or turned away for.
        instance: names this installation in ``Via``; nodes that answer for one another have the same. Random when
            empty.
    """

    def __init__(
        self,
        broker: Broker,
        limits: ListenerLimits | None = None,
        *,
        instance: str = "",
        databases: Databases | None = None,
        agents: Agents | None = None,
        noted: Callable[[str], None] | None = None,
    ) -> None:
        instance = instance or secrets.token_hex(8)
        if not _PSEUDONYM.fullmatch(instance):
            raise InvalidRequest("the instance name has a character that cannot stand in Via", "use letters and digits")
        self.broker = broker
        self.databases = databases
        self.agents = agents
        self.limits = limits or ListenerLimits()
        self.pseudonym = b"keyhole-" + instance.encode()
        self.via_value = b"1.1 " + self.pseudonym
        self.via = b"Via: %b\r\n" % self.via_value
        self.draining = False
        self.group: WireGroup
        self.regulars = Regulars()
        self.guests = Guests(self.limits.connections, self.limits.strangers, noted)
        self._connections: set[ProxyConnection] = set()
        self._lingering: set[ProxyConnection] = set()
        self._requests = 0  # of HTTP/2
        self._servers: list[asyncio.Server] = []
        self._paths: list[Path] = []

    async def listen(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        sock: socket.socket | None = None,
        tls: ssl.SSLContext | None = None,
        reuse_port: bool = False,
    ) -> tuple[str, int]:
        """Open a listening socket, or take one that is bound already; its address.

        Args:
            host: address to bind.
            port: 0 picks a free one.
            sock: a bound stream socket, in place of host and port.
            tls: for a listener that itself speaks TLS (``https://`` proxies).
            reuse_port: let other processes share the port.
        """
        if tls is not None:
            tls.set_alpn_protocols(["h2", "http/1.1"])
        loop, make = asyncio.get_running_loop(), self._made()
        if sock is not None:
            server = await loop.create_server(make, sock=sock, backlog=_BACKLOG, ssl=tls)
        else:
            server = await loop.create_server(
                make, host, port, backlog=_BACKLOG, ssl=tls, reuse_port=reuse_port or None
            )
        self._servers.append(server)
        address = server.sockets[0].getsockname()
        return str(address[0]), int(address[1])

    async def listen_at(self, path: Path, sock: socket.socket | None = None) -> None:
        """Listen on a Unix socket that only its owner may connect to, and that goes with this server.

        Args:
            path: where.
            sock: one that is bound there already, and is not this server's to remove.

        Raises:
            InvalidRequest: it cannot be made, or somebody has it.
        """
        loop = asyncio.get_running_loop()
        if sock is None:
            sock = bind_path(path)
            self._paths.append(path)
            server = await loop.create_unix_server(self._made(), sock=sock, backlog=_BACKLOG)
        else:  # ``create_unix_server`` would remove the path when this process ends
            server = await loop.create_server(self._made(), sock=sock, backlog=_BACKLOG)
        self._servers.append(server)

    def _made(self) -> Callable[[], ProxyConnection]:
        """What makes a connection of each client."""
        if not self._servers:
            self.group = WireGroup(asyncio.get_running_loop(), self.limits.tick)
        return partial(ProxyConnection, self)

    @property
    def connections(self) -> int:
        """Open client connections."""
        return len(self._connections)

    async def close(self, grace: float = 10.0) -> None:
        """Stop listening, let requests that are being served finish, and cut what is left after ``grace`` seconds."""
        self.draining = True
        for server in self._servers:
            server.close()
        for path in self._paths:
            path.unlink(missing_ok=True)
        for connection in list(self._connections):
            connection.leave()
        tasks = [connection.task for connection in self._connections if connection.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for connection in list(self._connections):
                connection.abort()
            if late:
                await asyncio.wait(late, timeout=1.0)
        self.regulars.forget()

    # What connections call.

    def opened(self, connection: ProxyConnection, remote: str) -> Guest | None:
        """Count a connection; ``None`` when there is no room for it."""
        guest = self.guests.enter(remote, connection.abort)
        if guest is not None:
            self._connections.add(connection)
        self.group.add(connection)
        return guest

    def may_linger(self, connection: ProxyConnection) -> bool:
        """Whether a connection that there is no room for may stay for the moment in which it is told so."""
        if len(self._lingering) >= _LINGERING:
            return False
        self._lingering.add(connection)
        return True

    def closed(self, connection: ProxyConnection) -> None:
        """Forget a connection."""
        self._lingering.discard(connection)
        if connection.seat is not None:
            connection.seat.leave()
        self._connections.discard(connection)
        self.group.discard(connection)

    async def tunnel(
        self, stream: ServerStream, authority: Authority, service: str, credential: bytes, remote: str
    ) -> None:
        """Carry a tunnel that was asked for on a stream to its end. Raises what refuses it, as yet unanswered."""
        await StreamTunnel(self, stream, authority, service, credential).last(remote)

    def admit_stream(self) -> bool:
        """Count a request of HTTP/2: all of them together are as many as connections may be open."""
        if self._requests >= self.limits.connections:
            return False
        self._requests += 1
        return True

    def forget_stream(self) -> None:
        """One has ended."""
        self._requests -= 1
