"""Frames are read in exactly one way, however they arrive; whatever could be read in another way is an error."""

from __future__ import annotations

import os
import random
import struct

import pytest
from websockets import frames as oracle
from websockets.streams import StreamReader

from keyhole.net.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    FrameError,
    FrameLimits,
    FrameReader,
    Mask,
    Piece,
    close_payload,
    encode,
    encode_head,
)

KEY = b"\x37\xfa\x21\x3d"  # of the examples in RFC 6455 section 5.7
SMALL = FrameLimits(frame=1000, message=2000, fragments=5)


def read(*chunks: bytes, masked: bool = False, limits: FrameLimits | None = None) -> list[Piece]:
    reader = FrameReader(masked=masked, limits=limits or FrameLimits())
    pieces = []
    for chunk in chunks:
        reader.add(chunk)
        while (piece := reader.next()) is not None:
            pieces.append(piece)
    return pieces


def frames(pieces: list[Piece]) -> list[tuple[int, bool, bytes]]:
    """Pieces put together to frames again."""
    whole: list[tuple[int, bool, bytes]] = []
    data = b""
    for piece in pieces:
        data = piece.data if piece.begins else data + piece.data
        if piece.ends:
            assert len(data) == piece.length
            whole.append((piece.opcode, piece.fin, data))
    return whole


def singly(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


# The examples of RFC 6455 section 5.7.
EXAMPLES = {
    "text": ("810548656c6c6f", False, [(TEXT, True, b"Hello")]),
    "masked text": ("818537fa213d7f9f4d5158", True, [(TEXT, True, b"Hello")]),
    "fragmented text": ("010348656c80026c6f", False, [(TEXT, False, b"Hel"), (TEXT, True, b"lo")]),
    "ping": ("890548656c6c6f", False, [(PING, True, b"Hello")]),
    "masked pong": ("8a8537fa213d7f9f4d5158", True, [(PONG, True, b"Hello")]),
    "256 bytes": ("827e0100" + "61" * 256, False, [(BINARY, True, b"a" * 256)]),
    "64 KiB": ("827f0000000000010000" + "61" * 65536, False, [(BINARY, True, b"a" * 65536)]),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_the_rfc_are_read_whole_and_byte_by_byte(name: str) -> None:
    data, masked, expected = EXAMPLES[name]
    raw = bytes.fromhex(data)
    assert frames(read(raw, masked=masked)) == expected
    assert frames(read(*singly(raw), masked=masked)) == expected


WRONG = {
    "reserved bit 1": b"\xc1\x00",
    "reserved bit 2": b"\xa1\x00",
    "reserved bit 3": b"\x91\x00",
    "unknown data opcode": b"\x83\x00",
    "unknown control opcode": b"\x8b\x00",
    "fragmented ping": b"\x09\x00",
    "fragmented close": b"\x08\x00",
    "long ping": b"\x89\x7e\x00\x7e" + bytes(126),
    "long close": b"\x88\x7f" + struct.pack(">Q", 70_000),
    "length 125 in 16 bits": b"\x82\x7e\x00\x7d" + bytes(125),
    "length 0 in 64 bits": b"\x82\x7f" + bytes(8),
    "length 65535 in 64 bits": b"\x82\x7f" + struct.pack(">Q", 65535),
    "length with the top bit": b"\x82\x7f" + struct.pack(">Q", 1 << 63),
    "continuation of nothing": b"\x80\x00",
    "continuation after the end": b"\x81\x00\x80\x00",
    "message within a message": b"\x01\x00\x81\x00",
    "binary within text": b"\x01\x00\x02\x00",
    "masked by a server": b"\x81\x80" + KEY,
    "half a close code": b"\x88\x01\x03",
    "close code 0": b"\x88\x02\x00\x00",
    "close code 999": b"\x88\x02" + struct.pack(">H", 999),
    "close code 1004": b"\x88\x02" + struct.pack(">H", 1004),
    "close code 1005": b"\x88\x02" + struct.pack(">H", 1005),
    "close code 1006": b"\x88\x02" + struct.pack(">H", 1006),
    "close code 1015": b"\x88\x02" + struct.pack(">H", 1015),
    "close code 2999": b"\x88\x02" + struct.pack(">H", 2999),
    "close code 5000": b"\x88\x02" + struct.pack(">H", 5000),
}


@pytest.mark.parametrize("name", WRONG)
def test_frame_that_breaks_the_protocol_is_refused(name: str) -> None:
    for chunks in ([WRONG[name]], singly(WRONG[name])):
        with pytest.raises(FrameError) as caught:
            read(*chunks)
        assert caught.value.close == 1002


def test_frame_of_a_client_without_a_mask_is_refused() -> None:
    with pytest.raises(FrameError):
        read(b"\x81\x05Hello", masked=True)


def test_a_bad_first_byte_is_refused_before_the_rest_is_there() -> None:
    for byte in (b"\xc1", b"\x83", b"\x09", b"\x80"):
        with pytest.raises(FrameError):
            read(byte)


@pytest.mark.parametrize(
    "data",
    [
        encode_head(BINARY, 1001),
        encode_head(BINARY, 1 << 62),
        encode(TEXT, bytes(900), fin=False) + encode(CONTINUATION, bytes(900), fin=False) + encode_head(0, 201),
        encode(TEXT, b"", fin=False) + encode(CONTINUATION, b"", fin=False) * 5,
    ],
    ids=["frame", "2^62", "message", "fragments"],
)
def test_frame_or_message_over_its_limit_is_refused_as_too_big(data: bytes) -> None:
    with pytest.raises(FrameError) as caught:
        read(data, limits=SMALL)
    assert caught.value.close == 1009


def test_limits_count_each_message_anew_and_no_control_frames() -> None:
    message = encode(TEXT, bytes(900), fin=False) + encode(PING, bytes(125)) * 9 + encode(CONTINUATION, bytes(900))
    assert len(frames(read(message * 20, limits=SMALL))) == 20 * 11


def test_control_frames_pass_between_the_fragments_of_a_message() -> None:
    data = encode(TEXT, b"ab", fin=False) + encode(PING, b"?") + encode(CONTINUATION, b"cd")
    assert frames(read(data)) == [(TEXT, False, b"ab"), (PING, True, b"?"), (TEXT, True, b"cd")]


def test_close_frame_with_or_without_a_code_ends_the_reading() -> None:
    reasons = [close_payload(4999, "reason"), close_payload(1014), close_payload(3000, "é" * 99)]
    for payload in (b"", b"\x03\xe8", *reasons):
        reader = FrameReader(masked=False, limits=SMALL)
        reader.add(encode(CLOSE, payload) + b"\xff garbage")
        piece = reader.next()
        assert piece is not None
        assert (piece.opcode, piece.data, reader.closed) == (CLOSE, payload, True)
        assert reader.next() is None


def test_reason_of_a_close_frame_is_cut_between_characters() -> None:
    payload = close_payload(1000, "é" * 99)
    assert len(payload) <= 125
    assert set(payload[2:].decode()) == {"é"}


def test_payload_leaves_before_its_frame_is_complete() -> None:
    reader = FrameReader(masked=False, limits=FrameLimits())
    reader.add(encode_head(BINARY, 100_000) + bytes(10))
    piece = reader.next()
    assert piece is not None
    assert (piece.data, piece.begins, piece.ends) == (bytes(10), True, False)
    assert reader.next() is None


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 125, 126, 65535, 65536])
def test_written_frames_are_those_of_another_library(size: int) -> None:
    payload = os.urandom(size)
    for opcode in (TEXT, BINARY, CONTINUATION):
        for fin in (True, False):
            expected = oracle.Frame(oracle.Opcode(opcode), payload, fin=fin).serialize(mask=False)
            assert encode(opcode, payload, fin=fin) == expected
            assert _read_by_oracle(encode(opcode, payload, fin=fin, mask=KEY)) == (opcode, fin, payload)


