"""What every member of the shelf ``keyhole.seals`` promises."""

import os
import random
import subprocess
import sys

import pytest

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.core.value import Secret
from keyhole.crypto import age, kdf
from keyhole.seals import MEMBERS, Seal, open_seal
from keyhole.seals.age import AgeSeal
from keyhole.seals.keychain import KeychainSeal
from keyhole.seals.keyfile import KeyfileSeal, make_keyfile
from keyhole.seals.passphrase import PassphraseSeal
from keyhole.seals.shares import SharesSeal
from seals import aws, hsm
from seals.clouds import RING, AzureStandIn, GoogleStandIn
from seals.desktop import desktop_session
from seals.hsm import tokens
from seals.other_vault import other_vault
from seals.other_vault import spec_of as other_spec

ROOT_KEY = os.urandom(32)
VAULT = "vault-1"
ATTENDED = {"passphrase", "shares"}
UNATTENDED = {name: name not in ATTENDED for name in MEMBERS}
SPECS = {
    "keyfile": ":/nowhere/key",
    "age": ":/nowhere/identity.txt",
    "shares": ":5:3",
    "pkcs11": ":token=t;object=o?module-path=/nowhere.so&pin-source=file:/nowhere/pin",
    "awskms": ":alias/keyhole?region=eu-central-1",
    "gcpkms": f":{RING}/right",
    "azurekms": ":https://name.vault.azure.net/keys/right",
    "transit": ":https://vault.example:8200/right?token-file=/nowhere/token",
}


def passphrase_seals(folder):
    def make(vault_id=VAULT, *, right=True):
        secret = Secret("correct horse battery" if right else "correct horse batterz")
        return PassphraseSeal(secret, vault_id, profile=kdf.TESTING)

    yield make


def keyfile_seals(folder):
    for name in ("True", "False"):
        make_keyfile(folder / name)

    def make(vault_id=VAULT, *, right=True):
        return KeyfileSeal(folder / str(right), vault_id)

    yield make


def age_seals(folder):
    for name in ("True", "False"):
        (folder / name).write_text(f"# made for this test\n{age.generate().to_text()}\n")
        (folder / name).chmod(0o600)

    def make(vault_id=VAULT, *, right=True):
        return AgeSeal(folder / str(right), vault_id)

    yield make


def shares_seals(folder):
    """The wrong key is that of people with shares of another vault."""
    dealt = {right: SharesSeal(VAULT, 5, 3, create=True).deal() for right in (True, False)}

    def make(vault_id=VAULT, *, right=True):
        some = random.sample(dealt[right], 3)
        return SharesSeal(vault_id, 5, 3, Secret(b" ".join(share.reveal() for share in some)))

    yield make


def keychain_seals(folder):
    """The wrong key is that of another person, who has an entry for the same vault in another keychain."""
    (folder / "mine").mkdir()
    (folder / "theirs").mkdir()
    with desktop_session(folder / "mine") as mine, desktop_session(folder / "theirs") as theirs:

        def make(vault_id=VAULT, *, right=True):
            patch.setenv("DBUS_SESSION_BUS_ADDRESS", (mine if right else theirs)["DBUS_SESSION_BUS_ADDRESS"])
            seal = KeychainSeal(vault_id, create=True)
            seal.wrap(ROOT_KEY)
            return seal

        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("PYTHON_KEYRING_BACKEND", raising=False)
            patch.setenv("XDG_CONFIG_HOME", mine["XDG_CONFIG_HOME"])
            yield make


def pkcs11_seals(folder):
    """The wrong key is one of the same name in another token."""
    tokens()

    def make(vault_id=VAULT, *, right=True):
        spec = hsm.spec_of("right" if right else "wrong", tokens())
        return opened("pkcs11", spec, vault_id, create=True)

    make(right=False).wrap(ROOT_KEY)
    yield make


def awskms_seals(folder):
    """moto stands in for AWS; the wrong key is another one of the same account."""
    with aws.aws_stand_in() as url, pytest.MonkeyPatch.context() as patch:
        for name, value in aws.ENVIRONMENT.items():
            patch.setenv(name, value)
        keys = {right: aws.make_key(url) for right in (True, False)}

        def make(vault_id=VAULT, *, right=True):
            return opened("awskms", aws.spec_of(url, keys[right]), vault_id)

        yield make


def gcpkms_seals(folder):
    """A program of ours stands in for Google Cloud."""
    with GoogleStandIn().running() as google, pytest.MonkeyPatch.context() as patch:
        for name, value in google.environment(folder).items():
            patch.setenv(name, value)
        for name in ("right", "wrong"):
            google.make_key(name)

        def make(vault_id=VAULT, *, right=True):
            return opened("gcpkms", f"{RING}/{'right' if right else 'wrong'}?endpoint={google.url}", vault_id)

        yield make


def azurekms_seals(folder):
    """A program of ours stands in for Azure; the wrong key is one of the same name in another Key Vault."""
    with AzureStandIn().running() as azure, AzureStandIn().running() as other, pytest.MonkeyPatch.context() as patch:
        for name, value in azure.environment(folder).items():
            patch.setenv(name, value)
        azure.make_key("k")
        other.make_key("k")
        [(version, _)] = azure.keys["k"]
        other.keys["k"] = [(version, other.keys["k"][0][1])]

        def make(vault_id=VAULT, *, right=True):
            return opened("azurekms", f"{(azure if right else other).url}/keys/k", vault_id)

        yield make


