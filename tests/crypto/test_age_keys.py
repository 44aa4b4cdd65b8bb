"""Keys besides age's own: of SSH, of a plugin, and under a passphrase."""

import subprocess

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from keyhole.core.errors import IntegrityError, InvalidRequest, NotFound, Sealed
from keyhole.core.value import Secret
from keyhole.crypto import age, age_scrypt
from keyhole.crypto.age_header import HEAD
from repo import plugin_double

PASSPHRASE = Secret("a passphrase of some words")


class Person:
    """Answers whatever is asked with the same words, and keeps what was asked and said."""

    def __init__(self, answer=None):
        self.given = answer
        self.agrees = True
        self.asked, self.shown = [], []

    def passphrase(self, question):
        self.asked.append(question)
        return None if self.given is None else Secret(self.given)

    def answer(self, question):
        self.asked.append(question)
        return "ann"

    def confirm(self, question):
        self.asked.append(question)
        return self.agrees

    def show(self, message):
        self.shown.append(message)


def pem(key, passphrase=None, kind=form.PrivateFormat.OpenSSH):
    lock = form.NoEncryption() if passphrase is None else form.BestAvailableEncryption(passphrase)
    return key.private_bytes(form.Encoding.PEM, kind, lock).decode()


def line(key):
    public = key.public_key() if hasattr(key, "public_key") else key
    return public.public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH).decode()


SHORT_RSA = line(rsa.RSAPublicNumbers(65537, (1 << 1023) + 1).public_key())  # nobody needs its private half
ED, OTHER_ED = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)

WEAK = [  # Ed25519: points of low order, and one that is not written as RFC 8032 does
    bytes([1]) + bytes(31),
    bytes(32),
    bytes.fromhex("ec" + "ff" * 30 + "7f"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    bytes([255]) * 32,
]


@pytest.fixture
def programs(tmp_path, monkeypatch):
    plugin_double.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    return tmp_path / "bin"


@pytest.fixture
def cheap(monkeypatch):
    monkeypatch.setattr(age_scrypt, "WORK", 10)


@pytest.mark.parametrize("key", [ED, RSA], ids=["ssh-ed25519", "ssh-rsa"])
def test_a_file_for_an_ssh_key_opens_with_it_and_with_no_other(key):
    recipient = age.parse_recipient(f"{line(key)} ann@laptop")
    assert recipient.text == line(key)
    sealed = age.encrypt(b"value", [recipient, age.generate().recipient])
    identity = age.find_identity(pem(key))
    assert identity.recipient == recipient
    assert age.decrypt(sealed, [identity]) == b"value"
    with pytest.raises(NotFound):
        age.decrypt(sealed, [age.find_identity(pem(OTHER_ED))])


def test_the_signing_key_is_that_of_the_ssh_key_however_its_file_is_written():
    known = age.find_identity(pem(ED)).signing.public
    pkcs8 = age.find_identity(pem(ED, kind=form.PrivateFormat.PKCS8))
    assert age.find_identity(pem(ED)).signing.public == pkcs8.signing.public == known
    assert age.find_identity(pem(OTHER_ED)).signing.public != known
    assert known != ED.public_key().public_bytes_raw()  # what ssh signs is no signature here


def test_who_has_an_rsa_key_cannot_sign_and_is_told_so():
    identity = age.find_identity(pem(RSA))
    assert not identity.signs
    with pytest.raises(InvalidRequest, match="ssh-rsa key cannot sign"):
        _ = identity.signing


def test_an_ssh_key_under_a_passphrase_opens_with_it_alone():
    text = pem(ED, b"secret-words", form.PrivateFormat.PKCS8)
    with pytest.raises(Sealed, match="has a passphrase"):
        age.find_identity(text)
    with pytest.raises(Sealed, match="does not open"):
        age.find_identity(text, Person("wrong-words"))
    person = Person("secret-words")
    assert age.find_identity(text, person).signing.public == age.find_identity(pem(ED)).signing.public
    assert person.asked == ["Passphrase of the SSH key"]


def test_an_openssh_key_under_a_passphrase_opens_or_says_what_it_needs(tmp_path, monkeypatch):
    path = tmp_path / "id"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-a", "1", "-N", "secret-words", "-f", path]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    with pytest.raises(Sealed, match="has a passphrase"):
        age.find_identity(path.read_text())
    assert age.find_identity(path.read_text(), Person("secret-words")).signs

    def without(*_arguments):
        raise UnsupportedAlgorithm("bcrypt")

    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)  # as without the extra
    monkeypatch.setattr("cryptography.hazmat.primitives.serialization.load_ssh_private_key", without)
    with pytest.raises(InvalidRequest, match="bcrypt"):
        age.find_identity(path.read_text(), Person("secret-words"))


