"""The frames of RFC 9113 section 4 and 6, as far as a server reads and writes them. Pure: bytes in, bytes out."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from keyhole.core.errors import BadRequestFraming

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER = 9  # bytes before every payload
MAX_WINDOW = 2**31 - 1
START_WINDOW = 65_535  # of streams and of the connection, before anybody says otherwise
START_FRAME = 16_384  # the least that anybody must take
_MAX_FRAME = 2**24 - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
INTERNAL_ERROR = 0x2
FLOW_CONTROL_ERROR = 0x3
STREAM_CLOSED = 0x5
FRAME_SIZE_ERROR = 0x6
REFUSED_STREAM = 0x7
CANCEL = 0x8
COMPRESSION_ERROR = 0x9
CONNECT_ERROR = 0xA
ENHANCE_YOUR_CALM = 0xB

HEADER_TABLE_SIZE = 0x1
ENABLE_PUSH = 0x2
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_SIZE = 0x5
MAX_HEADER_LIST_SIZE = 0x6
ENABLE_CONNECT_PROTOCOL = 0x8  # RFC 8441 section 3

_HEADER = struct.Struct(">HBBBL")
_SETTING = struct.Struct(">HL")
_LONG = struct.Struct(">L")


class ConnectionFault(BadRequestFraming):
    """What the peer did ends its connection.

    Args:
        reason: in words.
        code: of section 7.
    """

    def __init__(self, reason: str, code: int = PROTOCOL_ERROR) -> None:
        super().__init__(reason, "use a client that follows RFC 9113, with fewer requests at once")
        self.fault = code


def read_header(data: bytes, position: int) -> tuple[int, int, int, int]:
    """Payload length, type, flags and stream of the frame that begins there."""
    high, low, kind, flags, stream = _HEADER.unpack_from(data, position)
    return high << 8 | low, kind, flags, stream & MAX_WINDOW


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    size = len(payload)
    return _HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def header_frames(stream: int, block: bytes, most: int, *, end: bool) -> bytes:
    """A header block, as a HEADERS frame and as many CONTINUATIONs as it needs."""
    last = END_STREAM if end else 0
    if len(block) <= most:
        return frame(HEADERS, last | END_HEADERS, stream, block)
    parts = [block[start : start + most] for start in range(0, len(block), most)]
    frames = [frame(HEADERS, last, stream, parts[0])]
    frames += [frame(CONTINUATION, 0, stream, part) for part in parts[1:-1]]
    return b"".join([*frames, frame(CONTINUATION, END_HEADERS, stream, parts[-1])])


def settings_frame(values: Iterable[tuple[int, int]]) -> bytes:
    """Our settings."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in values))


def window_update(stream: int, increment: int) -> bytes:
    """Room for more."""
    return frame(WINDOW_UPDATE, 0, stream, _LONG.pack(increment))


def rst_stream(stream: int, code: int) -> bytes:
    """The end of a stream."""
    return frame(RST_STREAM, 0, stream, _LONG.pack(code))


def goaway(last: int, code: int) -> bytes:
    """The end of a connection: what came after stream ``last`` was not looked at."""
    return frame(GOAWAY, 0, 0, _LONG.pack(last) + _LONG.pack(code))


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload of DATA or HEADERS without its padding, and without a priority, which nobody heeds any more."""
    start, padding = 0, 0
    if flags & PADDED:
        if not payload:
            raise ConnectionFault("a padded frame has no padding length", FRAME_SIZE_ERROR)
        start, padding = 1, payload[0]
    if flags & WITH_PRIORITY:
        start += 5
    if start + padding > len(payload):
        raise ConnectionFault("the padding of a frame is longer than its payload")
    return payload[start : len(payload) - padding]


def read_long(payload: bytes) -> int:
    """The 31 bits that are all of a payload."""
    if len(payload) != _LONG.size:
        raise ConnectionFault("a frame has a wrong length", FRAME_SIZE_ERROR)
    number: int = _LONG.unpack(payload)[0]
    return number & MAX_WINDOW


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The peer's settings in their order, each judged (section 6.5.2)."""
    if len(payload) % _SETTING.size:
        raise ConnectionFault("a SETTINGS frame has a wrong length", FRAME_SIZE_ERROR)
    values = list(_SETTING.iter_unpack(payload))
    for name, value in values:
        if name == ENABLE_PUSH and value > 1:
            raise ConnectionFault("a setting has a value out of range")
        if name == INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
            raise ConnectionFault("a setting has a value out of range", FLOW_CONTROL_ERROR)
        if name == MAX_FRAME_SIZE and not START_FRAME <= value <= _MAX_FRAME:
            raise ConnectionFault("a setting has a value out of range")
    return values
