"""age files: every vector of the format's own test kit is opened or refused as it says."""

import hashlib
import os
import tarfile
import zlib
from collections import defaultdict
from pathlib import Path

import pytest

from keyhole.core.errors import IntegrityError, InvalidRequest, KeyholeError, NotFound
from keyhole.crypto import age

# Files of 16 MiB and more are bounded here, and are not secrets.
TOO_LONG = {"stream_257_chunks_full", "stream_258_chunks"}


def kit():
    """Name, fields of the head, and the age file of each vector."""
    folder = os.environ.get("KEYHOLE_VECTORS")
    if not folder:
        pytest.skip("KEYHOLE_VECTORS is unset: the test kit of age did not run")
    with tarfile.open(Path(folder, "third-party", "age-cctv.tar.gz")) as archive:
        for member in archive:
            if member.isfile():
                head, _, body = archive.extractfile(member).read().partition(b"\n\n")
                fields = defaultdict(list)
                for line in head.decode().splitlines():
                    key, _, value = line.partition(": ")
                    fields[key].append(value)
                if fields["compressed"] == ["zlib"]:
                    body = zlib.decompress(body)
                yield Path(member.name).name, fields, body


def opened(body, identities):
    try:
        return hashlib.sha256(age.decrypt(body, identities)).hexdigest()
    except KeyholeError as error:
        return error


def test_files_for_x25519_keys_open_or_are_refused_as_the_test_kit_says():
    count = 0
    for name, fields, body in kit():
        native = [text for text in fields["identity"] if text.startswith(age.PRIVATE)]
        if not native or fields["passphrase"] or fields["armored"]:
            continue
        count += 1
        got = opened(body, [age.parse_identity(text) for text in native])
        if fields["expect"] == ["success"] and name not in TOO_LONG:
            assert got == fields["payload"][0], name
        elif fields["expect"] == ["no match"]:
            assert isinstance(got, NotFound), name
        else:
            assert isinstance(got, IntegrityError), name
    assert count > 60


def test_armour_passphrases_and_other_keys_open_nothing():
    me = age.generate()
    for name, fields, body in kit():
        if fields["passphrase"] or fields["armored"]:
            assert isinstance(opened(body, [me]), KeyholeError), name


def test_what_is_sealed_opens_for_its_recipients_alone():
    people = [age.generate() for _ in range(5)]
    for size in (0, 1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1):
        value = os.urandom(size)
        sealed = age.encrypt(value, [person.recipient for person in people[:4]])
        assert age.stanza_count(sealed) >= 4
        assert all(age.decrypt(sealed, [person]) == value for person in people[:4])
        assert isinstance(opened(sealed, [people[4]]), NotFound)


def test_a_changed_byte_anywhere_is_noticed():
    me = age.generate()
    sealed = age.encrypt(b"value", [me.recipient])
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        assert isinstance(opened(bytes(changed), [me]), KeyholeError), position


@pytest.mark.parametrize("text", ["", "x", "AGE-SECRET-KEY-1" + "Q" * 58, "age1" + "q" * 58])
def test_what_is_no_key_is_refused_without_being_repeated(text):
    for parse in (age.parse_identity, age.parse_recipient):
        with pytest.raises(InvalidRequest) as caught:
            parse(text)
        assert not text or text == "x" or text not in str(caught.value)


LOW_ORDER = [  # RFC 7748: points whose multiples are few, with the bit that does not count too
    bytes(32),
    bytes(31) + b"\x80",
    bytes([1]) + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ec" + "ff" * 30 + "7f"),
    bytes.fromhex("ed" + "ff" * 30 + "7f"),
    bytes.fromhex("ee" + "ff" * 30 + "7f"),
]


def recipient_of(point):
    """The text of a recipient, as BIP 173 writes it."""
    bits = f"{int.from_bytes(point) << 4:0260b}"
    words = [int(bits[at : at + 5], 2) for at in range(0, 260, 5)]
    check = 1
    for word in [3, 3, 3, 0, 1, 7, 5, *words, 0, 0, 0, 0, 0, 0]:  # of "age", then what it stands for
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ word
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    words += [(check ^ 1) >> 5 * (5 - at) & 31 for at in range(6)]
    return "age1" + "".join("qpzry9x8gf2tvdw0s3jn54khce6mua7l"[word] for word in words)


@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
def test_a_key_for_which_everybody_could_open_is_refused(point):
    with pytest.raises(InvalidRequest, match="everybody could open"):
        age.parse_recipient(recipient_of(point))
    assert age.parse_recipient(recipient_of(bytes([9]) + bytes(31)))


def test_keys_do_not_show_themselves():
    me = age.generate()
    assert me.to_text() not in repr(me)
    with pytest.raises(TypeError):
        me.__reduce__()


def test_bounds():
    me = age.generate()
    with pytest.raises(InvalidRequest):
        age.encrypt(b"x", [])
    with pytest.raises(InvalidRequest):
        age.encrypt(b"x" * (age.MAX_FILE + 1), [me.recipient])
    stanzas = b"".join(b"-> X25519 %d\nAAAA\n" % n for n in range(1000))
    with pytest.raises(IntegrityError):
        age.require_file(b"age-encryption.org/v1\n" + stanzas + b"--- x\n")
