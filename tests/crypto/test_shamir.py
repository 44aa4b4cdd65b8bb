"""Shamir's secret sharing, against a slow textbook version and against people who hold wrong shares."""

import hashlib
import itertools
import os
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.crypto.shamir import SHARE_SIZE, Share, check_quorum, combine, inverse, scale, split

KEY = os.urandom(32)


def product(one, two):
    """Schoolbook: multiply the polynomials, then divide by that of AES (FIPS 197, section 4.2)."""
    long = 0
    for place in range(8):
        if two >> place & 1:
            long ^= one << place
    for place in range(14, 7, -1):
        if long >> place & 1:
            long ^= 0x11B << (place - 8)
    return long


def power_table():
    logs, value = {}, 1
    for exponent in range(255):
        logs[value] = exponent
        value = product(value, 3)  # 3 generates the field's multiplicative group
    return logs, {exponent: number for number, exponent in logs.items()}


LOGS, POWERS = power_table()


def textbook_combine(points):
    """The values at 0 of the polynomials through ``(x, values)``, byte by byte, by logarithms."""
    key = bytearray(32)
    for x, values in points:
        exponent = sum(LOGS[other] - LOGS[other ^ x] for other, _ in points if other != x)
        for place, value in enumerate(values):
            key[place] ^= POWERS[(LOGS[value] + exponent) % 255] if value else 0
    return bytes(key)


def point(share):
    encoded = share.encode()
    return encoded[50], encoded[18:50]


def forged(share, place, mask=1):
    """The share with one byte changed, and its checksum made right again."""
    head = bytearray(share.encode()[:-3])
    head[place] ^= mask
    return bytes(head) + hashlib.sha256(head).digest()[:3]


def test_the_field_is_that_of_aes():
    assert scale(0x57, 0x83) == 0xC1  # FIPS 197, section 4.2
    assert scale(0x57, 0x13) == 0xFE
    assert all(scale(a, b) == product(a, b) for a in range(256) for b in range(256))


def test_each_byte_is_multiplied_by_itself():
    values = os.urandom(32)
    for factor in (0, 1, 2, 0x80, 0xFF, 0x53):
        together = scale(int.from_bytes(values, "big"), factor).to_bytes(32, "big")
        assert together == bytes(product(value, factor) for value in values)


def test_every_byte_but_zero_has_an_inverse():
    assert all(product(number, inverse(number)) == 1 for number in range(1, 256))


@settings(max_examples=60, deadline=None)
@given(key=st.binary(min_size=32, max_size=32), data=st.data())
def test_any_shares_of_the_threshold_or_more_give_the_key_as_a_textbook_does(key, data):
    shares = data.draw(st.integers(2, 20))
    threshold = data.draw(st.integers(2, shares))
    dealt = split(key, shares, threshold)
    some = data.draw(st.lists(st.sampled_from(dealt), min_size=threshold, unique=True))
    assert combine([Share.decode(share.encode()) for share in some]) == key
    assert textbook_combine([point(share) for share in some]) == key


def test_the_most_shares_and_a_single_one_work():
    dealt = split(KEY, 255, 255)
    random.shuffle(dealt)
    assert combine(dealt) == KEY
    assert combine(split(KEY, 1, 1)) == KEY


def test_one_share_fewer_is_refused_and_would_give_another_key():
    for some in itertools.combinations(split(KEY, 5, 3), 2):
        with pytest.raises(InvalidRequest, match="too few"):
            combine(some)
        assert textbook_combine([point(share) for share in some]) != KEY


def test_a_share_alone_looks_the_same_for_every_key():
    """All values of a byte come up about equally often, whatever the key: chi-squared far from its tail."""
    for key in (bytes(32), b"\xff" * 32):
        counts = Counter()
        for _ in range(400):
            counts.update(point(split(key, 3, 2)[2])[1])
        expected = 400 * 32 / 256
        assert len(counts) == 256
        assert sum((count - expected) ** 2 / expected for count in counts.values()) < 255 + 8 * 23  # 8 sigma


def test_shares_of_two_sets_are_told_from_one():
    mine, theirs = split(KEY, 3, 2), split(os.urandom(32), 3, 2)
    with pytest.raises(InvalidRequest, match="one set"):
        combine([mine[0], theirs[1]])
    with pytest.raises(InvalidRequest, match="one set"):
        combine([mine[0], mine[1], split(KEY, 3, 3)[2]])


def test_two_dealings_of_one_key_do_not_mix_silently():
    one, two = split(KEY, 3, 2), split(KEY, 3, 2)
    with pytest.raises(IntegrityError):
        combine([one[0], two[1]])


def test_the_same_share_twice_is_refused():
    dealt = split(KEY, 3, 2)
    with pytest.raises(InvalidRequest, match="twice"):
        combine([dealt[0], dealt[0]])
    with pytest.raises(InvalidRequest):
        combine([])


@pytest.mark.parametrize("place", [*range(18, 50), 50])
def test_a_forged_share_gives_no_key(place):
    dealt = split(KEY, 5, 3)
    with pytest.raises((IntegrityError, InvalidRequest)):
        combine([dealt[0], dealt[1], Share.decode(forged(dealt[2], place, 0x20))])


def test_everything_mistyped_or_cut_is_no_share():
    encoded = split(KEY, 2, 2)[0].encode()
    assert len(encoded) == SHARE_SIZE
    changed = [encoded[:at] + bytes((encoded[at] ^ 4,)) + encoded[at + 1 :] for at in range(SHARE_SIZE)]
    for bad in (*changed, *(encoded[:size] for size in range(SHARE_SIZE)), encoded + b"\0"):
        with pytest.raises(InvalidRequest, match="not a share"):
            Share.decode(bad)


def test_number_zero_where_the_key_is_and_threshold_zero_are_refused():
    share = split(KEY, 2, 2)[0]
    for place, mask in ((50, 1), (17, 2), (0, 1)):
        with pytest.raises(InvalidRequest):
            Share.decode(forged(share, place, mask))


def test_a_share_shows_nothing_of_itself():
    share = split(KEY, 2, 2)[0]
    number, values = point(share)
    assert str(int.from_bytes(values, "big")) not in repr(share)
    assert f"number={number}" in repr(share)


@pytest.mark.parametrize(
    ("shares", "threshold"), [(0, 0), (0, 1), (5, 0), (2, 1), (255, 1), (3, 4), (256, 3), (-1, 2), (5, -3)]
)
def test_a_quorum_that_makes_no_sense_is_refused(shares, threshold):
    with pytest.raises(InvalidRequest):
        check_quorum(shares, threshold)
    with pytest.raises(InvalidRequest):
        split(KEY, shares, threshold)


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_only_a_key_of_32_bytes_is_shared(size):
    with pytest.raises(InvalidRequest):
        split(bytes(size), 5, 3)
