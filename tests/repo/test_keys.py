"""Where keys are kept: on machines with a keychain, without one or with a locked one, in a token, by a passphrase."""

from __future__ import annotations

import os
import subprocess

import pytest

from cli_driver import ok, run
from keyhole.crypto import age, age_scrypt
from keyhole.keepers.keychain import Keychain
from repo import plugin_double
from seals import hsm
from seals.desktop import VARIABLES, desktop_session, lock

VALUE = "canary-51H8xKeyhole-9Zq7"


@pytest.fixture
def team(tmp_path, monkeypatch):
    """A folder on a machine without a keychain."""
    for name in (
        *VARIABLES,
        "PYTHON_KEYRING_BACKEND",
        "KEYHOLE_REPO_KEY",
        "AGENT_VAULT_KEY",
        "KEYHOLE_PASSPHRASE_FILE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "keyhole"))
    monkeypatch.setattr(age_scrypt, "WORK", 10)  # a guess is cheap here
    folder = tmp_path / "team"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def desktop(team, tmp_path, monkeypatch):
    """The same with an unlocked keychain: a real gnome-keyring."""
    folder = tmp_path / "desktop"
    folder.mkdir()
    with desktop_session(folder) as session:
        for name, value in session.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HOME", str(tmp_path / "user"))
        yield team


@pytest.fixture
def owner_key(tmp_path):
    return tmp_path / "user" / ".agent-vault" / "owner.key"


def entry(name, service="keyhole-repo-key"):
    return Keychain("").run(lambda entries: entries.get_password(service, name))


def in_clear(folder):
    """Every file below a folder that has a private key of age."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_socket()]
    return [path for path in files if age.PRIVATE.encode() in path.read_bytes()]


def test_a_key_in_the_keychain_is_in_no_file_and_opens_by_itself(desktop, tmp_path, owner_key):
    ok("repo", "init", "--no-git", "--key-in", "keychain")
    assert owner_key.read_text() == "keychain:owner\n"
    assert entry("owner").startswith(age.PRIVATE)
    assert in_clear(tmp_path) == []
    ok("repo", "set", "stripe/key", stdin=VALUE)
    assert (
        ok("repo", "get", "stripe/key").out == ok("repo", "get", "stripe/key", "--key", "keychain:owner").out == VALUE
    )
    shown = ok("repo", "key", "show", "--json").json
    assert (shown["in"], shown["unattended"]) == ("keychain", True)
    ok("init", "--seal", f"keyfile:{tmp_path}/seal.key", "--make-keyfile")
    ok("repo", "mount", "team")
    ok("repo", "mount", "again", "--key", "keychain:owner")

    lock()
    before = {path: path.read_bytes() for path in owner_key.parent.rglob("*") if path.is_file()}
    for words in (
        ("get", "stripe/key"),
        ("set", "stripe/key"),
        ("key", "show"),
        ("key", "move", "--in", "file"),
        ("key", "new", "--in", "keychain", "--to", tmp_path / "other.key"),
    ):
        ran = run("repo", *words, "--json", stdin="another-value")
        assert (ran.code, ran.error["reason"]) == (6, "the keychain is locked"), words
        assert "unlock" in ran.error["hint"]
    assert before == {path: path.read_bytes() for path in owner_key.parent.rglob("*") if path.is_file()}
    assert not (tmp_path / "other.key").exists()
    assert in_clear(tmp_path) == []


def test_without_a_keychain_nothing_is_made_and_the_next_step_is_said(team, tmp_path, owner_key):
    for words, option in ((("init", "--no-git"), "--key-in"), (("key", "new"), "--in")):
        ran = run("repo", *words, option, "keychain", "--json")
        assert (ran.code, ran.error["reason"]) == (6, "no keychain can be reached from here")
        assert "passphrase" in ran.error["hint"]
    assert not owner_key.exists()
    assert not (team / ".agent-vault").exists()
    owner_key.parent.mkdir(parents=True)
    owner_key.write_text("keychain:owner\n")
    owner_key.chmod(0o600)
    assert run("repo", "init", "--no-git").code == 6
    assert in_clear(tmp_path) == []


def test_a_key_is_moved_into_the_keychain_and_back_and_is_never_in_two_places(desktop, tmp_path, owner_key):
    ok("repo", "init", "--no-git")
    ok("repo", "set", "a/b", stdin=VALUE)
    public = ok("repo", "key", "show", "--json").json["recipient"]
    said = ok("repo", "key", "move", "--in", "keychain")
    assert "in clear before" in said.err
    assert in_clear(tmp_path) == []
    assert ok("repo", "get", "a/b").out == VALUE
    ok("repo", "key", "move", "--in", "file")
    assert entry("owner") is None
    assert owner_key.stat().st_mode & 0o777 == 0o600
    assert ok("repo", "key", "show", "--json").json["recipient"] == public
    listed = ok("repo", "key", "list", "--json").json
    assert [(each["in"], each["recipient"]) for each in listed] == [("file", public)]


def test_an_entry_of_another_key_is_not_written_over(desktop, owner_key):
    ok("repo", "key", "new", "--in", "keychain")
    there = entry("owner")
    owner_key.unlink()
    ok("repo", "key", "new")
    before = owner_key.read_bytes()
    ran = run("repo", "key", "move", "--in", "keychain", "--json")
    assert ran.error["code"] == "conflict"
    assert (entry("owner"), owner_key.read_bytes()) == (there, before)
    ok("repo", "key", "move", "--in", "keychain:second")
    assert owner_key.read_text() == "keychain:second\n"
    assert entry("owner") == there


def test_a_key_under_a_passphrase_opens_with_it_and_with_nothing_else(team, tmp_path, owner_key):
    given, wrong, fresh = tmp_path / "given", tmp_path / "wrong", tmp_path / "fresh"
    for path in (given, wrong, fresh):
        path.write_text(f"the passphrase {path.name}\n")
    ok("repo", "init", "--no-git", "--key-in", "passphrase", "--passphrase-file", given)
    assert owner_key.read_bytes().startswith(b"age-encryption.org/v1\n-> scrypt ")
    ok("repo", "set", "a/b", "--passphrase-file", given, stdin=VALUE)
    assert ok("repo", "get", "a/b", "--passphrase-file", given).out == VALUE
    for words, reason in (((), "under a passphrase"), (("--passphrase-file", wrong), "does not open")):
        ran = run("repo", "get", "a/b", "--json", *words)
        assert ran.code == 6
        assert reason in ran.error["reason"]
    ran = run("repo", "mount", "team", "--json", "--passphrase-file", given)
    assert ran.code == 3
    assert "does not open by itself" in ran.error["reason"]
    words = ("--passphrase-file", given, "--new-passphrase-file", fresh)
    ok("repo", "key", "move", "--in", "passphrase", *words)
    assert run("repo", "get", "a/b", "--passphrase-file", given).code == 6
    assert ok("repo", "get", "a/b", "--passphrase-file", fresh).out == VALUE
    assert in_clear(tmp_path) == []
    assert ok("repo", "key", "list", "--json").json[0]["recipient"] == ""


def test_a_short_passphrase_or_an_unknown_place_leaves_the_key_as_it_is(team, tmp_path, owner_key):
    ok("repo", "init", "--no-git")
    before = owner_key.read_bytes()
    (tmp_path / "short").write_text("short\n")
    for where in ("passphrase", "cloud", "keychain:../x", "pkcs11:token=t"):
        assert run("repo", "key", "move", "--in", where, "--passphrase-file", tmp_path / "short").code in {3, 6}
    assert owner_key.read_bytes() == before
    assert list(owner_key.parent.iterdir()) == [owner_key]
    assert run("repo", "key", "new", "--json").error["code"] == "conflict"
    assert (
        run("repo", "init", "--no-git", tmp_path / "user", "--key-in", "passphrase", "--json").error["code"]
        == "conflict"
    )


def test_a_token_seals_the_key_and_only_it_opens_it(team, tmp_path, owner_key):
    folder = hsm.tokens()
    place = f"pkcs11:{hsm.spec_of('right', folder, 'member')}"
    ok("repo", "init", "--no-git", "--key-in", place)
    assert in_clear(tmp_path) == []
    ok("repo", "set", "a/b", stdin=VALUE)
    assert ok("repo", "get", "a/b").out == ok("repo", "get", "a/b", "--key", place).out == VALUE
    assert ok("repo", "key", "list", "--json").json[0]["recipient"].startswith("age1")
    assert run("repo", "get", "a/b", "--key", f"pkcs11:{hsm.spec_of('wrong', folder, 'member')}").code == 6
    asks = f"pkcs11:{hsm.spec_of('right', folder, 'member', pin=False)}"
    assert run("repo", "get", "a/b", "--key", asks).code == 6
    assert ok("repo", "get", "a/b", "--key", asks, "--passphrase-file", folder / "pin").out == VALUE
    text = owner_key.read_text()
    owner_key.write_text(text.replace('"recipient": "age1', '"recipient": "age2'))
    assert run("repo", "get", "a/b").code != 0
    owner_key.write_text(text)
    ok("repo", "key", "move", "--in", "file")
    assert in_clear(tmp_path) == [owner_key]
    assert run("repo", "get", "a/b", "--key", place).code == 5


def ssh_key(folder, kind, *words):
    path = folder / f"id_{kind}"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path, *words], check=True, timeout=60)
    return path, path.with_suffix(".pub").read_text().strip()


def test_members_read_with_their_ssh_keys_and_write_with_ed25519(team, tmp_path):
    ok("repo", "init", "--no-git")
    ok("repo", "set", "stripe/key", stdin=VALUE)
    ann, ann_public = ssh_key(tmp_path, "ed25519")
    ben, ben_public = ssh_key(tmp_path, "rsa", "-b", "2048")
    said = ok("repo", "my-key", "--key", ann, "--json").json
    assert said["recipient"] == ann_public.rpartition(" ")[0]
    words = ("--recipient", ann_public, "--sign", said["sign"], "--role", "member", "--group", "stripe")
    ok("repo", "add-member", "ann", *words)
    told = ok("repo", "my-key", "--key", ben)
    assert "--sign" not in told.out
    assert "cannot sign" in told.err
    refused = run("repo", "add-member", "ben", "--recipient", ben_public, "--role", "member", "--sign", said["sign"])
    assert (refused.code, "cannot sign" in refused.err) == (3, True)
    ok("repo", "add-member", "ben", "--recipient", ben_public, "--group", "stripe")
    assert ok("repo", "get", "stripe/key", "--key", ben).out == VALUE
    ok("repo", "set", "stripe/key", "--key", ann, stdin="another-value-1")
    assert ok("repo", "get", "stripe/key", "--key", ben).out == "another-value-1"
    assert run("repo", "set", "stripe/key", "--key", ben, stdin="x").code == 4
    found = ok("repo", "check", "--deep", "--json").json
    assert [each for each in found["warnings"] if "other tools" in each] == [
        "the key of ann is of ssh-ed25519, which other tools of the format do not open",
        "the key of ben is of ssh-rsa, which other tools of the format do not open",
    ]
    ran = run("repo", "key", "move", "--in", "file", "--key", ann)
    assert (ran.code, "SSH key stays" in ran.err) == (3, True)


def test_the_text_of_an_ssh_key_in_a_variable_counts(team, tmp_path, monkeypatch):
    ok("repo", "init", "--no-git")
    ok("repo", "set", "a/b", stdin=VALUE)
    path, public = ssh_key(tmp_path, "ed25519")
    ok("repo", "add-member", "ann", "--recipient", public, "--group", "a")
    monkeypatch.setenv("KEYHOLE_REPO_KEY", path.read_text())
    assert ok("repo", "get", "a/b").out == VALUE
    assert run("repo", "key", "show").code == 3


def test_a_member_whose_key_a_plugin_holds_reads(team, tmp_path, monkeypatch):
    ok("repo", "init", "--no-git")
    public, private = plugin_double.make_key(b"ann")
    key = tmp_path / "ann.key"
    key.write_text(f"#       Recipient: {public}\n{private}\n")
    key.chmod(0o600)
    ok("repo", "add-member", "ann", "--recipient", public, "--group", "stripe")
    ran = run("repo", "set", "stripe/key", "--json", stdin=VALUE)
    assert (ran.code, ran.error["reason"]) == (6, "age-plugin-double is not on this machine")
    plugin_double.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    ok("repo", "set", "stripe/key", stdin=VALUE)
    assert ok("repo", "get", "stripe/key", "--key", key).out == VALUE
    assert ok("repo", "status", "--json", "--key", key).json["you"] == {"name": "ann", "role": "reader"}
    assert run("repo", "mount", "team", "--key", key).code == 3


def test_a_key_file_of_somebody_else_or_of_no_kind_is_named(team, tmp_path):
    path = tmp_path / "odd.key"
    for content in (
        b"",
        b"\xff\xfe",
        b"{}",
        b'{"kind": "x"}',
        b"keychain:",
        b"AGE-PLUGIN-X",
        b"-----BEGIN CERTIFICATE-----",
    ):
        path.write_bytes(content)
        path.chmod(0o600)
        ran = run("repo", "key", "show", "--key", path)
        assert ran.code == 3, (content, ran)
        assert "Traceback" not in ran.err
