"""Content codings (RFC 9110 section 8.4): decoding in bounded pieces, encoding with a flush after each feed.

gzip (RFC 1952), deflate as zlib (RFC 1950) and as raw DEFLATE (RFC 1951), br (RFC 7932), zstd (RFC 8878, its window
limited to 8 MiB as RFC 9659 asks for). Everything that cannot be decoded exactly is refused with
`ScrubFailedClosed`.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

import brotli

from keyhole.core.errors import ScrubFailedClosed

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE = 64 * 1024
"""Bytes of decoded output that exist at once."""

GZIP_MAGIC = b"\x1f\x8b\x08"
ZSTD_MAGIC = (b"\x28\xb5\x2f\xfd", *(bytes((first,)) + b"\x2a\x4d\x18" for first in range(0x50, 0x60)))
"""Of frames, and of those that are skipped, of which one may come first (RFC 8878 section 3.1)."""

_SIGNS = (GZIP_MAGIC, ZSTD_MAGIC[0], ZSTD_MAGIC[1][1:])

_ZSTD_WINDOW_LOG = 23
_FREE_PARTS = 4096
_LEAST_PART = 64  # bytes, on average
_DAMAGED = "The upstream's body does not match its Content-Encoding"
_HINT = "the answer is withheld because it cannot be inspected; ask the upstream for identity or report the fault there"


def _refusal(reason: str) -> ScrubFailedClosed:
    return ScrubFailedClosed(reason, _HINT)


class _Parts:
    """Counts members or frames: each costs as much as kilobytes do, and an empty one has 8 bytes."""

    def __init__(self) -> None:
        self._taken = 0
        self._number = 0

    def take(self, data: bytes) -> None:
        """There is more input."""
        self._taken += len(data)

    def begin(self) -> None:
        """One begins. Raises ``ScrubFailedClosed`` where they are many and tiny."""
        self._number += 1
        if self._number > _FREE_PARTS + self._taken // _LEAST_PART:
            raise _refusal("The upstream's compressed body has too many parts that are almost empty")


class Decoder(Protocol):
    """Undoes one coding. ``pieces`` yields bounded output; ``finish`` raises when the input ends too early."""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Decode more input; at most `PIECE` bytes a piece."""
        ...

    def finish(self) -> None:
        """Say that the input has ended."""
        ...


class Encoder(Protocol):
    """Applies one coding. ``flush`` makes everything so far decodable; ``finish`` ends the coding."""

    def encode(self, data: bytes) -> bytes:
        """Encode more; may keep it."""
        ...

    def flush(self) -> bytes:
        """Give all that was kept."""
        ...

    def finish(self) -> bytes:
        """Give the rest and the end mark."""
        ...


