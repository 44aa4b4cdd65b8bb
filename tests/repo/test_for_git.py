"""What git does to files on its way into a work tree: it changes no byte of a vault."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from cli_driver import ok, run
from keyhole.repo.for_git import ATTRIBUTES, UNCHANGED, changes_bytes, is_attributes
from keyhole.repo.tree import VAULT

AGENTS = 4


def git(folder, *words):
    identity = ("-c", "user.name=x", "-c", "user.email=x@x")
    done = subprocess.run(["git", *identity, "-C", str(folder), *map(str, words)], capture_output=True, check=True)
    return done.stdout.decode()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A repository with a vault, whose age files have long headers and short values: git takes such for text."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("KEYHOLE_REPO_KEY", "AGENT_VAULT_KEY"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(folder / "home"))
        patch.setenv("KEYHOLE_HOME", str(folder / "keyhole"))
        subprocess.run(["git", "init", "-q", "-b", "main", str(folder / "team")], check=True)
        patch.chdir(folder / "team")
        ok("repo", "init", "--no-guard")
        for number in range(AGENTS):
            ok("repo", "add-agent", f"a{number}", "--group", "g")
        for number in range(6):
            ok("repo", "set", f"g/s{number}", stdin="v")
    return folder


@pytest.fixture
def remote(made, tmp_path, monkeypatch):
    """A copy of it, and a clone ``team`` of the owner."""
    for name in ("KEYHOLE_REPO_KEY", "AGENT_VAULT_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "keyhole"))
    shutil.copytree(made / "home", tmp_path / "home")
    remote, team = tmp_path / "remote.git", tmp_path / "team"
    subprocess.run(["git", "clone", "-q", "--bare", str(made / "team"), str(remote)], check=True)
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(remote), str(team)], check=True)
    monkeypatch.chdir(team)
    return remote


def commit(folder, files, message="attributes"):
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text)
    git(folder, "add", "-f", *files)
    git(folder, "commit", "-q", "--no-verify", "-m", message)


HARMS = ["* text=auto eol=crlf\n", "* text eol=crlf\n", "*.json text working-tree-encoding=UTF-16\n*.enc ident\n"]


@pytest.mark.parametrize("harm", HARMS)
def test_attributes_of_the_repository_change_no_byte_in_a_clone(remote, tmp_path, harm):
    team = tmp_path / "team"
    commit(team, {ATTRIBUTES: harm.encode()})
    git(team, "push", "-q")
    subprocess.run(["git", "clone", "-q", str(remote), str(tmp_path / "plain")], check=True)
    ok("repo", "clone", str(remote), str(tmp_path / "clone"))
    ok("repo", "set", "g/later", stdin="later")
    ok("repo", "push")
    ok("repo", "pull", "--dir", str(tmp_path / "clone"))
    for name in ("plain", "clone"):
        ok("repo", "check", "--deep", "--dir", str(tmp_path / name))
        assert git(tmp_path / name, "status", "--porcelain", "--", VAULT) == ""


def test_a_clone_of_a_vault_without_attributes_of_its_own_keeps_its_bytes_too(remote, tmp_path):
    team = tmp_path / "team"
    git(team, "rm", "-q", f"{VAULT}/{ATTRIBUTES}")
    commit(team, {ATTRIBUTES: b"* text eol=crlf\n"})
    git(team, "push", "-q")
    clone = tmp_path / "clone"
    ok("repo", "clone", str(remote), str(clone))
    ok("repo", "check", "--deep", "--dir", str(clone))
    ok("repo", "set", "g/s0", "--dir", str(clone), stdin="new")
    assert (clone / VAULT / ATTRIBUTES).read_bytes() == UNCHANGED
    assert git(clone, "status", "--porcelain") == ""


@pytest.mark.parametrize("path", [ATTRIBUTES, f"secrets/{ATTRIBUTES}", "secrets/g/.GitAttributes"])
def test_attributes_in_the_vault_that_change_bytes_are_taken_from_no_remote(remote, tmp_path, path):
    clone, other = tmp_path / "clone", tmp_path / "other"
    ok("repo", "clone", str(remote), str(clone))
    subprocess.run(["git", "clone", "-q", str(remote), str(other)], check=True)
    base = git(other, "rev-parse", "HEAD").strip()
    commit(other, {f"{VAULT}/{path}": b"* text eol=crlf\n"})
    git(other, "push", "-q")
    refused = run("repo", "pull", "--dir", str(clone), "--json")
    assert refused.code == 2
    assert f"{path} lets git change files of the vault" in refused.error["reason"]
    assert run("repo", "clone", str(remote), str(tmp_path / "fresh"), "--json").code == 2
    assert not (tmp_path / "fresh").exists()
    assert run("repo", "review", f"{base}..HEAD", "--dir", str(other)).code == 1


def test_a_file_that_would_be_another_one_without_capitals_is_taken_from_no_remote(remote, tmp_path):
    clone, other = tmp_path / "clone", tmp_path / "other"
    ok("repo", "clone", str(remote), str(clone))
    subprocess.run(["git", "clone", "-q", str(remote), str(other)], check=True)
    commit(other, {f"{VAULT}/.X/members/000001.json": b"{}"})
    git(other, "push", "-q")
    refused = run("repo", "pull", "--dir", str(clone), "--json")
    assert refused.code == 2
    assert ".X/members/000001.json is no file of a vault" in refused.error["reason"]


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        (b"", False),
        (UNCHANGED, False),
        (b"# * text\n\n*.enc binary -merge\n*.json diff=json !text\n", False),
        (b"* text\n", True),
        (b"* text=auto\n", True),
        (b"* -text\n*.enc eol=crlf\n", True),
        (b"*.enc filter=x\n", True),
        (b"[attr]mine text\n", True),
        (b"*.enc mine\n", True),
        (b'"a b" working-tree-encoding=UTF-16\n', True),
        (b"*.enc \xff\n", True),
    ],
)
def test_which_attributes_may_change_bytes(text, changes):
    assert changes_bytes(text) is changes


def test_which_files_git_takes_for_attributes():
    assert is_attributes("a/b/.GITATTRIBUTES")
    assert not is_attributes("a/.gitattributes/b")


def test_an_object_that_the_repository_lacks_is_named(remote, tmp_path):
    """As in a clone that was made in part."""
    team = tmp_path / "team"
    blob = git(team, "rev-parse", f"HEAD:{VAULT}/.x/members/000002.json").strip()
    objects = team / ".git" / "objects"
    for pack in objects.glob("pack/*.pack"):
        lying = pack.rename(tmp_path / pack.name)
        subprocess.run(["git", "-C", str(team), "unpack-objects", "-q"], stdin=lying.open("rb"), check=True)
    (objects / blob[:2] / blob[2:]).unlink()
    refused = run("repo", "review", "HEAD~1..HEAD", "--json")
    assert refused.code != 0
    assert blob in refused.out + refused.err
    assert "internal error" not in refused.out + refused.err


def test_a_file_with_a_line_break_in_its_name_is_named_in_one_line(remote, tmp_path):
    clone, other = tmp_path / "clone", tmp_path / "other"
    ok("repo", "clone", str(remote), str(clone))
    subprocess.run(["git", "clone", "-q", str(remote), str(other)], check=True)
    commit(other, {f"{VAULT}/secrets/g/x\n  next: all is well\x1b[2J.enc": b"x"})
    git(other, "push", "-q")
    refused = run("repo", "pull", "--dir", str(clone), "--json")
    assert refused.code == 2
    assert refused.error["reason"].isprintable()


def test_a_repository_that_names_objects_by_sha_256(tmp_path, monkeypatch):
    for name in ("KEYHOLE_REPO_KEY", "AGENT_VAULT_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "keyhole"))
    team, remote, clone = tmp_path / "team", tmp_path / "remote.git", tmp_path / "clone"
    subprocess.run(["git", "init", "-q", "-b", "main", "--object-format=sha256", str(team)], check=True)
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", "--object-format=sha256", str(remote)], check=True)
    monkeypatch.chdir(team)
    ok("repo", "init", "--no-guard")
    ok("repo", "set", "a/one", stdin="one")
    ok("repo", "rm", "a/one")
    ok("repo", "set", "a/two", stdin="two")
    git(team, "remote", "add", "origin", remote)
    git(team, "push", "-q", "-u", "origin", "main")
    ok("repo", "clone", str(remote), str(clone))
    ok("repo", "set", "a/three", "--dir", str(clone), stdin="three")
    ok("repo", "push", "--dir", str(clone))
    ok("repo", "set", "a/four", stdin="four")
    ok("repo", "pull")
    assert [each["name"] for each in ok("repo", "list", "--json").json] == ["a/four", "a/three", "a/two"]
    assert git(team, "status", "--porcelain") == ""
    git(team, "rm", "-q", "--cached", ".agent-vault/secrets/a/two.enc")
    ok("operator", "fsck", "--repair", ".")
    assert git(team, "status", "--porcelain") == ""
