"""The code that tokens are stored under is HMAC-SHA256, whatever is done to make it quickly."""

import hmac
import os
import pickle

import pytest

from keyhole.crypto.mac import MacKey


@pytest.mark.parametrize("size", [0, 1, 32, 63, 64])
def test_it_is_hmac_sha256(size):
    key = os.urandom(size)
    mac = MacKey(key)
    for message in (b"", b"hvs." + b"a" * 44, os.urandom(55), os.urandom(56), os.urandom(64), os.urandom(1000)):
        expected = hmac.new(key, message, "sha256").hexdigest()
        assert mac.hexdigest(message) == expected
        assert mac.hexdigest(message) == expected, "one message leaves nothing behind for the next"


def test_a_key_longer_than_a_block_is_refused():
    with pytest.raises(ValueError, match="longer than a block"):
        MacKey(bytes(65))


def test_a_key_is_not_shown_or_pickled():
    mac = MacKey(b"0123456789abcdef" * 2)
    assert "0123" not in repr(mac)
    with pytest.raises(TypeError):
        pickle.dumps(mac)
