"""A processor for structlog. Put it right before the renderer, or after ``format_exc_info`` where that is used.

structlog.configure(processors=[..., structlog.processors.format_exc_info, ScrubProcessor(), JSONRenderer()])
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

from .records import ScrubFilter
from .scrubber import WITHHELD, LogScrubber


class ScrubProcessor:
    """Takes credentials out of each event: its text, its values however nested, its exception.

    Args:
        scrubber: made from ``options`` where there is none.
        options: of ``LogScrubber``.
    """

    def __init__(self, scrubber: LogScrubber | None = None, **options: Any) -> None:
        self._scrubber = scrubber or LogScrubber(**options)
        self._filter = ScrubFilter(self._scrubber)

    def __call__(self, _logger: Any, _method: str, event: Any) -> Any:
        """The event without them; behind a renderer its text or bytes. Never raises."""
        if isinstance(event, str):
            return self._scrubber.line(event)
        if isinstance(event, bytes | bytearray):
            return self._scrubber.line(bytes(event).decode(errors="surrogateescape")).encode(errors="surrogateescape")
        if not isinstance(event, MutableMapping):
            return event
        try:
            self._clean(event)
        except Exception:  # noqa: BLE001  # the application is not to notice, and nobody to see it
            return {"event": WITHHELD}
        return event

    def _clean(self, event: MutableMapping[str, Any]) -> None:
        info = event.get("exc_info")
        if info:
            given = _error(info)
            text = "".join(traceback.format_exception(*given)) if given is not None else ""
            clean = self._scrubber.text(text)
            if clean != text:
                del event["exc_info"]
                event["exception"] = clean.rstrip("\n")
        for name in list(event):
            value = event[name]
            if isinstance(value, logging.LogRecord):
                self._filter.filter(value)
            elif name != "exc_info":
                safe = self._scrubber.text(name)
                clean = self._scrubber.value(value, name)
                if safe != name:
                    del event[name]
                if safe != name or clean is not value:
                    event[safe] = clean


def _error(info: Any) -> tuple[Any, Any, Any] | None:
    if isinstance(info, BaseException):
        return type(info), info, info.__traceback__
    found = info if isinstance(info, tuple) else sys.exc_info()
    return found if found[1] is not None else None
