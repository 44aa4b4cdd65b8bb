"""Whole bodies: content codings, undeclared compression, bombs, and what the client may then rely on."""

import gzip
import json
import random
import tracemalloc
import zlib

import brotli
import pytest

from keyhole.core.errors import ScrubFailedClosed
from keyhole.scrub import Limits, Scrubber, accept_encoding, body

try:
    from compression import zstd
except ImportError:
    from backports import zstd

TOKEN = b"ghp_7Hq4LyjWDarjtT1zdp7dcAx+/=Qz~9!k"
SCRUBBER = Scrubber.compile([TOKEN])
NOISE = random.Random(5).randbytes(300_000)


def _raw_deflate(data):
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(data) + deflate.flush()


CODINGS = {
    "gzip": (gzip.compress, gzip.decompress),
    "x-gzip": (gzip.compress, gzip.decompress),
    "GZIP": (gzip.compress, gzip.decompress),
    "deflate": (zlib.compress, zlib.decompress),
    "deflate ": (_raw_deflate, lambda data: zlib.decompress(data, -15)),
    "br": (brotli.compress, brotli.decompress),
    "zstd": (zstd.compress, zstd.decompress),
    "identity, gzip": (gzip.compress, gzip.decompress),
    "gzip, br": (
        lambda data: brotli.compress(gzip.compress(data)),
        lambda data: gzip.decompress(brotli.decompress(data)),
    ),
    "br, deflate, zstd": (
        lambda data: zstd.compress(zlib.compress(brotli.compress(data))),
        lambda data: brotli.decompress(zlib.decompress(zstd.decompress(data))),
    ),
}


def _through(sent, coding=b"", size=1000, scrubber=SCRUBBER, limits=None):
    scrubbed = body(scrubber, coding, b"text/plain", limits)
    out = b"".join([scrubbed.feed(sent[at : at + size]) for at in range(0, len(sent), size)])
    return out + scrubbed.finish()


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_secret_in_an_encoded_body_is_masked_and_the_coding_is_kept(coding, size):
    encode, decode = CODINGS[coding]
    plain = b"x" * 3000 + TOKEN + b"y" * 3000
    got = _through(encode(plain), coding.encode(), size)
    assert decode(got) == b"x" * 3000 + b"*" * len(TOKEN) + b"y" * 3000
    assert body(SCRUBBER, coding.encode()).recoded


@pytest.mark.parametrize("coding", CODINGS)
def test_large_encoded_body_without_a_secret_has_the_same_content(coding):
    encode, decode = CODINGS[coding]
    assert decode(_through(encode(NOISE), coding.encode(), 16_384)) == NOISE


@pytest.mark.parametrize("coding", CODINGS)
def test_event_in_an_encoded_stream_arrives_before_the_next_one(coding):
    events = [b'data: {"n": %d}\n\n' % number for number in range(3)]
    names = [name.strip().lower() for name in coding.split(",") if name != "identity"]
    upstream, client = _Encoding(names, raw=coding.endswith(" ")), _Decoding(names, raw=coding.endswith(" "))
    scrubbed = body(SCRUBBER, coding.encode(), b"text/event-stream")
    for event in events:
        assert client.decode(scrubbed.feed(upstream.encode(event))) == event


class _Encoding:
    def __init__(self, names, *, raw):
        self.steps = [_encoder(name, raw) for name in names]

    def encode(self, data):
        for step in self.steps:
            data = step(data)
        return data


def _encoder(name, raw):
    if name == "br":
        compressor = brotli.Compressor()
        return lambda data: compressor.process(data) + compressor.flush()
    if name == "zstd":
        frame = zstd.ZstdCompressor()
        return lambda data: frame.compress(data, zstd.ZstdCompressor.FLUSH_BLOCK)
    deflate = zlib.compressobj(wbits=31 if "gzip" in name else -15 if raw else 15)
    return lambda data: deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)


class _Decoding:
    def __init__(self, names, *, raw):
        self.steps = [_decoder(name, raw) for name in reversed(names)]

    def decode(self, data):
        for step in self.steps:
            data = step(data)
        return data


def _decoder(name, raw):
    if name == "br":
        return brotli.Decompressor().process
    if name == "zstd":
        return zstd.ZstdDecompressor().decompress
    return zlib.decompressobj(31 if "gzip" in name else -15 if raw else 15).decompress


@pytest.mark.parametrize("size", [1, 50, 10_000])
def test_secret_across_gzip_members_is_masked(size):
    sent = gzip.compress(b"a" + TOKEN[:20]) + gzip.compress(TOKEN[20:] + b"b") + b"\0" * 16
    assert gzip.decompress(_through(sent, b"gzip", size)) == b"a" + b"*" * len(TOKEN) + b"b"


