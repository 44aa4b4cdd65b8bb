"""Events of structlog without credentials, before and behind a renderer."""

import json
import logging
import sys

import pytest
import structlog
from structlog.testing import CapturingLoggerFactory

from keyhole.logs import WITHHELD, LogScrubber
from keyhole.logs.structlog import ScrubProcessor

VALUE = "known-structured-value"
MASK = "*" * len(VALUE)


@pytest.fixture
def scrubber():
    return LogScrubber([VALUE], fetched=False)


def logger(*processors):
    made = CapturingLoggerFactory()
    log = structlog.wrap_logger(made(), processors=[structlog.stdlib.add_log_level, *processors])
    return log, made.logger.calls


def test_events_are_clean_json_wherever_the_processor_stands(scrubber):
    scrub, render, trace = ScrubProcessor(scrubber), structlog.processors.JSONRenderer(), structlog.processors
    for processors in ((scrub, render), (render, scrub), (scrub, trace.format_exc_info, render),
                       (trace.format_exc_info, scrub, render), (trace.dict_tracebacks, scrub, render)):  # fmt: skip
        log, calls = logger(*processors)
        bound = log.bind(key=VALUE, nested={"a": [VALUE], VALUE: 1}, number=3, password="Tr0ub4dor&3x9")
        try:
            float(VALUE)
        except ValueError:
            bound.exception(f"said {VALUE}")
        found = json.loads(calls[0].args[0])
        assert found["event"] == f"said {MASK}"
        assert (found["key"], found["number"], found["level"]) == (MASK, 3, "error")
        assert found["nested"] == {"a": [MASK], MASK: 1}
        assert VALUE not in calls[0].args[0]
        assert "Tr0ub4dor" not in calls[0].args[0]
        if processors[0] is not render:
            assert "ValueError" in json.dumps(found["exception"])


def test_an_exception_without_a_value_goes_on_to_the_next_processor(scrubber):
    try:
        float("plain")
    except ValueError:
        event = {"event": "x", "exc_info": sys.exc_info(), "o": 1}
    assert ScrubProcessor(scrubber)(None, "error", dict(event)) == event


def test_an_exception_stays_as_text_where_a_local_variable_has_a_value(scrubber):
    trace, render = structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()
    for local, clean in ((VALUE, False), ({"k": [VALUE]}, False), ("nothing", True)):
        log, calls = logger(ScrubProcessor(scrubber), trace, render)

        def fails(shown):
            return float("x" if shown else "y")

        try:
            fails(local)
        except ValueError:
            log.exception("failed")
        found = json.loads(calls[0].args[0])
        assert VALUE not in calls[0].args[0]
        assert "ValueError" in str(found["exception"])
        assert isinstance(found["exception"], list) is clean


def test_records_of_logging_behind_it_are_clean(scrubber):
    record = logging.makeLogRecord({"msg": "a %s", "args": (VALUE,)})
    ScrubProcessor(scrubber)(None, "info", {"event": "x", "_record": record})
    assert record.getMessage() == f"a {MASK}"


def test_what_fails_is_withheld(scrubber, monkeypatch):
    processor = ScrubProcessor(scrubber)
    monkeypatch.setattr(processor, "_clean", lambda _event: 1 / 0)
    assert processor(None, "info", {"event": VALUE}) == {"event": WITHHELD}
