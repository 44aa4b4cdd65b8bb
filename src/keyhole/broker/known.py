"""What is remembered of upstreams between connections: which protocols they speak, and their sessions of TLS."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from keyhole.broker.connections import Connection, Origin, Speaks, org_of
from keyhole.core.errors import UpstreamTls
from keyhole.core.fair import FairCache

H2, HTTP1 = "h2", "http/1.1"


class NothingInCommon(UpstreamTls):
    """The upstream speaks none of the protocols that were offered (RFC 7301 section 3.2)."""


@dataclass(slots=True)
class KnownUpstream:
    """What is remembered of an upstream.

    Attributes:
        http2: whether it chose HTTP/2 when it was offered, or had nothing else; ``None`` while it was not offered.
        only_http2: it has nothing else.
        session: of TLS, with its context, to be resumed.
    """

    http2: bool | None = None
    only_http2: bool = False
    session: tuple[ssl.SSLContext, ssl.SSLSession] | None = None


class KnownUpstreams:
    """The upstreams that something is remembered of.

    Args:
        limit: upstreams at most; of the org that has most of them, who was met longest ago is forgotten.
    """

    def __init__(self, limit: int) -> None:
        self._known: FairCache[Origin, KnownUpstream] = FairCache(limit)

    def get(self, origin: Origin) -> KnownUpstream | None:
        """What is remembered of it, if anything is."""
        return self._known.get(org_of(origin), origin)

    def of(self, origin: Origin) -> KnownUpstream:
        """The same, to be changed."""
        known = self.get(origin)
        if known is None:
            known = KnownUpstream()
            self._known.put(org_of(origin), origin, known)
        return known

    def session(self, origin: Origin, context: ssl.SSLContext) -> ssl.SSLSession | None:
        """A session that can be resumed with this context."""
        known = self.get(origin)
        return known.session[1] if known is not None and known.session and known.session[0] is context else None

    def remember_session(self, connection: Connection) -> None:
        """Keep the session of a connection, if it has one that can be resumed."""
        if connection.tls is None or connection.context is None:
            return
        session = connection.tls.session
        if session is not None and session.has_ticket:
            self.of(connection.origin).session = (connection.context, session)

    def forget_sessions(self) -> None:
        """No session is resumed any more."""
        for known in self._known.values():
            known.session = None


def offers(speaks: Speaks, *, only: bool) -> tuple[str, ...]:
    """The protocols that a handshake offers (RFC 7301); ``only`` where the upstream has HTTP/2 and nothing else."""
    if speaks is Speaks.UPGRADE or (speaks is Speaks.HTTP1 and not only):
        return (HTTP1,)
    return (H2, HTTP1) if not only else (H2,)
