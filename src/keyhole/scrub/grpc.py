"""Scrubbing what gRPC and Connect carry: messages with a length before each, and binary metadata.

Masks keep lengths, so that a message that is not compressed streams through with the length that it came with. One that
is compressed is held whole, and passes byte for byte when nothing is found in it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

from keyhole.core.errors import ScrubFailedClosed
from keyhole.core.grpc import CODINGS

from .body import BodyScrubber, Limits
from .codings import PIECE, may_hold, parse
from .scrubber import Scrubber

LONGEST = 4 * 1024 * 1024
"""Bytes of a compressed message; what gRPC's own clients take unless told otherwise."""
_PREFIX = 5
_COMPRESSED = 0x01
_HINT = "the answer is withheld; ask the upstream for uncompressed messages"


class GrpcScrubber:
    """An answer's body of gRPC on its way to the client; like a ``BodyScrubber``.

    Args:
        scrubber: what to remove.
        coding: of compressed messages (``core.grpc.coding``).
        last: the bit of the message that ends the stream (``core.grpc.last``).
        limits: against hostile messages.

    Attributes:
        recoded: lengths may change, since messages are compressed.
        masked: whether anything was masked.

    Raises:
        ScrubFailedClosed: messages in this coding cannot be inspected.
    """

    __slots__ = ("_coding", "_head", "_held", "_last", "_left", "_limits", "_message", "_scrubber", "masked", "recoded")

    def __init__(self, scrubber: Scrubber, coding: bytes, last: int, limits: Limits | None = None) -> None:
        if coding not in CODINGS:
            raise ScrubFailedClosed("The upstream's messages are compressed in a way that cannot be inspected", _HINT)
        self._scrubber = scrubber
        self._coding = coding
        self._last = last
        self._limits = limits or Limits()
        self._head = b""
        self._left = 0
        self._held: bytearray | None = None
        self._message: BodyScrubber | None = None
        self.recoded = coding != CODINGS[0]
        self.masked = False

    def whole(self, data: bytes) -> bytes:
        """Take a whole body; in place of ``feed`` and ``finish``."""
        return self.feed(data) + self.finish()

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes from the upstream and give what can go to the client.

        Raises:
            ScrubFailedClosed: a message cannot be inspected; nothing more may be sent.
        """
        return b"".join(self.steps(data))

    def unfolds(self, data: bytes) -> bool:
        """As of a ``BodyScrubber``: whether ``steps`` is the way through these bytes."""
        return self.recoded or may_hold(data) or (self._message is not None and self._message.unfolds(b""))

    def steps(self, data: bytes) -> Iterator[bytes]:
        """As ``feed``, a little at a time, so that others have their turn between. Raises as ``feed``."""
        position = 0
        while position < len(data):
            if not self._left:
                step = _PREFIX - len(self._head)
                self._head += data[position : position + step]
                position += step
                if len(self._head) == _PREFIX:
                    yield self._begin()
                continue
            piece = data[position : position + self._left]
            position += len(piece)
            self._left -= len(piece)
            yield from self._take(piece)

    def finish(self) -> bytes:
        """Say that the body has ended and get the rest. A message that was cut stays cut."""
        message, self._message = self._message, None
        if self._held is not None:
            raise ScrubFailedClosed("The upstream's answer ends within a compressed message", "call it again")
        if message is None:
            return self._head
        rest = message.finish()
        self.masked = self.masked or message.masked
        return rest

    def _begin(self) -> bytes:
        """A message begins; what goes out at once."""
        head = self._head
        flag, self._left = head[0] & ~self._last, int.from_bytes(head[1:], "big")
        if flag == _COMPRESSED and self._coding != CODINGS[0]:
            if self._left > LONGEST:
                raise ScrubFailedClosed(f"The upstream's compressed message is longer than {LONGEST} bytes", _HINT)
            if self._left:
                self._held = bytearray()
                return b""
        elif flag:
            raise ScrubFailedClosed("The upstream's messages are compressed in a way that cannot be inspected", _HINT)
        self._head = b""
        return head

    def _take(self, piece: bytes) -> Iterator[bytes]:
        if self._held is not None:
            self._held += piece
            if not self._left:
                yield from self._end_compressed(bytes(self._held))
            return
        message = self._message
        if message is None:
            message = BodyScrubber(self._scrubber, b"", self._limits)
            if not self._left and not message.unfolds(piece):
                clean = message.whole(piece)
                self.masked = self.masked or message.masked
                yield clean
                return
            self._message = message
        yield from message.steps(piece)
        if not self._left:
            yield self.finish()

    def _end_compressed(self, message: bytes) -> Iterator[bytes]:
        head, self._head, self._held = self._head, b"", None
        inside = BodyScrubber(self._scrubber, self._coding, self._limits)
        clean: list[bytes] = []
        for at in range(0, len(message), PIECE):  # a decoder copies what it is given for each member in it
            for step in inside.steps(message[at : at + PIECE]):
                clean.append(step)
                yield b""
        clean.append(inside.finish())
        if not inside.masked:
            yield head + message
            return
        self.masked = True
        again = b"".join(clean)
        yield head[:1] + len(again).to_bytes(4, "big") + again


def messages(scrubber: Scrubber, coding: bytes, last: int, content_encoding: bytes) -> BodyScrubber | GrpcScrubber:
    """The scrubber for an answer's body that is made of messages.

    Args:
        scrubber: what to remove.
        coding: as of ``GrpcScrubber``.
        last: as of ``GrpcScrubber``.
        content_encoding: the value of Content-Encoding; then messages in it must not be compressed once more.

    Raises:
        ScrubFailedClosed: it cannot be inspected.
    """
    if not parse(content_encoding, Limits.max_codings):
        return GrpcScrubber(scrubber, coding, last)
    require_plain(coding)
    return BodyScrubber(scrubber, content_encoding, Limits())


def require_plain(coding: bytes) -> None:
    """Raise ``ScrubFailedClosed`` where messages may be compressed behind something else that hides them."""
    if coding != CODINGS[0]:
        raise ScrubFailedClosed("The upstream's messages are compressed in a way that cannot be inspected", _HINT)


def metadata(scrubber: Scrubber, name: bytes, value: bytes) -> bytes:
    """The value of a header or trailer, scrubbed; where its name says that it is base64, what it stands for."""
    if name.endswith(b"-bin"):
        value = b",".join(_binary(scrubber, part) for part in value.split(b","))
    return scrubber.text(value)


def _binary(scrubber: Scrubber, part: bytes) -> bytes:
    text = part.strip().rstrip(b"=")
    try:
        raw = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return part
    clean = scrubber.text(raw)
    return part if clean == raw else base64.b64encode(clean).rstrip(b"=")
