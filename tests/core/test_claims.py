"""Claims of tokens: when they count, and how they are found and compared."""

import pytest

from keyhole.core import claims
from keyhole.core.claims import Leeway, claim, mapped
from keyhole.core.errors import InvalidRequest

NOW = 1_800_000_000.0
EXACT = Leeway(0, 0, 0)


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        ({"exp": NOW + 1}, True),
        ({"exp": NOW}, False),
        ({"exp": NOW + 0.5}, True),
        ({"exp": True}, False),
        ({"exp": "1900000000"}, False),
        ({"exp": 1e30}, False),
        ({"exp": NOW + 9, "nbf": NOW}, True),
        ({"exp": NOW + 9, "nbf": NOW + 1}, False),
        ({"exp": NOW + 9, "iat": NOW + 1}, False),
        ({"exp": NOW + 9, "iat": None}, True),
        ({}, False),
    ],
)
def test_a_token_counts_from_its_beginning_to_its_end(said, counts):
    if counts:
        claims.require_current(said, NOW, EXACT)
        return
    with pytest.raises(InvalidRequest):
        claims.require_current(said, NOW, EXACT)


def test_clocks_may_differ_by_the_leeway():
    claims.require_current({"exp": NOW - 209}, NOW, Leeway())
    with pytest.raises(InvalidRequest):
        claims.require_current({"exp": NOW - 210}, NOW, Leeway())
    claims.require_current({"exp": NOW + 9, "nbf": NOW + 210, "iat": NOW + 60}, NOW, Leeway())


def test_claims_are_found_by_name_or_pointer():
    said = {"a": {"b/c": ["x", {"~": "y"}]}, "/a": 1, "n": 7, "t": True, "o": {}}
    assert claim(said, "/a/b~1c/0") == "x"
    assert claim(said, "/a/b~1c/1/~0") == "y"
    assert claim(said, "/a/b~1c/2") is claim(said, "/a/b~1c/-1") is claim(said, "/n/0") is claim(said, "/x") is None
    assert claim(said, "/a", pointer=False) == 1
    assert mapped(said, {"/a/b~1c/0": "first", "n": "n", "t": "t", "o": "o", "z": "z"}) == {
        "first": "x",
        "n": "7",
        "t": "true",
    }


@pytest.mark.parametrize(
    ("wanted", "found", "fits"),
    [
        ("1", 1, False),
        (1, True, False),
        (1, 1, True),
        (["a", "b"], ["c", "b"], True),
        ("a*", "ab", False),
        ([], "a", False),
        ("a", {"a": 1}, False),
    ],
)
def test_a_value_is_that_value_and_of_its_kind(wanted, found, fits):
    if fits:
        claims.require_claims({"c": found}, {"c": wanted})
        return
    with pytest.raises(InvalidRequest):
        claims.require_claims({"c": found}, {"c": wanted})
