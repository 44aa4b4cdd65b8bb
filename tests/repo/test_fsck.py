"""``operator fsck``: it finishes what a kill has left, says what it did, and names what a person has to do."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys

import pytest

from children import child
from cli_driver import ok, run
from keyhole.remotes import git_locks, git_moving
from keyhole.repo.tree import Change, Tree


def git(folder, *words):
    done = subprocess.run(["git", "-C", str(folder), *map(str, words)], capture_output=True, check=True)
    return done.stdout.decode()


@pytest.fixture
def team(tmp_path, monkeypatch):
    for name in ("KEYHOLE_REPO_KEY", "AGENT_VAULT_KEY", "KEYHOLE_VAULT", "KEYHOLE_ADDR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "keyhole"))
    folder = tmp_path / "team"
    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
    monkeypatch.chdir(folder)
    ok("repo", "init")
    ok("repo", "set", "a/one", stdin="one")
    return folder


def half_done(folder, message="agent-vault: half"):
    """A change whose command was ended before its commit."""
    tree = Tree(folder)
    with tree.lock():
        tree.apply(Change(message, {"agents/x/private.key.escrow": b"x"}))


def test_a_whole_vault_has_nothing_wrong(team):
    assert ok("operator", "fsck", team, "--json").json == {"did": [], "wrong": []}


def test_what_a_killed_command_and_its_git_left_is_finished_and_said(team):
    half_done(team)
    for name in ("index.lock", "HEAD.lock", "refs/heads/main.lock", "packed-refs.lock"):
        (team / ".git" / name).touch()
    done = ok("operator", "fsck", team, "--json").json
    assert done["wrong"] == []
    assert any("agent-vault: half" in line for line in done["did"])
    assert sum("killed git" in line for line in done["did"]) == 4
    assert git(team, "status", "--porcelain") == ""
    assert git(team, "log", "-1", "--format=%s").strip() == "agent-vault: half"
    assert ok("operator", "fsck", team, "--json").json["did"] == []


def test_the_next_verb_needs_no_help_after_a_kill(team):
    half_done(team)
    (team / ".git" / "index.lock").touch()
    ok("repo", "set", "a/two", stdin="two")
    assert git(team, "status", "--porcelain") == ""
    assert git(team, "log", "-2", "--format=%s").split("\n")[1] == "agent-vault: half"


def test_a_lock_without_a_plan_is_said_with_what_takes_it_away(team):
    (team / ".git" / "index.lock").touch()
    refused = run("repo", "set", "a/two", stdin="two")
    assert refused.code != 0
    assert "keyhole operator fsck" in refused.err
    assert "index.lock" in " ".join(ok("operator", "fsck", team, "--json").json["did"])
    ok("repo", "set", "a/two", stdin="three")
    assert ok("repo", "get", "a/two").out == "three"


def test_a_folder_in_the_place_of_a_file_is_named(team):
    path = team / ".agent-vault" / "secrets" / "a" / "one.enc"
    path.unlink()
    path.mkdir()
    for words in (["get", "a/one"], ["check"], ["set", "a/one"]):
        said = run("repo", *words, stdin="two")
        assert said.code in {1, 2}
        assert "secrets/a/one.enc is not a plain file" in said.out + said.err
    path.rmdir()
    assert ok("repo", "get", "a/one").out == "two"  # which was begun before


def test_a_pull_killed_between_the_index_and_the_branch_loses_no_file(team, tmp_path, monkeypatch):
    git(tmp_path, "clone", "-q", "--bare", "team", "remote.git")
    git(team, "remote", "add", "origin", tmp_path / "remote.git")
    git(team, "fetch", "-q")
    git(team, "branch", "-q", "-u", "origin/main")
    git(tmp_path, "clone", "-q", "remote.git", "other")
    ok("repo", "set", "a/two", "--dir", tmp_path / "other", stdin="two")
    ok("repo", "push", "--dir", tmp_path / "other")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(git_moving, "_arrive", killed)
        assert run("repo", "pull").code != 0
    ok("repo", "set", "a/three", stdin="three")
    assert git(team, "status", "--porcelain") == ""
    assert ok("repo", "get", "a/two").out == "two"


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at in /proc")
@pytest.mark.parametrize("verb", ["install", "remove"])
def test_a_driver_of_diff_goes_in_and_out_past_what_a_killed_git_left(team, verb):
    ok("repo", "diff-driver", "install")
    lock, half = team / ".git" / "config.lock", team / ".git" / "info" / "attributes.keyhole"
    lock.write_text("half")
    half.write_text("half")
    ok("repo", "diff-driver", verb)
    lock.touch()
    assert str(lock) in ok("operator", "fsck", team).out
    ok("repo", "diff-driver", "remove")
    assert not lock.exists()
    assert not half.exists()
    assert "keyhole" not in (team / ".git" / "config").read_text()
    assert "keyhole" not in (team / ".git" / "info" / "attributes").read_text()


def test_attributes_that_are_a_link_are_not_copied(team, tmp_path):
    path = team / ".git" / "info" / "attributes"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    (tmp_path / "notes").write_text("private")
    path.symlink_to(tmp_path / "notes")
    refused = run("repo", "diff-driver", "install")
    assert refused.code == 3
    assert "is a link" in refused.err
    assert path.is_symlink()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at in /proc")
def test_the_lock_of_a_git_that_works_is_left_alone(team, monkeypatch):
    monkeypatch.setattr(git_locks.clear, "__defaults__", (0.2,))
    lock = team / ".git" / "index.lock"
    lock.touch()
    with child(["git", "cat-file", "--batch"], cwd=team, stdin=subprocess.PIPE) as working:
        refused = run("operator", "fsck", team)
        working.communicate()
    assert refused.code != 0
    assert "another git" in refused.err
    assert lock.exists()


@pytest.mark.parametrize(
    "plan",
    [
        "{",
        '{"message": "x", "moves": [["secrets/a/one.enc", "../../../../home/.agent-vault/owner.key"]]}',
        '{"message": "x", "moves": [["../../escaped", "0"]]}',
        '{"message": "x", "moves": [["../.git/hooks/pre-commit", "0"]]}',
        '{"message": "x", "moves": [[".local/lock", ""]]}',
        "[]",
        pytest.param("[" * 5000, id="deep"),
    ],
)
def test_a_plan_of_no_command_moves_nothing_and_is_put_aside_when_asked(team, tmp_path, plan):
    """Whoever packed the folder may have written it."""
    local = team / ".agent-vault" / ".local"
    (local / "pending").mkdir(exist_ok=True)
    (local / "pending" / "0").write_text("#!/bin/sh")
    (local / "plan.json").write_text(plan)
    key = (tmp_path / "home" / ".agent-vault" / "owner.key").read_bytes()
    hook = team / ".git" / "hooks" / "pre-commit"
    guard = hook.read_bytes() if hook.exists() else b""
    for words in (["repo", "get", "a/one"], ["repo", "set", "a/two"], ["operator", "fsck", team]):
        assert run(*words, stdin="x").code in {1, 2}
    assert (tmp_path / "home" / ".agent-vault" / "owner.key").read_bytes() == key
    assert not (tmp_path / "escaped").exists()
    assert (hook.read_bytes() if hook.exists() else b"") == guard
    done = ok("operator", "fsck", team, "--repair", "--json").json
    assert any("plan.json" in line for line in done["did"])
    ok("repo", "set", "a/two", stdin="two")
    assert ok("repo", "get", "a/one").out == "one"


@pytest.mark.parametrize("note", ["{", "[" * 5000], ids=["cut", "deep"])
def test_a_note_of_a_move_that_cannot_be_read_is_told_with_what_mends_it(team, note):
    (team / ".agent-vault" / ".local" / "moving.json").write_text(note)
    refused = run("repo", "set", "a/two", stdin="x")
    assert "operator fsck --repair" in refused.err
    ok("operator", "fsck", team, "--repair")
    ok("repo", "set", "a/two", stdin="two")


def test_a_link_in_the_place_of_a_folder_lets_no_plan_reach_outside(team, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "one.enc").write_text("theirs")
    folder = team / ".agent-vault" / "secrets" / "a"
    folder.rename(tmp_path / "kept")
    folder.symlink_to(victim)
    local = team / ".agent-vault" / ".local"
    (local / "plan.json").write_text(json.dumps({"message": "x", "moves": [["secrets/a/one.enc", ""]]}))
    run("repo", "set", "a/two", stdin="x")
    assert (victim / "one.enc").read_text() == "theirs"


def test_a_secret_that_is_not_the_one_that_was_signed_is_named_with_the_next_step(team):
    (team / ".agent-vault" / "secrets" / "a" / "one.enc").write_bytes(b"x")
    found = run("operator", "fsck", team, "--json")
    assert found.code == 1
    [wrong] = found.json["wrong"]
    assert "a/one" in wrong
    assert "adopt" in wrong


def test_objects_that_git_has_lost_are_named(team):
    blob = git(team, "rev-parse", "HEAD:.agent-vault/secrets/a/one.enc").strip()
    (team / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    found = run("operator", "fsck", team, "--json")
    assert found.code == 1
    assert any(blob in line for line in found.json["wrong"])


def test_a_local_vault_is_whole_or_says_what_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "keyhole"))
    monkeypatch.delenv("KEYHOLE_VAULT", raising=False)
    monkeypatch.delenv("KEYHOLE_ADDR", raising=False)
    ok("init", "--seal", f"keyfile:{tmp_path}/seal.key", "--make-keyfile")
    ok("set", "stripe/api-key", stdin="value")
    whole = ok("operator", "fsck", "--json").json
    assert whole["wrong"] == []
    assert whole["entries"] > 3
    file = tmp_path / "keyhole" / "vault.db"
    with sqlite3.connect(file) as store:
        tables = [name for (name,) in store.execute("select name from sqlite_master where type = 'table'")]
        table = next(name for name in tables if "entr" in name)
        columns = [row[1] for row in store.execute(f"pragma table_info({table})")]
        assert "value" in columns
        rows = store.execute(f"select key, value from {table} where length(value) > 100").fetchall()
        key, value = max(
            rows, key=lambda row: bytes(row[0], "ascii").count(b"/") if isinstance(row[0], str) else row[0].count(b"/")
        )
        store.execute(f"update {table} set value = ? where key = ?", (value[:-1] + bytes([value[-1] ^ 1]), key))
    broken = run("operator", "fsck", "--json")
    assert broken.code in {1, 2}
    assert broken.code == 2 or any("does not open" in line for line in broken.json["wrong"])
    assert run("operator", "fsck", "--repair").code == 3


def test_a_push_that_meets_a_lock_in_the_remote_is_not_called_synced_and_works_again(team, tmp_path):
    remote = tmp_path / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(remote)], check=True)
    git(team, "remote", "add", "origin", remote)
    git(team, "push", "-q", "-u", "origin", "main")
    before = git(remote, "rev-parse", "main")
    ok("repo", "set", "a/two", stdin="two")
    lock = remote / "refs" / "heads" / "main.lock"
    lock.touch()
    refused = run("repo", "push")
    assert refused.code != 0
    assert "the remote has what" not in refused.out + refused.err
    assert git(remote, "rev-parse", "main") == before
    assert ok("repo", "diff", "--json").json["local"] == ["a/two"]
    lock.unlink()
    ok("repo", "push")
    assert git(remote, "rev-parse", "main") == git(team, "rev-parse", "HEAD")
