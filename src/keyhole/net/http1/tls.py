"""TLS over memory buffers: bytes in, bytes out, no socket.

Three things that the event loop's own TLS cannot do: begin with bytes that were already read (a tunnel's first byte
says whether it speaks TLS), resume a session towards an upstream, and tell a proper close from a cut one. It also costs
less memory for each idle connection.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Sequence

_RECORD = 16 * 1024  # the largest TLS record (RFC 8446 section 5.1)
PIECE = 64 * 1024
"""Bytes that a client's connection has OpenSSL hold at once: a buffer stays as large as it ever was, however long the
connection then waits."""


class TlsChannel:
    """One side of a TLS connection.

    Attributes:
        established: the handshake is complete.
        closed: the peer ended its side with close_notify.
        patient: nothing but session tickets waits to be sent; they may go with the first answer (RFC 8446 section
            4.6.1), which saves the peer a wake-up.

    Args:
        context: parameters, certificates and trust.
        server_side: whether this side answers the handshake.
        server_hostname: for a client, the name that is sent as SNI and verified.
        session: for a client, a session of the same context to resume.
        alpn: for a client, protocols to offer (RFC 7301), the preferred one first; else those of the context.
    """

    __slots__ = ("_incoming", "_object", "_outgoing", "closed", "established", "patient")

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
        alpn: Sequence[str] = (),
    ) -> None:
        if alpn:
            context.set_alpn_protocols(list(alpn))  # a connection copies what its context says when it is made
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname, session=session
        )
        self.established = False
        self.closed = False
        self.patient = False

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the peer and give the plaintext in them; then send ``output()``.

        Raises:
            ssl.SSLError: the handshake failed, the certificate is not acceptable, or a record is broken.
        """
        if len(data) <= PIECE or not self._object.server_side:
            return self._receive(data)
        rest = memoryview(data)
        return b"".join([self._receive(rest[at : at + PIECE]) for at in range(0, len(data), PIECE)])

    def _receive(self, data: bytes | memoryview) -> bytes:
        incoming = self._incoming
        incoming.write(data)
        tls = self._object
        plain: list[bytes] = []
        try:
            if not self.established:
                tls.do_handshake()
                self.established = True
                self.patient = tls.server_side and tls.version() == "TLSv1.3"
            while incoming.pending:
                piece = tls.read(_RECORD)  # which is all that one record can hold
                if not piece:
                    self.closed = True
                    break
                plain.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.closed = True
        return plain[0] if len(plain) == 1 else b"".join(plain)

    def start(self) -> None:
        """Begin a handshake as a client; then send ``output()``."""
        self.receive(b"")

    def send(self, data: bytes | memoryview) -> bytes:
        """Encrypt, ``PIECE`` bytes at most; the bytes that have to be sent."""
        tls = self._object
        self.patient = False
        written = tls.write(data)
        if written < len(data):
            rest = memoryview(data)
            while written < len(data):
                written += tls.write(rest[written:])
        return self._outgoing.read()

    def output(self) -> bytes:
        """What has to be sent because of the handshake, an alert or a key update; often empty."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def close(self) -> bytes:
        """End our side with close_notify, so that the peer knows that nothing was cut; the bytes to send."""
        # The peer's close_notify is not awaited, and after an error there is none to send.
        with contextlib.suppress(ssl.SSLError, ValueError):
            self._object.unwrap()
        return self._outgoing.read()

    @property
    def alpn(self) -> str | None:
        """The application protocol that was agreed on."""
        return self._object.selected_alpn_protocol()

    @property
    def resumed(self) -> bool:
        """Whether the handshake went on with an earlier session (RFC 8446 section 2.2)."""
        return bool(self._object.session_reused)

    @property
    def session(self) -> ssl.SSLSession | None:
        """A client's session, to resume later. In TLS 1.3 it exists once a ticket has been read."""
        return self._object.session

    @property
    def handle(self) -> ssl.SSLObject:
        """The object that callbacks of the context (SNI) receive."""
        return self._object
