"""Where a body ends (RFC 9112 section 6), and the decoders that find it. Pure: bytes in, payload out."""

from __future__ import annotations

import re
from typing import Protocol

from keyhole.core.message import Headers
from keyhole.net.http1.grammar import AnswerHead, Malformed, RequestHead, check_partial_head, parse_trailers
from keyhole.net.http1.limits import WireLimits

_MAX_LENGTH_DIGITS = 15  # a petabyte; larger numbers are attacks on somebody's integer type
_MAX_SIZE_DIGITS = 16
_MAX_CHUNK = 1 << 53
# Extensions are those of RFC 9112 section 7.1.1; of the white space that it calls bad only that behind a semicolon.
_NAME = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,16})(?:;[\t ]*+" + _NAME + rb"(?:=(?:" + _NAME + rb"|" + _QUOTED + rb"))?+)*+\r\n"
)
_SIZE_AND_CRLF = 10  # bytes of the size line of a chunk that one read can bring
_PARTIAL_SIZE_LINE = re.compile(rb"(?:[0-9A-Fa-f]{1,16}(?:;[\t\x20-\x7e\x80-\xff]*+)?\r?)?")


class Decoder(Protocol):
    """Turns the bytes of a connection into the payload of one body.

    Attributes:
        done: the body has ended.
        surplus: what arrived after the end of the body; belongs to the next message.
        trailers: the fields between the two.
    """

    done: bool
    surplus: bytes
    trailers: Headers

    @property
    def length(self) -> int | None:
        """Bytes in the whole body where it was declared."""

    def feed(self, data: bytes) -> bytes:
        """The payload in these bytes; may be empty. Raises ``Malformed``. Not called again once ``done``."""

    def feed_eof(self) -> None:
        """The peer closed. Sets ``done`` where closing is the end, and raises ``Malformed`` where it is truncation."""


class LengthDecoder:
    """A body of a declared length."""

    __slots__ = ("_left", "done", "length", "surplus", "trailers")

    def __init__(self, length: int) -> None:
        self.trailers: Headers = []
        self.length: int | None = length
        self._left = length
        self.done = length == 0
        self.surplus = b""

    def feed(self, data: bytes) -> bytes:
        """Pass data through up to the declared length."""
        size = len(data)
        if size < self._left:
            self._left -= size
            return data
        self.done = True
        if size == self._left:
            return data
        self.surplus = data[self._left :]
        return data[: self._left]

    def feed_eof(self) -> None:
        """A declared length was not reached."""
        raise Malformed("the body is shorter than its Content-Length")


