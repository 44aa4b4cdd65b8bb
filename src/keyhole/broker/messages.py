"""Watches the messages that an agent sends by gRPC or Connect, those that are compressed too."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from keyhole.broker.watch import Watch
from keyhole.core.errors import InvalidRequest, ScrubFailedClosed
from keyhole.core.grpc import CODINGS
from keyhole.scrub.codings import GZIP_MAGIC, PIECE, decoder_for_magic

_PREFIX = 5
_PLAIN, _COMPRESSED = 0, 1
LONGEST = 4 * 1024 * 1024
"""Bytes of a compressed message, which is held until it was looked into; what gRPC's own servers take."""
LONGEST_OPEN = 32 * 1024 * 1024
"""Bytes of it once it is open."""
_HINT = "send messages as they are, or by gzip and up to 4 MiB"


class MessagesWatch:
    """A body of gRPC on its way out; like a ``Watch``.

    Args:
        begin: makes what looks at plain bytes.
        coding: of compressed messages (``core.grpc.coding``).
    """

    __slots__ = ("_begin", "_coding", "_head", "_held", "_left", "_plain")

    def __init__(self, begin: Callable[[], Watch], coding: bytes) -> None:
        self._begin = begin
        self._coding = coding
        self._plain = begin()
        self._head = b""
        self._left = 0
        self._held: bytearray | None = None

    def feed(self, chunk: bytes) -> bytes:
        """Take the next piece and give what may be sent.

        Raises:
            Tripped: it carries what must not leave.
            InvalidRequest: it cannot be looked into.
        """
        return b"".join(self.steps(chunk))

    @property
    def unfolds(self) -> bool:
        """As of a ``Watch``."""
        return self._coding != CODINGS[0]

    def steps(self, chunk: bytes) -> Iterator[bytes]:
        """As ``feed``, a little at a time, so that others have their turn between. Raises as ``feed``."""
        out: list[bytes] = []
        position = 0
        while position < len(chunk):
            if not self._left:
                step = _PREFIX - len(self._head)
                self._head += chunk[position : position + step]
                position += step
                if len(self._head) == _PREFIX:
                    out.append(self._begin_message())
                continue
            piece = chunk[position : position + self._left]
            position += len(piece)
            self._left -= len(piece)
            if self._held is None:
                out.append(piece)
                continue
            self._held += piece
            if not self._left:
                held, self._held = bytes(self._held), None
                yield from self._open(held[_PREFIX:])
                out.append(held)
        ready = b"".join(out)
        yield self._plain.feed(ready) if ready else b""

    def finish(self) -> bytes:
        """What was held back, once nothing follows. Raises as ``feed``."""
        if self._held is not None:
            raise InvalidRequest("the request ends within a compressed message", _HINT)
        rest, self._head = self._head, b""
        return (self._plain.feed(rest) if rest else b"") + self._plain.finish()

    def _begin_message(self) -> bytes:
        """A message begins; what of it may leave at once."""
        head, flag = self._head, self._head[0]
        self._left = int.from_bytes(head[1:], "big")
        if flag not in {_PLAIN, _COMPRESSED}:
            raise InvalidRequest("a message of gRPC has an unknown flag", _HINT)
        if flag == _COMPRESSED and self._left:
            if self._coding not in CODINGS[1:] or self._left > LONGEST:
                raise InvalidRequest("a message is compressed so that it cannot be looked into", _HINT)
            self._held = bytearray(head)
            head = b""
        self._head = b""
        return head

    def _open(self, data: bytes) -> Iterator[bytes]:
        """Look into a compressed message, a little at a time."""
        watch = self._begin()
        try:
            for piece in _inflated(data):
                watch.feed(piece)
                yield b""
        except ScrubFailedClosed:
            raise InvalidRequest("a message is compressed so that it cannot be looked into", _HINT) from None
        watch.finish()


def _inflated(data: bytes) -> Iterator[bytes]:
    """What is in all members of gzip, in pieces. Raises ``ScrubFailedClosed`` where that cannot be known."""
    decoder = decoder_for_magic(data) if data.startswith(GZIP_MAGIC) else None
    if decoder is None:
        raise ScrubFailedClosed("this is not gzip", _HINT)
    size = 0
    for at in range(0, len(data), PIECE):  # a decoder copies what it is given for each member in it
        for piece in decoder.pieces(data[at : at + PIECE]):
            size += len(piece)
            if size > LONGEST_OPEN:
                raise ScrubFailedClosed("it is too long", _HINT)
            yield piece
        yield b""
    decoder.finish()
