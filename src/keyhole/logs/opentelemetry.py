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
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, Status, TraceState

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
        links = [Link(self._context(each.context), self._attributes(each.attributes)) for each in span.links]
        said = span.status.description
        status = Status(span.status.status_code, self._scrubber.text(said)) if said else span.status
        clean = _Clean(span, self._scrubber.text(span.name), self._attributes(span.attributes), events, links, status)
        clean._context = self._context(span.context)  # noqa: SLF001  # there is no other way to give it
        clean._parent = self._context(span.parent)  # noqa: SLF001
        clean._instrumentation_scope = _scope(self._scrubber, span.instrumentation_scope)  # noqa: SLF001
        return clean

    def _context(self, context: Any) -> Any:
        """A context without the members of its trace state that have a credential: those came from a peer."""
        state = context.trace_state if context is not None else None
        kept = [(name, value) for name, value in (state or {}).items() if self._is_clean(f"{name}={value}")]
        if not state or len(kept) == len(state):
            return context
        return SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags, TraceState(kept))

    def _is_clean(self, text: str) -> bool:
        return self._scrubber.text(text) == text

    def _attributes(self, given: Any) -> dict[str, Any]:
        return {self._scrubber.text(name): self._scrubber.value(value, name) for name, value in (given or {}).items()}


def _scope(scrubber: LogScrubber, scope: Any) -> Any:
    """The name, version and attributes of what instruments, which are usually those of a package."""
    if scope is None:
        return scope
    text, given = scrubber.text, dict(scope.attributes or {})
    attributes = {text(name): scrubber.value(value, name) for name, value in given.items()}
    name, version, schema = text(scope.name), text(scope.version or ""), text(scope.schema_url or "")
    if (name, version, schema, attributes) == (scope.name, scope.version or "", scope.schema_url or "", given):
        return scope
    return InstrumentationScope(name, version, schema, attributes)


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
        scope: Any = log_record
        if scope.instrumentation_scope is not None:
            scope.instrumentation_scope = _scope(self._scrubber, scope.instrumentation_scope)
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
