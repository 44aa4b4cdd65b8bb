"""A stream that has changed its protocol: bytes in both directions, and no understanding of them."""

from __future__ import annotations

import asyncio
import logging

from keyhole.core.errors import BadRequestFraming, fault_place
from keyhole.core.message import Stream
from keyhole.net.http2 import frames
from keyhole.net.http2.stream import ServerStream

_log = logging.getLogger("keyhole.net")


async def carry_stream(client: ServerStream, stream: Stream) -> None:
    """Carry bytes until the stream ends; a side that does not read holds back the other.

    Args:
        client: the client's end.
        stream: the broker's end.

    Raises:
        TimeoutError: the client stopped reading.
        ConnectionResetError: it is gone.
    """
    client.flush()
    sending = asyncio.get_running_loop().create_task(_send(client, stream))
    try:
        while data := await stream.read():
            await client.send(data)
        await client.send(b"", end=True)
    finally:
        sending.cancel()
        await stream.close()


async def _send(client: ServerStream, stream: Stream) -> None:
    try:
        while data := await client.read_patiently():
            await stream.write(data)
    except BadRequestFraming:
        pass  # what came is not to be believed: as if the client had ended its side
    except Exception as error:  # noqa: BLE001 - nobody awaits this task: a fault of ours ends the stream
        _log.error("internal error: %s", fault_place(error))
        client.reset(frames.INTERNAL_ERROR)
    stream.end()