def transit_seals(folder):
    """A second server keeps the key."""
    with other_vault(folder) as other:

        def make(vault_id=VAULT, *, right=True):
            key = "right" if right else "wrong"
            return opened("transit", other_spec(other, folder, key), vault_id)

        yield make


def opened(name, rest, vault_id, *, create=False):
    return open_seal(f"{name}:{rest}", passphrase=None, vault_id=vault_id, create=create)


FACTORIES = {
    "passphrase": passphrase_seals,
    "keyfile": keyfile_seals,
    "age": age_seals,
    "keychain": keychain_seals,
    "shares": shares_seals,
    "pkcs11": pkcs11_seals,
    "awskms": awskms_seals,
    "gcpkms": gcpkms_seals,
    "azurekms": azurekms_seals,
    "transit": transit_seals,
}


@pytest.fixture(scope="module", params=MEMBERS)
def member(request):
    return request.param


@pytest.fixture(scope="module")
def make(member, tmp_path_factory):
    yield from FACTORIES[member](tmp_path_factory.mktemp(member))


class TestSeals:
    def test_the_root_key_comes_back_from_the_blob_alone(self, make, member):
        blob = make().wrap(ROOT_KEY)
        seal: Seal = make()
        assert seal.unwrap(blob) == ROOT_KEY
        assert not seal.needs_rewrap(blob)
        assert seal.name == member

    def test_it_says_whether_it_needs_a_person(self, make, member):
        assert make().unattended is UNATTENDED[member]

    def test_a_wrong_key_does_not_open(self, make):
        blob = make().wrap(ROOT_KEY)
        with pytest.raises(IntegrityError):
            make(right=False).unwrap(blob)

    def test_the_blob_of_another_vault_does_not_open(self, make):
        with pytest.raises(IntegrityError):
            make().unwrap(make("vault-2").wrap(ROOT_KEY))

    def test_every_changed_byte_is_refused(self, make):
        seal = make()
        blob = seal.wrap(ROOT_KEY)
        for position in range(len(blob)):
            changed = bytearray(blob)
            changed[position] ^= 1 << position % 8
            with pytest.raises(IntegrityError):
                seal.unwrap(bytes(changed))

    def test_truncated_and_extended_blobs_are_refused(self, make):
        seal = make()
        blob = seal.wrap(ROOT_KEY)
        for bad in (*(blob[:size] for size in range(len(blob))), blob + b"\0", b"\0" + blob, blob * 2):
            with pytest.raises(IntegrityError):
                seal.unwrap(bad)
            with pytest.raises(IntegrityError):
                seal.needs_rewrap(bad)

    def test_two_blobs_of_one_key_share_nothing_and_do_not_contain_it(self, make):
        seal = make()
        one, two = seal.wrap(ROOT_KEY), seal.wrap(ROOT_KEY)
        assert one[-76:] != two[-76:]
        assert one[-60:] != two[-60:]
        for blob in (one, two):
            assert not any(ROOT_KEY[i : i + 4] in blob for i in range(29))

    @pytest.mark.parametrize("size", [0, 16, 31, 33])
    def test_only_a_root_key_is_wrapped(self, make, size):
        with pytest.raises(InvalidRequest):
            make().wrap(bytes(size))

    def test_the_blob_of_another_seal_names_the_seal_to_use(self, make, member):
        other = next(name for name in MEMBERS if name != member)
        blob = make().wrap(ROOT_KEY)
        size = len(member)
        foreign = blob[:1] + bytes((len(other),)) + other.encode() + blob[2 + size :]
        with pytest.raises(InvalidRequest, match=f"--seal {other}"):
            make().unwrap(foreign)

    def test_the_shelf_knows_it_by_its_name(self, member, tmp_path):
        seal = open_seal(member + SPECS.get(member, ""), passphrase=Secret("correct horse"), vault_id=VAULT)
        assert (seal.name, seal.unattended) == (member, UNATTENDED[member])


@pytest.mark.parametrize(
    "spec", ["", "blob", "plaintext", "Passphrase", "keychain ", "../keychain", "keychain:x", "shares", "shares:5"]
)
def test_an_unknown_seal_is_refused(spec):
    with pytest.raises(InvalidRequest):
        open_seal(spec, passphrase=None, vault_id=VAULT)


def test_a_command_that_needs_no_keychain_does_not_pay_for_loading_it():
    program = (
        "import sys; from keyhole.seals import open_seal; assert not any('cryptography' in m for m in sys.modules)\n"
        "open_seal('keychain', passphrase=None, vault_id='v'); open_seal('passphrase', passphrase=None, vault_id='v')\n"
        "assert not any(m.split('.')[0] in ('keyring', 'secretstorage') for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.skipif(sys.platform != "linux", reason="says what Linux does not load")
def test_a_keychain_loads_no_backend_of_another_system():
    program = (
        "import sys; from keyhole.keepers.keychain import Keychain; Keychain('wait').available();"
        "print([m for m in sys.modules if m.startswith(('keyring.backends.macOS', 'keyring.backends.Windows'))])"
    )
    nowhere = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=nowhere)
    assert done.stdout.strip() == "[]"
