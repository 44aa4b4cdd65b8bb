"""Heads are read in one way or refused; what we write, other parsers read as we meant it."""

from __future__ import annotations

import h11
import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhole.core.errors import InvalidRequest
from keyhole.net.http1.grammar import (
    LastFields,
    Malformed,
    check_partial_head,
    check_request_line,
    list_tokens,
    parse_answer_head,
    parse_request_head,
)
from keyhole.net.http1.limits import REQUEST_LIMITS, WireLimits
from keyhole.net.http1.serialise import serialise_answer, serialise_request

HEAD = b"GET /a?b=%20c HTTP/1.1\r\nHost: a.test\r\nX-Two:  spaced \t\r\nx-empty:\r\nX-High: caf\xe9\r\n\r\n"


def _parse(head: bytes, limits: WireLimits = REQUEST_LIMITS):
    return parse_request_head(head, limits)


def test_names_are_folded_and_values_trimmed() -> None:
    head = _parse(HEAD)
    assert (head.method, head.target, head.minor) == ("GET", b"/a?b=%20c", 1)
    assert head.headers == [(b"host", b"a.test"), (b"x-two", b"spaced"), (b"x-empty", b""), (b"x-high", b"caf\xe9")]


def test_a_head_without_headers_is_a_head() -> None:
    assert _parse(b"GET / HTTP/1.0\r\n\r\n").headers == []


