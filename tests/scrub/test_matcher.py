"""What is found out quickly, with vector instructions, is what the automaton finds out by itself."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhole.scrub import matcher
from keyhole.scrub.escapes import COLOUR, SEAM
from keyhole.scrub.forms import Form, derive, derive_wire
from keyhole.scrub.matcher import Matcher

_VALUE = st.one_of(
    st.binary(min_size=8, max_size=120),
    st.text(min_size=8, max_size=120).map(str.encode),
    st.from_regex(rb"(?:ghp_|sk_live_|-----BEGIN )[A-Za-z0-9+/=]{12,80}", fullmatch=True),
)
_FILLERS = (b"\0", b"\xff", b"0123456789abcdef", b'{"id": 12345, "text": "the quick brown fox"}\n', b"QUJD", b"a\0")


def _alone(forms: list[Form], monkeypatch: pytest.MonkeyPatch) -> Matcher:
    with monkeypatch.context() as patched:
        patched.setattr(matcher, "_VECTORS", False)
        return Matcher(forms)


def _forms(values: list[bytes]) -> list[Form]:
    return [form for value in values for form in (*derive(value), *derive_wire(b"Bearer " + value))]


@settings(max_examples=30, deadline=None)
@given(st.lists(_VALUE, min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_every_form_is_found_wherever_it_stands(values: list[bytes], chance: random.Random) -> None:
    forms = _forms(values)
    if not forms:
        return
    with pytest.MonkeyPatch.context() as monkeypatch:
        exact = _alone(forms, monkeypatch)
    quick = Matcher(forms)
    for form in forms:
        filler = chance.choice(_FILLERS) * 200
        at = chance.randrange(100)
        shown = form.data[: chance.choice([form.need, len(form.data)])]
        for text in (
            filler[:at] + shown + filler[at:],
            filler + shown,
            shown + filler,
            filler[:at] + shown[:-1] + b"\n" + shown[-1:] + filler,
        ):
            assert quick.find(text) == exact.find(text)
    for text in (filler, filler + SEAM, COLOUR + filler, filler + b"\x1b", filler + b"\x1b" + filler):
        assert quick.find(text) == exact.find(text)


def test_a_line_break_spares_one_of_the_anchors_of_base64(monkeypatch: pytest.MonkeyPatch) -> None:
    value = random.Random(1).randbytes(150)
    forms = _forms([value])
    for form in forms:
        if not form.wraps:
            continue
        (size, one), (_, two) = matcher._anchors(form)
        assert one + size == two
        assert two + size <= form.need
        alone = Matcher([form])
        for every in (56, 76):
            for first in range(0, every, 7):
                lines = [form.data[:first], *(form.data[n : n + every] for n in range(first, len(form.data), every))]
                text = b"x" * 300 + b"\n".join(lines)
                assert alone.find(text)[1], "nothing says that lines are to be joined"


def test_very_many_values_are_left_to_the_automaton() -> None:
    values = [random.Random(number).randbytes(24).hex().encode() for number in range(30)]
    found = Matcher(_forms(values))
    assert not found._groups
    text = b"." * 300 + values[7] + b"." * 300
    assert found.find(text)[0] == [(300, 348)]
