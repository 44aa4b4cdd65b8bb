"""Spans and log records of OpenTelemetry's SDK, as an exporter gets them."""

import logging

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from keyhole.logs import LogScrubber
from keyhole.logs.opentelemetry import ScrubLogProcessor, ScrubSpanProcessor

VALUE = "known-telemetry-value"
MASK = "*" * len(VALUE)
RESOURCE = Resource({"service.name": "app", "note": VALUE})


def raised(text):
    try:
        float(text)
    except ValueError as error:
        return error


@pytest.fixture
def scrubber():
    return LogScrubber([VALUE], fetched=False)


def test_spans_are_clean_and_the_resource_is_left_alone(scrubber):
    exporter, seen = InMemorySpanExporter(), InMemorySpanExporter()
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(ScrubSpanProcessor(SimpleSpanProcessor(exporter), scrubber))
    provider.add_span_processor(SimpleSpanProcessor(seen))
    tracer = provider.get_tracer("test", "1.0")
    with tracer.start_as_current_span("parent") as parent:
        link = Link(parent.get_span_context(), {"link": VALUE})
        given = {"a": VALUE, "list": ["x", VALUE], "n": 5, VALUE: True}
        with tracer.start_as_current_span(f"span {VALUE}", links=[link], attributes=given) as span:
            span.add_event("event", {"e": f"<{VALUE}>"})
            span.record_exception(error := raised(VALUE))
            span.set_status(StatusCode.ERROR, f"ValueError: {error}")
    child, _ = exporter.get_finished_spans()
    assert child.name == f"span {MASK}"
    assert dict(child.attributes) == {"a": MASK, "list": ("x", MASK), "n": 5, MASK: True}
    assert child.events[0].attributes["e"] == f"<{MASK}>"
    assert child.events[1].name == "exception"
    assert child.events[1].attributes["exception.message"].endswith(f"'{MASK}'")
    assert VALUE not in child.events[1].attributes["exception.stacktrace"]
    assert child.links[0].attributes["link"] == MASK
    assert child.status.status_code is StatusCode.ERROR
    assert MASK in child.status.description
    assert child.resource is provider.resource
    assert child.resource.attributes["note"] == VALUE
    assert child.instrumentation_scope.name == "test"
    assert (child.context, child.parent) == (span.get_span_context(), parent.get_span_context())
    assert seen.get_finished_spans()[0].name == f"span {VALUE}", "other processors see what they always saw"
    provider.shutdown()


def test_what_a_peer_said_in_the_trace_state_and_the_name_of_the_scope_are_clean(scrubber):
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(ScrubSpanProcessor(SimpleSpanProcessor(exporter), scrubber))
    state = TraceState([("peer", VALUE), ("other", "kept")])
    remote = SpanContext(1234, 99, is_remote=True, trace_flags=TraceFlags(1), trace_state=state)
    tracer = provider.get_tracer(f"scope-{VALUE}", "1.0", attributes={"note": VALUE})
    with tracer.start_as_current_span("x", set_span_in_context(NonRecordingSpan(remote)), links=[Link(remote)]):
        pass
    with provider.get_tracer("plain").start_as_current_span("y", set_span_in_context(NonRecordingSpan(remote))):
        pass
    span, other = exporter.get_finished_spans()
    for context in (span.context, span.parent, span.links[0].context):
        assert dict(context.trace_state) == {"other": "kept"}
        assert context.trace_id == 1234
    scope = span.instrumentation_scope
    assert (scope.name, scope.version, dict(scope.attributes)) == (f"scope-{MASK}", "1.0", {"note": MASK})
    assert other.instrumentation_scope.name == "plain"
    provider.shutdown()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("around", [True, False])
def test_log_records_are_clean(scrubber, around):
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(resource=RESOURCE)
    inner = SimpleLogRecordProcessor(exporter)
    provider.add_log_record_processor(ScrubLogProcessor(inner if around else None, scrubber))
    if not around:
        provider.add_log_record_processor(inner)
    provider.get_logger("x").emit(
        LogRecord(
            body={"text": VALUE, "list": [VALUE, 3]},
            attributes={"a": VALUE, VALUE: 1, "n": 2},
            severity_number=SeverityNumber.INFO,
        )
    )
    record = exporter.get_finished_logs()[0]
    assert record.log_record.body == {"text": MASK, "list": [MASK, 3]}
    assert dict(record.log_record.attributes) == {"a": MASK, MASK: 1, "n": 2}
    assert record.resource.attributes["note"] == VALUE
    provider.shutdown()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_exceptions_of_logging_are_clean(scrubber):
    from opentelemetry.sdk._logs import LoggingHandler

    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(resource=RESOURCE)
    provider.add_log_record_processor(ScrubLogProcessor(SimpleLogRecordProcessor(exporter), scrubber))
    logger = logging.Logger("app")  # noqa: LOG001  # one of this test alone
    logger.addHandler(LoggingHandler(logger_provider=provider))
    logger.error("failed with %s", VALUE, exc_info=raised(VALUE), extra={"key": VALUE})
    record = exporter.get_finished_logs()[0].log_record
    assert record.body == f"failed with {MASK}"
    assert record.attributes["key"] == MASK
    assert record.attributes["exception.message"].endswith(f"'{MASK}'")
    assert VALUE not in str(dict(record.attributes))
    provider.shutdown()
