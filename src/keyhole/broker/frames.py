"""What a WebSocket's frames go through on their way: scrubbed to the caller, masked afresh to the upstream. Pure.

Neither direction holds a frame whole. What the scrubber holds back of a fragment goes with the next one, so a fragment
may become shorter and its successor longer; the message is what it was, byte for byte but for the masks. A frame that
is a message, or ends one, is never changed in length. Control frames pass in between.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from keyhole import scrub
from keyhole.broker.watch import Watch
from keyhole.core.errors import KeyholeError
from keyhole.net.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FrameError,
    FrameLimits,
    FrameReader,
    Mask,
    Piece,
    encode,
    encode_head,
)
from keyhole.net.websocket.frames import TOO_BIG
from keyhole.scrub.codings import may_hold

HELD = 1024 * 1024  # bytes of a message that is worked on whole
_COLLECTED = 64 * 1024  # bytes of a fragment, after which it is sent on in parts
_AT_ONCE = 512  # pieces between two looks at other connections
_LIMITS = scrub.Limits(free_output=1024 * 1024, max_ratio=32)  # a piece is not looked into in turns


class AnswerFrames:
    """From the upstream to the caller.

    Args:
        scrubber: what to mask; ``None`` when nothing was lent.
        limits: bounds.

    Attributes:
        masked: whether anything was masked.
        partial: the caller has the beginning of a frame and not its end, so that no other can be sent.
    """

    def __init__(self, scrubber: scrub.Scrubber | None, limits: FrameLimits) -> None:
        self._scrubber = None if scrubber is None or scrubber.empty else scrubber
        self._reader = FrameReader(masked=False, limits=limits)
        self._body: scrub.BodyScrubber | None = None
        self._opcode = CONTINUATION
        self._unsent = 0  # bytes of the message that were received and not put into a frame
        self._ready = b""
        self._broken: KeyholeError | None = None
        self.masked = False
        self.partial = False

    @property
    def closed(self) -> bool:
        """Whether the upstream has sent its close frame."""
        return self._reader.closed

    def add(self, data: bytes) -> None:
        """Take bytes from the upstream; then ``take`` until it gives nothing and ``more`` is false."""
        self._reader.add(data)

    def take(self) -> tuple[bytes, bool]:
        """What can go to the caller, and whether there is more to be looked at.

        Raises:
            FrameError: the upstream broke the protocol.
            ScrubFailedClosed: a message cannot be inspected.
        """
        if self._broken is not None:
            raise self._broken
        out = bytearray()
        try:
            for _ in range(_AT_ONCE):
                piece = self._reader.next()
                if piece is None:
                    return bytes(out), False
                out += self._control(piece) if piece.control else self._data(piece)
                if not piece.control and self._may_unfold(piece):
                    return bytes(out), True
        except KeyholeError as error:
            self._broken = error  # what came before it was right, and goes first
        return bytes(out), True

    def _may_unfold(self, piece: Piece) -> bool:
        """Whether it may have been many more bytes than it seems, so that others have their turn after it."""
        body = self._body
        if body is None or may_hold(piece.data):
            return body is not None
        return not (piece.opens and piece.begins) and body.unfolds(b"")

    def _control(self, piece: Piece) -> bytes:
        payload = piece.data
        if self._scrubber is not None:
            code, text = (payload[:2], payload[2:]) if piece.opcode == CLOSE else (b"", payload)
            clean = self._scrubber.text(text)
            self.masked = self.masked or clean != text
            payload = code + clean
        return encode(piece.opcode, payload)

    def _data(self, piece: Piece) -> bytes:
        if piece.opens and piece.begins:
            self._opcode = piece.opcode
            self._body = None if self._scrubber is None else scrub.body(self._scrubber, limits=_LIMITS)
        if piece.fin:
            return self._last(piece)
        self._unsent += len(piece.data)
        self._ready += piece.data if self._body is None else self._body.feed(piece.data)
        if not piece.ends and len(self._ready) < _COLLECTED:
            return b""
        ready, self._ready = self._ready, b""
        self._unsent -= len(ready)
        if not ready and piece.length:
            return b""  # all of it is held back
        return encode(self._first_opcode(), ready, fin=False)

    def _last(self, piece: Piece) -> bytes:
        """A piece of the frame that ends its message; it also takes what was held back of those before."""
        head = b""
        if piece.begins:
            head = encode_head(self._first_opcode(), self._unsent + piece.length)
            self._unsent = 0
        self.partial = not piece.ends
        body = self._body
        if body is None:
            return head + piece.data
        if piece.ends and piece.begins and piece.opens:
            clean = body.whole(piece.data)
        else:
            clean = body.feed(piece.data) + (body.finish() if piece.ends else b"")
        self.masked = self.masked or body.masked
        return head + clean

    def _first_opcode(self) -> int:
        opcode, self._opcode = self._opcode, CONTINUATION
        return opcode


class CallFrames:
    """From the caller to the upstream, with masks that the caller cannot foresee (RFC 6455 section 10.3).

    Args:
        limits: bounds.
        change: what is done to a text message, which is then held whole; ``None`` to let messages stream.
        watch: makes what looks at one message on its way; fragments then may be cut anew.

    Attributes:
        partial: the upstream has the beginning of a frame and not its end.
    """

    def __init__(
        self,
        limits: FrameLimits,
        change: Callable[[bytes], bytes] | None = None,
        watch: Callable[[], Watch] | None = None,
    ) -> None:
        self._begin = watch
        self._watch: Watch | None = None
        self._opcode = CONTINUATION
        self._whole = True
        self._ready = b""
        self._reader = FrameReader(masked=True, limits=limits)
        self._change = change
        self._held = bytearray()
        self._mask: Mask | None = None
        self._broken: KeyholeError | None = None
        self.partial = False

    @property
    def closed(self) -> bool:
        """Whether the caller has sent its close frame."""
        return self._reader.closed

    def add(self, data: bytes) -> None:
        """Take bytes from the caller; then ``take`` until there is no more."""
        self._reader.add(data)

    def take(self) -> tuple[bytes, bool]:
        """What can go to the upstream, and whether there is more to be looked at. Raises what ``change`` raises.

        Raises:
            FrameError: the caller broke the protocol, or a message is too long to be worked on.
        """
        if self._broken is not None:
            raise self._broken
        out = bytearray()
        try:
            for _ in range(_AT_ONCE):
                piece = self._reader.next()
                if piece is None:
                    return bytes(out), False
                if piece.control:
                    out += encode(piece.opcode, self._looked_at(piece.data), mask=os.urandom(4))
                elif self._change is None or piece.opcode == BINARY:
                    out += self._pass(piece) if self._begin is None else self._watched(piece, self._begin)
                else:
                    out += self._hold(piece, self._change)
        except KeyholeError as error:
            self._broken = error
        return bytes(out), True

    def _pass(self, piece: Piece) -> bytes:
        head = b""
        if piece.begins:
            key = os.urandom(4)
            self._mask = Mask(key)
            opcode = piece.opcode if piece.opens else CONTINUATION
            head = encode_head(opcode, piece.length, fin=piece.fin, mask=key)
        self.partial = not piece.ends
        return head + (b"" if self._mask is None else self._mask.apply(piece.data))

    def _looked_at(self, text: bytes) -> bytes:
        """A whole text. Raises ``Tripped``."""
        if self._begin is None:
            return text
        watch = self._begin()
        return watch.feed(text) + watch.finish()

    def _watched(self, piece: Piece, begin: Callable[[], Watch]) -> bytes:
        """A message that is one frame keeps its form; of others what may be sent goes in fragments of our own."""
        if piece.opens and piece.begins:
            self._watch = begin()
            self._opcode, self._whole = piece.opcode, piece.fin
        watch = self._watch
        if watch is None:
            raise FrameError("a fragment without a message")
        clean = watch.feed(piece.data)
        last = piece.fin and piece.ends
        if last:
            clean += watch.finish()
        if self._whole:
            return self._pass(piece._replace(data=clean))
        self._ready += clean
        if not last and len(self._ready) < _COLLECTED and not (piece.ends and self._ready):
            return b""
        ready, self._ready = self._ready, b""
        opcode, self._opcode = self._opcode, CONTINUATION
        return encode(opcode, ready, fin=last, mask=os.urandom(4))

    def _hold(self, piece: Piece, change: Callable[[bytes], bytes]) -> bytes:
        self._held += piece.data
        if len(self._held) > HELD:
            raise FrameError(f"the message is longer than the {HELD} bytes in which placeholders are replaced", TOO_BIG)
        if not (piece.fin and piece.ends):
            return b""
        text = self._looked_at(bytes(self._held))
        self._held.clear()
        return encode(piece.opcode, change(text), mask=os.urandom(4))
