"""Frames on their way: no cut of any kind lets an echo through, and nothing but the echo is changed."""

from __future__ import annotations

import base64
import gzip
import json
import random
from pathlib import Path

import pytest

from broker.websocket_rig import frame, unframe
from keyhole.broker.frames import HELD, AnswerFrames, CallFrames
from keyhole.broker.watch import Tripped, Watch
from keyhole.core.errors import KeyholeError, ScrubFailedClosed
from keyhole.core.inject import Inject
from keyhole.core.placeholder import end_of, session_placeholder
from keyhole.injections.placeholder import in_frames
from keyhole.net.websocket import FrameError, FrameLimits
from keyhole.scrub import Scrubber

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
SECRET = b"sk_live_51H8xKeyholeCanary9Zq7"
SCRUBBER = Scrubber.compile([SECRET])
MASKED = b"*" * len(SECRET)
CASES = Path(__file__).parents[1] / "data/redaction/websocket_cases.jsonl"


def through(frames: AnswerFrames | CallFrames, *chunks: bytes) -> bytes:
    out = b""
    for chunk in chunks:
        frames.add(chunk)
        more = True
        while more:
            data, more = frames.take()
            out += data
    return out


def answers(*chunks: bytes, scrubber: Scrubber | None = SCRUBBER) -> list[tuple[int, bool, bytes]]:
    return unframe(through(AnswerFrames(scrubber, FrameLimits()), *chunks))


def message(frames: list[tuple[int, bool, bytes]]) -> bytes:
    return b"".join(payload for opcode, _, payload in frames if opcode < CLOSE)


@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
def test_echo_is_masked_in_a_frame_of_any_kind_and_the_length_stays(opcode: int) -> None:
    code = b"\x03\xe8" if opcode == CLOSE else b""
    assert answers(frame(opcode, code + b"a " + SECRET + b" b")) == [(opcode, True, code + b"a " + MASKED + b" b")]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_echo_cut_into_two_fragments_at_any_place_is_masked(opcode: int) -> None:
    payload = b"key: " + SECRET + b"!"
    for at in range(len(payload) + 1):
        for between in (b"", frame(PING, b"?")):
            raw = frame(opcode, payload[:at], fin=False) + between + frame(0, payload[at:])
            whole = answers(raw)
            assert message(whole) == b"key: " + MASKED + b"!"
            assert next(one for one, _, _ in whole if one < CLOSE) == opcode
            assert (PING, True, b"?") in whole or not between
            assert message(answers(*[raw[n : n + 1] for n in range(len(raw))])) == b"key: " + MASKED + b"!"


def test_echo_cut_by_the_network_at_any_place_is_masked() -> None:
    raw = frame(TEXT, b"key: " + SECRET + b"!") + frame(PING, SECRET) + frame(BINARY, bytes(200) + SECRET)
    for at in range(len(raw) + 1):
        whole = answers(raw[:at], raw[at:])
        assert whole == [
            (TEXT, True, b"key: " + MASKED + b"!"),
            (PING, True, MASKED),
            (BINARY, True, bytes(200) + MASKED),
        ]


def test_echo_a_byte_a_fragment_is_masked() -> None:
    pieces = [SECRET[at : at + 1] for at in range(len(SECRET))]
    raw = frame(TEXT, b"", fin=False) + b"".join(frame(0, piece, fin=False) for piece in pieces) + frame(0, b"")
    whole = answers(raw)
    assert message(whole) == MASKED
    assert whole[-1][1]
    assert [opcode for opcode, _, _ in whole] == [TEXT] + [0] * (len(whole) - 1)


def test_an_echo_does_not_reach_from_one_message_into_another() -> None:
    half = len(SECRET) // 2
    whole = answers(frame(TEXT, SECRET[:half]) + frame(TEXT, SECRET[half:]))
    assert [payload for _, _, payload in whole] == [SECRET[:half], SECRET[half:]]  # as docs/scrubbing.md says


def test_nothing_is_held_back_when_a_message_has_ended() -> None:
    frames = AnswerFrames(SCRUBBER, FrameLimits())
    raw = frame(TEXT, b"ends like " + SECRET[:4])
    assert through(frames, raw) == raw


def test_what_cannot_begin_an_echo_leaves_with_its_fragment() -> None:
    frames = AnswerFrames(SCRUBBER, FrameLimits())
    first = frame(TEXT, b"hello ", fin=False)
    assert through(frames, first) == first
    assert unframe(through(frames, frame(0, b"then " + SECRET[:5], fin=False))) == [(0, False, b"then ")]
    assert unframe(through(frames, frame(0, b"!"))) == [(0, True, SECRET[:5] + b"!")]


