"""Base64 for URLs: one text for each value."""

import itertools

import pytest

from keyhole.core import base64url

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.mark.parametrize("size", range(5))
def test_what_was_written_is_read_again(size):
    data = bytes(range(251, 251 + size))
    assert base64url.decode(base64url.encode(data)) == data


def test_each_byte_has_one_spelling():
    read = {}
    for text in map("".join, itertools.product(ALPHABET, repeat=2)):
        try:
            read[base64url.decode(text)] = text
        except ValueError:
            continue
    assert len(read) == 256
    assert all(base64url.encode(data) == text for data, text in read.items())


@pytest.mark.parametrize("text", ["A", "AB", "QQ==", "Q Q", "QQ\n", "+/+/", "Q.Q", "Qé", "QQQQQ", "Q=Q"])
def test_another_spelling_is_refused(text):
    with pytest.raises(ValueError, match="base64url"):
        base64url.decode(text)
