"""A body that can be read from its beginning once more, as long as little of it was read.

An upstream of HTTP/2 may say that it did not look at a request (RFC 9113 section 8.7). Then it can be sent again,
whatever its method, if what was read of its body is still there.
"""

from __future__ import annotations

from keyhole.core.message import Body, Headers

MOST = 64 * 1024
"""Bytes that are kept of one body."""


class Again:
    """What is read of a body, and kept.

    Args:
        body: what follows ``first``.
        first: its first chunk, where that was read already.
    """

    __slots__ = ("_body", "_ended", "_kept", "_size", "_unread", "length")

    def __init__(self, body: Body, first: bytes | None) -> None:
        self._body = body
        self._ended = first == b""
        self._kept: list[bytes] | None = []
        self._size = len(first or b"")
        self._unread: list[bytes] = []
        self.length = body.length

    @property
    def trailers(self) -> Headers:
        """Those of the body."""
        return self._body.trailers

    async def read(self) -> bytes:
        """The next chunk after ``first``; ``b""`` at the end. Raises whatever the body raises."""
        if self._unread:
            return self._unread.pop(0)
        if self._ended:
            return b""
        chunk = await self._body.read()
        self._ended = not chunk
        self._size += len(chunk)
        if self._size > MOST:
            self._kept = None
        elif self._kept is not None and chunk:
            self._kept.append(chunk)
        return chunk

    def rewind(self) -> bool:
        """Begin again after ``first``; whether that is possible."""
        if self._kept is None:
            return False
        self._unread = list(self._kept)
        return True

    def settle(self) -> None:
        """The request was taken: nothing is kept any more."""
        self._kept = None