def test_secret_across_zstd_frames_is_masked():
    sent = zstd.compress(b"a" + TOKEN[:20]) + zstd.compress(TOKEN[20:] + b"b")
    assert zstd.decompress(_through(sent, b"zstd", 9)) == b"a" + b"*" * len(TOKEN) + b"b"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, br"])
@pytest.mark.parametrize("size", [1, 100_000])
def test_damaged_encoded_body_is_withheld(coding, size):
    whole = CODINGS[coding][0](b"some content " * 50)
    broken = [whole[:-3], whole + TOKEN, whole[: len(whole) // 2], b"plain text that is not encoded at all"]
    for sent in broken:
        with pytest.raises(ScrubFailedClosed):
            _through(sent, coding.encode(), size)


@pytest.mark.parametrize(
    "coding", ["xz", "compress", "dcb", "aws-chunked", "gzip, xz", ", ".join(["gzip"] * 10), "gzip;q=1"]
)
def test_unknown_coding_is_withheld_before_anything_is_sent(coding):
    with pytest.raises(ScrubFailedClosed) as refusal:
        body(SCRUBBER, coding.encode())
    assert refusal.value.hint


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_answer_without_a_body_stays_without_one(coding):
    assert _through(b"", coding.encode()) == b""


@pytest.mark.parametrize("coding", ["identity", "", "Identity , identity"])
def test_plain_body_keeps_its_length(coding):
    scrubbed = body(SCRUBBER, coding.encode())
    assert not scrubbed.recoded
    sent = b"a" * 100 + TOKEN + NOISE
    assert scrubbed.feed(sent) + scrubbed.finish() == b"a" * 100 + b"*" * len(TOKEN) + NOISE
    assert scrubbed.masked


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate"])
def test_bomb_is_withheld_in_bounded_memory(coding):
    block = bytes(1 << 20)
    if coding == "br":
        compressor = brotli.Compressor(quality=5)
        bomb = b"".join([compressor.process(block) for _ in range(200)]) + compressor.finish()
    elif coding == "zstd":
        frame = zstd.ZstdCompressor()
        bomb = b"".join([frame.compress(block) for _ in range(200)]) + frame.flush()
    else:
        deflate = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
        bomb = b"".join([deflate.compress(block) for _ in range(200)]) + deflate.flush()
    tracemalloc.start()
    try:
        with pytest.raises(ScrubFailedClosed):
            _through(bomb, coding.encode(), len(bomb))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


def test_bomb_inside_a_bomb_is_measured_by_what_was_received():
    inner = gzip.compress(bytes(100 << 20), 9)
    with pytest.raises(ScrubFailedClosed):
        _through(gzip.compress(inner, 9), b"gzip, gzip")


SKIPPED = b"\x50\x2a\x4d\x18" + bytes(4)


@pytest.mark.parametrize(
    ("coding", "sent"),
    [
        ("zstd", SKIPPED * 20_000),
        ("zstd", zstd.compress(b"") * 20_000),
        ("gzip", gzip.compress(b"") * 20_000),
        ("zstd, gzip", gzip.compress(SKIPPED * 20_000)),
        ("", gzip.compress(b"") * 20_000),
        ("", zstd.compress(b"") * 20_000),
    ],
)
def test_a_body_of_countless_parts_with_nothing_in_them_is_withheld(coding, sent):
    with pytest.raises(ScrubFailedClosed, match="parts that are almost empty"):
        _through(sent, coding.encode(), size=65_536)


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress])
@pytest.mark.parametrize("coding", ["same", ""])
def test_many_small_parts_are_delivered(compress, coding):
    lines = [b"%d %b\n" % (number, bytes(random.Random(number).choices(b"abcdef", k=90))) for number in range(6000)]
    name = {gzip.compress: b"gzip", zstd.compress: b"zstd"}[compress] if coding else b""
    sent = b"".join(map(compress, lines))
    plain = _through(sent, name, size=65_536)
    undone = gzip.decompress(plain) if compress is gzip.compress else zstd.decompress(plain)
    assert undone == b"".join(lines)


