import pickle

import pytest

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.crypto.signing import SigningKey, verify


def test_the_vector_of_rfc_8032_agrees():
    key = SigningKey.from_bytes(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert key.public.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert key.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


def test_a_signature_holds_for_its_data_and_key_only():
    key, other = SigningKey.generate(), SigningKey.generate()
    signature = key.sign(b"head")
    assert len(signature) == 64
    verify(key.public, b"head", signature)
    verify(SigningKey.from_bytes(key.to_bytes()).public, b"head", signature)
    flipped = [bytes([*signature[:i], signature[i] ^ 1, *signature[i + 1 :]]) for i in range(64)]
    attempts = [(key.public, b"heae", signature), (other.public, b"head", signature), (b"", b"head", signature)]
    attempts += [(key.public, b"head", bad) for bad in (*flipped, b"", signature[:63], signature + b"\0")]
    for attempt in attempts:
        with pytest.raises(IntegrityError):
            verify(*attempt)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_only_32_byte_keys_are_accepted(size):
    with pytest.raises(InvalidRequest):
        SigningKey.from_bytes(bytes(size))


def test_a_signing_key_hides_itself():
    key = SigningKey.generate()
    assert key.to_bytes().hex() not in repr(key)
    with pytest.raises(TypeError):
        pickle.dumps(key)