class ChunkedDecoder:
    """The chunked transfer coding (RFC 9112 section 7.1), without its leniencies.

    Extensions are checked and dropped.
    """

    __slots__ = (
        "_checked",
        "_chunk_left",
        "_extensions",
        "_limits",
        "_pending",
        "_state",
        "done",
        "surplus",
        "trailers",
    )
    length: int | None = None

    _SIZE, _DATA, _DATA_END, _TRAILERS = range(4)

    def __init__(self, limits: WireLimits) -> None:
        self._limits = limits
        self._state = self._SIZE
        self._chunk_left = 0
        self._pending = b""
        self._extensions = 0  # bytes of extensions that no payload made up for
        self._checked = 0  # how much of a pending trailer section was looked at, so that dripping it stays linear
        self.trailers: Headers = []
        self.done = False
        self.surplus = b""

    def feed(self, data: bytes) -> bytes:
        """Decode what is complete; keep an incomplete size line, line end or trailer section for the next call."""
        if self._state == self._DATA and len(data) < self._chunk_left:
            self._chunk_left -= len(data)
            return data
        if self._state == self._SIZE and not self._pending:
            end = data.find(b"\r\n", 0, _SIZE_AND_CRLF)
            size = len(data) - end - 4  # if it is one chunk and nothing else, as nearly every event is
            if end > 0 < size and data[:end] == b"%x" % size and data.endswith(b"\r\n"):
                return data[end + 2 : -2]
        if self._pending:
            data = self._pending + data
            self._pending = b""
        payload: list[bytes] = []
        position, end = 0, len(data)
        while position < end and not self.done:
            if self._state == self._DATA:
                piece = data[position : position + self._chunk_left]
                payload.append(piece)
                position += len(piece)
                self._chunk_left -= len(piece)
                if not self._chunk_left:
                    self._state = self._DATA_END
                continue
            step = self._framing(data, position)
            if step == 0:
                self._pending = data[position:]
                break
            position += step
        if self.done:
            self.surplus = data[position:]
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def _framing(self, data: bytes, position: int) -> int:
        """Bytes of framing consumed at ``position``; 0 when more bytes are needed."""
        if self._state == self._SIZE:
            return self._size_line(data, position)
        if self._state == self._DATA_END:
            ending = data[position : position + 2]
            if ending == b"\r\n":
                self._state = self._SIZE
                return 2
            if ending != b"\r":
                raise Malformed("a chunk is not followed by CRLF")
            return 0
        return self._trailers(data, position)

    def _size_line(self, data: bytes, position: int) -> int:
        longest = _MAX_SIZE_DIGITS + self._limits.chunk_extension_bytes + 3
        line = _SIZE_LINE.match(data, position, position + longest)
        if line is None:
            rest = data[position : position + longest]
            if len(rest) == longest or _PARTIAL_SIZE_LINE.fullmatch(rest) is None:
                raise Malformed("a chunk size line is malformed or too long")
            return 0
        size = int(line.group(1), 16)
        if size > _MAX_CHUNK:
            raise Malformed("a chunk size is out of range")
        extension = line.end() - line.end(1) - 2
        if extension:
            self._extensions = max(0, self._extensions + extension - size)
            if self._extensions > self._limits.extensions_bytes:
                raise Malformed("the body is mostly chunk extensions")
        self._chunk_left = size
        self._state = self._DATA if size else self._TRAILERS
        return line.end() - position

    def _trailers(self, data: bytes, position: int) -> int:
        if data.startswith(b"\r\n", position):
            self.done = True
            return 2
        end = data.find(b"\r\n\r\n", position, position + self._limits.trailer_bytes)
        if end < 0:
            rest = data[position:]
            if len(rest) >= self._limits.trailer_bytes:
                raise Malformed(f"the trailer section is longer than {self._limits.trailer_bytes} bytes")
            check_partial_head(rest, self._checked)
            self._checked = len(rest)
            return 0
        self.trailers = parse_trailers(data[position : end + 4], self._limits)
        self.done = True
        return end + 4 - position

    def feed_eof(self) -> None:
        """The last chunk did not arrive."""
        raise Malformed("the chunked body broke off before its last chunk")


class CloseDecoder:
    """An answer's body that ends where the connection does (RFC 9112 section 6.3, last case)."""

    __slots__ = ("done", "surplus", "trailers")
    length: int | None = None

    def __init__(self) -> None:
        self.trailers: Headers = []
        self.done = False
        self.surplus = b""

    def feed(self, data: bytes) -> bytes:
        """Everything is payload."""
        return data

    def feed_eof(self) -> None:
        """The end. The caller has checked that TLS, if any, was closed properly and not cut."""
        self.done = True


def declared_length(value: bytes) -> int:
    """What a ``Content-Length`` says. Raises ``Malformed``."""
    if not value.isdigit() or len(value) > _MAX_LENGTH_DIGITS:
        raise Malformed("Content-Length is not a decimal number in range")
    return int(value)


def _is_chunked(head: RequestHead | AnswerHead) -> bool:
    coding = head.fields.get(b"transfer-encoding")
    if coding is None:
        return False
    if head.minor == 0:
        raise Malformed("Transfer-Encoding in HTTP/1.0")
    if b"content-length" in head.fields:
        raise Malformed("Content-Length and Transfer-Encoding in one message", "send one of them")
    if coding.lower() != b"chunked":
        raise Malformed("a transfer coding other than `chunked`", "compress with Content-Encoding instead")
    return True


def request_decoder(head: RequestHead, limits: WireLimits) -> Decoder | None:
    """The decoder for a request's body, or ``None`` when it has no body (RFC 9112 section 6.3, rules 3 to 7).

    Raises:
        Malformed: when the framing is ambiguous.
    """
    if _is_chunked(head):
        return ChunkedDecoder(limits)
    declared = head.fields.get(b"content-length")
    return None if declared is None else LengthDecoder(declared_length(declared))


def answer_decoder(head: AnswerHead, method: str, limits: WireLimits) -> Decoder | None:
    """The decoder for a final answer's body, or ``None`` when it cannot have one (RFC 9112 section 6.3).

    Raises:
        Malformed: when the framing is ambiguous.
    """
    chunked = _is_chunked(head)
    declared = head.fields.get(b"content-length")
    length = None if declared is None else declared_length(declared)
    if method == "HEAD" or head.status in {204, 304}:
        return None
    if chunked:
        return ChunkedDecoder(limits)
    return CloseDecoder() if length is None else LengthDecoder(length)
