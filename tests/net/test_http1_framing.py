"""Bodies end where they say, however the bytes arrive."""

from __future__ import annotations

import itertools

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhole.net.http1.framing import ChunkedDecoder, Decoder, LengthDecoder, answer_decoder, request_decoder
from keyhole.net.http1.grammar import Malformed, parse_answer_head, parse_request_head
from keyhole.net.http1.limits import REQUEST_LIMITS, WireLimits


def _feed(decoder: Decoder, pieces: list[bytes]) -> bytes:
    payload = b""
    pieces = list(pieces)
    while pieces and not decoder.done:
        payload += decoder.feed(pieces.pop(0))
    decoder.surplus += b"".join(pieces)
    return payload


def _cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges) if end > start]


@given(
    st.lists(
        st.tuples(st.binary(min_size=1, max_size=40), st.sampled_from([b"", b";a", b';a="b"', b";\tx"])), max_size=6
    ),
    st.sampled_from([b"", b"X-T: 1\r\n", b"A: b\r\nC: d\r\n"]),
    st.lists(st.integers(0, 400), max_size=30),
)
def test_chunks_are_joined_however_they_are_cut(
    chunks: list[tuple[bytes, bytes]], trailers: bytes, places: list[int]
) -> None:
    wire = b"".join(b"%X%b\r\n%b\r\n" % (len(data), extension, data) for data, extension in chunks)
    wire += b"0\r\n" + trailers + b"\r\n" + b"NEXT"
    decoder = ChunkedDecoder(REQUEST_LIMITS)
    assert _feed(decoder, _cut(wire, places)) == b"".join(data for data, _ in chunks)
    assert decoder.done
    assert decoder.surplus == b"NEXT"


@given(st.binary(max_size=60))
def test_whatever_chunks_we_accept_h11_reads_in_the_same_way(noise: bytes) -> None:
    decoder = ChunkedDecoder(REQUEST_LIMITS)
    try:
        payload = decoder.feed(noise)
    except Malformed:
        return
    if not decoder.done:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + noise)
    connection.next_event()
    theirs = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        theirs += event.data
    assert theirs == payload
    assert connection.trailing_data[0] == decoder.surplus


@pytest.mark.parametrize(
    "wire",
    [
        b"g\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b" 1\r\n",
        b"1 \r\n",
        b"1\n",
        b"1\rX",
        b"\r\n",
        b";a\r\n",
        b"1;a\nb\r\n",
        b"1;a\0\r\n",
        b"1;\r\na\r\n",
        b"1;=a\r\na\r\n",
        b"1;a=\r\na\r\n",
        b"1;a b\r\na\r\n",
        b'1;a="b\r\na\r\n',
        b'1;a="b"c\r\na\r\n',
        b"1;a;\r\na\r\n",
        b"1\r\naX",
        b"1\r\na\n",
        b"1\r\naXY",
        b"2\r\nab\n\r",
        b"1\r\na\rX",
        b"00000000000000001\r\n",
        b"FFFFFFFFFFFFFFFF\r\n",
        b"1;" + b"a" * 300,
        b"0\r\nX: a\nGET / HTTP/1.1\r\n\r\n",
        b"0\r\n X: folded\r\n\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\nX: " + b"a" * 20_000,
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_broken_chunks_are_refused_also_byte_by_byte(wire: bytes, at_once: bool) -> None:
    decoder = ChunkedDecoder(REQUEST_LIMITS)
    with pytest.raises(Malformed):
        _feed(decoder, [wire] if at_once else [bytes((byte,)) for byte in wire])


def test_a_size_line_that_never_ends_is_bounded() -> None:
    decoder = ChunkedDecoder(WireLimits(chunk_extension_bytes=10))
    with pytest.raises(Malformed):
        _feed(decoder, [b"5;", *[b"a"] * 40])


def test_a_declared_length_is_passed_through_and_the_rest_kept() -> None:
    decoder = LengthDecoder(5)
    assert _feed(decoder, [b"he", b"lloNEXT"]) == b"hello"
    assert (decoder.done, decoder.surplus, decoder.length) == (True, b"NEXT", 5)
    with pytest.raises(Malformed):
        LengthDecoder(1).feed_eof()


def _request(lines: bytes, version: bytes = b"1.1") -> Decoder | None:
    head = parse_request_head(b"POST / HTTP/" + version + b"\r\n" + lines + b"\r\n", REQUEST_LIMITS)
    return request_decoder(head, REQUEST_LIMITS)


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding:\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Content-Length:\r\n",
        b"Content-Length: 5_0\r\n",
        b"Content-Length: \xb2\r\n",
        b"Content-Length: 9999999999999999\r\n",
    ],
)
def test_ambiguous_framing_is_refused_on_both_sides(lines: bytes) -> None:
    with pytest.raises(Malformed):
        _request(lines)
    head = parse_answer_head(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n", REQUEST_LIMITS)
    with pytest.raises(Malformed):
        answer_decoder(head, "GET", REQUEST_LIMITS)


def test_chunks_in_http10_are_refused() -> None:
    with pytest.raises(Malformed):
        _request(b"Transfer-Encoding: chunked\r\n", b"1.0")


@pytest.mark.parametrize(
    ("status", "method", "lines", "length"),
    [
        (200, "GET", b"Content-Length: 5\r\n", 5),
        (200, "GET", b"Transfer-Encoding: CHUNKED\r\n", None),
        (200, "GET", b"", None),
        (200, "HEAD", b"Content-Length: 5\r\n", -1),
        (204, "GET", b"Content-Length: 5\r\n", -1),
        (304, "GET", b"Transfer-Encoding: chunked\r\n", -1),
    ],
)
def test_an_answers_body_follows_from_method_status_and_framing(
    status: int, method: str, lines: bytes, length: int | None
) -> None:
    head = parse_answer_head(b"HTTP/1.1 %d X\r\n%b\r\n" % (status, lines), REQUEST_LIMITS)
    decoder = answer_decoder(head, method, REQUEST_LIMITS)
    assert (-1 if decoder is None else decoder.length) == length
