"""Scrubbing a whole body: its content codings, undeclared compression, and limits against bombs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from keyhole.core.errors import ScrubFailedClosed

from . import codings
from .scrubber import Scrubber, Stream


@dataclass(frozen=True)
class Limits:
    """Limits against hostile bodies.

    Attributes:
        max_codings: how many content codings may be stacked; undeclared layers count by themselves.
        free_output: decoded bytes that are always allowed.
        max_ratio: decoded bytes for each byte received, once the free ones are used up.
        doubted: decoded bytes from which on such a ratio is a reason to wait for more before anything is sent.
        max_pending: compressed bytes that may wait for their content to be judged.
    """

    max_codings: int = 3
    free_output: int = 32 * 1024 * 1024
    max_ratio: int = 200
    max_pending: int = 1024 * 1024
    doubted: int = 64 * 1024


_LIMITS = Limits()
_MAGIC = (codings.GZIP_MAGIC, *codings.ZSTD_MAGIC)
_LONGEST_MAGIC = max(map(len, _MAGIC))


class _Meter:
    """Counts what comes in from the network and what every decoder makes of it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._decoded = 0
        self.received = 0

    @property
    def swollen(self) -> bool:
        return self._decoded > max(self._limits.doubted, self._limits.max_ratio * self.received)

    def check(self, decoded: int) -> None:
        self._decoded = max(self._decoded, decoded)
        if decoded > self._limits.free_output and decoded > self._limits.max_ratio * self.received:
            raise ScrubFailedClosed(
                "The upstream's compressed body expands beyond the limit",
                "the answer is withheld; ask the upstream for a smaller or an uncompressed one",
            )


class _Metered:
    """A decoder whose output counts."""

    def __init__(self, decoder: codings.Decoder, meter: _Meter) -> None:
        self._decoder = decoder
        self._meter = meter
        self._decoded = 0

    def pieces(self, data: bytes) -> Iterator[bytes]:
        for piece in self._decoder.pieces(data):
            self._decoded += len(piece)
            self._meter.check(self._decoded)
            yield piece

    def finish(self) -> None:
        self._decoder.finish()


