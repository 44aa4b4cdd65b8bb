"""WebSocket frames (RFC 6455 section 5), read in exactly one way or not at all.

Whoever relays frames and looks into them must never disagree with the next reader about where one ends. So reserved
bits, unknown opcodes, lengths in a longer form than needed, a mask on the wrong side, and fragments out of order are
errors. Frames of any size are read in pieces as they arrive; only control frames, which are short, are waited for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from keyhole.core.errors import BadRequestFraming

CONTINUATION, TEXT, BINARY = 0x0, 0x1, 0x2
CLOSE, PING, PONG = 0x8, 0x9, 0xA

GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
POLICY_VIOLATION = 1008
TOO_BIG = 1009
INTERNAL_ERROR = 1011
BAD_GATEWAY = 1014  # in IANA's registry of close codes

_FIN, _RESERVED, _OPCODE, _CONTROL = 0x80, 0x70, 0x0F, 0x08
_MASKED = 0x80
_SHORT, _MEDIUM, _LONG = 125, 126, 127
_DATA = frozenset({CONTINUATION, TEXT, BINARY})
_KNOWN = _DATA | {CLOSE, PING, PONG}
# 1004 to 1006 and 1015 never stand in a frame (section 7.4.1); 1012 to 1014 were registered later.
_CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})


class FrameError(BadRequestFraming):
    """A peer broke the protocol or a limit.

    Attributes:
        close: the close code that says so.
    """

    def __init__(self, reason: str, close: int = PROTOCOL_ERROR) -> None:
        super().__init__(f"a WebSocket frame is not acceptable: {reason}")
        self.close = close


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """Bounds on what one peer may send. Frames are never held whole, so these bound what is relayed, not memory.

    Attributes:
        frame: bytes of one frame's payload.
        message: bytes of one message, whatever it is cut into.
        fragments: frames of one message.
    """

    frame: int = 256 * 1024 * 1024
    message: int = 1024 * 1024 * 1024
    fragments: int = 100_000


class Piece(NamedTuple):
    """Part of a frame, unmasked; control frames are always whole.

    Attributes:
        opcode: of the frame's message (``TEXT`` or ``BINARY``, also for its continuations), or of the control frame.
        fin: the frame is the last of its message.
        length: bytes of the whole frame's payload.
        opens: the frame is the first of its message.
        begins: this is the first piece of the frame.
        ends: this is the last piece of the frame.
        data: payload.
    """

    opcode: int
    fin: bool
    length: int
    opens: bool
    begins: bool
    ends: bool
    data: bytes

    @property
    def control(self) -> bool:
        """Whether it is a control frame."""
        return bool(self.opcode & _CONTROL)


class Mask:
    """The mask of one frame (section 5.3), applied piece by piece; its own inverse."""

    __slots__ = ("_key", "_phase")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._phase = 0

    def apply(self, data: bytes) -> bytes:
        """Mask or unmask the next bytes."""
        size = len(data)
        if not size:
            return b""
        phase = self._phase
        self._phase = (phase + size) & 3
        key = self._key[phase:] + self._key[:phase]
        pad = (key * ((size + 3) >> 2))[:size]
        return (int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")).to_bytes(size, "little")


class FrameReader:
    """Reads the frames of one direction.

    Args:
        masked: whether this side masks: clients do, servers do not (section 5.1).
        limits: bounds.

    Attributes:
        closed: a close frame was read; what comes after it is nobody's and is dropped.
    """

    __slots__ = (
        "_at",
        "_begun",
        "_data",
        "_fin",
        "_fragments",
        "_left",
        "_length",
        "_limits",
        "_mask",
        "_masked",
        "_message",
        "_opens",
        "_size",
        "closed",
    )

    def __init__(self, *, masked: bool, limits: FrameLimits) -> None:
        self._masked = masked
        self._limits = limits
        self._data = b""
        self._at = 0
        self._left = -1  # of the payload of the data frame that is being read; -1 between frames
        self._length = 0
        self._mask: Mask | None = None
        self._fin = self._opens = self._begun = False
        self._message = 0  # opcode of the message that is being read; 0 between messages
        self._size = self._fragments = 0
        self.closed = False

    @property
    def between(self) -> bool:
        """Whether no frame has begun and not ended."""
        return self._left < 0 and self._at == len(self._data)

    def add(self, data: bytes) -> None:
        """Take bytes from the peer; then call ``next`` until it gives nothing."""
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def next(self) -> Piece | None:
        """The next piece; ``None`` when more bytes are needed. Raises ``FrameError``, and is not called again then."""
        if self.closed:
            self._data, self._at = b"", 0
            return None
        if self._left < 0:
            piece = self._begin()
            if piece is not None or self._left < 0:
                return piece
        available = len(self._data) - self._at
        if not available and self._left:
            return None
        taken = min(available, self._left)
        return self._take(taken)

    def _take(self, size: int) -> Piece:
        data = self._data[self._at : self._at + size] if size else b""
        self._at += size
        self._left -= size
        if self._mask is not None:
            data = self._mask.apply(data)
        begins, self._begun = not self._begun, True
        ends = not self._left
        piece = Piece(self._message, self._fin, self._length, self._opens, begins, ends, data)
        if ends:
            self._left = -1
            if self._fin:
                self._message = self._size = self._fragments = 0
        return piece

    def _begin(self) -> Piece | None:
        """Read a frame's head once it is there. Gives a control frame, or prepares for the pieces of a data frame."""
        head = self._head()
        if head is None:
            return None
        first, length, end = head
        opcode = first & _OPCODE
        start = end + 4 if self._masked else end
        if len(self._data) < start:
            return None
        mask = Mask(self._data[end:start]) if self._masked else None
        if opcode & _CONTROL:
            if len(self._data) < start + length:
                return None
            payload = self._data[start : start + length]
            self._at = start + length
            return self._control(opcode, payload if mask is None else mask.apply(payload))
        self._at = start
        self._mask = mask
        self._fin = bool(first & _FIN)
        self._opens = opcode != CONTINUATION
        if self._opens:
            self._message = opcode
        self._begun = False
        self._length = self._left = length
        self._count(length)
        return None

    def _head(self) -> tuple[int, int, int] | None:
        """First byte, payload length and end of the unmasked head; judged as soon as each part is there."""
        data, at = self._data, self._at
        available = len(data) - at
        if not available:
            return None
        self._check_first(data[at])
        if available < 2:
            return None
        if bool(data[at + 1] & _MASKED) is not self._masked:
            raise FrameError("it is masked by a server" if not self._masked else "it is not masked by a client")
        length = data[at + 1] & ~_MASKED
        end = at + 2
        if length > _SHORT:
            if data[at] & _CONTROL:
                raise FrameError("a control frame is longer than 125 bytes")
            form, least = (">H", _MEDIUM) if length == _MEDIUM else (">Q", 1 << 16)
            end += struct.calcsize(form)
            if len(data) < end:
                return None
            [length] = struct.unpack_from(form, data, at + 2)
            if length < least or length >> 63:
                raise FrameError("its length is not in the shortest form, or out of range")
        return data[at], length, end

    def _check_first(self, first: int) -> None:
        opcode = first & _OPCODE
        if first & _RESERVED:
            raise FrameError("a reserved bit is set, and no extension was agreed on")
        if opcode not in _KNOWN:
            raise FrameError("its opcode is unknown")
        if opcode & _CONTROL:
            if not first & _FIN:
                raise FrameError("a control frame is fragmented")
        elif (opcode == CONTINUATION) is not bool(self._message):
            raise FrameError("a message begins within another" if self._message else "a continuation continues nothing")

    def _count(self, length: int) -> None:
        limits = self._limits
        self._size += length
        self._fragments += 1
        if length > limits.frame or self._size > limits.message or self._fragments > limits.fragments:
            raise FrameError("the frame or its message is larger than the limit", TOO_BIG)

    def _control(self, opcode: int, payload: bytes) -> Piece:
        if opcode == CLOSE:
            if len(payload) == 1:
                raise FrameError("a close frame has half a code")
            if payload and not _may_be_sent(int.from_bytes(payload[:2])):
                raise FrameError("a close frame has a code that none may have")
            self.closed = True
        return Piece(opcode, True, len(payload), True, True, True, payload)  # noqa: FBT003 - read by name


