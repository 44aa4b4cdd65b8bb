import copy
import itertools
import json
import os
import pickle
import warnings

import pytest

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.crypto.aead import AeadKey
from keyhole.crypto.keyring import ENTRY_OVERHEAD, Keyring, Where, associated_data, term_of

WHERE = Where("org-1", "mount-1", "p1/abc", 7)
VALUE = b"sk_live_a-value-nobody-may-see"


@pytest.fixture(scope="module")
def ring():
    return Keyring.generate()


def test_an_entry_comes_back_as_it_was_written(ring):
    for value in (b"", VALUE, os.urandom(100_000)):
        blob = ring.seal(value, WHERE)
        assert ring.open(blob, WHERE) == value
        assert len(blob) == len(value) + ENTRY_OVERHEAD
        if value:
            assert value not in blob


@pytest.mark.parametrize(
    "other",
    [
        WHERE._replace(org="org-2"),
        WHERE._replace(mount="mount-2"),
        WHERE._replace(key="p1/abd"),
        WHERE._replace(revision=6),
        WHERE._replace(revision=8),
        Where("org-1m", "ount-1", "p1/abc", 7),
        Where("org-1", "mount-1p", "1/abc", 7),
    ],
)
@pytest.mark.parametrize("before", [False, True])
def test_an_entry_opens_in_no_other_place(ring, other, before):
    blob = ring.seal(VALUE, WHERE)
    if before:  # its data key is ready for use then
        assert ring.open(blob, WHERE) == VALUE
    with pytest.raises(IntegrityError):
        ring.open(blob, other)


def test_places_that_read_alike_are_encoded_apart():
    pieces = ["", "a", "b", "aa", "ab", "a\0", "\0", "ab/", "/"]
    places = [Where(*names, revision) for names in itertools.product(pieces, repeat=3) for revision in (0, 1, 97)]
    assert len({associated_data(place) for place in places}) == len(places)


@pytest.mark.parametrize(
    "place",
    [
        WHERE._replace(revision=-1),
        WHERE._replace(revision=2**64),
        WHERE._replace(key="k" * 65_536),
        WHERE._replace(org="\ud800"),
    ],
)
def test_a_place_that_cannot_be_encoded_is_refused(ring, place):
    with pytest.raises(InvalidRequest):
        ring.seal(VALUE, place)


def test_an_entry_of_another_org_does_not_open_even_in_the_same_place(ring):
    with pytest.raises(IntegrityError):
        Keyring.generate().open(ring.seal(VALUE, WHERE), WHERE)


def test_every_changed_bit_of_an_entry_is_refused(ring):
    blob = ring.rotated().seal(VALUE, WHERE)
    both_terms = ring.rotated()
    for position in range(len(blob)):
        for bit in (0x01, 0x80):
            changed = bytearray(blob)
            changed[position] ^= bit
            with pytest.raises(IntegrityError):
                both_terms.open(bytes(changed), WHERE)


def test_truncated_and_extended_entries_are_refused(ring):
    blob = ring.seal(VALUE, WHERE)
    for size in range(len(blob)):
        with pytest.raises(IntegrityError):
            ring.open(blob[:size], WHERE)
    for extra in (b"\0", blob):
        with pytest.raises(IntegrityError):
            ring.open(blob + extra, WHERE)


def test_bodies_and_data_keys_of_two_entries_cannot_be_exchanged(ring):
    one, two = ring.seal(VALUE, WHERE), ring.seal(VALUE, WHERE)
    with pytest.raises(IntegrityError):
        ring.open(one[:65] + two[65:], WHERE)


def test_a_term_number_cannot_be_exchanged(ring):
    both = ring.rotated()
    blob = both.seal(VALUE, WHERE)
    with pytest.raises(IntegrityError):
        both.open(blob[:4] + b"\x01" + blob[5:], WHERE)


def test_errors_do_not_say_why_something_does_not_open(ring):
    blob = ring.seal(VALUE, WHERE)
    cases = [
        (ring, b"", WHERE),
        (ring, blob[:-1], WHERE),
        (ring, b"\x02" + blob[1:], WHERE),
        (ring, blob, WHERE._replace(revision=8)),
        (Keyring.generate(), blob, WHERE),
    ]
    texts = set()
    for keyring, bad, where in cases:
        with pytest.raises(IntegrityError) as caught:
            keyring.open(bad, where)
        texts.add(str(caught.value))
        assert caught.value.__cause__ is None
    assert len(texts) == 1


def test_old_entries_stay_readable_after_rotation_and_new_ones_use_the_new_term(ring):
    old = ring.seal(VALUE, WHERE)
    rotated = ring.rotated()
    assert rotated.terms == (1, 2)
    assert rotated.current == 2
    assert rotated.open(old, WHERE) == VALUE
    assert term_of(old) == 1
    assert term_of(rotated.seal(VALUE, WHERE)) == 2
    with pytest.raises(IntegrityError):
        ring.open(rotated.seal(VALUE, WHERE), WHERE)


