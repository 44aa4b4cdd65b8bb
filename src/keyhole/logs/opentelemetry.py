"""Processors of OpenTelemetry's SDK, around those that export. They need the extra ``keyhole[otel]``.

    provider.add_span_processor(ScrubSpanProcessor(BatchSpanProcessor(exporter)))
    logs.add_log_record_processor(ScrubLogProcessor(BatchLogRecordProcessor(exporter)))

The resource stays what it is: it says who reports, once, and is made before anything is logged.
"""

from __future__ import annotations

from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import Link, Status

from .scrubber import WITHHELD, LogScrubber


class ScrubSpanProcessor(SpanProcessor):
    """Passes spans on without credentials: name, attributes, events (so exceptions), links, status.

    The span that the application holds stays as it is; other processors see it so.

    Args:
        processor: gets the clean ones.
        scrubber: made from ``options`` where there is none.
        options: of ``LogScrubber``.
    """

    def __init__(self, processor: SpanProcessor, scrubber: LogScrubber | None = None, **options: Any) -> None:
        self._processor = processor
        self._scrubber = scrubber or LogScrubber(**options)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """See ``SpanProcessor``."""
        self._processor.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """See ``SpanProcessor``."""
        try:
            clean = self._clean(span)
        except Exception:  # noqa: BLE001  # the application is not to notice, and nobody to see it
            clean = _Clean(span, WITHHELD, {}, [], [], Status(span.status.status_code))
        self._processor.on_end(clean)

    def shutdown(self) -> None:
        """See ``SpanProcessor``."""
        self._processor.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """See ``SpanProcessor``."""
        return self._processor.force_flush(timeout_millis)

    def _clean(self, span: ReadableSpan) -> ReadableSpan:
        events = [
            Event(self._scrubber.text(each.name), self._attributes(each.attributes), each.timestamp)
            for each in span.events
        ]
        links = [Link(each.context, self._attributes(each.attributes)) for each in span.links]
        said = span.status.description
        status = Status(span.status.status_code, self._scrubber.text(said)) if said else span.status
        return _Clean(span, self._scrubber.text(span.name), self._attributes(span.attributes), events, links, status)

    def _attributes(self, given: Any) -> dict[str, Any]:
        return {self._scrubber.text(name): self._scrubber.value(value, name) for name, value in (given or {}).items()}


class _Clean(ReadableSpan):
    """A span with other texts than the one that it was; what that one had dropped is still counted."""

    def __init__(self, span: ReadableSpan, name: str, attributes: Any, events: Any, links: Any, status: Status) -> None:
        super().__init__(
            name,
            span.context,
            span.parent,
            span.resource,
            attributes,
            events,
            links,
            span.kind,
            None,
            status,
            span.start_time,
            span.end_time,
            span.instrumentation_scope,
        )
        self._was = span

    @property
    def dropped_attributes(self) -> int:
        """How many the span had dropped."""
        return self._was.dropped_attributes

    @property
    def dropped_events(self) -> int:
        """The same of events."""
        return self._was.dropped_events

    @property
    def dropped_links(self) -> int:
        """The same of links."""
        return self._was.dropped_links


class ScrubLogProcessor(LogRecordProcessor):
    """Takes credentials out of log records, and passes them on: body, attributes (so exceptions), name of the event.

    A record is changed itself, as the specification has it, so processors that come after this one see it clean, too.

    Args:
        processor: gets the clean ones; ``None`` where those that export come after this one.
        scrubber: made from ``options`` where there is none.
        options: of ``LogScrubber``.
    """

    def __init__(
        self, processor: LogRecordProcessor | None = None, scrubber: LogScrubber | None = None, **options: Any
    ) -> None:
        self._processor = processor
        self._scrubber = scrubber or LogScrubber(**options)

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """See ``LogRecordProcessor``."""
        record: Any = log_record.log_record
        try:
            self._clean(record)
        except Exception:  # noqa: BLE001  # the application is not to notice, and nobody to see it
            record.body, record.attributes = WITHHELD, {}
        if self._processor is not None:
            self._processor.on_emit(log_record)

    def shutdown(self) -> None:
        """See ``LogRecordProcessor``."""
        if self._processor is not None:
            self._processor.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """See ``LogRecordProcessor``."""
        return self._processor.force_flush(timeout_millis) if self._processor is not None else True

    def _clean(self, record: Any) -> None:
        record.body = self._scrubber.value(record.body)
        for name in ("event_name", "severity_text"):
            if isinstance(getattr(record, name, None), str):
                setattr(record, name, self._scrubber.text(getattr(record, name)))
        attributes = record.attributes
        for name in list(attributes or ()):
            safe, clean = self._scrubber.text(name), self._scrubber.value(attributes[name], name)
            if safe != name:
                del attributes[name]
            if safe != name or clean is not attributes.get(name):
                attributes[safe] = clean