def _may_be_sent(code: int) -> bool:
    return code in _CLOSE_CODES or 3000 <= code <= 4999


def encode_head(opcode: int, length: int, *, fin: bool = True, mask: bytes = b"") -> bytes:
    """A frame's head.

    Args:
        opcode: of the frame; a continuation has ``CONTINUATION``.
        length: bytes of the payload that follows.
        fin: whether the frame ends its message.
        mask: 4 bytes for the frame of a client, which masks its payload with them.
    """
    first = opcode | (_FIN if fin else 0)
    bit = _MASKED if mask else 0
    if length <= _SHORT:
        return struct.pack(">BB", first, length | bit) + mask
    if length < 1 << 16:
        return struct.pack(">BBH", first, _MEDIUM | bit, length) + mask
    return struct.pack(">BBQ", first, _LONG | bit, length) + mask


def encode(opcode: int, payload: bytes, *, fin: bool = True, mask: bytes = b"") -> bytes:
    """A whole frame; arguments as of ``encode_head``."""
    return encode_head(opcode, len(payload), fin=fin, mask=mask) + (Mask(mask).apply(payload) if mask else payload)


def close_payload(code: int, reason: str = "") -> bytes:
    """The payload of a close frame, its reason cut to what one can hold (section 5.5)."""
    text = reason.encode()[: _SHORT - 2].decode(errors="ignore")
    return struct.pack(">H", code) + text.encode()
