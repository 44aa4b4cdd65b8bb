"""What a peer may make us hold in memory for one message, and what a client of a listener may cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from keyhole.net.http2.limits import Http2Limits


@dataclass(frozen=True, slots=True)
class WireLimits:
    """Bounds on one HTTP/1.1 message. A message that exceeds one of them is refused, never cut.

    Attributes:
        head_bytes: start line and header section together, with their line ends.
        headers: header lines.
        target_bytes: the request target.
        value_bytes: one header value.
        chunk_extension_bytes: everything between a chunk size and its line end.
        extensions_bytes: chunk extensions of one body together, beyond the bytes of its payload.
        trailer_bytes: the trailer section.
        informational: 1xx answers before the final one.
    """

    head_bytes: int = 64 * 1024
    headers: int = 128
    target_bytes: int = 8 * 1024
    value_bytes: int = 16 * 1024
    chunk_extension_bytes: int = 256
    extensions_bytes: int = 16 * 1024
    trailer_bytes: int = 16 * 1024
    informational: int = 8


REQUEST_LIMITS = WireLimits()
ANSWER_LIMITS = WireLimits(headers=256)


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """Bounds on the clients of one listener; times in seconds. Bodies have no bound: they flow in constant memory.

    Attributes:
        wire: bounds on one request.
        connections: open connections; further ones are refused where none can be let go.
        strangers: connections of one address that have proved nothing and rest; a further one takes the oldest's place.
            0 for any number, and then nobody is let go for somebody else.
        head_timeout: a whole request head, counted from its first byte, however slowly it drips.
        idle_timeout: between requests, and before the first.
        tunnel_timeout: of a proxy, from the answer to CONNECT to the end of the TLS handshake.
        body_timeout: the next payload of a request body that somebody is waiting for.
        body_rate: bytes of a request body a second, at least, on average over ``rate_window``; 0 for none.
        rate_window: seconds of waiting over which that average is taken.
        write_timeout: a client that does not read its answer.
        linger: how long a refused client may go on sending, or one that ended its side may wait for its answer.
        linger_bytes: how much a refused client may go on sending.
        http2: bounds on a connection of HTTP/2, and ``connections`` also bounds the requests of all of them together.
    """

    wire: WireLimits = REQUEST_LIMITS
    connections: int = 10_000
    strangers: int = 0
    head_timeout: float = 10.0
    idle_timeout: float = 75.0
    tunnel_timeout: float = 10.0
    body_timeout: float = 60.0
    body_rate: float = 1.0
    rate_window: float = 60.0
    write_timeout: float = 60.0
    linger: float = 5.0
    linger_bytes: int = 8 * 1024 * 1024
    http2: Http2Limits = field(default_factory=Http2Limits)

    @property
    def tick(self) -> float:
        """How often to look at deadlines: often enough for the shortest, at most once in 20 ms."""
        shortest = min(
            self.head_timeout,
            self.idle_timeout,
            self.tunnel_timeout,
            self.body_timeout,
            self.write_timeout,
            self.linger,
        )
        return min(1.0, max(0.02, shortest / 5))
