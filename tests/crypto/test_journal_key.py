"""No key seals more records than it may, however many there are."""

import copy
import os
import pickle

import pytest

from keyhole.core.errors import IntegrityError
from keyhole.crypto import journal_key
from keyhole.crypto.journal_key import JournalKey
from keyhole.crypto.keyring import Keyring
from vault.world import journal, play


@pytest.fixture
def seals(monkeypatch):
    """How many messages each key has sealed, as the cipher itself sees it; with a limit of four."""
    monkeypatch.setattr(journal_key, "RECORDS_PER_KEY", 4)
    counts = []
    derive = JournalKey._derive

    class Counting:
        def __init__(self, cipher):
            self.decrypt = cipher.decrypt
            self._encrypt = cipher.encrypt
            self._number = len(counts)
            counts.append(0)

        def encrypt(self, *args):
            counts[self._number] += 1
            return self._encrypt(*args)

    def counted(self, salt):
        key = derive(self, salt)
        key._cipher = Counting(key._cipher)
        return key

    monkeypatch.setattr(JournalKey, "_derive", counted)
    return counts


def test_a_key_is_replaced_before_its_limit_and_every_record_still_opens(seals):
    ring = Keyring.generate()
    records = [ring.seal_records([(b"%d" % number, b"header")])[0] for number in range(19)]
    assert [count for count in seals if count] == [4, 4, 4, 4, 3]
    assert len({record[5:21] for record in records}) == 5
    for reader in (ring, Keyring.from_bytes(ring.to_bytes())):
        assert [reader.open_record(record, b"header") for record in records] == [b"%d" % n for n in range(19)]


def test_a_journal_goes_on_past_the_limit_and_verifies(seals):
    async def scenario(vault):
        for number in range(30):
            await vault.ask("update", f"secret/data/s{number}", {"data": {"value": "v"}})
        checked = (await vault.ask("read", "sys/audit-log/verify")).data
        assert checked["valid"]
        assert len(await journal(vault)) >= 60
        assert len([count for count in seals if count]) >= 15
        assert max(seals) <= 4

    play(scenario)


def test_two_processes_never_seal_under_one_key():
    secret = Keyring.generate().to_bytes()
    mine, theirs = Keyring.from_bytes(secret), Keyring.from_bytes(secret)
    assert mine.seal_records([(b"x", b"")])[0][5:21] != theirs.seal_records([(b"x", b"")])[0][5:21]


def test_a_record_does_not_open_under_another_salt():
    ring = Keyring.generate()
    record = ring.seal_records([(b"who did what", b"header")])[0]
    for salt in (bytes(16), os.urandom(16)):
        with pytest.raises(IntegrityError):
            ring.open_record(record[:5] + salt + record[21:], b"header")


def test_keys_of_many_other_writers_do_not_pile_up():
    key = JournalKey(os.urandom(32))
    for _ in range(1000):
        key.opener(os.urandom(16))
    assert len(key._opened) <= journal_key._OPENED


def test_it_shows_and_serialises_nothing():
    key = JournalKey(os.urandom(32))
    assert repr(key) == "JournalKey(***)"
    for serialise in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            serialise(key)
