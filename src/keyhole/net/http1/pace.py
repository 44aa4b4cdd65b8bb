"""The least rate of a body. A time limit for silence alone is met by a byte just before it ends, for ever.

The model is ``MinRate`` of Apache's mod_reqtimeout. Only time that we waited counts, so that a consumer of ours that is
slow never blames the sender; and only after the first payload, so that a long poll may be silent for as long as silence
is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping

from keyhole.core.message import Headers

# Bodies that are open for as long as somebody listens, and have nothing to say for most of it.
_OPEN_ENDED = frozenset({
    b"text/event-stream",
    b"multipart/x-mixed-replace",
    b"application/x-ndjson",
    b"application/ndjson",
    b"application/jsonl",
    b"application/x-jsonlines",
    b"application/json-seq",
    b"application/stream+json",
    b"application/vnd.amazon.eventstream",
    b"application/vnd.docker.raw-stream",
    b"application/vnd.docker.multiplexed-stream",
})  # fmt: skip
_OPEN_ENDED_PREFIXES = (b"application/grpc", b"application/connect+")
_PATIENCE = 5  # windows for a body that is made while it is sent


def is_conversation(headers: Headers) -> bool:
    """Does a request with these headers begin a talk of which either side may say the first word?"""
    kind = next((value for name, value in headers if name == b"content-type"), b"")
    return kind.strip().lower().startswith(_OPEN_ENDED_PREFIXES)


class TooSlow(TimeoutError):
    """Less came in the window than the least rate demands."""


class Pace:
    """Judges one body. Touched only where a read has to wait.

    Args:
        rate: bytes of payload a second, at least, on average over the window; framing does not count.
        window: seconds of waiting over which the average is taken.
        received: payload so far.
    """

    __slots__ = ("_mark", "_rate", "_waited", "_window")

    def __init__(self, rate: float, window: float, received: int = 0) -> None:
        self._rate = rate
        self._window = window
        self._mark = received
        self._waited = 0.0

    def check(self, received: int) -> None:
        """Before another wait, with the payload so far. Raises ``TooSlow``."""
        if self._waited < self._window:
            return
        if received - self._mark < self._rate * self._waited:
            raise TooSlow
        self._mark = received
        self._waited = 0.0

    def waited(self, seconds: float) -> None:
        """A wait has ended."""
        self._waited += seconds


def window_for(fields: Mapping[bytes, bytes], window: float, *, declared: bool) -> float:
    """The window for a body with these headers; infinite for a stream that is open-ended by its type.

    Args:
        fields: header fields by lower-cased name.
        window: seconds, for a body that lies ready.
        declared: its length was said beforehand, or it comes from a client. One that is made while it is sent has more
            time: some APIs send a space now and then to keep the connection open.
    """
    kind = fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind in _OPEN_ENDED or kind.startswith(_OPEN_ENDED_PREFIXES):
        return float("inf")
    return window if declared else window * _PATIENCE
