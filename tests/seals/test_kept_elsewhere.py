"""Seals whose key somebody else keeps: what is told to who named them wrongly, and when nobody answers."""

import subprocess
import sys

import pytest
from botocore.stub import Stubber

from keyhole.core.errors import IntegrityError, InvalidRequest, Sealed
from keyhole.core.value import Secret
from keyhole.seals import asks_for, open_seal
from seals import aws, hsm
from seals.clouds import RING, AzureStandIn, GoogleStandIn
from seals.other_vault import other_vault, spec_of

ROOT_KEY = bytes(range(32))
VAULT = "vault-1"


def opened(spec, *, pin=None, create=False):
    return open_seal(spec, passphrase=pin, vault_id=VAULT, create=create)


@pytest.mark.parametrize(
    "spec",
    [
        "pkcs11",
        "pkcs11:token=t",
        "pkcs11:token=t;object=o",
        "pkcs11:token=t;object=o?module-path=relative.so",
        "pkcs11:token=t;token=u;object=o?module-path=/m.so",
        "pkcs11:token=t;object=o?module-path=/m.so&pin-value=FORGOTTEN",
        "awskms",
        "awskms:?region=eu-central-1",
        "awskms:alias/k?token=FORGOTTEN",
        "awskms:alias/k?endpoint=http://kms.example",
        "gcpkms:FORGOTTEN",
        f"gcpkms:{RING}/k?endpoint=http://kms.example",
        f"gcpkms:{RING}/k?ca=/nowhere/ca.pem",
        "azurekms:https://name.vault.azure.net",
        "azurekms:http://name.vault.azure.net/keys/k",
        "azurekms:https://user@name.vault.azure.net/keys/k",
        "transit:https://vault.example/k",
        "transit:http://vault.example/k?token-file=/t",
        "transit:https://vault.example:nan/k?token-file=/t",
        "transit:https://vault.example/k?token-file=/t&token-file=/u",
        "transit:https://vault.example/a%2Fb?token-file=/t",
    ],
)
def test_what_makes_no_sense_is_refused_and_not_repeated(spec):
    with pytest.raises(InvalidRequest) as caught:
        opened(spec)
    assert caught.value.hint
    assert "FORGOTTEN" not in caught.value.reason + caught.value.hint


