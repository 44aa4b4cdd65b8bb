"""What a server says, without its credentials."""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any

from keyhole.core.errors import ScrubFailedClosed
from keyhole.scrub import Scrubber, body

_DEEPEST = 200
_MOST = 200_000  # values in one answer that is looked through piece by piece
_KEPT = 4096  # bytes of what was said before, for what goes on in the next piece
_STANDARD = str.maketrans("-_", "+/")  # RFC 4648, section 5
_ENCODED = ("data", "blob")  # of images, sounds and contents of resources


class Cleaner:
    """Takes values out of everything that is said in one answer.

    Args:
        scrubber: of the server's credentials.

    Attributes:
        masked: texts that had one in them.
    """

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self.masked = 0
        self._seen = 0

    def number(self, number: float) -> float | None:
        """A number, unless it is a credential."""
        shown = {json.dumps(number), str(int(number)) if math.isfinite(number) else ""}
        return None if any(self.text(text) != text for text in shown) else number

    def value(self, value: Any) -> Any:
        """A JSON value. Raises ``ScrubFailedClosed`` for what cannot be looked through."""
        if self._scrubber.empty:
            return value
        raw = json.dumps(value, ensure_ascii=False).encode(errors="replace")
        return value if self._scrubber.is_clean(raw) and not _is_hidden(value) else self._walk(value, 0)

    def text(self, text: str) -> str:
        """A text; its length in bytes stays."""
        raw = text.encode(errors="replace")
        clean = self._scrubber.text(raw)
        if clean == raw:
            return text
        self.masked += 1
        return clean.decode(errors="replace")

    def _walk(self, value: Any, depth: int) -> Any:
        self._seen += 1
        if depth > _DEEPEST or self._seen > _MOST:
            how = "nested too deep" if depth > _DEEPEST else "of too many pieces"
            raise ScrubFailedClosed(f"the answer of the server is {how} to be looked through")
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return self._joined([self._walk(each, depth + 1) for each in value])
        if isinstance(value, dict):
            encoded = "mimeType" in value or "uri" in value or str(value.get("type")) in {"image", "audio"}
            return {
                self.text(name): self._encoded(each)
                if encoded and name in _ENCODED and isinstance(each, str)
                else self._walk(each, depth + 1)
                for name, each in value.items()
            }
        if isinstance(value, int | float) and not isinstance(value, bool):
            text = json.dumps(value)
            return value if self._scrubber.text(text.encode()) == text.encode() else self.text(text)
        return value

    def _joined(self, items: list[Any]) -> list[Any]:
        """Texts that stand one after the other are also looked at as one."""
        places = [place for at, each in enumerate(items) if (place := _place(items, at, each)) is not None]
        if len(places) < 2:
            return items
        pieces = [holder[key].encode(errors="replace") for holder, key in places]
        whole = b"".join(pieces)
        clean = self._scrubber.text(whole)
        if clean == whole:
            return items
        self.masked += 1
        at = 0
        for (holder, key), piece in zip(places, pieces, strict=True):
            holder[key] = clean[at : at + len(piece)].decode(errors="replace")
            at += len(piece)
        return items

    def _encoded(self, text: str) -> str:
        """Bytes in base64, as lenient clients read it: in lines, without padding, with the other alphabet."""
        plain = "".join(text.split()).translate(_STANDARD).rstrip("=")
        try:
            raw = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except (binascii.Error, ValueError):
            return self.text(text)
        clean = body(self._scrubber).whole(raw)  # what is compressed is looked into, and withheld for a value in it
        if clean == raw:
            return self.text(text)
        self.masked += 1
        return base64.b64encode(clean).decode()


class Following:
    """Takes values out of texts that come one after the other, also where one goes on in the next.

    What has left cannot be taken back: of a value that is cut in two, the rest is masked.

    Args:
        scrubber: of the server's credentials.
    """

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self._before = b""

    def text(self, text: str) -> str:
        """The next text, of which the length in bytes stays."""
        raw = text.encode(errors="replace")
        whole = self._before + raw
        clean = self._scrubber.text(whole)[len(self._before) :]
        self._before = whole[-_KEPT:]
        return text if clean == raw else clean.decode(errors="replace")


def _place(items: list[Any], at: int, item: Any) -> tuple[Any, Any] | None:
    """Where the text of a member of a list stands: it is one, or a block, a resource or a message with one."""
    if isinstance(item, str):
        return items, at
    if not isinstance(item, dict):
        return None
    for holder in (item, item.get("content"), item.get("resource")):
        if isinstance(holder, dict) and isinstance(holder.get("text"), str):
            return holder, "text"
    return None


def _is_hidden(value: Any) -> bool:
    """Whether a value need not be seen as it stands: in bytes in base64, or in several texts one after the other."""
    if isinstance(value, dict):
        return any(name in value for name in _ENCODED) or any(map(_is_hidden, value.values()))
    if not isinstance(value, list):
        return False
    return sum(_place(value, 0, each) is not None for each in value) > 1 or any(map(_is_hidden, value))