class _Zlib:
    """gzip with any number of members, and zlib or raw deflate, told apart by the first two bytes (RFC 1950)."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._head = b""
        self._inflate: zlib._Decompress | None = None
        self._complete = False
        self._parts = _Parts()
        self.raw = False

    def pieces(self, data: bytes) -> Iterator[bytes]:
        self._parts.take(data)
        while data or self._inflate is not None:
            if self._inflate is None:
                data = self._begin(self._head + data)
                if self._inflate is None:
                    return
            try:
                piece = self._inflate.decompress(data, PIECE)
            except zlib.error as error:
                raise _refusal(_DAMAGED) from error
            data = self._inflate.unconsumed_tail
            if piece:
                yield piece
            if self._inflate.eof:
                data = self._inflate.unused_data
                self._inflate, self._complete = None, True
            elif not data and len(piece) < PIECE:
                return  # a full piece may have left output behind although all input is taken

    def _begin(self, data: bytes) -> bytes:
        """Start a member when enough of it is known; gives back what is to be inflated."""
        if self._complete:
            data = data.lstrip(b"\0") if self._gzip else data  # padding between and after members
            if data and not (self._gzip and (data.startswith(GZIP_MAGIC) or GZIP_MAGIC.startswith(data))):
                raise _refusal("The upstream's body goes on behind the end of its Content-Encoding")
        self._head = b""
        if len(data) < (3 if self._complete else 2):
            self._head = data
            return b""
        self._parts.begin()
        self.raw = not self._gzip and (data[0] & 0x0F != zlib.DEFLATED or (data[0] << 8 | data[1]) % 31 != 0)
        self._inflate = zlib.decompressobj(31 if self._gzip else -15 if self.raw else 15)
        return data

    def finish(self) -> None:
        if self._inflate is not None or self._head or not self._complete:
            raise _refusal("The upstream's compressed body ends too early")


class _Brotli:
    def __init__(self) -> None:
        self._decompressor = brotli.Decompressor()

    def pieces(self, data: bytes) -> Iterator[bytes]:
        decompressor = self._decompressor
        try:
            if decompressor.is_finished():
                raise _refusal("The upstream's body goes on behind the end of its Content-Encoding")
            piece = decompressor.process(data, output_buffer_limit=PIECE)
            while piece or not decompressor.can_accept_more_data():
                if piece:
                    yield piece
                if decompressor.is_finished():
                    return
                piece = decompressor.process(b"", output_buffer_limit=PIECE)
        except brotli.error as error:
            raise _refusal(_DAMAGED) from error

    def finish(self) -> None:
        if not self._decompressor.is_finished():
            raise _refusal("The upstream's compressed body ends too early")


class _Zstd:
    def __init__(self) -> None:
        self._frame: zstd.ZstdDecompressor | None = None
        self._begun = False
        self._parts = _Parts()

    def pieces(self, data: bytes) -> Iterator[bytes]:
        self._parts.take(data)
        while data:
            if self._frame is None:
                self._parts.begin()
                options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
                self._frame = zstd.ZstdDecompressor(options=options)
            frame = self._frame
            try:
                piece = frame.decompress(data, PIECE)
                while piece or not (frame.needs_input or frame.eof):
                    if piece:
                        yield piece
                    piece = b"" if frame.eof else frame.decompress(b"", PIECE)
            except zstd.ZstdError as error:
                raise _refusal(_DAMAGED) from error
            data = b""
            if frame.eof:
                data, self._frame, self._begun = frame.unused_data, None, True

    def finish(self) -> None:
        if self._frame is not None or not self._begun:
            raise _refusal("The upstream's compressed body ends too early")


class _ZlibEncoder:
    def __init__(self, window_bits: int) -> None:
        self._deflate = zlib.compressobj(1, zlib.DEFLATED, window_bits)

    def encode(self, data: bytes) -> bytes:
        return self._deflate.compress(data)

    def flush(self) -> bytes:
        return self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._deflate.flush(zlib.Z_FINISH)


class _BrotliEncoder:
    def __init__(self) -> None:
        self._compressor = brotli.Compressor(quality=1, lgwin=18)

    def encode(self, data: bytes) -> bytes:
        return bytes(self._compressor.process(data))

    def flush(self) -> bytes:
        return bytes(self._compressor.flush())

    def finish(self) -> bytes:
        return bytes(self._compressor.finish())


class _ZstdEncoder:
    def __init__(self) -> None:
        self._compressor = zstd.ZstdCompressor(level=1)

    def encode(self, data: bytes) -> bytes:
        return self._compressor.compress(data)

    def flush(self) -> bytes:
        return self._compressor.flush(zstd.ZstdCompressor.FLUSH_BLOCK)

    def finish(self) -> bytes:
        return self._compressor.flush(zstd.ZstdCompressor.FLUSH_FRAME)


class Coding:
    """One content coding of a message: its decoder, and an encoder of the same kind once the input has begun."""

    def __init__(self, decoder: Decoder, encoder: Callable[[], Encoder]) -> None:
        self.decoder = decoder
        self.encoder = encoder


def _gzip() -> Coding:
    return Coding(_Zlib(gzip=True), lambda: _ZlibEncoder(31))


def _deflate() -> Coding:
    decoder = _Zlib(gzip=False)
    return Coding(decoder, lambda: _ZlibEncoder(-15 if decoder.raw else 15))


_STACKED = 3
_CODINGS: dict[bytes, Callable[[], Coding]] = {
    b"gzip": _gzip,
    b"x-gzip": _gzip,
    b"deflate": _deflate,
    b"br": lambda: Coding(_Brotli(), _BrotliEncoder),
    b"zstd": lambda: Coding(_Zstd(), _ZstdEncoder),
}


def parse(content_encoding: bytes, most: int) -> list[Coding]:
    """The codings of a body in the order in which they were applied, without identity.

    Args:
        content_encoding: the field's value; several fields joined with commas; empty when there is none.
        most: how many codings may be stacked.

    Raises:
        ScrubFailedClosed: a coding is unknown, or there are too many.
    """
    names = [name.strip().lower() for name in content_encoding.split(b",")]
    names = [name for name in names if name not in {b"", b"identity"}]
    if len(names) > most:
        raise _refusal(f"The upstream applied more than {most} content codings")
    if any(name not in _CODINGS for name in names):
        raise _refusal("The upstream used a content coding that cannot be decoded here")
    return [_CODINGS[name]() for name in names]


def decoded(content: bytes, content_encoding: bytes, most: int) -> bytes:
    """A whole body without its content codings.

    Args:
        content: as it came.
        content_encoding: the field's value; several fields joined with commas.
        most: bytes that may come out.

    Raises:
        ScrubFailedClosed: a coding is unknown or damaged, or more comes out.
    """
    for coding in reversed(parse(content_encoding, _STACKED)):
        out = bytearray()
        for piece in coding.decoder.pieces(content):
            out += piece
            if len(out) > most:
                raise _refusal("The upstream's compressed body expands beyond the limit")
        coding.decoder.finish()
        content = bytes(out)
    return content


def may_hold(data: bytes) -> bool:
    """Whether content that is gzip or zstd may begin somewhere in a piece, other than across its ends."""
    return any(sign in data for sign in _SIGNS)


def decoder_for_magic(head: bytes) -> Decoder | None:
    """A decoder for content that begins with gzip's or zstd's magic number; None for other content."""
    if head.startswith(GZIP_MAGIC):
        return _Zlib(gzip=True)
    return _Zstd() if head.startswith(ZSTD_MAGIC) else None


def accept_encoding(value: bytes) -> bytes:
    """What to send upstream in place of a client's Accept-Encoding: its codings that can be decoded here.

    Weights are kept (RFC 9110 section 12.5.3). A wildcard is dropped, since it invites any coding; when nothing is
    left, ``identity`` is sent, because an absent field would invite any coding as well.
    """
    kept = []
    for item in value.split(b","):
        name = item.partition(b";")[0].strip().lower()
        if name in _CODINGS or name == b"identity":
            kept.append(item.strip())
    return b", ".join(kept) or b"identity"
