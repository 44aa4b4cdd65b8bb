"""The seal of an age identity: which files are one, what stands in the blob, and that nobody else makes one."""

import os
import shutil
import subprocess

import pytest

from keyhole.core.errors import IntegrityError, InvalidRequest, Sealed
from keyhole.core.value import Secret
from keyhole.crypto import age, age_scrypt
from keyhole.seals import asks_for, file_of, open_seal
from keyhole.seals.blob import Header, close, from_random_key, read_header

ROOT_KEY = bytes(range(32))
VAULT = "vault-1"
PASSPHRASE = Secret("correct horse battery")
PLUGIN = "# recipient: age1yubikey1qqqqqqqq\nAGE-PLUGIN-YUBIKEY-1QQQQQQQQ\n"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "identity.txt"


def write(path, content, mode=0o600):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def opened(path, options="", passphrase=None):
    return open_seal(f"age:{path}{options}", passphrase=passphrase, vault_id=VAULT)


def ssh_key(path, kind="ed25519", passphrase=""):
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path)], check=True)
    return path


@pytest.fixture
def cheap(monkeypatch):
    monkeypatch.setattr(age_scrypt, "WORK", 4)


def test_the_program_age_makes_the_identity_and_opens_what_the_blob_holds(path):
    assert shutil.which("age"), "scripts/os-needs installs age"
    subprocess.run(["age-keygen", "-o", str(path)], check=True, capture_output=True)
    blob = opened(path).wrap(ROOT_KEY)
    header = read_header(blob)
    assert header.wrapped.startswith(b"age-encryption.org/v1\n-> X25519 ")
    done = subprocess.run(["age", "-d", "-i", str(path)], input=header.wrapped, capture_output=True, check=True)
    own = done.stdout[:32]
    assert len(done.stdout) == 32 + 64
    assert close(header, from_random_key(header, own), VAULT, ROOT_KEY)[:-60] == blob[:-60]
    assert opened(path).unwrap(blob) == ROOT_KEY


def test_an_ssh_key_is_an_identity(path):
    seal = opened(ssh_key(path))
    assert seal.unwrap(seal.wrap(ROOT_KEY)) == ROOT_KEY


@pytest.mark.parametrize("signature", [b"", bytes(64), "theirs"])
def test_who_knows_the_recipient_cannot_give_the_vault_another_root_key(path, signature):
    me, eve = age.generate(), age.generate()
    write(path, me.to_text())
    own = os.urandom(32)
    signed = eve.signing.sign(b"keyhole seal age v1\0" + VAULT.encode() + b"\0" + own)
    header = Header.around("age", age.encrypt(own + (signed if signature == "theirs" else signature), [me.recipient]))
    forged = close(header, from_random_key(header, own), VAULT, bytes(32))
    with pytest.raises(IntegrityError):
        opened(path).unwrap(forged)
    signed = me.signing.sign(b"keyhole seal age v1\0" + VAULT.encode() + b"\0" + own)
    header = Header.around("age", age.encrypt(own + signed, [me.recipient]))
    assert opened(path).unwrap(close(header, from_random_key(header, own), VAULT, bytes(32))) == bytes(32)


def test_a_blob_that_a_passphrase_opens_is_refused_and_nobody_is_asked(path, cheap):
    write(path, age.generate().to_text())
    header = Header.around("age", age_scrypt.seal_with(PASSPHRASE, bytes(96)))
    with pytest.raises(IntegrityError):
        opened(path).unwrap(close(header, from_random_key(header, bytes(32)), VAULT, ROOT_KEY))


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"# a comment\n", b"hunter2", b"\xff" * 74, b"AGE-SECRET-KEY-1HUNTER2", b"-----BEGIN hunter2"),
        *(b"-----BEGIN AGE ENCRYPTED FILE-----\nhunter2\n-----END AGE ENCRYPTED FILE-----\n", PLUGIN.encode()),
        b"# " + b"x" * 70_000 + b"\n" + age.generate().to_text().encode(),
        f"{age.generate().to_text()}\n{age.generate().to_text()}\n".encode(),
        age.encrypt(b"hunter2", [age.generate().recipient]),
    ],
)
@pytest.mark.parametrize("options", ["", "?passphrase=ask"])
def test_what_is_no_identity_is_refused_without_showing_it(path, content, options):
    unsaid = not options and content.startswith((b"-----BEGIN AGE", b"age-encryption"))
    with pytest.raises(Sealed if unsaid else InvalidRequest) as caught:
        opened(write(path, content), options, PASSPHRASE).wrap(ROOT_KEY)
    assert caught.value.hint
    assert "hunter2" not in str(caught.value).lower()


