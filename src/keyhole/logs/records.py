"""The standard library's ``logging``: a filter for records, and a formatter around another."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from typing import Any

from .scrubber import WITHHELD, LogScrubber

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_TEXTS = ("name", "pathname", "filename", "module", "funcName", "threadName", "processName", "taskName", "message")


class ScrubFilter(logging.Filter):
    """Takes credentials out of each record; it lets all of them pass. Put it on handlers, which see every record.

    The message is looked at as it will be formatted. An exception whose traceback has a credential in it stays as text.

    Args:
        scrubber: made from ``options`` where there is none.
        options: of ``LogScrubber``, so that a configuration as a dict can name them.
    """

    def __init__(self, scrubber: LogScrubber | None = None, **options: Any) -> None:
        super().__init__()
        self._scrubber = scrubber or LogScrubber(**options)

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean the record. Never raises; what cannot be looked through is withheld."""
        try:
            self._clean(record)
        except Exception:  # noqa: BLE001  # the application is not to notice, and nobody to see it
            _withhold(record)
        return True

    def _clean(self, record: logging.LogRecord) -> None:
        self._clean_message(record)
        self._clean_error(record)
        text = self._scrubber.text
        if record.stack_info:
            record.stack_info = text(record.stack_info)
        fields = record.__dict__
        for name in _TEXTS:
            if isinstance(fields.get(name), str):
                fields[name] = text(fields[name])
        if self._scrubber.is_known(record.levelname):
            record.levelname = text(record.levelname)
        for name in [each for each in fields if each not in _STANDARD]:
            safe = text(name) if self._scrubber.is_known(name) else name
            clean = self._scrubber.value(fields[name], name)
            if safe != name:
                del fields[name]
            if safe != name or clean is not fields[name]:
                fields[safe] = clean

    def _clean_message(self, record: logging.LogRecord) -> None:
        if type(record).getMessage is not logging.LogRecord.getMessage:
            said = record.getMessage()
            clean_said = self._scrubber.text(said)
            if clean_said != said:  # one that makes its message itself would make it again
                record.__class__ = logging.LogRecord
                record.msg, record.args = clean_said, None
                return
        text = _message(record)
        clean_text = self._scrubber.text(text) if text is not None else None
        message, given = self._scrubber.value(record.msg), self._scrubber.value(record.args)
        if text is not None and clean_text == text:
            if given is not record.args and _message(record, record.msg, given) == text:
                record.args = given
            return
        made = _message(record, message, given)
        if made is not None and self._scrubber.text(made) == made:
            record.msg, record.args = message, given
        else:
            record.msg, record.args = (clean_text if clean_text is not None else str(message)), None

    def _clean_error(self, record: logging.LogRecord) -> None:
        if record.exc_text:
            record.exc_text = self._scrubber.text(record.exc_text)
        if not record.exc_info or record.exc_info[1] is None:
            return
        text = "".join(traceback.format_exception(*record.exc_info))
        clean = self._scrubber.text(text)
        if clean != text:
            record.exc_info, record.exc_text = None, clean.rstrip("\n")


class ScrubFormatter(logging.Formatter):
    """Takes credentials out of what another formatter makes, also of what it adds itself, such as local variables.

    Args:
        formatter: whose text it is; ``None`` for the usual one.
        scrubber: made from ``options`` where there is none.
        options: of ``LogScrubber``.
    """

    def __init__(
        self, formatter: logging.Formatter | None = None, scrubber: LogScrubber | None = None, **options: Any
    ) -> None:
        super().__init__()
        self._formatter = formatter or logging.Formatter()
        self._scrubber = scrubber or LogScrubber(**options)

    def format(self, record: logging.LogRecord) -> str:
        """The text. A line of JSON stays one."""
        text = self._formatter.format(record)
        return self._scrubber.line(text) if isinstance(text, str) else text

    def formatException(self, ei: Any) -> str:  # noqa: N802  # the name of the base class
        """The text of an exception."""
        return self._scrubber.text(self._formatter.formatException(ei))

    def __getattr__(self, name: str) -> Any:
        """Whatever else the other one has."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._formatter, name)


def install(scrubber: LogScrubber | None = None, logger: logging.Logger | None = None) -> LogScrubber:
    """Keep the handlers of a logger clean, those that it has now: filter and formatter. Twice is as good as once.

    Args:
        scrubber: a new one where there is none.
        logger: the root logger where there is none.

    Returns:
        The scrubber, which can be told more values.
    """
    scrubber = scrubber or LogScrubber()
    for handler in (logger or logging.getLogger()).handlers:
        if not any(isinstance(each, ScrubFilter) for each in handler.filters):
            handler.addFilter(ScrubFilter(scrubber))
        if not isinstance(handler.formatter, ScrubFormatter):
            handler.setFormatter(ScrubFormatter(handler.formatter, scrubber))
    return scrubber


def _message(record: logging.LogRecord, *parts: Any) -> str | None:
    """As it will be formatted, or would be with another message and arguments; ``None`` where that fails."""
    message, given = parts or (record.msg, record.args)
    try:
        text = str(message)
        if not given:
            return text
        return text % (given if isinstance(given, tuple | Mapping) else (given,))
    except Exception:  # noqa: BLE001  # the handler says so, of what is left of them
        return None


def _withhold(record: logging.LogRecord) -> None:
    record.msg, record.args, record.exc_info, record.exc_text = WITHHELD, None, None, None
    record.stack_info = None
    for name in [each for each in record.__dict__ if each not in _STANDARD]:
        record.__dict__[name] = WITHHELD