def test_frames_without_an_echo_are_byte_for_byte_what_they_were() -> None:
    generator = random.Random(3)
    for _ in range(200):
        raw = b""
        count = generator.randint(1, 3)
        for number in range(count):
            payload = bytes(generator.choices(b"abcdefgh ", k=generator.choice((0, 1, 130, 70_000))))
            raw += frame(0 if number else TEXT, payload + b".", fin=number == count - 1) + frame(PING, b"x")
        at = generator.randint(0, len(raw))
        assert through(AnswerFrames(SCRUBBER, FrameLimits()), raw) == raw
        assert message(answers(raw[:at], raw[at:])) == message(unframe(raw))
        assert through(AnswerFrames(None, FrameLimits()), raw) == raw


def test_long_frames_stream_and_keep_their_length() -> None:
    frames = AnswerFrames(SCRUBBER, FrameLimits())
    size = 4 << 20
    raw = frame(BINARY, b"." * (size - 100) + SECRET + b"." * (100 - len(SECRET)))
    out = b""
    for at in range(0, len(raw), 10_000):
        out += through(frames, raw[at : at + 10_000])
        assert len(raw[: at + 10_000]) - len(out) < 1000
    [(opcode, fin, payload)] = unframe(out)
    assert (opcode, fin, len(payload), payload.count(b"*")) == (BINARY, True, size, len(SECRET))


def test_a_compressed_message_with_an_echo_inside_is_withheld() -> None:
    frames = AnswerFrames(SCRUBBER, FrameLimits())
    with pytest.raises(ScrubFailedClosed):
        through(frames, frame(BINARY, gzip.compress(b"{" + SECRET + b"}")))


def test_what_came_before_a_broken_frame_is_delivered() -> None:
    frames = AnswerFrames(SCRUBBER, FrameLimits())
    frames.add(frame(TEXT, b"good") + b"\xff\xff")
    assert frames.take() == (frame(TEXT, b"good"), True)
    with pytest.raises(FrameError):
        frames.take()


@pytest.mark.parametrize(
    "row", [json.loads(line) for line in CASES.read_text().splitlines()], ids=lambda row: row["name"]
)
def test_rows_of_the_corpus_that_are_about_frames_are_masked(row: dict) -> None:
    if row["where"] == "ws-deflate":
        with pytest.raises(FrameError):  # no extension is agreed on, so its bit is an error; see the handshake's tests
            answers(b"\xc1" + frame(TEXT, b"xxxx")[1:])
        return
    secret, payload = row["secret"].encode(), base64.b64decode(row["body_b64"])
    opcode = {"ws-text": TEXT, "ws-binary": BINARY, "ws-close": CLOSE}[row["where"]]
    code = b"\x03\xe8" if opcode == CLOSE else b""
    [(_, _, clean)] = answers(frame(opcode, code + payload), scrubber=Scrubber.compile([secret]))
    assert secret in payload
    assert clean == code + payload.replace(secret, b"*" * len(secret))


# To the upstream.


def calls(*chunks: bytes, change: object = None) -> list[tuple[int, bool, bytes]]:
    return unframe(through(CallFrames(FrameLimits(), change), *chunks))  # type: ignore[arg-type]


def test_frames_of_a_client_keep_their_content_and_get_another_mask() -> None:
    payload = bytes(range(256)) * 10
    raw = frame(TEXT, payload, fin=False, mask=True) + frame(PING, b"?", mask=True) + frame(0, b"end", mask=True)
    sent = [through(CallFrames(FrameLimits()), raw) for _ in range(2)]
    assert unframe(sent[0]) == unframe(sent[1]) == unframe(raw)
    assert len({raw, *sent}) == 3
    assert calls(*[raw[at : at + 1] for at in range(len(raw))]) == unframe(raw)


HOW = Inject.from_data({"kind": "placeholder", "text": "PLACEHOLDER-1", "in": ["frame"]})
VALUE = b'se"cret\\with-quotes'


def put_in(text: bytes) -> bytes:
    return in_frames(text, HOW, VALUE)


def test_placeholder_is_replaced_in_a_text_message_however_it_is_cut() -> None:
    payload = b"token PLACEHOLDER-1, and PLACEHOLDER-1."
    expected = b"token %b, and %b." % (VALUE, VALUE)
    for at in range(len(payload) + 1):
        raw = frame(TEXT, payload[:at], fin=False, mask=True) + frame(0, payload[at:], mask=True)
        assert calls(raw, change=put_in) == [(TEXT, True, expected)]