def test_nothing_of_it_is_loaded_before_it_is_named():
    program = (
        "import sys, keyhole.cli, keyhole.app, keyhole.seals\n"
        "rare = {'boto3', 'botocore', 'pkcs11', 'google', 'azure', 'requests'}\n"
        "assert not rare & {name.partition('.')[0] for name in sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_only_a_token_without_a_place_for_its_pin_asks_a_person():
    attended = f"pkcs11:{hsm.spec_of('right', '/x', pin=False)}"
    assert asks_for(attended) == "PIN of the token"
    assert not opened(attended).unattended
    assert asks_for(f"pkcs11:{hsm.spec_of('right', '/x')}") == ""


# The token.


def test_the_key_is_made_in_the_token_and_cannot_be_taken_out():
    folder = hsm.tokens()
    spec = f"pkcs11:{hsm.spec_of('right', folder, 'made')}"
    with pytest.raises(Sealed, match="no key 'made'"):
        opened(spec).wrap(ROOT_KEY)
    blob = opened(spec, create=True).wrap(ROOT_KEY)
    assert opened(spec).unwrap(blob) == ROOT_KEY
    import pkcs11

    with pkcs11.lib(hsm.MODULE).get_token(token_label="right").open(user_pin=hsm.PIN) as session:
        key = session.get_key(label="made")
        with pytest.raises(pkcs11.exceptions.AttributeSensitive):
            key[pkcs11.Attribute.VALUE]
        session.generate_key(pkcs11.KeyType.AES, 256, label="loose", template={pkcs11.Attribute.EXTRACTABLE: True})
    with pytest.raises(InvalidRequest, match="can be taken out"), _loose_key():
        opened(f"pkcs11:{hsm.spec_of('right', folder, 'stored-loose')}").wrap(ROOT_KEY)


def _loose_key():
    import contextlib

    import pkcs11

    @contextlib.contextmanager
    def made():
        template = {pkcs11.Attribute.EXTRACTABLE: True, pkcs11.Attribute.SENSITIVE: False}
        with pkcs11.lib(hsm.MODULE).get_token(token_label="right").open(rw=True, user_pin=hsm.PIN) as session:
            session.generate_key(pkcs11.KeyType.AES, 256, label="stored-loose", store=True, template=template)
        yield

    return made()


def test_a_wrong_pin_a_missing_one_and_a_missing_token_say_what_to_do(tmp_path):
    spec = f"pkcs11:{hsm.spec_of('right', hsm.tokens(), pin=False)}"
    with pytest.raises(Sealed, match="no PIN was given"):
        opened(spec).wrap(ROOT_KEY)
    with pytest.raises(Sealed, match="refuses the PIN") as caught:
        opened(spec, pin=Secret("000000")).wrap(ROOT_KEY)
    assert "000000" not in str(caught.value)
    with pytest.raises(Sealed, match="token is not there"):
        opened(f"pkcs11:{hsm.spec_of('absent', hsm.tokens())}").wrap(ROOT_KEY)
    with pytest.raises(Sealed, match="PIN file"):
        opened(f"pkcs11:{hsm.spec_of('right', tmp_path)}").wrap(ROOT_KEY)
    with pytest.raises(Sealed, match="module"):
        opened("pkcs11:token=t;object=o?module-path=/nowhere.so", pin=Secret("1234")).wrap(ROOT_KEY)
    right = opened(spec, pin=Secret(hsm.PIN), create=True)
    assert right.unwrap(right.wrap(ROOT_KEY)) == ROOT_KEY


# The clouds, by their stand-ins.


@pytest.mark.parametrize(
    ("code", "error", "says"),
    [
        ("DisabledException", Sealed, "disabled"),
        ("KMSInvalidStateException", Sealed, "disabled"),
        ("AccessDeniedException", Sealed, "refuses kms:Decrypt"),
        ("ThrottlingException", Sealed, "Throttling"),
        ("IncorrectKeyException", IntegrityError, "do not open"),
        ("InvalidCiphertextException", IntegrityError, "do not open"),
    ],
)
def test_what_aws_refuses_is_told_apart(code, error, says, monkeypatch):
    """By the codes that AWS documents; its stand-in does not know these."""
    for name, value in aws.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with aws.aws_stand_in() as url:
        seal = opened(f"awskms:{aws.spec_of(url, aws.make_key(url))}")
        blob = seal.wrap(ROOT_KEY)
        with Stubber(seal._client) as stub:
            stub.add_client_error("decrypt", code)
            with pytest.raises(error, match=says):
                seal.unwrap(blob)


def test_aws_says_when_its_key_is_absent_or_out_of_reach(monkeypatch):
    for name, value in aws.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with aws.aws_stand_in() as url:
        key = aws.make_key(url)
        spec = f"awskms:{aws.spec_of(url, key)}"
        blob = opened(spec).wrap(ROOT_KEY)
        with pytest.raises(Sealed, match="no key"):
            opened(f"awskms:{aws.spec_of(url, 'alias/absent')}").wrap(ROOT_KEY)
    with pytest.raises(Sealed, match="cannot be asked") as caught:
        opened(spec).unwrap(blob)
    assert caught.value.hint


def test_an_alias_of_aws_is_followed_and_the_blob_is_of_its_vault_only(monkeypatch):
    for name, value in aws.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with aws.aws_stand_in() as url:
        aws.client(url).create_alias(AliasName="alias/keyhole", TargetKeyId=aws.make_key(url))
        spec = f"awskms:{aws.spec_of(url, 'alias/keyhole')}"
        blob = opened(spec).wrap(ROOT_KEY)
        assert opened(spec).unwrap(blob) == ROOT_KEY
        with pytest.raises(IntegrityError):
            open_seal(spec, passphrase=None, vault_id="vault-2").unwrap(blob)


def test_google_says_when_its_key_is_disabled_absent_forbidden_or_out_of_reach(tmp_path, monkeypatch):
    with GoogleStandIn().running() as google:
        for name, value in google.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        google.make_key("k")
        spec = f"gcpkms:{RING}/k?endpoint={google.url}"
        blob = opened(spec).wrap(ROOT_KEY)
        with pytest.raises(Sealed, match="no key"):
            opened(f"gcpkms:{RING}/absent?endpoint={google.url}").wrap(ROOT_KEY)
        google.disabled.add(f"{RING}/k")
        with pytest.raises(Sealed, match="disabled"):
            opened(spec).unwrap(blob)
        google.forbidden = True
        with pytest.raises(Sealed, match="refuses to decrypt"):
            opened(spec).unwrap(blob)
    with pytest.raises(Sealed, match="cannot be"):
        opened(spec).unwrap(blob)


def test_google_without_credentials_says_how_to_get_some(tmp_path, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    with pytest.raises(Sealed, match="credentials"):
        opened(f"gcpkms:{RING}/k?endpoint=http://127.0.0.1:9").wrap(ROOT_KEY)


def test_azure_says_when_its_key_is_disabled_absent_forbidden_or_out_of_reach(tmp_path, monkeypatch):
    with AzureStandIn().running() as azure:
        for name, value in azure.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        azure.make_key("k")
        spec = f"azurekms:{azure.url}/keys/k"
        blob = opened(spec).wrap(ROOT_KEY)
        with pytest.raises(Sealed, match="no key"):
            opened(f"azurekms:{azure.url}/keys/absent").wrap(ROOT_KEY)
        azure.disabled.add("k")
        with pytest.raises(Sealed, match="disabled"):
            opened(spec).unwrap(blob)
        azure.forbidden = True
        with pytest.raises(Sealed, match="refuses unwrapkey"):
            opened(spec).unwrap(blob)
    with pytest.raises(Sealed, match="cannot be"):
        opened(spec).unwrap(blob)


def test_a_key_that_was_rotated_in_azure_opens_what_its_older_version_wrapped(tmp_path, monkeypatch):
    with AzureStandIn().running() as azure:
        for name, value in azure.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        azure.make_key("k")
        spec = f"azurekms:{azure.url}/keys/k"
        before = opened(spec).wrap(ROOT_KEY)
        azure.make_key("k")
        after = opened(spec).wrap(ROOT_KEY)
        assert opened(spec).unwrap(before) == opened(spec).unwrap(after) == ROOT_KEY
        assert len({path.split("/")[3] for path in azure.asked if "unwrapkey" in path}) == 2


# Another vault.


def test_another_vault_says_when_its_token_or_key_is_wrong_and_when_it_is_sealed_or_gone(tmp_path):
    with other_vault(tmp_path) as other:
        spec = f"transit:{spec_of(other, tmp_path)}"
        blob = opened(spec).wrap(ROOT_KEY)
        with pytest.raises(IntegrityError):
            open_seal(spec, passphrase=None, vault_id="vault-2").unwrap(blob)
        with pytest.raises(Sealed, match="there is no"):
            opened(f"transit:{spec_of(other, tmp_path, 'absent')}").unwrap(blob)
        good = (tmp_path / "token").read_text()
        for content, says in (("hvs.none", "refuses the token"), ("", "no token"), ("two\nlines", "no token")):
            (tmp_path / "token").write_text(content)
            with pytest.raises(Sealed, match=says) as caught:
                opened(spec).unwrap(blob)
            assert "hvs.none" not in str(caught.value) + caught.value.hint
        (tmp_path / "token").unlink()
        with pytest.raises(Sealed, match="cannot be read"):
            opened(spec).unwrap(blob)
        (tmp_path / "token").write_text(good)
        assert opened(spec).unwrap(blob) == ROOT_KEY
        other.ask("PUT", "sys/seal")
        with pytest.raises(Sealed, match=r"sealed|cannot be reached"):
            opened(spec).unwrap(blob)
    with pytest.raises(Sealed, match="cannot be reached"):
        opened(spec).unwrap(blob)


def test_the_token_for_another_vault_is_renewed_at_half_of_its_life(tmp_path):
    with other_vault(tmp_path) as other:
        token = other.make_token(ttl="100s")
        (tmp_path / "token").write_text(token)
        elapsed = [1000.0]
        seal = opened(f"transit:{spec_of(other, tmp_path)}")
        seal._monotonic = lambda: elapsed[0]
        renewals = []
        post = seal._post

        def counted(path, body):
            renewals.append(path)
            return post(path, body)

        seal._post = counted
        for seconds in (0, 1, 30, 49, 51, 52):
            elapsed[0] = 1000.0 + seconds
            seal.keep_alive()
        assert renewals == ["auth/token/renew-self"] * 2
