"""A connection that was taken for a call goes back to the pool when the call ends before anything was sent on it."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from keyhole.broker.connections import Multiple, Speaks
from keyhole.broker.upstream import Pool
from keyhole.core.errors import BadRequestFraming
from keyhole.core.message import Message
from keyhole.net.guard import Guard

TALK = Message("POST", "http", "api.test", 80, b"/", [(b"content-type", b"application/grpc")], http2=True)
TRUSTED: Any = None


class _Body:
    """One that the client breaks off before its first byte, once it is read."""

    length = None
    trailers = ()

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        raise BadRequestFraming("the client went away")


class _Dialer:
    """Connects with somebody who says nothing."""

    def __init__(self) -> None:
        self.ends: list[socket.socket] = []

    async def dial(self, *_: Any, **_options: Any) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.ends.append(theirs)
        return ours


def test_a_talk_by_http2_that_ends_before_its_first_byte_keeps_no_connection_of_http1() -> None:
    async def main() -> None:
        dialer: Any = _Dialer()
        pool = Pool(dialer, lambda _: TRUSTED)
        try:
            for _ in range(3):
                body: Any = _Body()
                lease = pool.reserve(("acme",), "http", "api.test", 80, Guard(), speaks=Speaks.EITHER)
                with pytest.raises(BadRequestFraming):
                    await lease.send(TALK, body)
            assert (pool.idle, pool.connections) == (1, 1)  # the same one each time
        finally:
            await pool.close()
            await asyncio.sleep(0)
            for end in dialer.ends:
                end.close()

    asyncio.run(main())


def test_a_call_that_is_cancelled_while_its_connection_is_looked_at_gives_its_place_back() -> None:
    class Looked(Multiple):
        def __init__(self) -> None:
            self.reserved = 1

        async def sound(self) -> bool:
            await asyncio.get_running_loop().create_future()
            return True

        def release(self) -> None:
            self.reserved -= 1

    async def main() -> None:
        pool: Any = Pool(TRUSTED, lambda _: TRUSTED)
        found = Looked()
        pool.take = lambda *_: found
        lease = pool.reserve(("acme",), "https", "api.test", 443, Guard(), speaks=Speaks.EITHER)
        sending = asyncio.create_task(lease.send(TALK, None))
        await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert found.reserved == 0

    asyncio.run(main())
