import os
import string

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.cmac import CMAC
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.crypto.siv import NameKey

RAW = bytes(range(64))
KEY = NameKey(RAW)
ALPHABET = string.ascii_letters + string.digits + "-_"
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


def _cmac(key, data):
    mac = CMAC(AES(key))
    mac.update(data)
    return mac.finalize()


def _double(block):
    value = int.from_bytes(block) << 1
    return ((value & (2**128 - 1)) ^ (0x87 if value >> 128 else 0)).to_bytes(16)


def _xor(one, two):
    return bytes(a ^ b for a, b in zip(one, two, strict=True))


def siv_by_the_book(key, aad, plaintext):
    """RFC 5297, sections 2.4 and 2.6, for one component of associated data."""
    half = len(key) // 2
    state = _xor(_double(_cmac(key[:half], bytes(16))), _cmac(key[:half], aad))
    if len(plaintext) >= 16:
        last = plaintext[:-16] + _xor(plaintext[-16:], state)
    else:
        last = _xor(_double(state), plaintext + b"\x80" + bytes(15 - len(plaintext)))
    iv = _cmac(key[:half], last)
    counter = (int.from_bytes(iv) & ~((1 << 63) | (1 << 31))).to_bytes(16)
    encryptor = Cipher(AES(key[half:]), CTR(counter)).encryptor()
    return iv + encryptor.update(plaintext) + encryptor.finalize()


def test_the_book_agrees_with_the_vector_of_rfc_5297():
    found = siv_by_the_book(
        bytes.fromhex("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"),
        bytes.fromhex("101112131415161718191a1b1c1d1e1f2021222324252627"),
        bytes.fromhex("112233445566778899aabbccddee"),
    )
    assert found.hex() == "85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c"


@settings(max_examples=60, deadline=None)
@given(names, st.one_of(st.just(""), names))
def test_names_are_siv_by_the_book_and_come_back(segment, parent):
    import base64

    token = KEY.encrypt(segment, parent)
    assert set(token) <= set(ALPHABET)
    sealed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    assert sealed == siv_by_the_book(RAW, parent.encode(), segment.encode())
    assert KEY.decrypt(token, parent) == segment


def test_the_same_name_can_be_found_again_and_looks_different_elsewhere():
    token = KEY.encrypt("api-key", "stripe/")
    assert token == NameKey(RAW).encrypt("api-key", "stripe/")
    assert token != KEY.encrypt("api-key", "github/")
    assert token != NameKey(os.urandom(64)).encrypt("api-key", "stripe/")
    with pytest.raises(IntegrityError):
        KEY.decrypt(token, "github/")


def test_only_the_exact_token_is_a_name():
    token = KEY.encrypt("ab", "p")
    spellings = [token[:i] + letter + token[i + 1 :] for i in range(len(token)) for letter in ALPHABET]
    spellings += [token[:i] for i in range(len(token))]
    spellings += [token + "=", token + "\n", " " + token, token + "A", token.replace("_", "/"), "ü" + token[1:]]
    for spelling in set(spellings) - {token}:
        with pytest.raises(IntegrityError):
            KEY.decrypt(spelling, "p")


@pytest.mark.parametrize(("segment", "parent"), [("", "p"), ("\ud800", "p"), ("a", "\udfff")])
def test_names_that_are_no_text_are_refused(segment, parent):
    with pytest.raises(InvalidRequest):
        KEY.encrypt(segment, parent)


@pytest.mark.parametrize("size", [0, 32, 48, 63, 65])
def test_only_512_bit_keys_are_accepted(size):
    with pytest.raises(InvalidRequest):
        NameKey(bytes(size))
