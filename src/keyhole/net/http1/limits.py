"""What a peer may make us hold in memory for one message."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WireLimits:
    """Bounds on one HTTP/1.1 message. A message that exceeds one of them is refused, never cut.

    Attributes:
        head_bytes: start line and header section together, with their line ends.
        headers: header lines.
        target_bytes: the request target.
        value_bytes: one header value.
        chunk_extension_bytes: everything between a chunk size and its line end.
        trailer_bytes: the trailer section; trailers are checked and dropped.
        informational: 1xx answers before the final one.
    """

    head_bytes: int = 64 * 1024
    headers: int = 128
    target_bytes: int = 8 * 1024
    value_bytes: int = 16 * 1024
    chunk_extension_bytes: int = 256
    trailer_bytes: int = 16 * 1024
    informational: int = 8


REQUEST_LIMITS = WireLimits()
ANSWER_LIMITS = WireLimits(headers=256)