@pytest.mark.parametrize(
    "text",
    [
        "ssh-ed25519 AAAA",
        "ssh-rsa " + line(ED).split()[1],
        "ssh-ed25519 " + line(RSA).split()[1],
        line(ec.generate_private_key(ec.SECP256R1())),
        SHORT_RSA,
        "age1double1qqqqqqqqqqqqqqq",
        "age1../../x1qqqqqqqqqqqqqqq",
        plugin_double.make_key(b"seed")[0].upper(),
        plugin_double.make_key(b"seed")[0] + "\n# x",
    ],
    ids=["short", "rsa-as-ed", "ed-as-rsa", "ecdsa", "few-bits", "no-plugin", "path", "capitals", "two-lines"],
)
def test_what_is_no_public_key_is_refused(text):
    with pytest.raises(InvalidRequest):
        age.parse_recipient(text)


@pytest.mark.parametrize("key", WEAK, ids=bytes.hex)
def test_an_ssh_key_for_which_everybody_could_open_is_refused(key):
    with pytest.raises(InvalidRequest, match="everybody could open"):
        age.parse_recipient(line(ed25519.Ed25519PublicKey.from_public_bytes(key)))


def test_a_private_ssh_key_of_another_kind_is_refused():
    with pytest.raises(InvalidRequest, match="opens no files"):
        age.find_identity(pem(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(InvalidRequest, match="no private SSH key"):
        age.find_identity("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")


def test_a_plugin_seals_and_opens_and_asks_its_person(programs):
    public, private = plugin_double.make_key(b"ask-me")
    recipient = age.parse_recipient(public)
    sealed = age.encrypt(b"value", [age.generate().recipient, recipient])
    person = Person("2718")
    identity = age.find_identity(f"# Recipient: {public}\n{private}\n", person)
    assert (identity.recipient, identity.signs) == (recipient, False)
    assert age.decrypt(sealed, [identity]) == b"value"
    assert person.shown == ["touch the double [2J"]
    assert person.asked == ["open it? (yes, or no)", "your name", "PIN of the double"]
    person.agrees = False
    with pytest.raises(Sealed):
        age.decrypt(sealed, [identity])
    with pytest.raises(Sealed):
        age.decrypt(sealed, [age.find_identity(f"# recipient: {public}\n{private}\n", Person("1111"))])
    other, its = plugin_double.make_key(b"other")
    with pytest.raises(NotFound):
        age.decrypt(sealed, [age.find_identity(f"# public key: {other}\n{its}\n", Person())])
    with pytest.raises(InvalidRequest, match="cannot sign"):
        _ = identity.signing


def test_a_plugin_is_not_started_where_nobody_could_be_asked(programs):
    public, private = plugin_double.make_key(b"seed")
    sealed = age.encrypt(b"value", [age.parse_recipient(public)])
    with pytest.raises(Sealed, match="nobody can be asked"):
        age.decrypt(sealed, [age.find_identity(f"# recipient: {public}\n{private}\n")])


def test_a_missing_program_or_one_in_the_folder_of_work_is_named(tmp_path, monkeypatch):
    recipient = age.parse_recipient(plugin_double.make_key(b"seed")[0])
    with pytest.raises(Sealed, match="age-plugin-double is not on this machine"):
        age.encrypt(b"value", [recipient])
    plugin_double.install(tmp_path / "bin")
    monkeypatch.chdir(tmp_path / "bin")
    monkeypatch.setenv("PATH", ".", prepend=":")
    with pytest.raises(Sealed, match="in the folder where you are"):
        age.encrypt(b"value", [recipient])


def test_a_plugin_that_dies_seals_nothing(programs):
    (programs / "age-plugin-double").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(Sealed, match="nothing was sealed"):
        age.encrypt(b"value", [age.parse_recipient(plugin_double.make_key(b"seed")[0]), age.generate().recipient])


def test_an_identity_of_a_plugin_without_its_recipient_is_no_member_of_anything():
    with pytest.raises(InvalidRequest, match="does not say its recipient"):
        age.find_identity(plugin_double.make_key(b"seed")[1])


def test_a_file_under_a_passphrase_opens_with_it_alone(cheap):
    me = age.generate()
    kept = age_scrypt.seal_with(PASSPHRASE, me.to_text().encode())
    assert age_scrypt.open_with(PASSPHRASE, kept) == me.to_text().encode()
    with pytest.raises(Sealed, match="passphrase does not open"):
        age_scrypt.open_with(Secret("another passphrase"), kept)
    with pytest.raises(InvalidRequest, match="8 characters"):
        age_scrypt.seal_with(Secret("short"), b"x")
    with pytest.raises(IntegrityError):
        age.require_file(kept)  # among secrets it is nothing
    changed = bytearray(kept)
    changed[-1] ^= 1
    with pytest.raises((Sealed, IntegrityError)):
        age_scrypt.open_with(PASSPHRASE, bytes(changed))


def header(*stanzas):
    return HEAD + b"".join(stanza + b"\n" for stanza in stanzas) + b"--- " + b"A" * 43 + b"\n" + bytes(40)


A6, A22, A43 = b"A" * 6, b"A" * 22, b"A" * 43
GOOD = [
    b"-> X25519 " + A43 + b"\n" + A43,
    b"-> ssh-ed25519 " + A6 + b" " + A43 + b"\n" + A43,
    b"-> ssh-rsa " + A6 + b"\n" + (b"A" * 64 + b"\n") * 5 + b"A" * 22,
    b"-> piv-p256 AAAA BBBB\n" + A43,
    b"-> grease\n",
]
BAD = [
    b"-> X25519\n" + A43,
    b"-> X25519 " + A43 + b" x\n" + A43,
    b"-> X25519 " + b"A" * 42 + b"B\n" + A43,
    b"-> X25519 " + A43 + b"\n" + b"A" * 42,
    b"-> X25519 " + A43 + b"\n" + b"A" * 42 + b"B",
    b"-> ssh-ed25519 " + A43 + b"\n" + A43,
    b"-> ssh-ed25519 AAAA " + A43 + b"\n" + A43,
    b"-> ssh-ed25519 " + A6 + b" " + A22 + b"\n" + A43,
    b"-> ssh-ed25519 " + A6 + b" " + A43 + b"\n" + A22,
    b"-> ssh-ed25519 " + A6 + b" " + A43 + b"=\n" + A43,
    b"-> ssh-rsa " + A6 + b"\n" + A43,
    b"-> ssh-rsa " + A6 + b" " + A6 + b"\n" + (b"A" * 64 + b"\n") * 5 + b"A" * 22,
    b"-> ssh-rsa " + A6 + b"\n" + (b"A" * 64 + b"\n") * 50 + b"A" * 22,
    b"-> scrypt " + A22 + b" 18\n" + A43,
    b"->\n" + A43,
    b"-> plugin  two-spaces\n" + A43,
    b"-> piv-p256 AAAA\n" + b"A",
]


def test_each_kind_of_stanza_has_the_shape_of_its_kind_and_no_other():
    assert age.require_file(header(*GOOD)) == len(GOOD)
    for bad in BAD:
        with pytest.raises(IntegrityError):
            age.require_file(header(*GOOD, bad))


@pytest.mark.parametrize("body", [b"AAAAA", b"=A=A", b"QUFB"])
def test_damaged_armour_is_said_to_be_damaged(body):
    whole = b"-----BEGIN AGE ENCRYPTED FILE-----\n" + body + b"\n-----END AGE ENCRYPTED FILE-----\n"
    with pytest.raises(IntegrityError):
        age_scrypt.open_with(PASSPHRASE, whole)


@pytest.mark.parametrize("work", [b"0", b"21", b"08", b"+8", b"100", b""])
def test_a_passphrase_file_that_asks_for_much_work_is_not_computed(work):
    with pytest.raises(IntegrityError):
        age_scrypt.open_with(PASSPHRASE, header(b"-> scrypt " + A22 + b" " + work + b"\n" + A43))


def test_a_file_that_is_sealed_for_more_or_for_others_than_it_should_be_shows(programs):
    ann, ben, eve = (age.generate().recipient for _ in range(3))
    held = age.parse_recipient(plugin_double.make_key(b"seed")[0])
    ed, other, rsa_key = (age.parse_recipient(line(key)) for key in (ED, OTHER_ED, RSA))
    listed = [ann, ed, ben, held, rsa_key]
    assert age.unlisted(age.encrypt(b"x", listed), listed) == ""
    for sealed_for in (
        [*listed, eve],
        listed[:2],
        [ann, ben, ed, held],
        [*listed, other],
        [ann, other, ben, held, rsa_key],
    ):
        assert age.unlisted(age.encrypt(b"x", sealed_for), listed)