@pytest.mark.parametrize("byte", [bytes((code,)) for code in [*range(9), *range(10, 32), 127]])
@pytest.mark.parametrize("place", [b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nX: a%bb\r\n\r\n"])
def test_no_control_byte_passes(place: bytes, byte: bytes) -> None:
    with pytest.raises(Malformed):
        _parse(place % byte)


@pytest.mark.parametrize(
    "line",
    [
        b"get / HTTP/1.1",
        b"Get / HTTP/1.1",
        b"GET  / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"GET /\tHTTP/1.1",
        b"GET / HTTP/1.2",
        b"GET / HTTP/2.0",
        b"GET / http/1.1",
        b"GET / HTTP/01.1",
        b"GET /",
        b" GET / HTTP/1.1",
        b"G(T / HTTP/1.1",
        b"GET /#f HTTP/1.1",
        b"G" * 33 + b" / HTTP/1.1",
    ],
)
def test_a_request_line_has_one_form(line: bytes) -> None:
    with pytest.raises(Malformed):
        _parse(line + b"\r\nHost: a\r\n\r\n")
    with pytest.raises(Malformed):
        check_request_line(line + b"\r\n")


@pytest.mark.parametrize(
    "field",
    [
        b"Name : v",
        b"Na me: v",
        b": v",
        b"no-colon",
        b" Folded: v",
        b"A: b\r\n c",
        b"A: b\nC: d",
        b"A: b\rC: d",
        b"N\xc3\xa9: v",
        b"(x): v",
        b"Transfer_Encoding: chunked",
        b"content_length: 5",
        b"Transfer_encoding: chunked",
        b"X_HTTP-Method_Override: DELETE",
        b"X-HTTP-Method_Override: DELETE",
        b"X_Original-URL: /admin",
    ],
)
def test_a_header_line_has_one_form(field: bytes) -> None:
    with pytest.raises(Malformed):
        _parse(b"GET / HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n\r\n")


@pytest.mark.parametrize("name", [b"Host", b"Content-Length", b"Transfer-Encoding", b"Expect", b"Proxy-Authorization"])
def test_what_may_stand_once_stands_once(name: bytes) -> None:
    with pytest.raises(Malformed):
        _parse(b"GET / HTTP/1.1\r\n%b: 5\r\n%b: 5\r\n\r\n" % (name, name.lower()))


@pytest.mark.parametrize(
    ("limits", "head"),
    [
        (WireLimits(headers=2), b"GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n"),
        (WireLimits(target_bytes=3), b"GET /abc HTTP/1.1\r\n\r\n"),
        (WireLimits(value_bytes=40), b"GET / HTTP/1.1\r\nA: " + b"a" * 41 + b"\r\n\r\n"),
    ],
)
def test_limits_refuse_and_never_cut(limits: WireLimits, head: bytes) -> None:
    with pytest.raises(Malformed):
        _parse(head, limits)


@pytest.mark.parametrize("reason", [b" OK", b" ", b"", b" Caf\xe9 au lait"])
def test_a_reason_phrase_may_be_anything_printable_or_missing(reason: bytes) -> None:
    assert parse_answer_head(b"HTTP/1.1 200%b\r\n\r\n" % reason, REQUEST_LIMITS).reason == reason[1:]


@pytest.mark.parametrize(
    "line", [b"HTTP/1.1 2000 OK", b"HTTP/1.1 99 X", b"HTTP/1.1 600 X", b"HTTP/2 200", b"ICY 200 OK"]
)
def test_a_status_line_has_one_form(line: bytes) -> None:
    with pytest.raises(Malformed):
        parse_answer_head(line + b"\r\n\r\n", REQUEST_LIMITS)


def test_a_list_of_tokens_spans_header_lines_and_holds_tokens_only() -> None:
    headers = [(b"connection", b"close, X-A"), (b"x", b"y"), (b"connection", b",,Keep-Alive")]
    assert list_tokens(headers, b"connection") == [b"close", b"x-a", b"keep-alive"]
    with pytest.raises(Malformed):
        list_tokens([(b"connection", b"a b")], b"connection")


def test_a_partial_head_is_refused_as_soon_as_no_further_byte_could_save_it() -> None:
    for end in range(len(HEAD)):
        check_partial_head(HEAD[:end])
    for bad in (b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nA: b\rc", b"GET /\0", b"\nGET"):
        with pytest.raises(Malformed):
            check_partial_head(bad)
        with pytest.raises(Malformed):
            _drip(bad)


def _drip(data: bytes) -> None:
    for start in range(len(data)):
        check_partial_head(data[: start + 1], start)


def _llhttp(head: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
    seen: list = []

    class Events:
        def on_url(self, url: bytes) -> None:
            seen.append(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            seen.append((name.lower(), value.strip()))

    parser = httptools.HttpRequestParser(Events())
    parser.feed_data(head)
    return parser.get_method(), seen[0], seen[1:]


_names = st.from_regex(r"\Ax-[a-z0-9!#$%&'*+.^`|~-]{1,10}\Z").map(str.encode)
_values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20).map(str.encode)
_targets = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=20)


@given(st.sampled_from(["GET", "POST", "DELETE"]), _targets, st.lists(st.tuples(_names, _values), max_size=5))
def test_other_parsers_read_what_we_write_as_we_meant_it(
    method: str, target: str, headers: list[tuple[bytes, bytes]]
) -> None:
    head = serialise_request(method, b"/" + target.encode(), b"a.test", headers, b"Content-Length: 0\r\n")
    expected = [(b"host", b"a.test"), *headers, (b"content-length", b"0")]
    assert _llhttp(head) == (method.encode(), b"/" + target.encode(), expected)
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target, list(event.headers)) == (method.encode(), b"/" + target.encode(), expected)
    ours = _parse(head)
    assert (ours.method, ours.target, ours.headers) == (method, b"/" + target.encode(), expected)


@given(st.binary(max_size=120))
def test_whatever_we_accept_llhttp_reads_in_the_same_way(noise: bytes) -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + noise + b"\r\n\r\n"
    end = raw.index(b"\r\n\r\n") + 4
    try:
        ours = _parse(raw[:end])
    except Malformed:
        return
    if b"transfer-encoding" in ours.fields or b"content-length" in ours.fields or b"upgrade" in ours.fields:
        return
    assert _llhttp(raw[:end]) == (b"GET", b"/", ours.headers)


@pytest.mark.parametrize("value", [b"a\r\nX: b", b"a\nb", b"a\rb", b"a\0b", b"\r\n\r\nGET /"])
def test_no_value_can_add_a_line_to_what_we_write(value: bytes) -> None:
    with pytest.raises(InvalidRequest):
        serialise_request("GET", b"/", b"a", [(b"authorization", value)], b"")
    with pytest.raises(InvalidRequest):
        serialise_answer(200, b"OK", [(b"x", value)], b"")
    with pytest.raises(InvalidRequest):
        serialise_answer(200, value, [], b"")
    for target in (b"/" + value, b"/a b", b"a", b"", b"/\xc3\xa9"):
        with pytest.raises(InvalidRequest):
            serialise_request("GET", target, b"a", [], b"")
    for name in (b"x y", b"x:", b"", value):
        with pytest.raises(InvalidRequest):
            serialise_request("GET", b"/", b"a", [(name, b"v")], b"")
    with pytest.raises(InvalidRequest):
        serialise_request("get", b"/", b"a", [], b"")


def test_framing_and_hop_by_hop_headers_are_never_copied() -> None:
    headers = [(b"host", b"evil"), (b"content-length", b"9"), (b"te", b"x"), (b"upgrade", b"h2c"), (b"expect", b"x")]
    head = serialise_request("GET", b"/", b"a.test", [*headers, (b"accept", b"*/*")], b"")
    assert head == b"GET / HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\n\r\n"


def test_what_a_client_sent_before_never_stands_in_for_what_it_sends_now():
    last = LastFields()
    heads = [
        b"GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"GET /2 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"GET /3 HTTP/1.1\r\nHost: a.test\r\nX-More: 1\r\n\r\n",
        b"GET /4 HTTP/1.1\r\nHost: b.test\r\n\r\n",
        b"GET /5 HTTP/1.1\r\nHost: a.test\r\nX-Long: " + b"l" * 5000 + b"\r\n\r\n",
        b"GET /6 HTTP/1.1\r\nHost: a.test\r\nX-Long: " + b"m" * 5000 + b"\r\n\r\n",
        b"GET /7 HTTP/1.1\r\n\r\n",
        b"GET /8 HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ]
    for head in heads:
        assert parse_request_head(head, REQUEST_LIMITS, last) == parse_request_head(head, REQUEST_LIMITS)


def test_a_malformed_head_is_refused_whatever_came_before_it():
    last = LastFields()
    bad = b"GET / HTTP/1.1\r\nHost: a.test\r\n folded: x\r\n\r\n"
    for head in (bad, b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", bad, bad):
        if head is bad:
            with pytest.raises(Malformed):
                parse_request_head(head, REQUEST_LIMITS, last)
        else:
            assert parse_request_head(head, REQUEST_LIMITS, last).fields == {b"host": b"a.test"}
