"""How a connection says that it speaks HTTP/2 (RFC 9113 sections 3.3 and 3.4)."""

from __future__ import annotations

import contextlib

from keyhole.net.http1.wire import Wire
from keyhole.net.http2.frames import HEADER, PREFACE, SETTINGS, read_header

_WHOLE = len(PREFACE) + HEADER
_MOMENT = 1.0  # seconds


async def begins_with_preface(wire: Wire, timeout: float) -> bool:  # noqa: ASYNC109 - from the first byte on
    """Whether the preface lies at the start of the buffer, and SETTINGS after it; nothing is taken out of it.

    What looks like the preface and is not followed by SETTINGS at once is for a server of HTTP/1.1 to refuse, in words
    that who sent it may read.

    Args:
        wire: whose ``read_deadline`` is for its first byte.
        timeout: seconds for the others; one at most.
    """
    begun = False
    with contextlib.suppress(TimeoutError):  # whoever reads next finds what there is, and judges it
        while len(wire.buffer) < _WHOLE and may_begin(wire.buffer) and not wire.eof:
            if wire.buffer and not begun:
                begun = True
                wire.read_deadline = min(wire.read_deadline, wire.loop.time() + min(timeout, _MOMENT))
            await wire.wait()
    data = wire.buffer
    return len(data) >= _WHOLE and may_begin(data) and read_header(data, len(PREFACE))[1] == SETTINGS


def may_begin(data: bytes) -> bool:
    """Whether these bytes are the preface as far as they go, or that and more."""
    return data.startswith(PREFACE) or PREFACE.startswith(data)
