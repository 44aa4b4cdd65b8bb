"""Where keys are kept: on machines with a keychain, without one or with a locked one, in a token, by a passphrase."""

from __future__ import annotations

import base64
import os
import subprocess

import pytest

from cli_driver import ok, run
from keyhole.client.repo import RepoVault
from keyhole.core.errors import InvalidRequest, KeyholeError, Sealed
from keyhole.crypto import age, age_scrypt, ssh
from keyhole.keepers.keychain import Keychain
from keyhole.repo import keys
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
    assert RepoVault(desktop).get("stripe/key") == VALUE
    assert RepoVault(desktop, key_file="keychain:owner").get("stripe/key") == VALUE

    lock()
    with pytest.raises(Sealed, match="locked"):
        RepoVault(desktop)
    before = {path: path.read_bytes() for path in owner_key.parent.rglob("*") if path.is_file()}
    for words in (
        ("get", "stripe/key"),
        ("set", "stripe/key"),
        ("key", "show"),
        ("get", "stripe/key", "--key", "keychain:owner"),
        ("key", "move", "--in", "file"),
        ("key", "new", "--in", "keychain", "--to", tmp_path / "other.key"),
    ):
        ran = run("repo", *words, "--json", stdin="another-value")
        assert (ran.code, ran.error["reason"]) == (6, "the keychain is locked"), words
        assert "unlock" in ran.error["hint"]
    told = ok("repo", "status")
    assert ("you:      not known" in told.out, "the keychain is locked" in told.err) == (True, True)
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


@pytest.mark.parametrize("step", ["keep", "_compare", "_write", "sync_folder", "forget"])
def test_a_move_that_is_ended_at_any_step_leaves_a_key_that_opens_and_can_be_moved(team, owner_key, tmp_path, step):
    ok("repo", "key", "new")
    before = owner_key.read_bytes()
    (tmp_path / "given").write_text("the passphrase given\n")
    words = ("--passphrase-file", tmp_path / "given")

    def ended(*_words, **_options):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, step, ended)
        assert run("repo", "key", "move", "--in", "passphrase", *words).code != 0
    if in_clear(tmp_path):
        assert owner_key.read_bytes() == before
        ok("repo", "key", "move", "--in", "passphrase", *words)
    found = ok("repo", "key", "show", "--json", *words).json
    assert (found["in"], found["recipient"]) == ("passphrase", age.parse_identity(before.decode()).recipient.text)
    assert in_clear(tmp_path) == []
    assert list(owner_key.parent.iterdir()) == [owner_key]


def test_a_second_name_that_a_killed_command_left_stops_no_move(team, owner_key, tmp_path):
    ok("repo", "key", "new")
    owner_key.with_name(".owner.key.new").hardlink_to(owner_key)
    (tmp_path / "given").write_text("the passphrase given\n")
    ok("repo", "key", "move", "--in", "passphrase", "--passphrase-file", tmp_path / "given")
    assert in_clear(tmp_path) == []


def test_links_to_a_key_file_keep_nothing_in_clear(team, owner_key, tmp_path):
    ok("repo", "key", "new", "--to", tmp_path / "real.key")
    owner_key.parent.mkdir(parents=True)
    owner_key.symlink_to(tmp_path / "real.key")
    (tmp_path / "given").write_text("the passphrase given\n")
    words = ("--in", "passphrase", "--passphrase-file", tmp_path / "given")
    (tmp_path / "second").hardlink_to(tmp_path / "real.key")
    assert run("repo", "key", "move", *words).code == 3
    (tmp_path / "second").unlink()
    ok("repo", "key", "move", *words)
    assert owner_key.is_symlink()
    assert in_clear(tmp_path) == []


def test_the_key_of_an_agent_is_made_in_the_keychain_or_not_at_all(desktop, tmp_path):
    ok("repo", "init", "--no-git")
    ok("repo", "set", "stripe/key", stdin=VALUE)
    ok("repo", "add-agent", "coder", "--group", "stripe", "--key-in", "keychain")
    assert ok("repo", "get", "stripe/key", "--key", "keychain:coder").out == VALUE
    refused = run("repo", "add-agent", "coder", "--to", tmp_path / "another.key", "--key-in", "keychain")
    assert refused.code != 0
    assert entry("another") is None
    assert not (tmp_path / "another.key").exists()


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


