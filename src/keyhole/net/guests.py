"""Who is connected to a listener: strangers, who have proved nothing yet, and guests of orgs and agents.

A listener that is full makes room before it turns anybody away, so that who only holds connections open, however
many, keeps nobody out:

1. An address has so many strangers. One more, and its oldest one that sends nothing whole is let go, once it has had a
   moment: of many that come at once, nothing has been read yet.
2. Where all places are taken, nobody has a moment: the oldest stranger of an address with too many is let go, else the
   oldest of all; where there is none, a connection without anything to do, of the org that has most.

Whoever has sent a whole request is left alone until it is answered.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable

from keyhole.core.cidr import network

_MOMENT = 1.0  # seconds


def _nothing() -> None:
    """What becomes of a connection that has ended."""


class Guest:
    """A client's connection. ``leave`` it at its end, whatever happened.

    Attributes:
        busy: it has sent a whole request that is not answered yet.
        capacity: connections that there may be at its listener.
        since: seconds of the listener's clock at which it came.
        whose: org and agent that it counts for; ``None`` for a stranger.
    """

    __slots__ = ("_address", "_drop", "_guests", "busy", "capacity", "since", "whose")

    def __init__(self, guests: Guests, address: str, drop: Callable[[], None]) -> None:
        self._guests = guests
        self._address = address
        self._drop = drop
        self.whose: tuple[str, str] | None = None
        self.capacity = guests.most
        self.since = guests.clock()
        self.busy = False

    def work(self) -> None:
        """It has sent a whole request."""
        if not self.busy and self in self._guests.all:
            self.busy = True
            self._guests.unlist(self, self._address, self.whose)

    def rest(self) -> None:
        """That one was answered."""
        if self.busy and self in self._guests.all:
            self.busy = False
            self._guests.enlist(self, self._address, self.whose)

    def prove(self, org: str, agent: str, most: tuple[int, int]) -> str:
        """Count it for an org and an agent, and for nobody else any more.

        Args:
            org: id of the org.
            agent: its name within the org.
            most: connections that the org and that the agent may have at this listener.

        Returns:
            ``org`` or ``agent`` when that one has as many already: then it counts as a stranger; else ``""``.
        """
        whose = (org, agent)
        if whose == self.whose:
            return ""
        if self.whose is not None:
            self._become(None)
        counts = self._guests.counts
        if counts[whose] >= most[1]:
            return "agent"
        if counts[org, ""] >= most[0]:
            return "org"
        self._become(whose)
        return ""

    def leave(self) -> None:
        """It has ended. Said again, nothing happens."""
        if self in self._guests.all:
            self._drop = _nothing  # it points at the connection, which points here
            self._guests.all.discard(self)
            if not self.busy:
                self._guests.unlist(self, self._address, self.whose)
            if self.whose is not None:
                self._guests.count(self.whose, -1)

    def let_go(self) -> None:
        """End it, because somebody else needs its place."""
        drop = self._drop
        self.leave()
        drop()

    def _become(self, whose: tuple[str, str] | None) -> None:
        if whose == self.whose or self not in self._guests.all:
            return
        if not self.busy:
            self._guests.unlist(self, self._address, self.whose)
        if self.whose is not None:
            self._guests.count(self.whose, -1)
        if whose is not None:
            self._guests.count(whose, 1)
        if not self.busy:
            self._guests.enlist(self, self._address, whose)
        self.whose = whose


class Guests:
    """The connections of one listener.

    Args:
        most: connections at once.
        strangers: connections of one address that may be open without anything having been proved, and rest. An IPv6
            address counts by its /64; a Unix socket has no address, and no such bound. 0 for any number, and then
            nobody is let go for somebody else.
        noted: called with ``strangers`` or ``connections`` when one is let go or turned away for want of room.
        clock: seconds that only increase.

    Attributes:
        all: that are open.
        clock: as given.
        counts: open connections by org and agent; those of a whole org under the agent ``""``.
    """

    def __init__(
        self,
        most: int,
        strangers: int = 0,
        noted: Callable[[str], None] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most = most
        self.clock = clock
        self.all: set[Guest] = set()
        self.counts: Counter[tuple[str, str]] = Counter()
        self._each = strangers
        self._noted = noted
        self._strangers: OrderedDict[Guest, None] = OrderedDict()
        self._of_address: dict[str, OrderedDict[Guest, None]] = {}
        self._over: set[str] = set()  # addresses with more strangers than they may have
        self._resting: dict[str, OrderedDict[Guest, None]] = {}  # by org

    def enter(self, remote: str, drop: Callable[[], None]) -> Guest | None:
        """Count a new connection; ``None`` when all others are at work, and there is no room.

        Args:
            remote: the client's address; empty for none.
            drop: called when it has to go.
        """
        address = network(remote) if remote else ""
        own = self._of_address.get(address)
        if own is not None and address and len(own) >= self._each:
            self._trim(own)
        if len(self.all) >= self.most and not self._make_room():
            self._note("connections")
            return None
        guest = Guest(self, address, drop)
        self.all.add(guest)
        self.enlist(guest, address, None)
        return guest

    def _trim(self, own: OrderedDict[Guest, None]) -> None:
        """Let those of an address go that are too many and have had their moment, so that there is room for one."""
        before = self.clock() - _MOMENT
        while 0 < self._each <= len(own) and (oldest := next(iter(own))).since <= before:
            self._let_go(oldest, "strangers")

    def _make_room(self) -> bool:
        if not self._each:
            return False
        if self._over:
            self._let_go(next(iter(self._of_address[next(iter(self._over))])), "strangers")
            return True
        if self._strangers:
            self._let_go(next(iter(self._strangers)), "strangers")
            return True
        org = max((each for each, them in self._resting.items() if them), key=self._size, default=None)
        if org is None:
            return False
        self._let_go(next(iter(self._resting[org])), "connections")
        return True

    def _size(self, org: str) -> int:
        return self.counts[org, ""]

    def _let_go(self, guest: Guest, what: str) -> None:
        self._note(what)
        guest.let_go()

    def _note(self, what: str) -> None:
        if self._noted is not None:
            self._noted(what)

    # What guests call.

    def enlist(self, guest: Guest, address: str, whose: tuple[str, str] | None) -> None:
        """It rests, and may be let go."""
        if whose is None:
            self._strangers[guest] = None
            own = self._of_address.get(address)
            if own is None:
                own = self._of_address[address] = OrderedDict()
            own[guest] = None
            if address and len(own) > self._each:
                self._over.add(address)
            return
        resting = self._resting.get(whose[0])
        if resting is None:
            resting = self._resting[whose[0]] = OrderedDict()
        resting[guest] = None

    def unlist(self, guest: Guest, address: str, whose: tuple[str, str] | None) -> None:
        """It does not."""
        if whose is not None:
            del self._resting[whose[0]][guest]
            return
        del self._strangers[guest]
        own = self._of_address[address]
        del own[guest]
        if len(own) <= self._each:
            self._over.discard(address)
        if not own:
            del self._of_address[address]

    def count(self, whose: tuple[str, str], change: int) -> None:
        """More or fewer of an org and an agent."""
        for key in (whose, (whose[0], "")):
            self.counts[key] += change
            if not self.counts[key]:
                del self.counts[key]
        if (whose[0], "") not in self.counts:
            self._resting.pop(whose[0], None)
