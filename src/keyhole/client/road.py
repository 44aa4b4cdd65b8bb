"""How a client gets to the broker: the proxy's address, the CA that it signs with, and the credential for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

_UNSPECIFIED = frozenset({"0.0.0.0", "::"})  # noqa: S104 - what a listener on every address calls itself


@dataclass(frozen=True, slots=True)
class Road:
    """The broker as a client sees it.

    Attributes:
        scheme: ``http`` or ``https``, of the proxy itself.
        host, port: of the proxy.
        ca: PEM of the CA whose certificates the proxy shows inside a tunnel.
        token: the credential for the proxy; not in ``repr``.
        adopt: has the proxy serve a socket that listens already; ``None`` where it is in another process.
    """

    scheme: str
    host: str
    port: int
    ca: str
    token: str
    adopt: Callable[[socket.socket], None] | None = field(default=None, compare=False)

    @classmethod
    def at(
        cls,
        url: str,
        ca: str,
        token: str,
        *,
        reached_as: str = "",
        adopt: Callable[[socket.socket], None] | None = None,
    ) -> Self:
        """From the proxy's URL. ``reached_as`` is the server's host where the proxy listens on every address."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if host in _UNSPECIFIED and reached_as:
            host = reached_as
        return cls(parts.scheme, host, parts.port or 8210, ca, token, adopt)

    def __repr__(self) -> str:
        return f"Road({self.scheme}://{self.host}:{self.port})"

    @property
    def url(self) -> str:
        """The proxy's URL with the credential in it, as ``HTTPS_PROXY`` takes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://agent:{quote(self.token, safe='')}@{host}:{self.port}"