def test_a_rewrapped_entry_survives_the_old_term_and_the_old_blob_does_not(ring):
    old = ring.seal(VALUE, WHERE)
    following = WHERE._replace(revision=8)
    rotated = ring.rotated()
    new = rotated.rewrap(old, WHERE, following)
    last = rotated.without(1)
    assert last.terms == (2,)
    assert last.open(new, following) == VALUE
    with pytest.raises(IntegrityError):
        last.open(old, WHERE)


def test_a_dropped_term_number_is_never_given_again(ring):
    assert ring.rotated().without(1).rotated().rotated().without(3).terms == (2, 4)


@pytest.mark.parametrize("term", [2, 0, 9])
def test_the_current_term_and_unknown_terms_cannot_be_dropped(ring, term):
    with pytest.raises(InvalidRequest):
        ring.rotated().without(term)


def test_journal_records_survive_the_drop_of_their_entry_term(ring):
    record = ring.seal_records([(b"who did what", b"header")])[0]
    later = ring.rotated().without(1)
    assert later.open_record(record, b"header") == b"who did what"


def test_a_journal_record_opens_only_with_its_own_header_and_whole(ring):
    both = ring.rotated()
    record = both.seal_records([(b"who did what", b"header")])[0]
    with pytest.raises(IntegrityError):
        both.open_record(record, b"headex")
    for position in range(len(record)):
        with pytest.raises(IntegrityError):
            both.open_record(record[:position] + bytes([record[position] ^ 1]) + record[position + 1 :], b"header")
        with pytest.raises(IntegrityError):
            both.open_record(record[:position], b"header")


def test_an_entry_is_not_a_journal_record(ring):
    with pytest.raises(IntegrityError):
        ring.open_record(ring.seal(VALUE, WHERE), associated_data(WHERE))
    with pytest.raises(IntegrityError):
        ring.open(ring.seal_records([(VALUE * 4, associated_data(WHERE))])[0], WHERE)


def test_a_keyring_reads_everything_after_it_was_stored(ring):
    rotated = ring.rotated().rotated().without(2)
    again = Keyring.from_bytes(rotated.to_bytes())
    assert again.terms == (1, 3)
    assert again.open(rotated.seal(VALUE, WHERE), WHERE) == VALUE
    assert again.open_record(rotated.seal_records([(b"r", b"")])[0], b"") == b"r"
    assert again.keyed_hash("token", b"t") == ring.keyed_hash("token", b"t")
    assert again.name_key.decrypt(ring.name_key.encrypt("name", "p"), "p") == "name"
    assert again.to_bytes() == rotated.to_bytes()


def test_a_damaged_keyring_is_refused(ring):
    data = ring.rotated().to_bytes()
    terms = 1 + 64 + 32
    damaged = [data[:size] for size in range(len(data))]
    damaged += [
        data + b"\0",
        b"\x02" + data[1:],
        data[:terms] + b"\0\0" + data[terms + 2 :],
        data[: terms + 2] + b"\0\0\0\2" + data[terms + 6 :],
        data[: terms + 2] + b"\0\0\0\0" + data[terms + 6 :],
        data[: terms + 38] + b"\0\0\0\3" + data[terms + 42 :],
    ]
    for bad in damaged:
        with pytest.raises(IntegrityError):
            Keyring.from_bytes(bad)


def test_keyed_hashes_differ_by_purpose_data_and_org(ring):
    hashes = {
        ring.keyed_hash("token", b"x"),
        ring.keyed_hash("tokenx", b""),
        ring.keyed_hash("accessor", b"x"),
        ring.keyed_hash("token", b"y"),
        Keyring.generate().keyed_hash("token", b"x"),
    }
    assert len(hashes) == 5
    assert {len(value) for value in hashes} == {32}


def test_keys_show_in_no_text_and_cannot_be_serialised(ring):
    secret_bytes = ring.to_bytes()
    for key in (ring, ring.name_key, AeadKey(os.urandom(32))):
        assert "***" in repr(key)
        assert not any(secret_bytes[i : i + 4].hex() in repr(key) for i in range(1, 60))
        for serialise in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps):
            with pytest.raises(TypeError):
                serialise(key)


def parts(ring, blob):
    """The (key, nonce) pairs that an entry used: the term's key with its nonce, the data key with its nonce."""
    place = associated_data(WHERE)
    data_key = ring._entry_keys[term_of(blob)].open(blob[5:65], place + blob[1:5])
    return (term_of(blob), blob[5:17]), (data_key, blob[65:77])


def test_no_key_and_nonce_is_used_twice_by_a_process_and_its_fork(ring):
    count = 500
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
        child = os.fork()
    if child == 0:
        with os.fdopen(writer, "wb") as pipe:
            for _ in range(count):
                pipe.write(ring.seal(VALUE, WHERE))
        os._exit(0)
    os.close(writer)
    mine = [ring.seal(VALUE, WHERE) for _ in range(count)]
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    size = len(mine[0])
    theirs = [data[i : i + size] for i in range(0, len(data), size)]
    assert len(theirs) == count
    pairs = [pair for blob in mine + theirs for pair in parts(ring, blob)]
    assert len(set(pairs)) == len(pairs)
    assert len({key for key, _ in pairs if isinstance(key, bytes)}) == 2 * count
