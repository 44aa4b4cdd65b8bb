"""A connection, as far as tunnels begin in it: from a CONNECT to the first request inside.

Most tunnels are like one that was opened a moment ago. Nothing has to be waited for to open such a one, nor to shake
hands in it, so that happens where the bytes arrive, and the connection has no task before the first request.
"""

from __future__ import annotations

import ssl
from functools import partial

from keyhole.core.errors import BadRequestFraming, KeyholeError
from keyhole.faces.proxy.answering import AnsweringWire
from keyhole.faces.proxy.gate import LastAdmitted, Tunnel
from keyhole.faces.proxy.names import channel_for, was_for_another
from keyhole.faces.proxy.owner import Owner
from keyhole.faces.proxy.refusal import ESTABLISHED
from keyhole.faces.proxy.regulars import Connect
from keyhole.net.guests import Guest
from keyhole.net.http1.grammar import LastFields
from keyhole.net.http1.tls import TlsChannel
from keyhole.net.http2.preface import begins_with_preface

_TLS_HANDSHAKE = 0x16  # the content type of a TLS record that begins a connection (RFC 8446 section 5.1)


class TunnelWire(AnsweringWire):
    """A connection that may become a tunnel.

    Attributes:
        seat: its place among the connections of the listener; ``None`` for one that was turned away.
    """

    __slots__ = ("_credential", "_fields", "_last", "_led", "_remote", "_tunnel", "seat")

    _fields: LastFields  # from the first request on
    _last: LastAdmitted

    def __init__(self, owner: Owner) -> None:
        super().__init__(owner)
        self._credential = b""
        self._tunnel: Tunnel | None = None
        self._led: tuple[Connect, ssl.SSLContext | None] | None = None
        self._remote = ""
        self.seat: Guest | None = None

    def at_once(self) -> bool:
        """Deal with the first bytes, or with the first ones in a tunnel. Whether they need nothing more."""
        if self._led is None:
            return self._led_again()
        connect, context = self._led
        if context is None or self.tls is not None or not self._greeted(connect, context):
            return False
        return not self.buffer

    def _led_again(self) -> bool:
        """Open a tunnel, if the same client asked for the same one lately and it need not wait for anything."""
        owner = self._owner
        connect = owner.regulars.find(self.buffer, self._remote)
        if connect is None or self.transport.get_extra_info("ssl_object") is not None:
            return False
        try:
            context = owner.broker.tunnel_at_once(connect.credential, connect.authority, connect.service, self.seat)
        except KeyholeError:
            return False  # who asks again is told
        if context is None:
            return False
        self.buffer = b""
        self.write_now(ESTABLISHED)
        self.lead(connect, context)
        return True

    def lead(self, connect: Connect, context: ssl.SSLContext | None) -> None:
        """The client was told that its tunnel is there.

        Args:
            connect: what it asked for.
            context: the server's side of TLS; ``None`` where only plain HTTP may be spoken.
        """
        self._led = (connect, context)
        self._credential = connect.credential
        self._tunnel, self._fields, self._last = connect.plain, connect.fields, connect.last
        self.read_deadline = self.loop.time() + self._owner.limits.tunnel_timeout

    async def enter(self, connect: Connect, context: ssl.SSLContext | None) -> bool | None:
        """Wait for what is spoken in the tunnel: whether that is HTTP/2; ``None`` for nothing that is served."""
        if not await self._spoken(connect, context):
            return None
        if self.tls is None and self.buffer[0] != _TLS_HANDSHAKE:
            return await begins_with_preface(self, self._owner.limits.head_timeout)
        if context is None:
            return None
        self._tunnel = connect.secure
        return await self._accept_tls(connect, context)

    async def _spoken(self, connect: Connect, context: ssl.SSLContext | None) -> bool:
        """Wait for the first bytes in a tunnel, or for the end of the handshake that they began; whether they came."""
        if context is not None:
            self.taker = partial(self._greeted, connect, context)
        try:
            while not self.buffer and self.tls is None:
                if self.eof:
                    return False
                await self.wait()
        finally:
            self.taker = None
        return True

    def _greeted(self, connect: Connect, context: ssl.SSLContext) -> bool:
        """The first bytes are there. Whether they begin a handshake, which goes on by itself."""
        if self.buffer[0] != _TLS_HANDSHAKE or not self._owner.broker.may_go_on(self.seat, self._remote):
            return False
        self._shake(connect, context)
        return True

    def _shake(self, connect: Connect, context: ssl.SSLContext) -> TlsChannel:
        """Begin a handshake with the bytes that are there."""
        channel = channel_for(context, connect.authority.host, ticket=connect.ticket)
        self.start_tls(channel, client=False)
        return channel

    def shaken(self) -> None:
        """As in ``Wire``; what the client makes of tickets is seen here."""
        super().shaken()
        if self._led is not None and self.tls is not None and self.failure is None:
            self._led[0].shaken(resumed=self.tls.resumed)

    async def _accept_tls(self, connect: Connect, context: ssl.SSLContext) -> bool:
        """Whether HTTP/2 was agreed on (RFC 7301)."""
        channel = self.tls
        if channel is None:
            await self._owner.broker.in_turn(self.seat, self._remote)
            channel = self._shake(connect, context)
        try:
            await self.handshake()
        except ssl.SSLError:
            if was_for_another(channel):
                error = BadRequestFraming(
                    "the TLS server name differs from the host of the tunnel", "use one and the same"
                )
                self._owner.broker.note_refusal(error, self._remote)
            raise
        return channel.alpn == "h2"
