"""What a server says, without its credentials."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from keyhole.core.errors import ScrubFailedClosed
from keyhole.scrub import Scrubber

_DEEPEST = 200
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
        if depth > _DEEPEST:
            raise ScrubFailedClosed("the answer of the server is nested too deep to be looked through")
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
        texts = [each["text"] for each in items if isinstance(each, dict) and isinstance(each.get("text"), str)]
        if len(texts) < 2:
            return items
        whole = "".join(texts).encode(errors="replace")
        clean = self._scrubber.text(whole)
        if clean == whole:
            return items
        self.masked += 1
        at = 0
        for each in items:
            if isinstance(each, dict) and isinstance(each.get("text"), str):
                size = len(each["text"].encode(errors="replace"))
                each["text"] = clean[at : at + size].decode(errors="replace")
                at += size
        return items

    def _encoded(self, text: str) -> str:
        try:
            raw = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return self.text(text)
        clean = self._scrubber.text(raw)
        if clean == raw:
            return text
        self.masked += 1
        return base64.b64encode(clean).decode()


def _is_hidden(value: Any) -> bool:
    """Whether a value need not be seen as it stands: in bytes in base64, or in several texts one after the other."""
    if isinstance(value, dict):
        return any(name in value for name in _ENCODED) or any(map(_is_hidden, value.values()))
    if not isinstance(value, list):
        return False
    return sum("text" in each for each in value if isinstance(each, dict)) > 1 or any(map(_is_hidden, value))