def test_highly_compressible_but_small_body_is_delivered():
    plain = b"0" * (8 << 20)
    assert gzip.decompress(_through(gzip.compress(plain), b"gzip")) == plain


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress, lambda data: gzip.compress(data) + bytes(512)])
@pytest.mark.parametrize("size", [1, 3, 65_536])
def test_compressed_download_passes_byte_for_byte(compress, size):
    sent = compress(NOISE[:20_000] if size < 100 else NOISE)
    scrubbed = body(SCRUBBER, b"", b"application/gzip")
    got = b"".join([scrubbed.feed(sent[at : at + size]) for at in range(0, len(sent), size)]) + scrubbed.finish()
    assert got == sent
    assert not scrubbed.recoded


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress])
@pytest.mark.parametrize("at", [0, 150_000, 300_000])
@pytest.mark.parametrize("size", [997, 65_536])
def test_secret_in_a_compressed_download_is_withheld_before_it_can_be_decoded(compress, at, size):
    sent = compress(NOISE[:at] + TOKEN + NOISE[at:])
    scrubbed = body(SCRUBBER, b"", b"application/octet-stream")
    got = []

    def deliver():
        got.extend(scrubbed.feed(sent[place : place + size]) for place in range(0, len(sent), size))
        got.append(scrubbed.finish())

    with pytest.raises(ScrubFailedClosed):
        deliver()
    decoder = zlib.decompressobj(31) if compress is gzip.compress else zstd.ZstdDecompressor()
    assert TOKEN[:8] not in decoder.decompress(b"".join(got))


@pytest.mark.parametrize("first", range(0x50, 0x60))
@pytest.mark.parametrize("size", [1, 4, 65_536])
def test_download_that_begins_with_a_frame_of_zstd_that_is_skipped_is_looked_into(first, size):
    skipped = bytes((first,)) + b"\x2a\x4d\x18" + (9000).to_bytes(4, "little") + bytes(9000)
    clean = skipped + zstd.compress(NOISE[:9000]) + skipped + zstd.compress(b"")
    assert _through(clean, size=size) == clean
    with pytest.raises(ScrubFailedClosed):
        _through(skipped + zstd.compress(b"a" * 5000 + TOKEN * 9), size=size)


def test_secret_is_found_in_a_download_compressed_twice():
    with pytest.raises(ScrubFailedClosed):
        _through(gzip.compress(zstd.compress(b"key " + TOKEN)))
    with pytest.raises(ScrubFailedClosed):
        _through(zstd.compress(gzip.compress(b"key " + TOKEN)), b"zstd")


def test_endlessly_nested_download_is_withheld():
    sent = b"nothing"
    for _ in range(10):
        sent = gzip.compress(sent)
    with pytest.raises(ScrubFailedClosed):
        _through(sent)


BINARY = [
    b"PK\x03\x04",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"PACK\0\0\0\2",
    b"\x78\x9c",
    b"\x1f",
    b"\x1f\x8b",
    b"\x28\xb5\x2f",
]


@pytest.mark.parametrize("head", BINARY)
def test_other_binary_bodies_are_unchanged(head):
    assert _through(head, size=1) == head
    assert _through(head + b"\0" + NOISE, size=60_000) == head + b"\0" + NOISE


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 131_072, 65_536 + 258, 1 << 20])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_output_that_fills_its_buffer_exactly_is_complete(size, coding):
    encode, decode = CODINGS[coding]
    assert decode(_through(encode(bytes(size)), coding.encode(), 100_000)) == bytes(size)


def test_body_passes_untouched_when_there_is_nothing_to_scrub():
    scrubbed = body(Scrubber.compile([b"short"]), b"unheard-of")
    assert not scrubbed.recoded
    assert scrubbed.feed(b"anything") + scrubbed.finish() == b"anything"


def test_refusal_never_shows_content():
    with pytest.raises(ScrubFailedClosed) as refusal:
        _through(gzip.compress(json.dumps({"key": TOKEN.decode()}).encode()))
    assert "ghp" not in str(refusal.value)
    assert "ghp" not in repr(refusal.value)


def test_limits_are_the_callers_to_set():
    with pytest.raises(ScrubFailedClosed):
        _through(gzip.compress(bytes(100_000)), b"gzip", limits=Limits(free_output=10_000, max_ratio=20))
    with pytest.raises(ScrubFailedClosed):
        body(SCRUBBER, b"gzip, br", limits=Limits(max_codings=1))


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        (b"gzip, deflate, br, zstd", b"gzip, deflate, br, zstd"),
        (b"xz, dcb, exotic", b"identity"),
        (b"xz, GZip;q=0.5 , *;q=0.1", b"GZip;q=0.5"),
        (b"*", b"identity"),
        (b"", b"identity"),
        (b"identity;q=0, br", b"identity;q=0, br"),
        (b"compress, x-gzip", b"x-gzip"),
    ],
)
def test_only_codings_that_can_be_decoded_are_asked_for(asked, sent):
    assert accept_encoding(asked) == sent
