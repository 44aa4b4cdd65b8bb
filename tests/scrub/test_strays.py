r"""Values behind what belongs to no escape: backslashes, ``%`` and ``&``; also values that themselves look escaped."""

import html
import json
import urllib.parse

import pytest

from keyhole.scrub import Scrubber

ORDINARY = "ghp_plainvalue1234"
LOOKS_ESCAPED = (
    "%41%42&lt;x\\u0041yz",  # stands for seven characters, too few to search for everywhere
    "%41%42&lt;x\\u0041yzABCDEFGHIJ",
    "%41%42%43",
    "%2541%2542<",
    "\\u0041\\u0042",
    "\\x41\\x42\\x43",
    "\\101\\102\\103",
    "&#00000065;",
    "&amp;lt;&#65;",
    "<x\\u0041yz12",
)
BEGINS_LIKE_THE_REST_OF_AN_ESCAPE = ('41abc<def"gh', 'nABC"<def>gh', "u0041abc<def", 'lt;abc<"defg', '#65;abc<"def')
SPELLINGS = {
    "json": lambda value: json.dumps(value)[1:-1],
    "json-safe": lambda value: json.dumps(value)[1:-1].replace("<", "\\u003c").replace("&", "\\u0026"),
    "u": lambda value: "".join(f"\\u{ord(char):04x}" for char in value),
    "u-upper": lambda value: "".join(f"\\u{ord(char):04X}" for char in value),
    "u-braces": lambda value: "".join(f"\\u{{{ord(char):x}}}" for char in value),
    "x": lambda value: "".join(f"\\x{ord(char):02x}" for char in value),
    "octal": lambda value: "".join(f"\\{ord(char):03o}" for char in value),
    "percent": lambda value: "".join(f"%{ord(char):02x}" for char in value),
    "percent-some": lambda value: urllib.parse.quote(value, safe=""),
    "percent-u": lambda value: "".join(f"%u{ord(char):04x}" for char in value),
    "html": html.escape,
    "html-numbers": lambda value: "".join(f"&#{ord(char)};" for char in value),
    "html-hex": lambda value: "".join(f"&#x{ord(char):x};" for char in value),
}
STRAYS = [*("\\" * count for count in (0, 1, 2, 3, 4, 7, 8, 15, 16, 63, 64)), "%", "&", "&#", "%u", "\\u"]


SCRUBBERS = {
    value: Scrubber.compile([value.encode()])
    for value in (ORDINARY, *LOOKS_ESCAPED, *BEGINS_LIKE_THE_REST_OF_AN_ESCAPE)
}


def _left(got, sent, begun):
    """How much of a spelled value is still to be seen."""
    assert len(got) == len(sent)
    return len(got[begun:].rstrip(b'"} ').replace(b"*", b""))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_value_is_masked_whatever_stands_before_it(spelling):
    for value, scrubber in SCRUBBERS.items():
        spelled = SPELLINGS[spelling](value).encode()
        # What a stray character has made part of another escape may be the first of the value's characters.
        most = len(SPELLINGS[spelling](value[:1]))
        for stray in STRAYS:
            before = b'{"a":"z' + stray.encode()
            sent = before + spelled + b' "}'
            assert _left(scrubber.text(sent), sent, len(before)) <= most, (value, stray)


@pytest.mark.parametrize("stray", ["\\", "\\" * 3, "%", "&#"])
@pytest.mark.parametrize("value", [ORDINARY, LOOKS_ESCAPED[0], LOOKS_ESCAPED[4], BEGINS_LIKE_THE_REST_OF_AN_ESCAPE[0]])
def test_a_value_behind_a_stray_character_is_masked_byte_by_byte(value, stray):
    for spelling in ("json", "u", "percent-some", "html"):
        before = b'{"a":"z' + stray.encode()
        sent = before + SPELLINGS[spelling](value).encode() + b' "}'
        stream = SCRUBBERS[value].stream()
        got = b"".join([stream.feed(sent[at : at + 1]) for at in range(len(sent))]) + stream.finish()
        assert _left(got, sent, len(before)) <= len(SPELLINGS[spelling](value[:1]))


@pytest.mark.parametrize("outer", SPELLINGS)
def test_a_value_that_looks_escaped_is_masked_in_two_layers(outer):
    for inner in SPELLINGS.values():
        for value in (ORDINARY, *LOOKS_ESCAPED):
            sent = b'{"a":"' + SPELLINGS[outer](inner(value)).encode() + b'"}'
            assert SCRUBBERS[value].text(sent).replace(b"*", b"") == b'{"a":""}', value


def test_what_a_value_stands_for_is_no_value_where_it_is_written_plainly():
    scrubber = Scrubber.compile([b"%41%42&lt;x\\u0041yz", b"\\u0041\\u0042", b"&#00000065;"])
    for text in (b"AB<xAyz and AB and A\n", b"AB%3CxAyz %41 &#65; \\u0041 %41%42 \\n", b'{"AB":"A\\u0042","A":"\\\\"}'):
        assert scrubber.text(text) == text
