"""One use of a server: what it is made with, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass

from keyhole.core.errors import UpstreamUnreachable
from keyhole.core.tool_server import ToolServer
from keyhole.faces.mcp.gateway.cleaned import Cleaner
from keyhole.faces.mcp.gateway.upstream import Session
from keyhole.scrub import Scrubber


@dataclass(frozen=True, slots=True)
class Begun:
    """A use that was decided: what its end is said with, and the keys that it is made with."""

    call: str
    proof: str
    stamp: str
    at: float


class Use:
    """One use of a server.

    Args:
        stamp: of the keys that it is made with.

    Attributes:
        result: how it ends.
        received: bytes of its answer.
        asking: the server is being asked, and may do nothing else meanwhile.
    """

    def __init__(self, stamp: str) -> None:
        self.stamp = stamp
        self.result = "aborted"
        self.received = 0
        self.asking = False
        self._known = frozenset[str]()
        self._masked = 0
        self._session: Session | None = None
        self._cleaner: Cleaner | None = None
        self.scrubber = Scrubber.compile(())

    @property
    def session(self) -> Session:
        """The life of the server with which it is made."""
        if self._session is None:
            raise UpstreamUnreachable("the server is not there yet")
        return self._session

    @session.setter
    def session(self, session: Session) -> None:
        """Another one: what the one before was given must not come back from it either."""
        self._masked, self._session = self.masked, session
        self._known |= session.reach.known
        is_all = self._known == session.reach.known
        self.scrubber = session.scrubber if is_all else Scrubber.compile(value.encode() for value in self._known)
        self._cleaner = Cleaner(self.scrubber)

    @property
    def cleaner(self) -> Cleaner:
        """Of all credentials that it is made with."""
        return self._cleaner or Cleaner(self.session.scrubber)

    @property
    def masked(self) -> int:
        """Texts that had a credential in them."""
        return self._masked + (self._cleaner.masked if self._cleaner is not None else 0)

    @property
    def begun(self) -> bool:
        """Whether there is a server yet."""
        return self._session is not None

    def require_bound(self, server: ToolServer) -> None:
        """Raises ``UpstreamUnreachable`` where the server is bound otherwise than when it was first asked."""
        if server.as_data() != self.session.server.as_data():
            raise UpstreamUnreachable("by now, the server is bound otherwise", "call it anew")
