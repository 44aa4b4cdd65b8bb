"""A request body on its way in: pulled, decoded, never longer in memory than the wire's buffer."""

from __future__ import annotations

from keyhole.core.errors import BadRequestFraming
from keyhole.core.message import Headers
from keyhole.net.http1.framing import Decoder
from keyhole.net.http1.pace import Pace, TooSlow
from keyhole.net.http1.wire import NEVER, Wire

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class RequestBody:
    """A ``core.message.Body`` over a connection.

    What has already arrived is decoded at once, so that a body that begins wrongly is refused before anybody acts on
    its request.

    Args:
        wire: the client's connection.
        decoder: finds the end.
        expects: answer ``100 Continue`` when the body is first read, and not before: a refused request never gets it.
        timeout: seconds to wait for the next payload; framing alone does not count as progress.
        pace: judges how much comes while it is waited for; ``None`` for as little as the client likes.

    Raises:
        Malformed: what has arrived is not well-formed.
    """

    __slots__ = ("_decoder", "_expects", "_pace", "_ready", "_received", "_settled", "_timeout", "_wire", "length")

    def __init__(
        self, wire: Wire, decoder: Decoder, timeout: float, *, expects: bool, pace: Pace | None = None
    ) -> None:
        self._wire = wire
        self._decoder = decoder
        self._expects = expects
        self._timeout = timeout
        self._pace = pace
        self._received = 0
        self._ready = b""
        self._settled = False
        self.length = decoder.length
        self._pull()

    def _pull(self) -> None:
        wire, decoder = self._wire, self._decoder
        if wire.buffer and not decoder.done:
            data, wire.buffer = wire.buffer, b""
            self._expects = False
            self._ready = decoder.feed(data)
            if decoder.done:
                wire.buffer = decoder.surplus

    async def read(self) -> bytes:
        """The next chunk; ``b""`` at the end.

        Raises:
            BadRequestFraming: the client broke off, stalled, or sent broken framing.
        """
        wire, decoder, pace = self._wire, self._decoder, self._pace
        waiting = False
        try:
            while True:
                if not self._ready:
                    self._pull()
                if self._ready:
                    payload, self._ready = self._ready, b""
                    self._received += len(payload)
                    return payload
                if decoder.done:
                    return b""
                if wire.eof:
                    decoder.feed_eof()
                if self._expects:
                    self._expects = False
                    wire.write(_CONTINUE)
                now = wire.loop.time()
                if pace is not None:
                    pace.check(self._received)
                if not waiting:
                    waiting = True
                    wire.read_deadline = now + self._timeout
                await wire.wait()
                if pace is not None:
                    pace.waited(wire.loop.time() - now)
        except TooSlow:
            raise BadRequestFraming(
                "the request body comes too slowly", "send it faster, or in smaller parts"
            ) from None
        except TimeoutError:
            raise BadRequestFraming("the request body stalled", "send it without long pauses") from None
        finally:
            if waiting and not self._settled:
                wire.read_deadline = NEVER

    @property
    def trailers(self) -> Headers:
        """As the client sent them."""
        return self._decoder.trailers if self.ended else []

    @property
    def ended(self) -> bool:
        """Whether all of it was read."""
        return self._decoder.done and not self._ready

    def settle(self) -> bool:
        """An answer is about to be sent. Whether the whole body has arrived, so that the next request can be found.

        From now on a client that waits for ``100 Continue`` gets none, and since it may or may not send the body, its
        connection ends. The body can still be read: some upstreams answer while they read.
        """
        self._expects = False
        self._settled = True
        return self._decoder.done

    def discard(self) -> bool:
        """``settle`` for a body that nobody wants: what has arrived is dropped."""
        self._expects = False
        self._settled = True
        try:
            while self._wire.buffer and not self._decoder.done:
                self._pull()
        except BadRequestFraming:
            return False
        return self._decoder.done
