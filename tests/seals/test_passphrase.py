import pytest

from keyhole.core.errors import IntegrityError, InvalidRequest, Sealed
from keyhole.core.value import Secret
from keyhole.crypto import kdf
from keyhole.seals import open_seal
from keyhole.seals.blob import Header, close, read_header
from keyhole.seals.passphrase import PassphraseSeal

ROOT_KEY = bytes(range(100, 132))
GOOD = Secret("correct horse battery")


def sealed(passphrase=GOOD, **options):
    return PassphraseSeal(passphrase, "v1", **options)


def stored(profile):
    """A blob as a version with this profile as its default wrote it."""
    header = Header.new("passphrase", profile.name)
    key = kdf.derive(profile, GOOD.reveal(), header.salt, testing=True)
    return close(header, key, "v1", ROOT_KEY)


def test_a_guess_costs_the_attacker_argon2id_with_64_mib():
    blob = open_seal("passphrase", passphrase=GOOD, vault_id="v1", create=True).wrap(ROOT_KEY)
    assert read_header(blob).derivation == "argon2id-default"
    seal = open_seal("passphrase", passphrase=GOOD, vault_id="v1")
    assert not seal.needs_rewrap(blob)
    assert seal.unwrap(blob) == ROOT_KEY


def test_a_vault_with_last_years_parameters_opens_once_more_and_is_upgraded():
    old = stored(kdf.FLOOR)
    seal = sealed()
    assert seal.needs_rewrap(old)
    assert seal.unwrap(old) == ROOT_KEY
    new = seal.wrap(seal.unwrap(old))
    assert not seal.needs_rewrap(new)
    assert seal.unwrap(new) == ROOT_KEY


def test_parameters_below_the_floor_open_nothing_even_with_the_right_passphrase():
    weak = stored(kdf.TESTING)
    for attempt in (sealed().unwrap, sealed().needs_rewrap):
        with pytest.raises(IntegrityError, match="weaker"):
            attempt(weak)


def test_a_blob_cannot_be_relabelled_to_a_cheaper_profile():
    blob = stored(kdf.DEFAULT)
    header = read_header(blob)
    relabelled = Header(header.seal, kdf.FLOOR.name, header.salt).encode() + blob[len(header.encode()) :]
    with pytest.raises(IntegrityError):
        sealed().unwrap(relabelled)


def test_a_seal_for_tests_has_to_be_built_by_hand():
    fast = sealed(profile=kdf.TESTING)
    assert fast.unwrap(fast.wrap(ROOT_KEY)) == ROOT_KEY
    with pytest.raises(IntegrityError):
        sealed().unwrap(fast.wrap(ROOT_KEY))


@pytest.mark.parametrize("text", ["", "short", "1234567", "ååååååå"])
def test_short_passphrases_are_refused_when_a_vault_is_made(text):
    with pytest.raises(InvalidRequest, match="8 characters"):
        open_seal("passphrase", passphrase=Secret(text), vault_id="v1", create=True)
    with pytest.raises(InvalidRequest):
        sealed(Secret(text), profile=kdf.TESTING).wrap(ROOT_KEY)


def test_without_a_passphrase_the_vault_stays_sealed():
    seal = open_seal("passphrase", passphrase=None, vault_id="v1")
    blob = stored(kdf.FLOOR)
    for attempt in (lambda: seal.unwrap(blob), lambda: seal.wrap(ROOT_KEY)):
        with pytest.raises(Sealed, match="--passphrase-file"):
            attempt()


def test_an_empty_passphrase_opens_nothing():
    with pytest.raises(InvalidRequest):
        sealed(Secret(""), profile=kdf.TESTING).unwrap(stored(kdf.TESTING))


def test_a_passphrase_typed_on_another_keyboard_is_the_same():
    composed, decomposed = Secret("\u00e9l\u00e8ve de caf\u00e9"), Secret("e\u0301le\u0300ve de cafe\u0301")
    blob = sealed(composed, profile=kdf.TESTING).wrap(ROOT_KEY)
    assert sealed(decomposed, profile=kdf.TESTING).unwrap(blob) == ROOT_KEY


def test_a_passphrase_of_bytes_that_are_no_text_works_too():
    odd = Secret(b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8")
    seal = sealed(odd, profile=kdf.TESTING)
    assert seal.unwrap(seal.wrap(ROOT_KEY)) == ROOT_KEY


def test_a_passphrase_in_the_seals_name_is_refused_without_repeating_it():
    with pytest.raises(InvalidRequest) as caught:
        open_seal("passphrase:hunter2hunter2", passphrase=None, vault_id="v1")
    assert "hunter2" not in str(caught.value)
