"""Streams: nothing is delayed without need, nothing leaks at a seam, lengths never change."""

import base64
import html
import json
import random
import urllib.parse
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyhole.scrub import Scrubber, too_short
from scrub.decoders import shows

TOKEN = b"ghp_7Hq4LyjWDarjtT1zdp7dcAx+/=Qz~9!k"
PEM = b"-----BEGIN KEY-----\n" + base64.encodebytes(random.Random(7).randbytes(600)) + b"-----END KEY-----\n"
ODD = 'p@ss "w\\ord"\n2 <é&ключ>'.encode()


def _feed(scrubber, pieces):
    stream = scrubber.stream()
    return b"".join([stream.feed(piece) for piece in pieces]) + stream.finish()


def _json_u(value):
    return b"".join(b"\\u%04x" % unit for unit in memoryview(value.decode().encode("utf-16")[2:]).cast("H"))


def _alternately_percent(value):
    return b"".join(b"%%%02x" % byte if index % 2 else bytes((byte,)) for index, byte in enumerate(value))


FORMS = {
    "raw": bytes,
    "base64": base64.b64encode,
    "base64-1": lambda value: base64.b64encode(b"u" + value + b"x"),
    "base64-2": lambda value: base64.b64encode(b"u:" + value + b"xy"),
    "base64-url": base64.urlsafe_b64encode,
    "base64-in-url": lambda value: urllib.parse.quote(base64.b64encode(value), safe="").encode(),
    "base64-php-json": lambda value: base64.b64encode(value).replace(b"/", b"\\/"),
    "hex": lambda value: value.hex().encode(),
    "hex-upper": lambda value: value.hex().upper().encode(),
    "percent": lambda value: urllib.parse.quote(value, safe="").encode(),
    "percent-all": lambda value: b"".join(b"%%%02X" % byte for byte in value),
    "percent-some": _alternately_percent,
    "form": lambda value: urllib.parse.quote_plus(value).encode(),
    "json": lambda value: json.dumps(value.decode()).encode(),
    "json-utf8": lambda value: json.dumps(value.decode(), ensure_ascii=False).encode(),
    "json-u": _json_u,
    "json-u-upper": lambda value: _json_u(value).upper().replace(b"\\U", b"\\u"),
    "json-in-json": lambda value: json.dumps(json.dumps({"k": value.decode()})).encode(),
    "json-in-json-in-json": lambda value: json.dumps(json.dumps(json.dumps([value.decode()]))).encode(),
    "html": lambda value: html.escape(value.decode()).encode("ascii", "xmlcharrefreplace"),
    "html-hex": lambda value: b"".join(b"&#x%x;" % ord(char) for char in value.decode()),
    "html-zeros": lambda value: b"".join(b"&#0%d;" % ord(char) for char in value.decode()),
    "html-names": lambda value: value.replace(b"+", b"&plus;").replace(b"/", b"&sol;").replace(b"!", b"&excl;"),
    "utf-16-le": lambda value: value.decode().encode("utf-16-le"),
    "utf-16-be": lambda value: value.decode().encode("utf-16-be"),
    "base64-utf-16": lambda value: base64.b64encode(value.decode().encode("utf-16-le")),
}
VALUES = {"token": TOKEN, "odd": ODD, "short": b"s3cr3t/+"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", VALUES)
def test_secret_is_caught_wherever_the_chunks_are_cut(form, name):
    value = VALUES[name]
    scrubber = Scrubber.compile([value])
    sent = b"{begin " + FORMS[form](value) + b" end}"
    for cut in range(1, len(sent)):
        got = _feed(scrubber, [sent[:cut], sent[cut:]])
        assert len(got) == len(sent)
        assert got.startswith(b"{begin ")
        assert got.endswith(b" end}")
        assert got.count(b"*") >= len(value) - 2
    assert _feed(scrubber, [sent[at : at + 1] for at in range(len(sent))]) == got
    assert not shows(got, value)


ESCAPES = {name: FORMS[name] for name in ("percent", "percent-all", "html", "html-hex")} | {
    "json": lambda value: json.dumps(value.decode())[1:-1].encode(),
    "json-u": lambda value: b"".join(b"\\u%04x" % byte for byte in value),
    "json-x": lambda value: b"".join(b"\\x%02X" % byte for byte in value),
    "colours": lambda value: b"\x1b[0;1m".join((value[:3], value[3:7], value[7:])),
}


@pytest.mark.parametrize("outer", ESCAPES)
@pytest.mark.parametrize("inner", [*ESCAPES, "utf-16-le"])
def test_what_was_escaped_twice_is_caught_byte_by_byte(inner, outer):
    value = b'&k"3<r/t\\+'
    sent = b"{begin " + ESCAPES[outer]({**FORMS, **ESCAPES}[inner](value)) + b" end}"
    scrubber = Scrubber.compile([value])
    got = _feed(scrubber, [sent[at : at + 1] for at in range(len(sent))])
    assert got == scrubber.text(sent)
    assert len(got) == len(sent)
    assert got.replace(b"*", b"") == b"{begin  end}"


@pytest.mark.parametrize("width", [60, 64, 76])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\\n", b"\\r\\n"])
def test_base64_broken_into_lines_is_caught_wherever_the_chunks_are_cut(width, line_end):
    scrubber = Scrubber.compile([TOKEN])
    for before in range(96, 96 + width, 7):
        text = base64.b64encode(b"-" * before + TOKEN + b"-" * 40)
        sent = b'{"c":"' + line_end.join(text[at : at + width] for at in range(0, len(text), width)) + b'"}'
        found = {_feed(scrubber, [sent[:cut], sent[cut:]]) for cut in range(before % 3, len(sent), 3)}
        found.add(_feed(scrubber, [sent[at : at + 1] for at in range(len(sent))]))
        assert {len(got) for got in found} == {len(sent)}
        assert not any(shows(got, TOKEN, depth=1) for got in found)


@pytest.mark.parametrize("before", [0, 7, 29])
def test_hexadecimal_broken_into_lines_is_caught(before):
    value = TOKEN * 2
    text = (b"-" * before + value + b"----").hex().encode()
    sent = b"\n".join(text[at : at + 60] for at in range(0, len(text), 60)) + b"\n"
    got = Scrubber.compile([value]).text(sent)
    assert got.count(b"*") >= 2 * len(value)
    assert not shows(got.replace(b"\n", b""), value, depth=1)
    assert _feed(Scrubber.compile([value]), [sent[at : at + 7] for at in range(0, len(sent), 7)]) == got


@pytest.mark.parametrize("sent", [PEM, PEM.replace(b"\n", b"\r\n"), json.dumps({"key": PEM.decode()}).encode()])
def test_private_key_of_many_lines_is_caught(sent):
    got = _feed(Scrubber.compile([PEM]), [sent[at : at + 50] for at in range(0, len(sent), 50)])
    assert len(got) == len(sent)
    assert got.count(b"*") >= len(PEM.strip())


def test_secret_of_four_kilobytes_is_caught_in_all_common_forms():
    value = base64.b64encode(random.Random(3).randbytes(3072))
    scrubber = Scrubber.compile([value])
    for form in ("raw", "base64-1", "hex", "percent-all", "json-u", "html-hex", "utf-16-le"):
        sent = b"<" + FORMS[form](value) + b">"
        got = _feed(scrubber, [sent[at : at + 1000] for at in range(0, len(sent), 1000)])
        assert len(got) == len(sent)
        assert len(got.replace(b"*", b"")) <= 8
        assert not shows(got, value, depth=1)


def test_events_without_a_secret_are_never_delayed():
    stream = Scrubber.compile([TOKEN, PEM, ODD]).stream()
    for event in (
        b'data: {"choices":[{"delta":{"content":" g"}}]}\n\n',
        b'data: {"q":"a=1&b=50% \\" \\n"}\r\n\r\n',
        b": keep-alive\n\n",
        b'{"log":"line"}\n',
        b"0123456789abcdef" * 4 + b"}\n",
    ):
        assert stream.feed(event) == event


LINES = b"first line of it\n\nsecond line of it"


@pytest.mark.parametrize("value", [TOKEN, PEM, ODD, LINES], ids=["token", "pem", "odd", "lines"])
@pytest.mark.parametrize("form", [bytes, base64.b64encode, base64.encodebytes, lambda value: value.hex().encode()])
def test_events_are_held_back_as_if_they_did_not_end_with_an_empty_line(value, form, monkeypatch):
    secret = form(value)
    text = b"data: a\n\n" + secret[:9] + b"\n\ndata: " + secret + b"\n\ndata: b\n\n" + secret[2:40] + b"\n\n"
    for size in (5, 17, 64, 300):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        pieces = [each for piece in pieces for each in (piece, b"data: 1\n\n")]
        pieces += text.replace(b"\n\n", b"\n\n\0").split(b"\0")
        quick, slow = Scrubber.compile([value]).stream(), Scrubber.compile([value]).stream()
        got = [quick.feed(piece) for piece in pieces]
        with monkeypatch.context() as patched:
            patched.setattr(Scrubber, "leaves", lambda _self, _data: False)
            assert got == [slow.feed(piece) for piece in pieces]
        assert quick.finish() == slow.finish()
        assert not shows(b"".join(got), value, depth=1)


def test_value_with_an_empty_line_in_it_is_held_back_there():
    stream = Scrubber.compile([LINES]).stream()
    assert stream.feed(b"data: first line of it\n\n") == b"data: "
    assert stream.feed(b"second line of it\n\n") == b"*" * len(LINES) + b"\n\n"


def test_clean_piece_is_passed_without_a_copy():
    piece = b'{"clean": true}\n' * 1000
    assert Scrubber.compile([TOKEN]).stream().feed(piece) is piece


def test_first_half_of_a_secret_is_not_released_however_often_one_asks():
    stream = Scrubber.compile([TOKEN]).stream()
    assert stream.feed(b"key " + TOKEN[:10]) == b"key "
    for _ in range(100):
        assert stream.feed(b"") == b""
    assert stream.feed(TOKEN[10:] + b" end\n") == b"*" * len(TOKEN) + b" end\n"


def test_false_beginning_is_released_when_it_turns_out_to_be_harmless():
    stream = Scrubber.compile([TOKEN]).stream()
    assert (
        stream.feed(b"key " + TOKEN[:10]) + stream.feed(b"-other") + stream.finish() == b"key " + TOKEN[:10] + b"-other"
    )


def test_truncated_secret_is_masked_from_three_quarters_on():
    scrubber = Scrubber.compile([TOKEN])
    for size in range(len(TOKEN)):
        got = _feed(scrubber, [b"key " + TOKEN[:size]])
        assert got == b"key " + (b"*" * size if size >= 27 else TOKEN[:size])


def test_last_characters_and_other_tokens_of_the_same_kind_stay_readable():
    text = b"key ends in " + TOKEN[-4:] + b", not ghp_000000000000000000000000000000000000"
    assert Scrubber.compile([TOKEN]).text(text) == text


def test_short_value_is_reported_and_never_searched():
    assert too_short(b"1234")
    assert too_short(b"  1234567\n")
    assert not too_short(b"12345678")
    scrubber = Scrubber.compile([b"1234", b""])
    assert scrubber.empty
    assert scrubber.text(b'{"n":12345}') == b'{"n":12345}'


def test_secret_stored_with_a_trailing_line_break_is_still_found():
    assert Scrubber.compile([TOKEN + b"\n"]).text(b"<" + TOKEN + b">") == b"<" + b"*" * len(TOKEN) + b">"


def test_wire_form_of_an_injection_is_masked_as_a_whole_and_when_encoded_again():
    wire = base64.b64encode(b"someone:pw1")
    scrubber = Scrubber.compile([b"pw1"], [wire])
    assert scrubber.text(b"Basic " + wire) == b"Basic " + b"*" * len(wire)
    assert scrubber.text(b"Basic " + wire[:12]) == b"Basic " + wire[:12]
    assert b"*" * 10 in scrubber.text(base64.b64encode(wire))


def test_escapes_that_change_in_the_middle_are_caught():
    scrubber = Scrubber.compile([TOKEN])
    mixed = b"%67h&#112;_\\u0037Hq4" + TOKEN[8:20] + b"\\u0064" + TOKEN[21:]
    assert scrubber.text(mixed) == b"*" * len(mixed)


def test_value_that_looks_escaped_itself_is_caught_raw_and_escaped():
    value = b'a%41b&lt;c\\u0041"secret'
    scrubber = Scrubber.compile([value])
    for sent in (value, json.dumps(value.decode())[1:-1].encode(), urllib.parse.quote(value, safe="").encode()):
        assert scrubber.text(sent) == b"*" * len(sent)


def test_nothing_about_the_values_shows_in_the_representation():
    assert "ghp" not in repr(Scrubber.compile([TOKEN]))


def test_endless_beginnings_do_not_pile_up_in_memory():
    stream = Scrubber.compile([b"a" * 40]).stream()
    for piece in (
        b"a" * 30,
        b"\\" * 100_000,
        b"%25" * 30_000,
        b"&amp;" * 30_000,
        b"&#0",
        b"0" * 100_000,
        b"]" * 50_000,
    ):
        stream.feed(piece)
        assert stream.held < 5000


def test_secret_of_one_repeated_character_is_caught_in_a_sea_of_it():
    sent = b"a" * 100_000 + b"b"
    assert _feed(Scrubber.compile([b"a" * 1000]), [sent[:70_000], sent[70_000:]]) == b"*" * 100_000 + b"b"


secrets = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=8, max_size=60).map(str.encode),
    st.text("ABCabc012+/=-_.%\\&;\"' ", min_size=12, max_size=40).map(str.encode),
).filter(lambda value: not too_short(value) and len(set(value.strip())) > 4 and value == value.strip())


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=secrets, names=st.lists(st.sampled_from(sorted(set(FORMS) - {"html-names"})), max_size=3), data=st.data())
def test_random_secret_in_random_forms_and_chunks_cannot_be_read(value, names, data):
    filler = st.sampled_from(
        [b"", b"x", b'{"a":"', b"%2", b"\\", b"&", b"\n", b"AAAA", b"\xff\x00", value[:5], value[-5:]]
    )
    sent = b"".join(part for name in names for part in (data.draw(filler), b" ", FORMS[name](value), b" "))
    sent += data.draw(filler)
    cuts = sorted({0, len(sent), *data.draw(st.lists(st.integers(0, len(sent)), max_size=8))})
    pieces = [sent[begin:end] for begin, end in pairwise(cuts)]
    got = _feed(Scrubber.compile([value]), pieces)
    assert len(got) == len(sent)
    assert not shows(got, value, depth=1)
    if not names:
        assert got == sent


@settings(max_examples=60, deadline=None)
@given(noise=st.binary(max_size=3000), cut=st.integers(0, 3000))
def test_unrelated_bytes_are_unchanged(noise, cut):
    scrubber = Scrubber.compile([TOKEN, PEM, ODD])
    assert _feed(scrubber, [noise[:cut], noise[cut:]]) == noise
