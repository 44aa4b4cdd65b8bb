"""What clients say again and again: the CONNECTs that opened tunnels lately, and the last request in tunnels of each.

Most programs open tunnel after tunnel with the same bytes. How those are read is kept for a minute at most, and nothing
that was decided: who asks, what is granted and what is lent are asked for each tunnel and for each request inside.
"""

from __future__ import annotations

import asyncio

from keyhole.core.host import Authority
from keyhole.faces.proxy.gate import LastAdmitted, Tunnel, connect_authority, read_credential
from keyhole.net.http1.grammar import LastFields, parse_request_head
from keyhole.net.http1.limits import WireLimits

_MOST = 256  # in each of two generations
_LONGEST = 4096  # bytes of a head
_TURN = 30.0  # seconds
_UNRESUMED = 8  # tunnels of a client that resumes no session, before it gets no more tickets
_AGAIN = 16  # of such tunnels one gets a ticket all the same


class Connect:
    """A CONNECT that was read.

    Attributes:
        authority: where its tunnel leads.
        credential: as presented.
        service: that the client chose, or ``""``.
        plain: the tunnel, for requests without TLS in it.
        secure: the tunnel, for requests under TLS.
        fields: the header section that came last in such a tunnel.
        last: the request that came last.
        unresumed: handshakes in such tunnels, one after the other, that resumed no session.
    """

    __slots__ = ("authority", "credential", "fields", "last", "plain", "secure", "service", "unresumed")

    def __init__(self, authority: Authority, credential: bytes, service: str = "") -> None:
        self.authority = authority
        self.credential = credential
        self.service = service
        self.plain = Tunnel("http", authority.host, authority.port, credential)
        self.secure = Tunnel("https", authority.host, authority.port, credential)
        self.fields = LastFields()
        self.last = LastAdmitted()
        self.unresumed = 0

    @property
    def ticket(self) -> bool:
        """Whether the next such tunnel gets a session ticket.

        Making one is a tenth of a handshake, and most clients never show it.
        """
        return self.unresumed < _UNRESUMED or self.unresumed % _AGAIN == 0

    def shaken(self, *, resumed: bool) -> None:
        """A handshake in such a tunnel is complete."""
        self.unresumed = 0 if resumed else self.unresumed + 1


def read_connect(raw: bytes, limits: WireLimits) -> Connect:
    """Read the head of a CONNECT. Raises ``BadRequestFraming`` or ``InvalidRequest`` for one that is none."""
    head = parse_request_head(raw, limits)
    service = head.fields.get(b"x-keyhole-service", b"").decode("latin-1")
    return Connect(connect_authority(head), read_credential(head.fields.get(b"proxy-authorization")), service)


class Regulars:
    """CONNECTs by their bytes and the address that they came from; what was not said for a minute is forgotten.

    Attributes:
        forgotten: how often everything was.
    """

    __slots__ = ("_new", "_old", "_timer", "forgotten")

    def __init__(self) -> None:
        self.forgotten = 0
        self._new: dict[tuple[bytes, str], Connect] = {}
        self._old: dict[tuple[bytes, str], Connect] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def find(self, raw: bytes, remote: str) -> Connect | None:
        """The same bytes from the same address."""
        found = self._new.get((raw, remote))
        if found is None and self._old:
            found = self._old.pop((raw, remote), None)
            if found is not None:
                self.keep(raw, remote, found)
        return found

    def keep(self, raw: bytes, remote: str, connect: Connect, forgotten: int | None = None) -> None:
        """Remember one that opened a tunnel, unless it is long.

        Args:
            raw: its bytes.
            remote: the address that it came from.
            connect: the same, read.
            forgotten: the attribute when it came; it is not remembered if everything was forgotten since.
        """
        if len(raw) > _LONGEST or forgotten not in {None, self.forgotten}:
            return
        if len(self._new) >= _MOST:
            self._old, self._new = self._new, {}
        self._new[raw, remote] = connect
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TURN, self._turn)

    def forget(self) -> None:
        """Remember nothing."""
        self._new, self._old = {}, {}
        self.forgotten += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        self._old, self._new = self._new, {}
        self._timer = asyncio.get_running_loop().call_later(_TURN, self._turn) if self._old else None
