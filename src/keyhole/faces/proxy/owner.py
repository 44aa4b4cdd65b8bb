"""What the connections of the proxy need of others."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from keyhole.core.errors import KeyholeError
from keyhole.core.host import Authority
from keyhole.core.message import Answer, Call, Seat, Stream
from keyhole.core.sql import SqlCall
from keyhole.net.guests import Guest
from keyhole.net.http1.limits import ListenerLimits
from keyhole.net.http1.wire import Wire, WireGroup
from keyhole.net.http2.stream import ServerStream

if TYPE_CHECKING:
    from keyhole.faces.proxy.connection import ProxyConnection
    from keyhole.faces.proxy.regulars import Regulars


class Broker(Protocol):
    """What decides and acts for the proxy. It refuses by raising ``KeyholeError``.

    An error may carry the attribute ``request_id``, which then stands in the refusal.
    """

    async def open_tunnel(
        self, credential: bytes, host: str, port: int, remote: str, service: str, seat: Seat | None
    ) -> ssl.SSLContext | str | None:
        """Judge a CONNECT: who asks, and whether there is anything for this caller at this host.

        Returns:
            The server's side of TLS for this host; the same object for the same host while its certificate lives.
            ``None`` when only plain HTTP may be spoken inside; the scheme of a database that is spoken inside, or of a
            tunnel that is passed on, which ``handle`` opens; ``core.ssh.SPOKEN`` for an agent of SSH.
        """

    def tunnel_at_once(
        self, credential: bytes, authority: Authority, service: str, seat: Seat | None
    ) -> ssl.SSLContext | None:
        """What ``open_tunnel`` returns, where that needs no waiting. ``None`` for all else, and for what is refused."""

    def may_go_on(self, seat: Seat | None, remote: str) -> bool:
        """Whether a client whose tunnel was opened may go on at once; if not, it waits ``in_turn``."""

    async def in_turn(self, seat: Seat | None, remote: str) -> None:
        """Wait until a client may go on with what costs the processor; one whose tunnel this task has opened is known.

        Raises:
            KeyholeError: there is no open vault.
        """

    async def handle(self, call: Call) -> Answer:
        """Make the call. The answer's body may have an async ``close``, which is called when it is not read to its end.

        The task is cancelled when the client goes away.
        """

    def note_refusal(self, error: KeyholeError, remote: str) -> None:
        """Record that a request was refused before there was a call. May give the error its ``request_id``."""


class Databases(Protocol):
    """What serves the clients of databases inside tunnels."""

    async def serve(self, wire: Wire, call: SqlCall, begun: Callable[[Stream], None]) -> None:
        """Serve one to its end; ``begun`` is told when its session has begun."""


class Agents(Protocol):
    """What serves the clients of an SSH agent inside tunnels."""

    async def serve(self, wire: Wire, credential: bytes, remote: str) -> None:
        """Serve one to its end."""


class Owner(Protocol):
    """What a connection needs of its listener."""

    broker: Broker
    databases: Databases | None
    agents: Agents | None
    limits: ListenerLimits
    pseudonym: bytes
    via: bytes
    via_value: bytes
    group: WireGroup
    regulars: Regulars
    draining: bool

    def opened(self, connection: ProxyConnection, remote: str) -> Guest | None:
        """Count a connection; ``None`` when there is no room for it."""

    def may_linger(self, connection: ProxyConnection) -> bool:
        """Whether a connection that there is no room for may stay for the moment in which it is told so."""

    def closed(self, connection: ProxyConnection) -> None:
        """Forget a connection."""

    async def tunnel(
        self, stream: ServerStream, authority: Authority, service: str, credential: bytes, remote: str
    ) -> None:
        """Carry a tunnel that was asked for on a stream to its end. Raises what refuses it, as yet unanswered."""

    def admit_stream(self) -> bool:
        """Count a request of HTTP/2; whether there is room for it."""

    def forget_stream(self) -> None:
        """One has ended."""