def ssh_key(folder, kind, bits=0):
    """The paths of a private key, and the line of its public one."""
    path = folder / f"id_{kind}"
    private = ssh.generate(kind, bits)
    path.write_bytes(private)
    path.chmod(0o600)
    return path, f"{ssh.public_of(private)} somebody@laptop"


def test_members_read_with_their_ssh_keys_and_write_with_ed25519(team, tmp_path):
    ok("repo", "init", "--no-git")
    ok("repo", "set", "stripe/key", stdin=VALUE)
    ann, ann_public = ssh_key(tmp_path, ssh.ED25519)
    ben, ben_public = ssh_key(tmp_path, ssh.RSA, 2048)
    said = ok("repo", "my-key", "--key", ann, "--json").json
    assert said["recipient"] == ann_public.rpartition(" ")[0]
    words = ("--recipient", ann_public, "--sign", said["sign"], "--role", "member", "--group", "stripe")
    refused = run("repo", "add-member", "ann", *words[:3], "01" + 31 * "00", *words[4:])  # for which anybody can sign
    assert (refused.code, "no public key of signatures" in refused.err) == (3, True)
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
    path, public = ssh_key(tmp_path, ssh.ED25519)
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


def every_byte(*folders):
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_socket()]
    return b"".join(path.read_bytes() for path in files)


def test_values_go_into_the_keychain_and_out_of_it_when_they_are_revoked_or_removed(desktop, tmp_path):
    ok("repo", "init", "--no-git")
    for name in ("stripe/key", "stripe/hook", "mail/key", "other/key"):
        ok("repo", "set", name, stdin=f"{VALUE}-{name}")
    ok("repo", "set", "mail/blob", stdin=b"\xff\xfe\x00")
    ok("repo", "add-agent", "coder", "--group", "stripe", "--group", "mail", "--to", tmp_path / "coder.key")
    coder = ("--key", tmp_path / "coder.key")
    vault = ok("repo", "status", "--json").json["id"]

    def kept():
        return {name: entry(f"{vault}/{name}", "keyhole-repo") for name in ("stripe/key", "stripe/hook", "mail/key")}

    ran = ok("repo", "into-keychain", "stripe", *coder)
    assert VALUE not in ran.out + ran.err
    assert f"{vault}/stripe/key" in ran.err
    assert kept() == {"stripe/key": f"{VALUE}-stripe/key", "stripe/hook": f"{VALUE}-stripe/hook", "mail/key": None}
    again = ok("repo", "into-keychain", *coder, "--json")
    assert (again.json["put"], again.json["same"]) == (["mail/key"], ["stripe/hook", "stripe/key"])
    assert again.json["left"] == ["mail/blob"]
    assert entry(f"{vault}/other/key", "keyhole-repo") is None
    read = [each["secret"] for each in ok("repo", "reads", "--json").json if each["how"] == "into-keychain"]
    assert sorted(read) == ["mail/blob", "mail/key", "stripe/hook", "stripe/key"]

    ok("repo", "revoke", "coder", "mail")
    ok("repo", "rm", "stripe/hook")
    ok("repo", "set", "stripe/key", stdin="another-value-1")
    done = ok("repo", "into-keychain", "stripe", *coder, "--json").json
    assert (done["put"], done["taken"]) == (["stripe/key"], ["mail/key", "stripe/hook"])
    assert kept() == {"stripe/key": "another-value-1", "stripe/hook": None, "mail/key": None}
    ok("repo", "remove-agent", "coder")
    assert ok("repo", "into-keychain", *coder, "--json").json["taken"] == ["stripe/key"]
    assert set(kept().values()) == {entry(vault, "keyhole-repo")} == {None}
    assert run("repo", "into-keychain", "nothing").code == 5
    lock()
    assert run("repo", "into-keychain").code == 6
    assert VALUE.encode() not in every_byte(desktop, tmp_path / "keyhole", tmp_path / "user")


