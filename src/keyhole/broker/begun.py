"""A body whose first chunk is waited for, but not for ever: its sender may want to hear the upstream first.

A client of HTTP/2 may begin a request, wait for the head of the answer, and only then send its body (RFC 9113 section
8.1: the two directions of a stream are independent).
"""

from __future__ import annotations

import asyncio

from keyhole.core.message import Body, Headers
from keyhole.net.tasks import heard

PATIENCE = 0.2
"""Seconds for the first chunk of a body of unknown length; then the head goes alone."""


class BegunBody:
    """A body of which the first chunk is being read.

    Args:
        body: what is read.
    """

    __slots__ = ("_body", "_first", "length")

    def __init__(self, body: Body) -> None:
        self._body = body
        self._first: asyncio.Task[bytes] | None = asyncio.get_running_loop().create_task(_read(body))
        self._first.add_done_callback(heard)
        self.length = body.length

    @property
    def trailers(self) -> Headers:
        """Those of the body."""
        return self._body.trailers

    async def first(self) -> bytes | None:
        """The first chunk, or ``None`` where it does not come soon. Raises whatever the body raises."""
        assert self._first is not None  # noqa: S101 - asked for once, before anything is read
        try:
            done, _ = await asyncio.wait((self._first,), timeout=PATIENCE)
        except BaseException:
            self.leave()
            raise
        return await self.read() if done else None

    async def read(self) -> bytes:
        """The next chunk; ``b""`` at the end. Raises whatever the body raises."""
        if self._first is None:
            return await self._body.read()
        chunk = await self._first
        self._first = None
        return chunk

    def leave(self) -> None:
        """Nobody reads it any more."""
        if self._first is not None:
            self._first.cancel()


async def _read(body: Body) -> bytes:
    return await body.read()
