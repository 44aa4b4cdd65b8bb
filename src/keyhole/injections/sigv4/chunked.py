"""The coding ``aws-chunked`` with a signature for every chunk, each of which covers the one before.

    SIZE;chunk-signature=SIGNATURE CRLF, SIZE bytes, CRLF, …, 0;chunk-signature=SIGNATURE CRLF,
    with -TRAILER then NAME:VALUE CRLF, …, x-amz-trailer-signature:SIGNATURE CRLF, and an empty line

Signatures have one length, so the body keeps its own. A chunk's signature stands before its data: one chunk is held at
a time ("Signature calculations: transferring a payload in multiple chunks", Amazon S3 API Reference).
"""

from __future__ import annotations

import hashlib
import re

from keyhole.core.errors import InvalidRequest
from keyhole.crypto.sigv4 import EMPTY, Signer

SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

LONGEST_CHUNK = 1024 * 1024  # bytes; SDKs send 64 or 128 KiB
_LONGEST_LINE = 1024
_TRAILERS = 16
_HEAD = re.compile(rb"([0-9A-Fa-f]{1,8});chunk-signature=([0-9A-Fa-f]{64})\r\n")
_TRAILER = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}):[ \t]*([\x20-\x7e]*?)[ \t]*\r?\n")
_TRAILER_SIGNATURE = b"x-amz-trailer-signature"
_END = b"\r\n"


class Chunks:
    """Signs the chunks of a body again while it streams.

    Args:
        signer: of the request.
        seed: the request's own signature.
        trailer: the body ends with trailers and their signature.
    """

    __slots__ = ("_buffer", "_last", "_lines", "_signer", "_state", "_trailer", "_trailers")

    def __init__(self, signer: Signer, seed: str, *, trailer: bool) -> None:
        self._signer = signer
        self._last = seed
        self._trailer = trailer
        self._buffer = bytearray()
        self._state = self._chunk
        self._trailers = b""
        self._lines = 0

    def length(self, declared: int | None) -> int | None:
        """The same as before: a signature takes the place of one that is as long."""
        return declared

    def feed(self, chunk: bytes) -> bytes:
        """All that can be signed with what is there."""
        self._buffer += chunk
        ready = []
        while piece := self._state():
            ready.append(piece)
        return b"".join(ready)

    def finish(self) -> bytes:
        """Nothing; the body says itself where it ends."""
        if self._state != self._over or self._buffer:
            raise _broken()
        return b""

    def _chunk(self) -> bytes:
        """The next chunk, when all of it is there."""
        line = self._line()
        if not line:
            return b""
        head = _HEAD.fullmatch(line)
        size = int(head[1], 16) if head else 0
        if head is None:
            raise _broken()
        if size > LONGEST_CHUNK:
            raise InvalidRequest(
                f"a signed chunk is longer than {LONGEST_CHUNK} bytes", "let the client send smaller chunks"
            )
        end = len(line) + size
        if size:
            if len(self._buffer) < end + len(_END):
                return b""
            if self._buffer[end : end + len(_END)] != _END:
                raise _broken()
        data = bytes(self._buffer[len(line) : end])
        self._last = self._signer.sign(self._last, EMPTY, hashlib.sha256(data).hexdigest(), of="-PAYLOAD")
        whole = b"%b;chunk-signature=%b\r\n%b%b" % (head[1], self._last.encode(), data, _END if size else b"")
        del self._buffer[: end + (len(_END) if size else 0)]
        if not size:
            self._state = self._trailing if self._trailer else self._empty_line
        return whole

    def _trailing(self) -> bytes:
        """One line after the last chunk; some clients send an empty one before the trailers."""
        line = self._line()
        if not line:
            return b""
        self._lines += 1
        found = _TRAILER.fullmatch(line)
        if self._lines > _TRAILERS or (found is None and (line != _END or self._trailers)):
            raise _broken()
        del self._buffer[: len(line)]
        if found is None:
            return line
        name = found[1].lower()
        if name != _TRAILER_SIGNATURE:
            self._trailers += b"%b:%b\n" % (name, found[2])
            return line
        if len(found[2]) != len(self._last):
            raise _broken()
        self._last = self._signer.sign(self._last, hashlib.sha256(self._trailers).hexdigest(), of="-TRAILER")
        self._state = self._empty_line
        return line.replace(found[2], self._last.encode())

    def _empty_line(self) -> bytes:
        line = self._line()
        if not line:
            return b""
        if line != _END:
            raise _broken()
        del self._buffer[: len(line)]
        self._state = self._over
        return line

    def _over(self) -> bytes:
        if self._buffer:
            raise _broken()
        return b""

    def _line(self) -> bytes:
        """The line at the beginning, when its end is there."""
        end = self._buffer.find(b"\n", 0, _LONGEST_LINE)
        if end < 0 and len(self._buffer) >= _LONGEST_LINE:
            raise _broken()
        return bytes(self._buffer[: end + 1])


def _broken() -> InvalidRequest:
    return InvalidRequest(
        "the body is not aws-chunked with chunk signatures, as x-amz-content-sha256 says", "sign it with an AWS SDK"
    )