def test_hidden_names_are_read_in_the_keychain_and_nowhere_else(desktop, tmp_path):
    ok("repo", "init", "--no-git", "--opaque-names", "--key-in", "keychain")
    ok("repo", "set", "stripe/key", stdin=VALUE)
    ok("repo", "set", "mail/key", stdin=VALUE)
    done = ok("repo", "into-keychain", "stripe", "--json").json
    assert done["put"] == ["stripe/key"]
    assert entry(f"{done['vault']}/stripe/key", "keyhole-repo") == VALUE
    assert b"stripe" not in every_byte(desktop, tmp_path / "keyhole")
    ok("repo", "rm", "stripe/key")
    assert ok("repo", "into-keychain", "--json").json["taken"] == ["stripe/key"]


def test_values_go_nowhere_else_where_there_is_no_keychain(team, tmp_path):
    ok("repo", "init", "--no-git")
    ok("repo", "set", "a/b", stdin=VALUE)
    ran = run("repo", "into-keychain", "--json")
    assert (ran.code, ran.error["reason"]) == (6, "no keychain can be reached from here")
    assert ok("repo", "reads", "--json").json == []
    assert VALUE.encode() not in every_byte(tmp_path)


def test_a_pull_lets_the_keychain_follow(desktop, tmp_path):
    bare = tmp_path / "remote.git"
    for words in (("init", "-q", "--bare", bare), ("clone", "-q", bare, "here")):
        subprocess.run(["git", *words], check=True, capture_output=True)
    ok("repo", "init", "here")
    ok("repo", "set", "stripe/key", "--dir", "here", stdin=VALUE)
    ok("repo", "set", "mail/key", "--dir", "here", stdin=VALUE)
    subprocess.run(["git", "-C", "here", "push", "-q", "-u", "origin", "HEAD"], check=True, capture_output=True)
    subprocess.run(["git", "clone", "-q", bare, "there"], check=True, capture_output=True)
    assert run("repo", "pull", "--dir", "there", "--group", "stripe").code == 3
    pulled = ok("repo", "pull", "--dir", "there", "--into-keychain", "--group", "stripe", "--json")
    assert (pulled.json["changed"], pulled.json["keychain"]["put"]) == ([], ["stripe/key"])
    ok("repo", "set", "stripe/key", "--dir", "here", stdin="another-value-1")
    ok("repo", "push", "--dir", "here")
    pulled = ok("repo", "pull", "--dir", "there", "--into-keychain")
    assert "another-value-1" not in pulled.out + pulled.err
    vault = ok("repo", "status", "--dir", "there", "--json").json["id"]
    assert entry(f"{vault}/stripe/key", "keyhole-repo") == "another-value-1"
    assert entry(f"{vault}/mail/key", "keyhole-repo") == VALUE
    lock()
    ran = run("repo", "pull", "--dir", "there", "--into-keychain")
    assert (ran.code, "the keychain is locked" in ran.err, "nothing new" in ran.err) == (6, True, True)


def test_a_folder_is_no_key_file(tmp_path):
    tmp_path.chmod(0o700)
    with pytest.raises(InvalidRequest, match="is no key file"):
        keys.read(tmp_path)


@pytest.mark.parametrize("form", ['"{}"', "'{}'", "key={}", "{}\\n", " x {}"])
def test_a_variable_that_holds_a_key_in_a_wrong_form_is_not_repeated(form):
    key = age.generate().to_text()
    for text in (form.format(key), form.format(key.lower()), base64.b64encode(key.encode()).decode()):
        with pytest.raises(KeyholeError) as refused:
            keys.find({"HOME": "/nonexistent", "AGENT_VAULT_KEY": text})
        said = f"{refused.value.reason} {refused.value.hint}"
        assert "AGENT_VAULT_KEY" in said or "private key" in said
        assert key[20:40].lower() not in said.lower()
        assert text[:40] not in said


@pytest.mark.parametrize("form", ["{}", '"{}"', "-----BEGIN OPENSSH PRIVATE KEY-----\n{}"])
def test_a_key_in_the_place_of_a_place_is_not_repeated(form):
    key = form.format(age.generate().to_text())
    for text in (key, key.lower()):
        with pytest.raises(KeyholeError) as refused:
            keys.find({"HOME": "/nonexistent"}, text)
        assert text[20:60] not in f"{refused.value.reason} {refused.value.hint}"
