import os

import pytest

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.crypto.aead import OVERHEAD, AeadKey

KEY = AeadKey(bytes(range(32)))


@pytest.mark.parametrize("size", [0, 16, 24, 31, 33, 64])
def test_only_256_bit_keys_are_accepted(size):
    with pytest.raises(InvalidRequest):
        AeadKey(bytes(size))


def test_a_message_opens_with_its_associated_data_only():
    blob = KEY.seal(b"plain", b"place")
    assert KEY.open(blob, b"place") == b"plain"
    assert KEY.open(memoryview(blob), b"place") == b"plain"
    for aad in (b"", b"plac", b"place2"):
        with pytest.raises(IntegrityError):
            KEY.open(blob, aad)
    with pytest.raises(IntegrityError):
        AeadKey(os.urandom(32)).open(blob, b"place")


def test_changed_and_shortened_messages_do_not_open():
    blob = KEY.seal(b"plain", b"")
    for position in range(len(blob)):
        for bad in (blob[:position], blob[:position] + bytes([blob[position] ^ 0x40]) + blob[position + 1 :]):
            with pytest.raises(IntegrityError):
                KEY.open(bad, b"")


def test_no_nonce_repeats():
    nonces = {KEY.seal(b"", b"")[:12] for _ in range(1_000_000)}
    assert len(nonces) == 1_000_000


def test_a_message_is_as_long_as_documented():
    assert len(KEY.seal(b"12345", b"")) == 5 + OVERHEAD
