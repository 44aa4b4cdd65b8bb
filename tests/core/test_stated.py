"""What a request says of its work: W3C trace context, strictly read, and claims that never stand above the token's."""

import pytest

from keyhole.core.errors import InvalidRequest, PolicyDenied
from keyhole.core.identity import RunContext
from keyhole.core.stated import Stated, read_claims
from keyhole.core.trace import Trace, parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"00-{TRACE}-{SPAN}-00",
        f"00-{TRACE}-{SPAN}-ff",
        f"cc-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like",
        f"01-{TRACE}-{SPAN}-01-",
    ],
)
def test_a_traceparent_is_read(text):
    assert parse_traceparent(text)[:2] == (TRACE, SPAN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        GOOD.upper(),
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{TRACE}-{SPAN[:-1]}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0x",
        f"00-{TRACE}-{SPAN}-.0",
        f"00-{TRACE[:-1]}.-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f".0-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-what",
        f"cc-{TRACE}-{SPAN}-01.what",
        f"cc-{TRACE}-{SPAN}-01-" + "x" * 600,
        f" {GOOD}",
        f"{GOOD}\n",
        GOOD.replace("4", "\N{FULLWIDTH DIGIT FOUR}"),
    ],
)
def test_what_is_no_traceparent_is_no_trace(text):
    assert parse_traceparent(text) is None


def headers(*pairs):
    return [(name.encode(), value.encode()) for name, value in pairs]


def test_headers_say_where_a_request_comes_from():
    stated = Stated.of_headers(headers(("TraceParent", f" {GOOD}\t"), ("x-keyhole-context", "run=1%2F2;step=ch%C3%A4")))
    assert (stated.claims, stated.trace) == ({"run": "1/2", "step": "chä"}, Trace(TRACE, SPAN, "01"))
    assert Stated.of_headers(headers(("x-keyhole-context", stated.header()))) == stated
    assert Stated.of_headers(headers(("traceparent", "what"), ("baggage", "run=7"))) is None


def test_a_traceparent_that_stands_twice_is_none_and_the_nearest_one_counts():
    assert Stated.of_headers(headers(("traceparent", GOOD), ("traceparent", GOOD))) is None
    nearer = Stated.of_headers(
        headers(("x-keyhole-context", f"traceparent={GOOD}"), ("traceparent", GOOD.replace(SPAN, "1" * 16)))
    )
    assert nearer.trace.span == "1" * 16
    broken = Stated.of_headers(headers(("x-keyhole-context", f"traceparent={GOOD}"), ("traceparent", "?")))
    assert broken.trace.span == SPAN


@pytest.mark.parametrize(
    "text",
    [
        "run",
        "run=1;run=2",
        "agent=root",
        "caller=agent/other",
        "claimed=run",
        "trace=" + TRACE,
        "run=%ff",
        "run=a%0Ab",
        "run=" + "x" * 201,
        "run=" + "%41" * 2000,
        "=1",
    ],
)
def test_claims_that_cannot_be_read_are_refused(text):
    with pytest.raises(InvalidRequest):
        Stated.of_headers(headers(("x-keyhole-context", text)))


def test_claims_that_stand_twice_are_refused():
    with pytest.raises(InvalidRequest):
        Stated.of_headers(headers(("x-keyhole-context", "run=1"), ("x-keyhole-context", "run=2")))
    assert read_claims(" run=1 ; ;step= ") == {"run": "1", "step": ""}


def test_what_the_token_says_stays_and_what_the_request_says_is_marked():
    run = RunContext(workflow="nightly", run="4711")
    joined = Stated.of({"run": "9999", "step": "charge", "tool": "crm"}, GOOD).joined(run)
    assert joined == RunContext("nightly", "4711", "charge", "crm", "", "step,tool", TRACE, SPAN)
    assert Stated.of({"run": "4711"}).joined(run) == run


@pytest.mark.parametrize("person", ["bob@example.com", "jwt/alice", " JWT/alice"])
def test_nobody_but_the_owner_names_a_person_and_nobody_a_proved_one(person):
    stated = Stated.of({"on_behalf_of": person})
    for run in (RunContext(), RunContext(on_behalf_of="alice@example.com"), RunContext(on_behalf_of="jwt/carol")):
        with pytest.raises(PolicyDenied):
            stated.joined(run)
        if run.on_behalf_of or "jwt/" in person.lower():
            with pytest.raises(PolicyDenied):
                stated.joined(run, vouched=True)
    same = RunContext(on_behalf_of=person)
    assert stated.joined(same) == same


def test_a_token_that_is_made_has_the_trace_that_is_asked_for_and_no_claims():
    caller = RunContext(workflow="w", run="claimed", claimed="run", trace="1" * 32, span="2" * 16)
    assert caller.extended({}) == RunContext(workflow="w")
    assert caller.extended({"run": "2", "traceparent": GOOD}) == RunContext("w", "2", trace=TRACE, span=SPAN)
    with pytest.raises(InvalidRequest):
        caller.extended({"traceparent": "00-1-2-3"})
