"""A processor for structlog. Put it right before the renderer, or after ``format_exc_info`` where that is used.

structlog.configure(processors=[..., structlog.processors.format_exc_info, ScrubProcessor(), JSONRenderer()])
"""

from __future__ import annotations

import logging
import reprlib
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

from .records import ScrubFilter
from .scrubber import WITHHELD, LogScrubber

_CHAIN, _FRAMES, _VARIABLES = 10, 100, 200  # errors, their frames, and variables of a frame that are looked at
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother, _REPR.maxlong = 4, 4096, 4096, 400
_REPR.maxdict = _REPR.maxlist = _REPR.maxtuple = _REPR.maxset = _REPR.maxfrozenset = _REPR.maxdeque = 50


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
            if clean != text or (given is not None and self._in_locals(given[1])):
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

    def _in_locals(self, error: BaseException) -> bool:
        """Whether a renderer would show something that shows local variables, as those of structlog itself do."""
        chain: list[BaseException | None] = [error]
        while len(chain) < _CHAIN and (last := chain[-1]) is not None:
            chain.append(last.__cause__ or last.__context__)
        frames = [frame for each in chain if each is not None for frame, _ in traceback.walk_tb(each.__traceback__)]
        return any(
            self._scrubber.text(shown := _shown(value)) != shown
            for frame in frames[-_FRAMES:]
            for value in [*frame.f_locals.values()][:_VARIABLES]
        )


def _shown(value: Any) -> str:
    try:
        return _REPR.repr(value)
    except Exception:  # noqa: BLE001  # then a renderer has nothing to show either
        return ""


def _error(info: Any) -> tuple[Any, Any, Any] | None:
    if isinstance(info, BaseException):
        return type(info), info, info.__traceback__
    found = info if isinstance(info, tuple) else sys.exc_info()
    return found if found[1] is not None else None
