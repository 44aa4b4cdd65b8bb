"""A stream of text without what has the shape of a credential. A net below known values, for what nobody knows."""

from __future__ import annotations

from .shapes import Finder, finder

_WINDOW = 1 << 20  # bytes that are looked at together at most, also of a line without an end
_OVERLAP = 1 << 13  # of them that are kept for what follows
_CONTEXT = 256  # bytes of what has left, in which the name of a value may stand
_ARMOUR = 32 * 1024  # bytes for which the end of a private key is waited for
_TOKEN = 4096  # bytes at the end of a line that is not ended, which are held back although nothing comes


class ShapeStream:
    """Masks shapes with ``*`` of the same length, so that texts of JSON stay what they were.

    Lines leave when they are whole, and a private key of several lines when it is; nothing is held for ever.

    Attributes:
        found: name of a shape to how often it was masked.
    """

    def __init__(self, shapes: Finder | None = None) -> None:
        self._find = (shapes or finder()).find
        self._kept = bytearray()
        self._before = b""
        self.found: dict[str, int] = {}

    def feed(self, data: bytes) -> bytes:
        """What can leave now."""
        self._kept += data
        out = b""
        while len(self._kept) > _WINDOW:
            out += self._leave(min(_WINDOW, len(self._kept)) - _OVERLAP, whole=False)
        cut = self._kept.rfind(b"\n", max(len(self._kept) - len(data), 0)) + 1
        cut = self._before_armour(cut)
        return out + (self._leave(cut, whole=True) if cut > 0 else b"")

    def idle(self) -> bytes:
        """What can leave because nothing comes: all but the last word, which may go on."""
        cut = max(self._kept.rfind(b" "), self._kept.rfind(b"\n")) + 1
        if len(self._kept) - cut > _TOKEN:
            cut = len(self._kept) - _TOKEN
        cut = self._before_armour(cut)
        return self._leave(cut, whole=True) if cut > 0 else b""

    def finish(self) -> bytes:
        """All the rest."""
        return self._leave(len(self._kept), whole=True)

    def _before_armour(self, cut: int) -> int:
        """Not into a private key whose end has not come yet."""
        begin = self._kept.rfind(b"-----BEGIN ", max(cut - _ARMOUR, 0), cut)
        if begin < 0 or self._kept.find(b"-----END ", begin) >= 0 or len(self._kept) - begin > _ARMOUR:
            return cut
        return self._kept.rfind(b"\n", 0, begin) + 1

    def _leave(self, cut: int, *, whole: bool) -> bytes:
        """The bytes before the cut, masked; a match that goes over it leaves with it, or stays if it may go on."""
        text = self._before + bytes(self._kept[: _WINDOW if not whole else cut])
        offset = len(self._before)
        end = cut + offset
        masked = bytearray(text)
        for match in self._find(text, None):
            if match.start < offset:
                continue
            if not whole and match.start < end < match.end:
                end = match.end if match.end < len(text) or match.start <= offset else match.start
            if match.start < end:
                masked[match.start : match.end] = b"*" * (match.end - match.start)
                self.found[match.shape.name] = self.found.get(match.shape.name, 0) + 1
        out = bytes(masked[offset:end])
        del self._kept[: end - offset]
        self._before = text[max(end - _CONTEXT, 0) : end]
        return out
