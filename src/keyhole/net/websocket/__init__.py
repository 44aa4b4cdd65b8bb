"""WebSocket (RFC 6455): handshakes judged, frames read and written. Pure: bytes in, values out; nothing opens a socket.

    reader = FrameReader(masked=True, limits=FrameLimits())
    reader.add(data)
    while (piece := reader.next()) is not None:
        ...

Extensions are not known here: whoever relays frames and wants to look into them offers none.
"""

from keyhole.net.websocket.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    FrameError,
    FrameLimits,
    FrameReader,
    Mask,
    Piece,
    close_payload,
    encode,
    encode_head,
)
from keyhole.net.websocket.handshake import check_answer, check_request

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "PING",
    "PONG",
    "TEXT",
    "FrameError",
    "FrameLimits",
    "FrameReader",
    "Mask",
    "Piece",
    "check_answer",
    "check_request",
    "close_payload",
    "encode",
    "encode_head",
]
