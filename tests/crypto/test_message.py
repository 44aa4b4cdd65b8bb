"""Encryption of messages, and signatures, against published vectors and whatever hypothesis thinks of."""

import base64

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from crypto.wycheproof import cases
from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.crypto import asymmetric, message
from keyhole.crypto.asymmetric import Scheme

unhex = bytes.fromhex
KEYS = {name: bytes(range(size)) for name, (size, _) in message.CIPHERS.items()}


def opens(name, case):
    try:
        blob = unhex(case["iv"]) + unhex(case["ct"]) + unhex(case["tag"])
        return message.open_message(name, unhex(case["key"]), blob, unhex(case["aad"]))
    except (IntegrityError, InvalidRequest):
        return None


@pytest.mark.vectors
@pytest.mark.parametrize(
    ("name", "file", "bits"),
    [
        ("aes128-gcm96", "aes_gcm", 128),
        ("aes256-gcm96", "aes_gcm", 256),
        ("chacha20-poly1305", "chacha20_poly1305", 256),
    ],
)
def test_every_vector_of_our_parameters_opens_or_is_refused_as_it_should(name, file, bits):
    ran = 0
    for group, case in cases(file):
        if (group["keySize"], group["ivSize"], group["tagSize"]) == (bits, 96, 128):
            expected = unhex(case["msg"]) if case["result"] == "valid" else None
            assert opens(name, case) == expected, case["tcId"]
            ran += 1
    assert ran > 60


@given(
    st.sampled_from(sorted(KEYS)),
    st.binary(max_size=200),
    st.binary(min_size=1, max_size=40),
    st.binary(max_size=40),
    st.booleans(),
)
def test_what_is_sealed_opens_with_the_same_context_and_associated_data(name, plaintext, context, associated, same):
    sealed = message.seal_derived(name, KEYS[name], context, plaintext, associated, same=same)
    assert message.open_derived(name, KEYS[name], context, sealed, associated) == plaintext
    again = message.seal_derived(name, KEYS[name], context, plaintext, associated, same=same)
    assert (again == sealed) is same
    for other in ((context + b"x", associated), (context, associated + b"x")):
        with pytest.raises(IntegrityError):
            message.open_derived(name, KEYS[name], other[0], sealed, other[1])


@given(st.sampled_from(sorted(KEYS)), st.binary(max_size=60), st.data())
def test_one_bit_changed_anywhere_opens_nothing(name, plaintext, data):
    sealed = bytearray(message.seal(name, KEYS[name], plaintext, b"aad"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(IntegrityError):
        message.open_message(name, KEYS[name], bytes(sealed), b"aad")


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa-p256", "rsa-2048"])
def test_a_private_key_is_of_its_own_kind_only(kind):
    private = asymmetric.generate(kind)
    asymmetric.check(kind, private)
    for other in set(asymmetric.KINDS) - {kind}:
        with pytest.raises(InvalidRequest):
            asymmetric.check(other, private)
    for garbage in (b"", b"no key", private[:-1]):
        with pytest.raises(InvalidRequest):
            asymmetric.check(kind, garbage)


def test_an_ed25519_signature_is_that_of_rfc_8032():
    seed = unhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    none = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, none)
    assert asymmetric.sign(private, b"\x72", Scheme()) == unhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert base64.b64decode(asymmetric.public_text(private)) == unhex(
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    )
