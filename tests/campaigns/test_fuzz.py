"""The short form of the campaign; the long one is run by hand."""

import pytest

from campaigns import fuzz
from fuzzing import engine


@pytest.mark.parametrize(("target", "number"), [(name, 20 if name == "scrubber" else 200) for name in fuzz.TARGETS])
def test_no_input_is_read_in_two_ways(target, number):
    outcomes = fuzz.campaign(target, 8, number=number, hang=0)
    assert len(outcomes) > 2


class Wrong(engine.Target):
    """Something that fails for one byte."""

    def corpus(self):
        return [b"abcdef" * 20]

    def check(self, data, rng):
        assert b"\n" not in data, "a line end"
        return "fine"


def test_an_input_that_fails_is_made_as_short_as_can_be():
    with pytest.raises(engine.Found, match="a line end") as caught:
        engine.fuzz("wrong", Wrong(), 1, number=20_000, hang=0)
    assert caught.value.data == b"\n"
