"""What travels: the call that an agent wants made, the message that goes upstream, the answer that comes back.

Headers are a list of ``(name, value)`` byte pairs in wire order; names are lower-cased by the wire code that parsed
them, so that no comparison has to fold case again. Bodies are read by pulling, so that a slow reader holds back the
sender and memory stays constant. What may be secret does not show in a ``repr``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from keyhole.core.heading import Heading
from keyhole.core.names import plain_name
from keyhole.core.timing import Timing

if TYPE_CHECKING:
    from keyhole.core.stated import Stated

Headers = list[tuple[bytes, bytes]]


class Body(Protocol):
    """A message body, pulled chunk by chunk."""

    @property
    def length(self) -> int | None:
        """Bytes in the whole body where the sender declared it, ``None`` for chunked or until-close bodies."""

    @property
    def trailers(self) -> Headers:
        """Fields after the body (RFC 9110 section 6.5), names lower-cased; empty until ``read`` gave ``b""``."""

    async def read(self) -> bytes:
        """The next chunk; ``b""`` once at the end. Raises ``BadRequestFraming`` when the peer broke off before it."""


class Taker(Protocol):
    """Who gets the pieces of a body where they arrive, in place of whoever reads it."""

    def has_room(self, size: int) -> bool:
        """Whether a piece of so many bytes can be taken now."""

    def take(self, piece: bytes) -> None:
        """Take one. Called only after ``has_room``, which still holds for a piece that is no longer."""


class Seat(Protocol):
    """A client's connection, as its listener counts it.

    Attributes:
        capacity: connections that there may be at the listener.
        whose: org and agent that it counts for; ``None`` while nobody has proved to be behind it.
    """

    capacity: int
    whose: tuple[str, str] | None

    def prove(self, org: str, agent: str, most: tuple[int, int]) -> str:
        """Count it for an org and an agent, which may have so many each.

        Returns:
            ``org`` or ``agent`` when that one has as many already; else ``""``.
        """


@dataclass(slots=True)
class Call:
    """One outgoing request that a caller asks the broker to make.

    Attributes:
        token: the caller's own credential as presented; never forwarded.
        scheme: ``http`` or ``https``.
        host: canonical host (see ``core.url``).
        port: 1 to 65535.
        method: case-sensitive token as received.
        target: path and query, exactly the bytes that will be judged and sent.
        headers: end-to-end headers, names lower-cased.
        body: ``None`` when the request has none.
        remote: address of the caller, for the audit record.
        service: name of the service that the caller chose, or ``""``.
        upgrade: protocol that the connection is to change to (RFC 9110 section 7.8), of those that can be looked into:
            ``websocket``; else ``""``.
        stated: what the caller says of the work that it belongs to; ``None`` for nothing.
        http2: it came by HTTP/2.
        trailers: the client takes fields that follow the body of the answer (``TE: trailers``).
        timing: where its time goes; the broker's own.
        seat: the client's connection, as its listener counts it; ``None`` where nobody does.
        heading: what follows from the token, the destination, the method, target and headers, which never change.
    """

    token: bytes = field(repr=False)
    scheme: str
    host: str
    port: int
    method: str
    target: bytes = field(repr=False)
    headers: Headers = field(repr=False)
    body: Body | None = None
    remote: str = ""
    service: str = ""
    upgrade: str = ""
    stated: Stated | None = None
    http2: bool = False
    trailers: bool = False
    timing: Timing = field(default_factory=Timing, repr=False, compare=False)
    seat: Seat | None = field(default=None, repr=False)
    heading: Heading = field(default_factory=Heading, repr=False, compare=False)


class Stream(Protocol):
    """What goes on after the head of an answer in both directions, until either side ends it.

    The broker's side knows the protocol; a face carries the bytes and understands none of them. One task reads while
    another writes; each waits for the other side, so that memory stays constant.
    """

    async def read(self) -> bytes:
        """The next bytes for the caller; ``b""`` once at the end, when the caller's connection is to be closed."""

    async def write(self, data: bytes) -> None:
        """Take bytes from the caller; returns when there is room for more. What comes too late is dropped."""

    def end(self) -> None:
        """The caller ended its side; ``read`` comes to its end."""

    def leave(self) -> None:
        """Whoever listens is about to stop: both sides are told so in the words of the protocol."""

    async def close(self) -> None:
        """Let go of the upstream. Called once, whatever happened."""


