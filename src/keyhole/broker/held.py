"""A body held whole in memory, for whatever has to see all of it before any of it is sent."""

from __future__ import annotations

from collections.abc import Callable

from keyhole.core.errors import BodyTooLarge
from keyhole.core.message import Body, Headers, Recoder

LIMIT = 1024 * 1024  # bytes
_HINT = "send less at once, or bind the secret in another way, such as a header"


class HeldBody:
    """A body that is all there, with what followed it. It can be read once."""

    __slots__ = ("_content", "length", "trailers")

    def __init__(self, content: bytes, trailers: Headers | None = None) -> None:
        self._content = content
        self.trailers = trailers or []
        # With a declared length HTTP/1.1 has no place for trailers.
        self.length: int | None = None if trailers else len(content)

    async def read(self) -> bytes:
        """All of it, then ``b""``."""
        content, self._content = self._content, b""
        return content


class RecodedBody:
    """A body that is changed while it streams."""

    __slots__ = ("_body", "_ended", "_recode", "length")

    def __init__(self, body: Body, recode: Recoder) -> None:
        self._body = body
        self._ended = False
        self._recode = recode
        self.length = recode.length(body.length)

    @property
    def trailers(self) -> Headers:
        """Those of the body."""
        return self._body.trailers

    async def read(self) -> bytes:
        """The next changed bytes; ``b""`` at the end. Raises what the body or the recoder raises."""
        while not self._ended:
            chunk = await self._body.read()
            if not chunk:
                self._ended = True
                return self._recode.finish()
            if changed := self._recode.feed(chunk):
                return changed
        return b""


async def hold(
    body: Body, limit: int = LIMIT, hint: str = _HINT, *, taking: Callable[[int], None] | None = None
) -> bytes:
    """All of a body.

    Args:
        body: what the client sends.
        limit: bytes.
        hint: the next step for who sends more.
        taking: called with the size of each piece before it is kept; what it raises is raised.

    Raises:
        BodyTooLarge: it is longer than ``limit`` bytes; what was declared is judged before anything is read.
        KeyholeError: whatever reading it raised.
    """
    if body.length is not None and body.length > limit:
        raise _too_large(limit, hint)
    parts = []
    size = 0
    while chunk := await body.read():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit, hint)
        if taking is not None:
            taking(len(chunk))
        parts.append(chunk)
    return b"".join(parts)


def _too_large(limit: int, hint: str) -> BodyTooLarge:
    return BodyTooLarge(f"the body is longer than the {limit} bytes that can be worked on", hint)
