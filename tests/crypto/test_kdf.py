import pytest

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.crypto import kdf

SALT = bytes(range(16))


def test_the_default_costs_an_attacker_at_least_64_mib_a_guess():
    assert kdf.DEFAULT.algorithm == "argon2id"
    assert kdf.DEFAULT.memory_kib >= 64 * 1024
    assert kdf.DEFAULT.iterations >= 3
    assert kdf.FLOOR.iterations >= 600_000
    assert max(kdf.PROFILES.values(), key=lambda profile: profile.strength) is kdf.DEFAULT


@pytest.mark.parametrize(
    ("profile", "key"),
    [
        (kdf.DEFAULT, "577f1ff37e9a3e52c97d39f8e83891c1b73b0e87ffe0429cee8ede2fb005fe44"),
        (kdf.FLOOR, "96a5904c2e08c8da42305dbcc5d7cf18ead2636d49f59526b606f26696281473"),
    ],
)
def test_stored_profiles_derive_the_same_key_for_ever(profile, key):
    assert kdf.derive(profile, b"correct horse", SALT).hex() == key


def test_salt_and_passphrase_both_change_the_key():
    keys = {
        kdf.derive(kdf.TESTING, passphrase, salt, testing=True)
        for passphrase in (b"correct horse", b"correct horsf")
        for salt in (SALT, SALT[::-1])
    }
    assert len(keys) == 4


def test_the_testing_profile_needs_to_be_asked_for():
    with pytest.raises(InvalidRequest):
        kdf.derive(kdf.TESTING, b"correct horse", SALT)
    with pytest.raises(IntegrityError):
        kdf.stored_profile(kdf.TESTING.name)
    assert kdf.stored_profile(kdf.TESTING.name, testing=True) is kdf.TESTING


def test_own_parameters_cannot_be_smuggled_in():
    for cheap in (kdf.FLOOR._replace(iterations=1), kdf.TESTING._replace(strength=99), kdf.FLOOR._replace(name="x")):
        with pytest.raises(InvalidRequest):
            kdf.derive(cheap, b"correct horse", SALT)


@pytest.mark.parametrize("name", ["", "pbkdf2-sha256-1000", "argon2id-default ", "md5"])
def test_an_unknown_stored_profile_is_tampering(name):
    with pytest.raises(IntegrityError):
        kdf.stored_profile(name, testing=True)


@pytest.mark.parametrize(("passphrase", "salt"), [(b"", SALT), (b"correct horse", SALT[:15]), (b"correct horse", b"")])
def test_empty_passphrases_and_short_salts_are_refused(passphrase, salt):
    with pytest.raises(InvalidRequest):
        kdf.derive(kdf.TESTING, passphrase, salt, testing=True)


def test_keys_for_different_purposes_are_unrelated():
    assert len({kdf.hkdf(SALT, b"a"), kdf.hkdf(SALT, b"b"), kdf.hkdf(SALT, b"a", salt=b"s")}) == 3
    assert len(kdf.hkdf(SALT, b"a", 8160)) == 8160


@pytest.mark.parametrize("length", [0, -1, 8161])
def test_impossible_hkdf_lengths_are_refused(length):
    with pytest.raises(InvalidRequest):
        kdf.hkdf(SALT, b"a", length)


@pytest.mark.parametrize(("iterations", "length"), [(0, 32), (-1, 32), (1, 0)])
def test_impossible_pbkdf2_parameters_are_refused(iterations, length):
    with pytest.raises(InvalidRequest):
        kdf.pbkdf2_sha256(b"p", b"s", iterations, length)
