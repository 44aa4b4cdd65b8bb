"""A connection that has changed its protocol: bytes in both directions, and no understanding of them."""

from __future__ import annotations

import logging

from keyhole.core.errors import fault_place
from keyhole.core.message import Stream
from keyhole.net.http1.wire import NEVER, Wire

_log = logging.getLogger("keyhole.net")


async def carry(wire: Wire, stream: Stream, write_timeout: float) -> None:
    """Carry bytes until the stream ends; a side that does not read holds back the other.

    Args:
        wire: the client's connection.
        stream: the broker's end.
        write_timeout: seconds for a client that does not read.

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


async def _send(wire: Wire, stream: Stream) -> None:
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
