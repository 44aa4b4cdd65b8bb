from __future__ import annotations

import hpack
import pytest

from keyhole.net.http2.fields import FieldDecoder, encode_fields
from keyhole.net.http2.frames import ConnectionFault
from keyhole.net.http2.limits import Http2Limits

FIELDS = [
    (b":method", b"GET"),
    (b":path", b"/a/b?c"),
    (b"x-note", b"\xff\xfe"),
    (b"cookie", b"a=1"),
    (b"x-long", b"v" * 5000),
    (b"x-empty", b""),
]


def test_what_the_library_encodes_is_read_the_same_however_it_is_indexed() -> None:
    encoder, decoder = hpack.Encoder(), FieldDecoder(Http2Limits())
    for turn in range(5):
        fields = [*FIELDS, (b"x-turn", b"%d" % (turn // 2))]
        assert decoder.decode(encoder.encode(fields, huffman=bool(turn % 2))) == fields


def test_what_we_encode_is_read_the_same_by_the_library_and_enters_no_table() -> None:
    decoder = hpack.Decoder()
    for status in (200, 204, 404, 418, 599):
        fields = [(b"content-type", b"text/plain"), (b"x-own", b"v" * 300), (b"set-cookie", b"a=1"), (b"x", b"")]
        block = encode_fields(fields, status)
        assert decoder.decode(block, raw=True) == [(b":status", b"%d" % status), *fields]
    assert not decoder.header_table.dynamic_entries


@pytest.mark.parametrize("size", [126, 127, 128, 254, 255, 16_383, 16_510])
def test_lengths_at_the_edges_of_an_integer_are_read_the_same(size: int) -> None:
    assert hpack.Decoder(10**6).decode(encode_fields([(b"x", b"v" * size)]), raw=True) == [(b"x", b"v" * size)]


def test_a_table_that_is_larger_than_allowed_is_refused_once_the_client_knows() -> None:
    encoder, decoder = hpack.Encoder(), FieldDecoder(Http2Limits(table_bytes=100))
    assert decoder.decode(encoder.encode(FIELDS[:2])) == FIELDS[:2]
    decoder.settled()
    with pytest.raises(ConnectionFault):
        decoder.decode(encoder.encode(FIELDS[:2]))
