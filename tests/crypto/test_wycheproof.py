import json

import pytest

from crypto.wycheproof import cases
from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.crypto import foreign_jwt, kdf
from keyhole.crypto.aead import AeadKey
from keyhole.crypto.signing import verify

pytestmark = pytest.mark.vectors
unhex = bytes.fromhex


def opens(case):
    """What AeadKey makes of a vector; None when it refuses."""
    blob = unhex(case["iv"]) + unhex(case["ct"]) + unhex(case["tag"])
    try:
        return AeadKey(unhex(case["key"])).open(blob, unhex(case["aad"]))
    except (IntegrityError, InvalidRequest):
        return None


def test_every_aes_gcm_vector_of_our_parameters_opens_or_is_refused_as_it_should():
    ran = outside = 0
    for group, case in cases("aes_gcm"):
        ours = (group["keySize"], group["ivSize"], group["tagSize"]) == (256, 96, 128)
        expected = unhex(case["msg"]) if ours and case["result"] == "valid" else None
        assert opens(case) == expected, case["tcId"]
        ran += ours
        outside += not ours
    assert (ran, outside) == (66, 250)


def test_shortened_aes_gcm_tags_never_open():
    for group, case in cases("aes_gcm"):
        if (group["keySize"], group["ivSize"]) == (256, 96) and case["result"] == "valid":
            for size in (0, 4, 8, 12, 15):
                assert opens({**case, "tag": case["tag"][: 2 * size]}) is None


def test_every_hkdf_vector_agrees():
    everything = cases("hkdf_sha256")
    for _, case in everything:
        ikm, info, salt = (unhex(case[name]) for name in ("ikm", "info", "salt"))
        if case["result"] == "valid":
            assert kdf.hkdf(ikm, info, case["size"], salt) == unhex(case["okm"]), case["tcId"]
        else:
            with pytest.raises(InvalidRequest):
                kdf.hkdf(ikm, info, case["size"], salt)
    assert len(everything) == 86


def test_every_pbkdf2_vector_agrees():
    everything = cases("pbkdf2_hmacsha256")
    for _, case in everything:
        password, salt = unhex(case["password"]), unhex(case["salt"])
        found = kdf.pbkdf2_sha256(password, salt, case["iterationCount"], case["dkLen"])
        assert found == unhex(case["dk"]), case["tcId"]
    assert len(everything) == 60


def test_every_ed25519_vector_agrees():
    everything = cases("ed25519")
    for group, case in everything:
        arguments = unhex(group["publicKey"]["pk"]), unhex(case["msg"]), unhex(case["sig"])
        if case["result"] == "valid":
            verify(*arguments)
        else:
            with pytest.raises(IntegrityError):
                verify(*arguments)
    assert len(everything) == 151


def signed(token, keys):
    """Whether the signature of a token counts, whatever it says: the payloads of the corpus are no claims."""
    try:
        foreign_jwt.verify(token, keys)
    except foreign_jwt.Refused as error:
        if error.reason != UNREADABLE:
            return False
        try:
            foreign_jwt.verify(f"{token.partition('.')[0]}.e30.e30", keys)  # is it the header that cannot be read?
        except foreign_jwt.Refused as again:
            return again.reason != UNREADABLE
    return True


UNREADABLE = "the token cannot be read"
LEFT_OUT = {"emptyPayload", "Figure20", "Figure27"}  # nothing signed; an algorithm that is not the one of the key


@pytest.mark.parametrize(("name", "refused", "taken"), [("signature", 365, 26), ("key", 25, 1), ("crypto", 46, 2)])
def test_every_token_of_the_corpus_that_proves_nothing_is_refused(name, refused, taken):
    ran = {True: 0, False: 0}
    for group, case in cases(f"json_web_{name}"):
        key = group.get("public") or group["private"]
        keys = key.get("keys", [key])
        token = case.get("jws")
        if not isinstance(token, str):  # encryption, or a form that is no token
            continue
        secret = all(each["kty"] == "oct" for each in keys)  # such a key would be known to whoever reads the set
        found = signed(token, foreign_jwt.keys_of_jwks(json.dumps({"keys": keys}).encode()))
        if case["result"] == "invalid" or secret:
            assert not found, case
        elif case["comment"] not in LEFT_OUT:
            assert found, case
        ran[found] += case["result"] == "valid" if found else case["result"] == "invalid" or secret
    assert (ran[False], ran[True]) == (refused, taken)
