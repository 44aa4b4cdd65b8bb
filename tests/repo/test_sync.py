"""Clones of one vault through a git remote, friendly and hostile."""

from __future__ import annotations

import json
import subprocess

import pytest

from cli_driver import ok, run
from keyhole.crypto import age

VALUE = "canary-51H8xKeyhole-9Zq7"


def git(folder, *words):
    done = subprocess.run(["git", "-C", str(folder), *map(str, words)], capture_output=True, check=True)
    return done.stdout.decode()


class Team:
    """The owner's clone, a member's clone, and the remote between them."""

    def __init__(self, tmp_path, monkeypatch):
        self.monkeypatch, self.tmp = monkeypatch, tmp_path
        self.remote = tmp_path / "remote.git"
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(self.remote)], check=True)
        subprocess.run(["git", "init", "-q", "-b", "main", str(tmp_path / "owner")], check=True)
        self.as_("owner")
        ok("repo", "init")
        ok("repo", "set", "a/one", stdin="one")
        self.as_("ann")
        words = ok("repo", "my-key").out.split()
        self.as_("owner")
        ok("repo", "add-member", "ann", *words, "--role", "member", "--group", "a")
        git(tmp_path / "owner", "remote", "add", "origin", self.remote)
        git(tmp_path / "owner", "push", "-q", "-u", "origin", "main")
        ok("repo", "push")
        subprocess.run(["git", "clone", "-q", str(self.remote), str(tmp_path / "ann")], check=True)

    def as_(self, who):
        """Be this person, in their clone and on their machine."""
        self.monkeypatch.setenv("HOME", str(self.tmp / f"{who}-home"))
        self.monkeypatch.setenv("KEYHOLE_HOME", str(self.tmp / f"{who}-keyhole"))
        folder = self.tmp / who
        if folder.is_dir():
            self.monkeypatch.chdir(folder)
        return folder


@pytest.fixture
def team(tmp_path, monkeypatch):
    for name in ("KEYHOLE_REPO_KEY", "AGENT_VAULT_KEY"):
        monkeypatch.delenv(name, raising=False)
    return Team(tmp_path, monkeypatch)


def get(name):
    return ok("repo", "get", name).out


def test_what_one_stores_the_other_reads(team):
    team.as_("ann")
    assert get("a/one") == "one"
    ok("repo", "set", "a/two", stdin="two")
    ok("repo", "push")
    team.as_("owner")
    assert ok("repo", "diff", "--json").json["remote"] == ["a/two"]
    assert ok("repo", "pull", "--json").json == {"changed": ["a/two"]}
    assert get("a/two") == "two"
    assert ok("repo", "pull", "--json").json == {"changed": []}


def test_changes_of_different_secrets_come_together_and_other_work_stays(team):
    team.as_("ann")
    ok("repo", "set", "a/two", stdin="two")
    ok("repo", "push")
    folder = team.as_("owner")
    (folder / "code.py").write_text("code")
    git(folder, "add", "code.py")
    git(folder, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "code")
    (folder / "draft.txt").write_text("draft")
    ok("repo", "set", "a/three", stdin="three")
    assert run("repo", "push", "--json").error["code"] == "conflict"
    ok("repo", "pull")
    assert [get(f"a/{name}") for name in ("one", "two", "three")] == ["one", "two", "three"]
    assert (folder / "code.py").read_text() == "code"
    assert git(folder, "status", "--porcelain") == "?? draft.txt\n"
    ok("repo", "push")
    team.as_("ann")
    ok("repo", "pull")
    assert get("a/three") == "three"


def test_one_secret_that_both_changed_is_explained_and_chosen(team):
    team.as_("ann")
    ok("repo", "set", "a/one", stdin="by ann")
    ok("repo", "push")
    team.as_("owner")
    ok("repo", "set", "a/one", stdin="by owner")
    ran = run("repo", "pull")
    assert ran.code == 3
    assert "a/one" in ran.err
    assert "by ann (" in ran.err
    assert "--theirs" in ran.err
    assert get("a/one") == "by owner"
    ok("repo", "pull", "--theirs", "a/one")
    assert get("a/one") == "by ann"
    ok("repo", "push")


