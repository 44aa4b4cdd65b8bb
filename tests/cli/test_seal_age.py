"""Vaults that an age identity opens, as their users make and open them."""

import pytest

from cli_driver import environment, ok, run, serving
from keyhole.cli import doctor
from keyhole.cli.base import Session
from keyhole.cli.run import hidden_paths
from keyhole.core.value import Secret
from keyhole.crypto import age, age_scrypt


@pytest.fixture
def identity(tmp_path, monkeypatch):
    """A vault of this machine is yet to be made; its identity and another one are there."""
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "home"))
    for name in ("KEYHOLE_SEAL", "KEYHOLE_VAULT", "KEYHOLE_ADDR", "KEYHOLE_TOKEN", "KEYHOLE_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("identity.txt", "other.txt"):
        keep(tmp_path / name, age.generate().to_text().encode())
    return tmp_path / "identity.txt"


def keep(path, content):
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def test_an_identity_opens_its_vault_and_another_one_does_not(identity, monkeypatch):
    missing = run("init", "--seal", "age:/nowhere/identity.txt")
    assert (missing.code, "age-keygen" in missing.err) == (6, True)
    identity.chmod(0o644)
    assert run("init", "--seal", f"age:{identity}").code == 3
    identity.chmod(0o600)
    ok("init", "--seal", f"age:{identity}", "-q")
    ok("set", "a", stdin="kept by an identity")
    assert ok("get", "a").out == "kept by an identity\n"
    session = Session()
    assert "age: opens without a person" in [finding.detail for finding in doctor._vault(session)]
    assert identity in hidden_paths(session)
    session.close()
    monkeypatch.setenv("KEYHOLE_SEAL", f"age:{identity.with_name('other.txt')}")
    wrong = run("get", "a", "--json")
    assert (wrong.code, wrong.error["code"]) == (6, "sealed")
    assert wrong.error["hint"]
    assert "SECRET" not in wrong.err
    monkeypatch.delenv("KEYHOLE_SEAL")
    ok("operator", "migrate", "--to", f"age:{identity.with_name('other.txt')}")
    assert ok("get", "a").out == "kept by an identity\n"
    identity.unlink()
    assert ok("get", "a").out == "kept by an identity\n"


def test_a_server_whose_identity_is_under_a_passphrase_waits_for_it(identity, tmp_path, monkeypatch):
    monkeypatch.setattr(age_scrypt, "WORK", 4)
    keep(identity, age_scrypt.seal_with(Secret("correct horse battery"), identity.read_bytes()))
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("correct horse battery\n")
    wrong.write_text("another horse battery\n")
    place = ("--vault", f"sqlite:{tmp_path}/vault.db")
    unsaid = run(*place, "init", "--seal", f"age:{identity}")
    assert (unsaid.code, "?passphrase=ask" in unsaid.err) == (6, True)
    spec = f"age:{identity}?passphrase=ask"
    token = ok(*place, "--passphrase-file", right, "--json", "init", "--seal", spec).json["root_token"]
    assert run(*place, "list").code == 6
    with serving(*place, env=environment(KEYHOLE_HOME=str(tmp_path / "home"))) as (_, started):
        monkeypatch.setenv("KEYHOLE_ADDR", started["api"])
        monkeypatch.setenv("KEYHOLE_TOKEN", token)
        assert run("operator", "status").code == 6
        assert run("operator", "unseal").code == 6
        assert run("--passphrase-file", wrong, "operator", "unseal").code == 6
        ok("--passphrase-file", right, "operator", "unseal")
        ok("set", "a", stdin="kept by an identity")
        ok("operator", "seal")
        assert run("get", "a").code == 6