def _read_by_oracle(data: bytes) -> tuple[int, bool, bytes]:
    reader = StreamReader()
    reader.feed_data(data)
    parsing = oracle.Frame.parse(reader.read_exact, mask=True)
    with pytest.raises(StopIteration) as done:
        next(parsing)
    frame = done.value.value
    return int(frame.opcode), frame.fin, bytes(frame.data)


def test_mask_is_the_same_in_pieces_of_any_size() -> None:
    generator = random.Random(7)
    data = generator.randbytes(1000)
    whole = Mask(KEY).apply(data)
    assert whole == bytes(byte ^ KEY[at % 4] for at, byte in enumerate(data))
    for _ in range(50):
        mask, at, masked = Mask(KEY), 0, b""
        while at < len(data):
            size = generator.randint(0, 9)
            masked += mask.apply(data[at : at + size])
            at += size
        assert masked == whole


def test_random_conversations_are_read_the_same_in_any_chunks() -> None:
    generator = random.Random(6455)
    for _ in range(60):
        raw, expected = _conversation(generator)
        assert frames(read(raw, masked=True)) == expected
        chunks, at = [], 0
        while at < len(raw):
            size = generator.choice((1, 2, 3, 7, 100, 1000))
            chunks.append(raw[at : at + size])
            at += size
        assert frames(read(*chunks, masked=True)) == expected


def _conversation(generator: random.Random) -> tuple[bytes, list[tuple[int, bool, bytes]]]:
    raw, expected = b"", []
    for _ in range(6):
        opcode = generator.choice((TEXT, BINARY))
        count = generator.randint(1, 4)
        for number in range(count):
            if generator.random() < 0.3:
                payload = generator.randbytes(generator.randint(0, 125))
                raw += encode(PING, payload, mask=generator.randbytes(4))
                expected.append((PING, True, payload))
            payload = generator.randbytes(generator.choice((0, 1, 125, 126, 300)))
            fin = number == count - 1
            raw += encode(CONTINUATION if number else opcode, payload, fin=fin, mask=generator.randbytes(4))
            expected.append((opcode, fin, payload))
    return raw, expected


def test_random_bytes_never_do_anything_but_parse_or_be_refused() -> None:
    generator = random.Random(1)
    for _ in range(3000):
        data = generator.randbytes(generator.randint(1, 40))
        try:
            pieces = read(data)
        except FrameError:
            continue
        assert sum(len(piece.data) for piece in pieces) <= len(data)
