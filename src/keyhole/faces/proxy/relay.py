"""A connection that has changed its protocol: bytes in both directions, and no understanding of them."""

from __future__ import annotations

import logging

from keyhole.core.errors import fault_place
from keyhole.core.message import Answer, Stream
from keyhole.net.http1.serialise import serialise_answer
from keyhole.net.http1.server import ServerWire
from keyhole.net.http1.wire import NEVER

_log = logging.getLogger("keyhole.proxy")


def switching(answer: Answer, via: bytes) -> bytes:
    """The head of a 101 (RFC 9110 section 15.2.2). Raises ``InvalidRequest`` for a header that would break it."""
    extra = b"%bConnection: Upgrade\r\nUpgrade: %b\r\n" % (via, answer.upgrade.encode("ascii"))
    return serialise_answer(answer.status, answer.reason or b"Switching Protocols", answer.headers, extra)


async def relay(wire: ServerWire, stream: Stream, write_timeout: float) -> None:
    """Carry bytes until the stream ends; a side that does not read holds back the other.

    Raises:
        TimeoutError: the client stopped reading.
        ConnectionResetError: it is gone.
    """
    sending = wire.loop.create_task(_send(wire, stream))
    try:
        while data := await stream.read():
            wire.write(data)
            if wire.clogged:
                wire.write_deadline = wire.loop.time() + write_timeout
                await wire.drain()
                wire.write_deadline = NEVER
        wire.flush()
    finally:
        sending.cancel()
        await stream.close()


async def _send(wire: ServerWire, stream: Stream) -> None:
    try:
        while True:
            if wire.buffer:
                data, wire.buffer = wire.buffer, b""
                await stream.write(data)
            elif wire.eof:
                break
            else:
                await wire.wait()
        stream.end()
    except Exception as error:  # noqa: BLE001 - nobody awaits this task: a fault of ours ends the connection
        _log.error("internal error: %s", fault_place(error))
        wire.abort()