class _Inspected:
    """A plain stream that also looks into gzip and zstd content which no header declares, such as a download.

    Such a body passes byte for byte, so that lengths and checksums stay right; its decoded content is scrubbed on
    the side, and if that finds anything, the body is withheld. A compressed byte leaves only when all content that
    depends on it has been judged.
    """

    _BLOCK = 128 * 1024 + 3  # zstd decodes by blocks of at most this size (RFC 8878 section 3.1.1.2.4)

    def __init__(self, scrubber: Scrubber, limits: Limits, meter: _Meter, depth: int) -> None:
        self._scrubber = scrubber
        self._limits = limits
        self._meter = meter
        self._depth = depth
        self._stream = scrubber.stream()
        self._head: bytes | None = b""
        self._decoder: _Metered | None = None
        self._inner: _Inspected | None = None
        self._waiting: deque[tuple[bytes, int]] = deque()  # compressed bytes, decoded bytes that they end at
        self._pending = 0
        self._decoded = 0
        self._lag = 0

    @property
    def masked(self) -> bool:
        return self._stream.masked or (self._inner is not None and self._inner.masked)

    @property
    def straight(self) -> Stream | None:
        """What all that follows goes through, where the beginning has shown that nothing is compressed."""
        return self._stream if self._head is None and self._decoder is None else None

    @property
    def held(self) -> int:
        return self._stream.held + self._pending + len(self._head or b"")

    def feed(self, data: bytes) -> bytes:
        if self._head is None and self._decoder is None:
            return self._stream.feed(data)
        return b"".join(self.steps(data))

    def steps(self, data: bytes) -> Iterator[bytes]:
        if self._head is not None:
            data = self._recognise(self._head + data)
        if self._decoder is None:
            yield self._stream.feed(data)
        else:
            yield from self._look_inside(self._decoder, data)

    def finish(self) -> bytes:
        if self._decoder is None:
            return self._stream.feed(self._head or b"") + self._stream.finish()
        assert self._inner is not None  # noqa: S101  # set together with the decoder
        self._inner.finish()
        if self._inner.masked:
            raise self._refusal()
        rest = b"".join([data for data, _ in self._waiting])
        released = self._stream.feed(rest) + self._stream.finish()
        if self._stream.masked:
            raise self._refusal()
        return released

    def _recognise(self, head: bytes) -> bytes:
        """Decide by the first bytes; gives back what is to be processed now."""
        if len(head) < _LONGEST_MAGIC and any(magic.startswith(head) for magic in _MAGIC if magic != head):
            self._head = head
            return b""
        self._head = None
        decoder = codings.decoder_for_magic(head)
        if decoder:
            if self._depth == 0:
                raise ScrubFailedClosed(
                    "The upstream's body is compressed again and again",
                    "the answer is withheld because it cannot be inspected",
                )
            self._decoder = _Metered(decoder, self._meter)
            self._inner = _Inspected(self._scrubber, self._limits, self._meter, self._depth - 1)
            self._lag = self._BLOCK if head.startswith(codings.ZSTD_MAGIC) else 0
        return head

    def _look_inside(self, decoder: _Metered, data: bytes) -> Iterator[bytes]:
        inner = self._inner
        assert inner is not None  # noqa: S101  # set together with the decoder
        for piece in decoder.pieces(data):
            self._decoded += len(piece)
            for _ in inner.steps(piece):
                yield b""
            if inner.masked:
                raise self._refusal()
        self._waiting.append((data, self._decoded))
        self._pending += len(data)
        judged = self._decoded - inner.held
        released = []
        while self._waiting and self._waiting[0][1] <= judged:
            first, _ = self._waiting[0]
            if self._pending - len(first) < self._lag:
                break
            self._waiting.popleft()
            self._pending -= len(first)
            released.append(first)
        if self._pending > self._limits.max_pending:
            raise self._refusal()
        clean = self._stream.feed(b"".join(released)) if released else b""
        if self._stream.masked:
            raise self._refusal()
        yield clean

    @staticmethod
    def _refusal() -> ScrubFailedClosed:
        return ScrubFailedClosed(
            "The upstream's compressed body holds a secret, or cannot be inspected as it flows",
            "the answer is withheld; ask the upstream for an uncompressed one",
        )