class Recoder(Protocol):
    """Changes a body while it is sent, chunk by chunk, as signatures inside of a body need it."""

    def length(self, declared: int | None) -> int | None:
        """Bytes that come out, where ``declared`` go in; ``None`` when that is not known before the end."""

    def feed(self, chunk: bytes) -> bytes:
        """What is sent for the next chunk. Raises ``InvalidRequest`` for a body that it cannot read."""

    def finish(self) -> bytes:
        """What is sent after the last chunk."""


@dataclass(slots=True)
class Heard:
    """What an injection hears of an answer.

    Attributes:
        status: 200 to 599.
        headers: end-to-end headers with lower-cased names.
        content: the whole body of the answer to an errand; empty for others.
    """

    status: int
    headers: Headers = field(repr=False)
    content: bytes = field(default=b"", repr=False)

    def get(self, name: bytes) -> bytes | None:
        """The first value of a header (``name`` in lower case), or ``None``."""
        return next((value for key, value in self.headers if key == name), None)


@dataclass(slots=True)
class Message:
    """The head of the request on its way upstream; injections change it in place.

    Attributes:
        forms: every byte string an injection put on the wire that is a secret or reveals one (for the scrubber).
        content: the whole body, for an injection that asked for it; what stands here at the end is sent. ``None`` when
            the request has no body or it streams.
        recode: changes the body while it streams.
        streams: it has a body that is not held, and so can be sent only once.
        length: bytes of the body that the client declared; ``None`` where it did not, or there is none.
        errand: a request of the injection's own to some other place, such as one for a token. It has no part of the
            client's request in it, and its answer is read for the injection alone.
        upgrade, http2, trailers: as of the call.
        answered: what the injection answers by itself; then nothing is sent.
    """

    method: str
    scheme: str
    host: str
    port: int
    target: bytes = field(repr=False)
    headers: Headers = field(repr=False)
    forms: list[bytes] = field(default_factory=list, repr=False)
    content: bytes | None = field(default=None, repr=False)
    recode: Recoder | None = None
    streams: bool = False
    length: int | None = None
    errand: bool = False
    upgrade: str = ""
    http2: bool = False
    trailers: bool = False
    answered: Heard | None = None

    def get(self, name: bytes) -> bytes | None:
        """The first value of a header (``name`` in lower case), or ``None``."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def wrote(self, value: bytes, written: bytes) -> None:
        """Name the form in which a secret stands in the message, where that is not its own."""
        if written != value:
            self.forms.append(written)

    def remove(self, name: bytes) -> None:
        """Drop every header of this name."""
        self.headers = [pair for pair in self.headers if pair[0] != name]

    def set(self, name: bytes, value: bytes) -> None:
        """Put exactly one header of this name in place of whatever was there, or could be taken for it."""
        plain, size = plain_name(name), len(name)
        self.headers = [pair for pair in self.headers if len(pair[0]) != size or plain_name(pair[0]) != plain]
        self.headers.append((name, value))


@dataclass(slots=True)
class Answer:
    """What the upstream said, as the caller may see it.

    Attributes:
        status: 200 to 599, or 101 with a stream.
        reason: reason phrase.
        headers: end-to-end headers with lower-cased names; ``content-length`` only when it is right for ``body``.
        body: pulls scrubbed chunks; ``length`` tells the face how to frame it.
        stream: what goes on after the head, in place of a body.
        upgrade: the protocol of the stream, as the call asked for it.
        on_cut: what a face wants to be called when the answer is cut off while it may be waiting for a slow reader.
    """

    status: int
    reason: bytes
    headers: Headers
    body: Body | None
    stream: Stream | None = None
    upgrade: str = ""
    on_cut: Callable[[], None] | None = None
