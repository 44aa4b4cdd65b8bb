"""What a client of the proxy may cost."""

from __future__ import annotations

from dataclasses import dataclass

from keyhole.net.http1.limits import REQUEST_LIMITS, WireLimits


@dataclass(frozen=True, slots=True)
class ProxyLimits:
    """Bounds on the clients of one listener; times in seconds. Bodies have no bound: they flow in constant memory.

    Attributes:
        wire: bounds on one request.
        connections: open connections; further ones are refused.
        head_timeout: a whole request head, counted from its first byte, however slowly it drips.
        idle_timeout: between requests, and before the first.
        tunnel_timeout: from the answer to CONNECT to the end of the TLS handshake.
        body_timeout: the next payload of a request body that somebody is waiting for.
        write_timeout: a client that does not read its answer.
        linger: how long a refused client may go on sending, or one that ended its side may wait for its answer.
        linger_bytes: how much a refused client may go on sending.
    """

    wire: WireLimits = REQUEST_LIMITS
    connections: int = 10_000
    head_timeout: float = 10.0
    idle_timeout: float = 75.0
    tunnel_timeout: float = 10.0
    body_timeout: float = 60.0
    write_timeout: float = 60.0
    linger: float = 5.0
    linger_bytes: int = 8 * 1024 * 1024

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
