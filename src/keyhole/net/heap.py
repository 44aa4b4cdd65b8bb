"""What the C library does with memory that was freed."""

from __future__ import annotations

_MOST = 1024 * 1024  # bytes


def keep_freed_memory() -> None:
    """Have the C library keep some 2 MiB of what is freed instead of 128 KiB, for the next piece of a body.

    The library of GNU learns from what is freed: whatever is as large as the largest block so far is worth keeping, up
    to twice that (mallopt(3), M_MMAP_THRESHOLD). Without this each piece has its pages mapped and cleared anew. The
    block itself is never touched, so it takes no memory; other libraries do as they always do.
    """
    bytes(_MOST)
