"""A mapping made of others by differences says what a plain one says, however many differences there were."""

import random

import pytest

from keyhole.core import layered
from keyhole.core.layered import Layered


@pytest.mark.parametrize("most", [3, 256])
def test_after_any_changes_it_is_what_a_dict_would_be(monkeypatch, most):
    monkeypatch.setattr(layered, "_MOST", most)
    chance = random.Random(7)
    plain = {f"k{number}": number for number in range(20)}
    found = Layered(plain)
    for number in range(400):
        before, earlier = found, dict(plain)
        gone = chance.sample(sorted(plain), min(len(plain), chance.randrange(3)))
        come = {f"k{chance.randrange(40)}": number for _ in range(chance.randrange(3))}
        plain = {key: value for key, value in plain.items() if key not in gone} | come
        found = found.changed(gone, come)
        assert (dict(found), len(found)) == (plain, len(plain))
        assert all(
            (key in found, found.get(key)) == (key in plain, plain.get(key)) for key in map("k{}".format, range(40))
        )
        assert found.differences(before) == (earlier.keys() - plain.keys(), plain.keys() - earlier.keys())
        assert dict(before) == earlier  # it never changes itself
    with pytest.raises(KeyError):
        found["absent"]


def test_one_that_is_ordered_goes_by_its_keys_and_another_by_when_they_came():
    base = {"c": 1, "a": 2}
    assert list(Layered(base, ordered=True).changed(["c"], {"b": 3, "0": 4})) == ["0", "a", "b"]
    assert list(Layered(base).changed([], {"b": 3})) == ["c", "a", "b"]
