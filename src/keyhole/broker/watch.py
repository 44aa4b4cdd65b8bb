"""Watches what an agent sends while it streams: request bodies, and messages of a WebSocket.

What may be the beginning of a value is held back until it is decided, so that no whole value leaves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from keyhole.core.errors import PolicyDenied, ScrubFailedClosed
from keyhole.core.message import Body, Headers
from keyhole.core.placeholder import MARK, marked
from keyhole.core.record import clip
from keyhole.scrub import BodyScrubber, Scrubber
from keyhole.scrub import body as body_scrubber

_TAIL = 96  # bytes that are looked at again with what follows


class Tripped(PolicyDenied):
    """A request carries what must not leave.

    Attributes:
        what: for the alarm: ``placeholder`` or ``value``, and where.
        alarmed: the alarm was raised.
    """

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(reason, "send it to nobody; if this is a mistake, keyhole org set --tripwire off")
        self.what = clip(what)
        self.alarmed = False

    @property
    def of_value(self) -> bool:
        """Whether it carries a value, and no placeholder."""
        return self.what.startswith("value")


Alarm = Callable[[Tripped], Awaitable[None]]


def foreign(place: str) -> Tripped:
    """A placeholder of somebody else was found."""
    return Tripped(
        f"placeholder in {place}",
        f"the request carries in its {place} a placeholder that belongs to another service or session",
    )


class Watch:
    """One stream of bytes on its way out.

    Args:
        values: finds the values of the org's secrets.
        key: of the org's placeholders.
        own: ends of the placeholders that may stand here.
        place: for the alarm.
        coding: of the content, which is then decoded to be looked at, and passes as it is.
    """

    __slots__ = ("_coded", "_key", "_own", "_place", "_stream", "_tail")

    def __init__(
        self, values: Scrubber, key: bytes, own: frozenset[bytes], *, place: str = "body", coding: bytes = b""
    ) -> None:
        self._key = key
        self._own = own
        self._place = place
        self._tail = b""
        self._stream = None if coding else values.stream()
        self._coded = _coded(values, coding)

    def feed(self, chunk: bytes) -> bytes:
        """Take the next piece and give what may be sent. Raises ``Tripped``."""
        return b"".join(self.steps(chunk))

    @property
    def unfolds(self) -> bool:
        """Whether a piece may be many more bytes than it seems, so that ``steps`` is the way through it."""
        return self._coded is not None

    def steps(self, chunk: bytes) -> Iterator[bytes]:
        """As ``feed``, a little at a time, so that others have their turn between. Raises ``Tripped``."""
        text = self._tail + chunk if self._tail else chunk
        if MARK in text and any(end not in self._own for end in marked(text, self._key)):
            raise foreign(self._place)
        self._tail = text[-_TAIL:]
        coded = self._coded
        if coded is not None:
            try:
                for _ in coded.steps(chunk):
                    self._require_clean(masked=coded.masked)
                    yield b""
            except ScrubFailedClosed:
                self._coded = None  # what it is, only its upstream can tell
            self._require_clean(masked=coded.masked)
        if self._stream is None:
            yield chunk
            return
        clean = self._stream.feed(chunk)
        self._require_clean(masked=self._stream.masked)
        yield clean

    def finish(self) -> bytes:
        """What was held back, once nothing follows. Raises ``Tripped``."""
        if self._stream is None:
            return b""
        clean = self._stream.finish()
        self._require_clean(masked=self._stream.masked)
        return clean

    def _require_clean(self, *, masked: bool) -> None:
        if masked:
            raise Tripped(f"value in {self._place}", f"the request carries the value of a secret in its {self._place}")


class Watching(Protocol):
    """What looks at a body piece by piece, as ``Watch`` does."""

    @property
    def unfolds(self) -> bool:
        """Whether a chunk may be many more bytes than it seems."""

    def steps(self, chunk: bytes) -> Iterator[bytes]:
        """Take the next piece and give what may be sent, a little at a time."""

    def finish(self) -> bytes:
        """What was held back, once nothing follows."""


@dataclass(frozen=True, slots=True)
class FrameWatch:
    """What watches the messages that a caller sends over a WebSocket.

    Attributes:
        begin: makes the watch of one message.
        alarm: to be awaited when one trips.
    """

    begin: Callable[[], Watch]
    alarm: Alarm


class WatchedBody:
    """A body that is looked at while it is sent, and what follows it.

    Args:
        body: what the client sends.
        watch: looks at it.
        trailing: makes what looks at its trailers.
        alarm: awaited when one trips.
        in_turn: waits while it is others' turn; the first chunk goes with its call.
    """

    __slots__ = ("_alarm", "_begun", "_body", "_ended", "_in_turn", "_trailing", "_watch", "length")

    def __init__(
        self,
        body: Body,
        watch: Watching,
        trailing: Callable[[], Watch],
        alarm: Alarm,
        in_turn: Callable[[], Awaitable[None]],
    ) -> None:
        self._begun = False
        self._in_turn = in_turn
        self._body = body
        self._watch = watch
        self._trailing = trailing
        self._alarm = alarm
        self._ended = False
        self.length = body.length

    @property
    def trailers(self) -> Headers:
        """Those of the body, which have been looked at when it has ended."""
        return self._body.trailers

    async def read(self) -> bytes:
        """The next chunk; ``b""`` at the end. Raises ``Tripped``, and what the body raises."""
        try:
            while not self._ended:
                chunk = await self._body.read()
                self._ended = not chunk
                if self._begun and chunk:
                    await self._in_turn()
                self._begun = True
                if not chunk and (trailers := self._body.trailers):
                    watch = self._trailing()
                    watch.feed(b"\n".join(part for pair in trailers for part in pair))
                    watch.finish()
                if clean := await self._looked_at(chunk) if chunk else self._watch.finish():
                    return clean
        except Tripped as error:
            error.alarmed = True
            await self._alarm(error)
            raise
        return b""

    async def _looked_at(self, chunk: bytes) -> bytes:
        """What may be sent of a chunk. One that is many times as long unfolded takes turns with others."""
        steps, clean = self._watch.steps(chunk), []
        if self._watch.unfolds:
            await self._in_turn()
        while (piece := next(steps, None)) is not None:
            clean.append(piece)
            if self._watch.unfolds:
                await self._in_turn()
        return b"".join(clean)


def _coded(values: Scrubber, coding: bytes) -> BodyScrubber | None:
    """What looks into encoded content; its output is not used, so that the content stays as it is."""
    if not coding or values.empty:
        return None
    try:
        return body_scrubber(values, coding)
    except ScrubFailedClosed:
        return None