def tampered(team, change, message="evil"):
    """The remote after somebody with the right to push has changed it."""
    folder = team.tmp / "thief"
    if not folder.exists():
        subprocess.run(["git", "clone", "-q", str(team.remote), str(folder)], check=True)
    change(folder / ".agent-vault")
    git(folder, "add", "-A", "-f")
    git(folder, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", message)
    git(folder, "push", "-q", "-f")


def add_reader(vault):
    path = vault / ".x" / "members" / "000002.json"
    document = json.loads(path.read_text())
    thief = age.generate().recipient.text
    document["content"]["members"].append(
        {"name": "x", "role": "reader", "recipient": thief, "sign": "", "groups": ["a"]}
    )
    path.write_text(json.dumps(document))


def own_file(vault):
    recipients = [age.parse_recipient((vault / "owner.pub").read_text())]
    (vault / "secrets" / "a" / "one.enc").write_bytes(age.encrypt(b"theirs", recipients))


def forged_version(vault):
    own_file(vault)
    path = vault / ".x" / "secrets" / "a" / "one.json"
    document = json.loads(path.read_text())
    document["content"]["version"] += 1
    path.write_text(json.dumps(document))


def link(vault):
    path = vault / ".x" / "secrets" / "a" / "one.json"
    path.unlink()
    path.symlink_to("/etc/passwd")


def no_signatures(vault):
    for path in sorted((vault / ".x").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()


def no_secret(vault):
    (vault / ".x" / "secrets" / "a" / "one.json").unlink()


@pytest.mark.parametrize("change", [add_reader, forged_version, link, no_signatures, no_secret])
def test_a_remote_that_serves_what_is_not_genuine_is_refused_and_nothing_is_taken(team, change):
    folder = team.as_("owner")
    before = git(folder, "rev-parse", "HEAD")
    tampered(team, change)
    ran = run("repo", "pull", "--json")
    assert ran.code == 2
    assert "Traceback" not in ran.err
    assert git(folder, "rev-parse", "HEAD") == before
    assert get("a/one") == "one"
    ok("repo", "set", "a/new", stdin=VALUE)


def test_a_ciphertext_of_the_attackers_own_is_never_opened(team):
    team.as_("owner")
    tampered(team, own_file)
    run("repo", "pull")
    ran = run("repo", "get", "a/one")
    assert ran.code == 2 or ran.out == "one"
    assert "theirs" not in ran.out


def test_an_old_state_and_a_rewritten_history_are_refused(team):
    folder = team.as_("owner")
    old = git(folder, "rev-parse", "HEAD").strip()
    ok("repo", "set", "a/one", stdin="newer")
    ok("repo", "push")
    git(team.remote, "update-ref", "refs/heads/main", old)
    ran = run("repo", "pull")
    assert ran.code == 2
    assert "old state" in ran.err
    assert get("a/one") == "newer"


def test_a_push_that_is_cut_says_so_and_works_again(team):
    folder = team.as_("owner")
    ok("repo", "set", "a/two", stdin="two")
    moved = team.remote.rename(team.tmp / "away.git")
    ran = run("repo", "push")
    assert ran.code != 0
    assert "remote has" not in ran.out + ran.err
    moved.rename(team.remote)
    ok("repo", "push")
    assert git(folder, "rev-parse", "HEAD") == git(team.remote, "rev-parse", "main")


def test_hooks_of_a_clone_do_not_run_on_pull_and_push(team):
    folder = team.as_("owner")
    ran = team.tmp / "ran"
    for name in ("pre-push", "post-merge", "post-checkout", "reference-transaction", "pre-merge-commit"):
        hook = folder / ".git" / "hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
        hook.chmod(0o755)
    ok("repo", "set", "a/two", stdin="two")
    ok("repo", "push")
    ok("repo", "pull")
    assert not ran.exists()


def test_a_remote_that_refuses_is_not_one_that_has_more(team):
    """Such as a protected branch, where pulling and pushing again would go on for ever."""
    team.as_("owner")
    ok("repo", "set", "a/two", stdin="two")
    git(team.remote, "config", "transfer.hideRefs", "refs/heads/main")
    refused = run("repo", "push", "--json")
    assert (refused.code, refused.error["code"]) == (4, "policy_denied")
    assert "deny updating a hidden ref" in refused.error["reason"]
    git(team.remote, "config", "--unset", "transfer.hideRefs")
    ok("repo", "push")