def test_placeholder_in_json_is_replaced_as_json_asks_for() -> None:
    sent = calls(frame(TEXT, b'{"type": "auth", "token": "PLACEHOLDER-1"}', mask=True), change=put_in)
    assert json.loads(sent[0][2]) == {"type": "auth", "token": VALUE.decode()}


def test_placeholder_in_a_binary_message_stays() -> None:
    assert calls(frame(BINARY, b"PLACEHOLDER-1", mask=True), change=put_in) == [(BINARY, True, b"PLACEHOLDER-1")]


def test_control_frames_pass_while_a_message_is_held() -> None:
    frames = CallFrames(FrameLimits(), put_in)
    raw = frame(TEXT, b"PLACE", fin=False, mask=True) + frame(PING, b"?", mask=True)
    assert unframe(through(frames, raw)) == [(PING, True, b"?")]
    assert unframe(through(frames, frame(0, b"HOLDER-1", mask=True))) == [(TEXT, True, VALUE)]


def test_message_that_is_too_long_to_be_held_is_refused_and_a_binary_one_streams() -> None:
    frames = CallFrames(FrameLimits(), put_in)
    with pytest.raises(FrameError) as caught:
        through(frames, frame(TEXT, b"a" * (HELD + 1), mask=True))
    assert caught.value.close == 1009
    assert len(calls(frame(BINARY, bytes(HELD + 1), mask=True), change=put_in)[0][2]) == HELD + 1


def test_secret_that_is_no_text_cannot_stand_in_a_text_frame() -> None:
    with pytest.raises(KeyholeError):
        in_frames(b"PLACEHOLDER-1", HOW, b"\xff\xfe\xfd")


# Watched on their way to the upstream.

KEY = b"key of the placeholders of an org"
FOREIGN = session_placeholder("keyhole_placeholder_0123456789abcdefghij", KEY, "another session").encode()


def sent(*chunks: bytes, own: bytes = b"") -> bytes:
    ends = frozenset({end_of(own.decode())}) if own else frozenset()
    watched = CallFrames(FrameLimits(), None, lambda: Watch(SCRUBBER, KEY, ends, place="frame"))
    return through(watched, *chunks)


def trickle(frames: CallFrames, raw: bytes, out: bytearray) -> None:
    for byte in range(len(raw)):
        out += through(frames, raw[byte : byte + 1])


@pytest.mark.parametrize("bad", [SECRET, base64.b64encode(SECRET), FOREIGN])
def test_message_with_what_must_not_leave_never_leaves_as_a_whole(bad: bytes) -> None:
    payload = b"note: " + bad + b"!"
    for at in range(1, len(payload)):
        for raw in (
            frame(TEXT, payload, mask=True),
            frame(TEXT, payload[:at], fin=False, mask=True) + frame(0, payload[at:], mask=True),
        ):
            watched = CallFrames(FrameLimits(), None, lambda: Watch(SCRUBBER, KEY, frozenset(), place="frame"))
            out = bytearray()
            with pytest.raises(Tripped):
                trickle(watched, raw, out)
            assert bad not in message(unframe(bytes(out)))
            assert bad[:12] not in message(unframe(bytes(out))) or bad == FOREIGN


@pytest.mark.parametrize("opcode", [PING, PONG])
def test_control_frame_with_what_must_not_leave_does_not_leave(opcode: int) -> None:
    with pytest.raises(Tripped):
        sent(frame(opcode, SECRET, mask=True))


def test_own_placeholder_may_stand_in_a_frame_where_its_service_says_so() -> None:
    payload = b"token " + FOREIGN
    assert message(unframe(sent(frame(TEXT, payload, mask=True), own=FOREIGN))) == payload


@pytest.mark.parametrize("seed", range(20))
def test_clean_messages_arrive_as_they_were_whatever_their_fragments(seed: int) -> None:
    draw = random.Random(seed)
    messages, raw = [], b""
    for _ in range(6):
        pieces = [draw.randbytes(draw.choice((0, 1, 30, 300, 70_000))) for _ in range(draw.randint(1, 4))]
        messages.append(b"".join(pieces))
        for number, piece in enumerate(pieces):
            opcode = BINARY if number == 0 else 0
            raw += frame(opcode, piece, fin=number == len(pieces) - 1, mask=True)
            raw += frame(PING, b"?", mask=True)
    cut = sorted(draw.randint(0, len(raw)) for _ in range(40))
    chunks = [raw[a:b] for a, b in zip([0, *cut], [*cut, len(raw)], strict=True)]
    found, current = [], b""
    for opcode, fin, payload in unframe(sent(*chunks)):
        if opcode < CLOSE:
            current += payload
            if fin:
                found.append(current)
                current = b""
    assert found == messages