class BodyScrubber:
    """One answer's body on its way to the client; make it with `body`.

    Attributes:
        recoded: whether the body is decoded and encoded again. Then Content-Length, ETag and digest fields no
            longer describe it and are to be dropped. Otherwise the length is preserved exactly.
    """

    def __init__(self, scrubber: Scrubber, content_encoding: bytes, limits: Limits) -> None:
        self._passes = scrubber.empty
        self._scrubber = scrubber
        self._limits = limits
        self._meter = _Meter(limits)
        stack = codings.parse(content_encoding, limits.max_codings) if content_encoding and not scrubber.empty else []
        self._stack = stack
        self._decoders = [_Metered(coding.decoder, self._meter) for coding in reversed(stack)]
        self._encoders: list[codings.Encoder] = []
        self._unflushed = False
        self._inspected: _Inspected | None = None
        self._straight: Stream | None = None
        self.recoded = bool(stack)

    @property
    def _plain(self) -> _Inspected:
        """Made when the first piece is there: most bodies are one clean piece and never need it."""
        plain = self._inspected
        if plain is None:
            plain = self._inspected = _Inspected(self._scrubber, self._limits, self._meter, self._limits.max_codings)
        return plain

    @property
    def masked(self) -> bool:
        """Whether anything was masked so far."""
        return self._inspected is not None and self._inspected.masked

    @property
    def swollen(self) -> bool:
        """Whether what has come so far unfolds as a bomb does, though it is not beyond the limit yet."""
        return self._meter.swollen

    def whole(self, data: bytes) -> bytes:
        """Take a whole body and give what can go to the client; in place of ``feed`` and ``finish``.

        Raises:
            ScrubFailedClosed: the body cannot be inspected; nothing of it may be sent.
        """
        if self._passes or (not (self._stack or data.startswith(_MAGIC)) and self._scrubber.is_clean(data)):
            return data
        return self.feed(data) + self.finish()

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes from the upstream and give what can go to the client.

        Raises:
            ScrubFailedClosed: the body cannot be inspected; nothing more may be sent.
        """
        if self._straight is not None:
            return self._straight.feed(data)
        if self._passes or not data:
            return data
        if not self._stack:
            self._meter.received += len(data)
            return self._plain.feed(data)
        return b"".join(self.steps(data))

    def unfolds(self, data: bytes) -> bool:
        """Whether these bytes may be many more than they seem, so that ``steps`` is the way through them."""
        if self._passes or self._stack:
            return bool(self._stack)
        plain = self._inspected
        if plain is None:
            return data.startswith(_MAGIC) or len(data) < _LONGEST_MAGIC
        return plain.straight is None

    def steps(self, data: bytes) -> Iterator[bytes]:
        """As ``feed``, a little at a time, so that others have their turn between. Raises as ``feed``."""
        self._meter.received += len(data)
        if not self._stack:
            yield from self._plain.steps(data)
            return
        for piece in self._decode(data, 0):
            for clean in self._plain.steps(piece):
                yield self._encode(clean)
        if self._unflushed:
            yield self._flush()

    def finish(self) -> bytes:
        """Say that the body has ended and get the rest.

        Raises:
            ScrubFailedClosed: the body ended in the middle of its coding, or holds what cannot be removed.
        """
        if self._passes:
            return b""
        if not self._stack:
            return self._plain.finish()
        if not self._meter.received:  # no body at all, as in an answer to HEAD
            return b""
        for decoder in self._decoders:
            decoder.finish()
        out = [self._encode(self._plain.finish())]
        rest = b""
        for encoder in self._started():
            rest = (encoder.encode(rest) if rest else b"") + encoder.finish()
        return b"".join([*out, rest])

    def _decode(self, data: bytes, level: int) -> Iterator[bytes]:
        if level == len(self._decoders):
            yield data
            return
        for piece in self._decoders[level].pieces(data):
            yield from self._decode(piece, level + 1)

    def _encode(self, data: bytes) -> bytes:
        if data:
            self._unflushed = True
            for encoder in self._started():
                data = encoder.encode(data) if data else b""
        return data

    def _flush(self) -> bytes:
        """Make everything so far decodable by the client: an event must not wait for the next one."""
        self._unflushed = False
        rest = b""
        for encoder in self._started():
            rest = (encoder.encode(rest) if rest else b"") + encoder.flush()
        return rest

    def _started(self) -> list[codings.Encoder]:
        """The encoders, made when the first output is there: by then the kind of deflate is known."""
        if not self._encoders:
            self._encoders = [coding.encoder() for coding in self._stack]
        return self._encoders


def body(
    scrubber: Scrubber,
    content_encoding: bytes = b"",
    content_type: bytes = b"",  # noqa: ARG001  # see below: it exempts nothing
    limits: Limits | None = None,
) -> BodyScrubber:
    """The scrubber for one answer's body.

    Args:
        scrubber: what to remove; with an empty one the body passes untouched.
        content_encoding: the value of Content-Encoding, several fields joined with commas.
        content_type: the value of Content-Type. It is the upstream's claim, so it exempts nothing: a download of
            type ``application/gzip`` is looked into like any other body that begins as gzip does.
        limits: against hostile bodies.

    Raises:
        ScrubFailedClosed: a content coding cannot be decoded here.
    """
    return BodyScrubber(scrubber, content_encoding, limits or _LIMITS)