def test_a_key_that_cannot_sign_is_refused(path):
    with pytest.raises(InvalidRequest, match="cannot prove who sealed"):
        opened(ssh_key(path, "rsa")).wrap(ROOT_KEY)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_can_use_is_refused(path, mode):
    with pytest.raises(InvalidRequest, match="chmod 600"):
        opened(write(path, age.generate().to_text(), mode)).wrap(ROOT_KEY)


def test_a_vault_opens_once_its_identity_is_mounted(path):
    seal = opened(write(path, age.generate().to_text()))
    blob = seal.wrap(ROOT_KEY)
    hidden = path.rename(path.with_name("away"))
    with pytest.raises(Sealed):
        seal.unwrap(blob)
    hidden.rename(path)
    assert seal.unwrap(blob) == ROOT_KEY


def test_an_identity_under_a_passphrase_opens_with_it_alone(path, cheap):
    text = age.generate().to_text()
    blob = opened(write(path, text)).wrap(ROOT_KEY)
    write(path, age_scrypt.seal_with(PASSPHRASE, text.encode()))
    assert opened(path, "?passphrase=ask", PASSPHRASE).unwrap(blob) == ROOT_KEY
    for seal in (opened(path, "?passphrase=ask", Secret("wrong horse")), opened(path, "?passphrase=ask")):
        assert not seal.unattended
        with pytest.raises(Sealed):
            seal.unwrap(blob)
    with pytest.raises(Sealed) as caught:  # given or not: it was not said that there is one
        opened(path, passphrase=PASSPHRASE).unwrap(blob)
    assert "?passphrase=ask" in caught.value.hint


def test_an_ssh_key_under_a_passphrase_opens_with_it_alone(path):
    ssh_key(path, passphrase=PASSPHRASE.reveal().decode())
    seal = opened(path, "?passphrase=ask", PASSPHRASE)
    blob = seal.wrap(ROOT_KEY)
    assert seal.unwrap(blob) == ROOT_KEY
    for other in (opened(path, "?passphrase=ask", Secret("wrong horse")), opened(path)):
        with pytest.raises(Sealed):
            other.unwrap(blob)


def test_nothing_entered_counts_as_a_passphrase_that_is_not_there(path):
    write(path, age.generate().to_text())
    blob = opened(path).wrap(ROOT_KEY)
    with pytest.raises(InvalidRequest, match="under no passphrase"):
        opened(path, "?passphrase=ask", PASSPHRASE).unwrap(blob)


@pytest.mark.parametrize("rest", ["", "?passphrase=ask", "/i?passphrase=FORGOTTEN", "/i?passphrase=", "/i?x=FORGOTTEN"])
def test_what_makes_no_sense_is_refused_and_not_repeated(rest):
    with pytest.raises(InvalidRequest) as caught:
        opened(rest)
    assert "FORGOTTEN" not in caught.value.reason + caught.value.hint


def test_the_seal_says_which_file_and_what_is_asked():
    assert asks_for("age:/i") == ""
    assert asks_for("age:/i?passphrase=ask") == "Passphrase of the age identity"
    assert file_of("age:/i?passphrase=ask") == "/i"
    assert file_of("keyfile:/k?") == "/k?"
    assert file_of("transit:https://x/k?token-file=/t") == ""
