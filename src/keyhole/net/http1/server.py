"""The server's side of a connection: heads in, one at a time, within bounds; and a close that loses no answer."""

from __future__ import annotations

import contextlib

from keyhole.net.http1.grammar import Malformed, check_partial_head, check_request_line
from keyhole.net.http1.limits import WireLimits
from keyhole.net.http1.wire import NEVER, Wire, WireGroup


class HeadTimeout(Malformed):
    """A request head did not come to an end in time (RFC 9110 section 15.5.9)."""

    status = 408


class ServerWire(Wire):
    """Base of the connections of a listener."""

    __slots__ = ("_scanned",)

    def __init__(self, group: WireGroup) -> None:
        super().__init__(group)
        self._scanned = 0

    async def next_head(self, limits: WireLimits, head_timeout: float, idle_timeout: float) -> bytes | None:
        """The next request's head; ``None`` when the client leaves or stays silent.

        Args:
            limits: bounds on the head.
            head_timeout: seconds for a whole head, counted from its first byte, however slowly it drips.
            idle_timeout: seconds to wait for that first byte.

        Raises:
            Malformed: the head is not one, or does not come to an end.
        """
        self._scanned = 0
        self.read_deadline = self.loop.time() + (head_timeout if self.buffer else idle_timeout)
        try:
            while (raw := self._take_head(limits, head_timeout)) is None:
                if self.eof:
                    return None
                await self.wait()
        except TimeoutError:
            if self.buffer:
                raise HeadTimeout("the request head did not arrive in time") from None
            return None
        self.read_deadline = NEVER
        return raw

    def _take_head(self, limits: WireLimits, head_timeout: float) -> bytes | None:
        """The head once all of it is there."""
        data = self.buffer
        if not data:
            return None
        if not self._scanned and data[:2] == b"\r\n":
            self._scanned = 1  # one blank line, after a sloppy client's body (RFC 9112 section 2.2)
            data = self.buffer = data[2:]
        end = data.find(b"\r\n\r\n", max(0, self._scanned - 3), limits.head_bytes)
        if end >= 0:
            self.buffer = data[end + 4 :]
            return data[: end + 4]
        if self._scanned <= 1:
            self.read_deadline = self.loop.time() + head_timeout
        _check_partial(data, self._scanned, limits.head_bytes)
        self._scanned = max(1, len(data))
        return None

    async def linger(self, seconds: float, most: int) -> None:
        """Close without losing the answer: a close with unread bytes would reset it away (RFC 9112 section 9.6).

        Args:
            seconds: how long the client may go on sending.
            most: how many bytes it may go on sending.
        """
        if self.eof or self.lost or not self.transport.can_write_eof():
            return
        self.end()
        self.read_deadline = self.loop.time() + seconds
        self.write_deadline = self.read_deadline
        with contextlib.suppress(TimeoutError):
            while not self.eof and most > 0:
                most -= len(self.buffer)
                self.buffer = b""
                await self.wait()
        self.buffer = b""


def _check_partial(data: bytes, scanned: int, limit: int) -> None:
    check_partial_head(data, scanned)
    if scanned < limit and b"\r\n" in data[max(0, scanned - 1) :]:
        check_request_line(data)
    if len(data) >= limit:
        raise Malformed(f"the head is longer than {limit} bytes")
