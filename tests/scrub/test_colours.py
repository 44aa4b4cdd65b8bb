"""A value that a program prints in colours is one value."""

import base64
import json

import pytest

from keyhole.scrub import Scrubber

VALUE = b"sk_live_Zm9vYmFyQ7xW2pLk"
SCRUBBER = Scrubber.compile([VALUE])
COLOURED = {
    "one change": VALUE[:9] + b"\x1b[31m" + VALUE[9:],
    "each letter": b"".join(b"\x1b[1;38;5;%dm%c\x1b[0m" % (i, byte) for i, byte in enumerate(VALUE)),
    "to the end of the line": VALUE[:5] + b"\x1b[0m\x1b[K" + VALUE[5:],
    "back as xterm does it": VALUE[:9] + b"\x1b[31m" + VALUE[9:15] + b"\x1b(B\x1b[m" + VALUE[15:],
    "back as the console of Linux does it": VALUE[:9] + b"\x1b[31m" + VALUE[9:15] + b"\x1b[0;10m\x0f" + VALUE[15:],
    "back without a colour": VALUE[:9] + b"\x1b(B" + VALUE[9:15] + b"\x1b(B" + VALUE[15:],
    "base64": base64.b64encode(VALUE)[:11] + b"\x1b[m" + base64.b64encode(VALUE)[11:],
    "in JSON": json.dumps({"m": (VALUE[:9] + b"\x1b[31m" + VALUE[9:]).decode()}).encode(),
    "in percent": b"sk%5Flive\x1b[31m%5F" + VALUE[8:],
}


@pytest.mark.parametrize("name", COLOURED)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_value_in_colours_is_masked_wherever_it_is_cut(name, size):
    before, after = b"\x1b[2m12:00\x1b[0m value=", b" \x1b[32mok\x1b[0m\n"
    check(name, size, before, after)
    check(name, size, b"value=", b"\n")


def check(name, size, before, after):
    text = before + COLOURED[name] + after
    stream = SCRUBBER.stream()
    out = b"".join([*(stream.feed(text[at : at + size]) for at in range(0, len(text), size)), stream.finish()])
    assert len(out) == len(text)
    assert out.startswith(before)
    assert out.endswith(after)
    left = bytes(b for b, was in zip(out, text, strict=True) if b == was and b != ord("*"))
    for part in (VALUE[4:12], VALUE[-8:], base64.b64encode(VALUE)[3:11]):
        assert part not in left.replace(b"\x1b[31m", b"")


def test_colours_of_others_are_left_alone_and_not_held_back():
    stream = SCRUBBER.stream()
    for text in (b"\x1b[31mred\x1b[0m\n", b"\x1b[", b"12;3m ", b"\x1b[2K\x1b[1A\x1b]0;title\x07", b"end \x1b"):
        assert stream.feed(text) == text
    assert stream.finish() == b""
