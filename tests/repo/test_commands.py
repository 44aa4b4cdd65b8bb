"""`keyhole repo` as it is typed: one commit a change, and nothing of a value anywhere but where it is asked for."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pyrage
import pytest

from cli_driver import ok, run
from keyhole.crypto import age
from keyhole.remotes.git import Git
from keyhole.repo import tree

VALUE = "canary-51H8xKeyhole-9Zq7"
LONG = age.generate().recipient.text


@pytest.fixture
def team(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "keyhole"))
    for name in ("KEYHOLE_REPO_KEY", "AGENT_VAULT_KEY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "team"
    folder.mkdir()
    git(folder, "init", "-q")
    monkeypatch.chdir(folder)
    return folder


def git(folder, *words):
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=True)
    return done.stdout.decode()


def test_from_nothing_to_an_agent_that_reads(team, tmp_path):
    ok("repo", "init")
    ok("repo", "set", "stripe/api-key", stdin=VALUE + "\n")
    ok("repo", "add-agent", "coder", "--group", "stripe")
    key = tmp_path / "user" / ".agent-vault" / "agents" / "coder.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert ok("repo", "get", "stripe/api-key", "--key", key).out == VALUE
    assert ok("repo", "check", "--deep", "--json").json == {"errors": [], "warnings": []}
    assert git(team, "log", "--format=%an <%ae> %s").splitlines() == [
        "agent-vault <agent-vault@localhost> agent-vault: add agent coder",
        "agent-vault <agent-vault@localhost> agent-vault: set stripe/api-key",
        "agent-vault <agent-vault@localhost> agent-vault: initialize vault",
    ]
    assert git(team, "status", "--porcelain") == ""
    assert VALUE.encode() not in b"".join(p.read_bytes() for p in team.rglob("*") if p.is_file())


def test_a_revoked_agent_and_a_check_that_stays_red_until_the_value_is_new(team, tmp_path):
    ok("repo", "init")
    ok("repo", "set", "stripe/api-key", stdin=VALUE)
    ok("repo", "add-agent", "coder", "--group", "stripe")
    ran = ok("repo", "revoke", "coder", "stripe")
    assert "keyhole repo set stripe/api-key" in ran.err
    key = tmp_path / "user" / ".agent-vault" / "agents" / "coder.key"
    assert run("repo", "get", "stripe/api-key", "--key", key).code == 5
    assert run("repo", "check").code == 1
    ok("repo", "set", "stripe/api-key", stdin="another-value-1")
    assert run("repo", "check").code == 0
    [file] = [path for path in git(team, "ls-files").splitlines() if path.endswith("/stripe/api-key.enc")]
    [identity] = [line for line in key.read_text().splitlines() if line.startswith("AGE-SECRET-KEY-")]
    opened = []
    for commit in git(team, "log", "--format=%H", "--", file).split():
        sealed = subprocess.run(["git", "show", f"{commit}:{file}"], cwd=team, capture_output=True, check=True).stdout
        with contextlib.suppress(pyrage.DecryptError):
            opened.append(pyrage.decrypt(sealed, [pyrage.x25519.Identity.from_str(identity)]).decode())
    assert opened == [VALUE]  # what is in the history stays open to the key that was revoked: hence the new value


def test_a_command_that_was_ended_in_its_first_write_leaves_nothing_for_git_to_take(team, monkeypatch):
    def ended(path, data):
        path.touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tree, "_write", ended)
        with pytest.raises(KeyboardInterrupt), tree.Tree(team).lock(make=True):
            pass
    ok("repo", "init")
    assert git(team, "status", "--porcelain") == ""


def test_what_somebody_has_staged_is_not_taken_into_a_commit(team):
    (team / "work.txt").write_text("mine")
    git(team, "add", "work.txt")
    ok("repo", "init")
    ok("repo", "set", "a/b", stdin=VALUE)
    assert git(team, "status", "--porcelain") == "A  work.txt\n"
    assert "work.txt" not in git(team, "log", "--name-only", "--format=")


def test_hooks_filters_and_ignore_files_of_the_repository_do_nothing(team, tmp_path):
    ok("repo", "init")
    ran = tmp_path / "ran"
    hook = team / ".git" / "hooks" / "pre-commit"
    for name in ("pre-commit", "post-commit", "reference-transaction", "post-index-change", "prepare-commit-msg"):
        hook.with_name(name).write_text(f"#!/bin/sh\ntouch {ran}\n")
        hook.with_name(name).chmod(0o755)
    git(team, "config", "filter.evil.clean", f"touch {ran}; cat")
    git(team, "config", "core.fsmonitor", f"touch {ran}; true")
    (team / ".gitattributes").write_text("* filter=evil\n")
    (team / ".gitignore").write_text("*\n")
    ok("repo", "set", "a/b", stdin=VALUE)
    assert "secrets/a/b.enc" in git(team, "ls-tree", "-r", "--name-only", "HEAD")
    assert not ran.exists()


def test_a_second_vault_uses_the_key_that_is_there(team, tmp_path):
    ok("repo", "init")
    key = tmp_path / "user" / ".agent-vault" / "owner.key"
    before = key.read_text()
    second = tmp_path / "second"
    second.mkdir()
    git(second, "init", "-q")
    ok("repo", "init", second)
    assert key.read_text() == before
    ok("repo", "set", "a/b", "--dir", second, stdin=VALUE)
    assert ok("repo", "get", "a/b", "--dir", second).out == VALUE


def test_a_vault_is_not_made_twice_and_not_outside_of_git(team, tmp_path):
    ok("repo", "init")
    assert run("repo", "init", "--json").error["code"] == "conflict"
    (tmp_path / "plain").mkdir()
    assert run("repo", "init", tmp_path / "plain").code == 5
    ok("repo", "init", tmp_path / "plain", "--no-git")
    ok("repo", "set", "a/b", "--dir", tmp_path / "plain", stdin=VALUE)
    assert ok("repo", "get", "a/b", "--dir", tmp_path / "plain").out == VALUE


def test_a_command_that_was_ended_before_its_commit_is_finished_by_the_next(team, monkeypatch):
    ok("repo", "init")
    from keyhole.remotes.git import Git

    with monkeypatch.context() as patch:
        patch.setattr(Git, "record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run("repo", "set", "a/b", stdin=VALUE).code != 0
    assert ok("repo", "status", "--json").json["unfinished"] == "agent-vault: set a/b"
    assert ok("repo", "get", "a/b").out == VALUE
    ok("repo", "set", "a/c", stdin=VALUE)
    assert git(team, "log", "--format=%s").splitlines()[:2] == ["agent-vault: set a/c", "agent-vault: set a/b"]
    assert "unfinished" not in ok("repo", "status", "--json").json


def test_a_value_in_the_command_line_is_refused_and_not_repeated(team):
    ok("repo", "init")
    for words in (("a/b", VALUE), (f"a/b={VALUE}",)):
        ran = run("repo", "set", *words)
        assert ran.code == 3
        assert VALUE not in ran.err


def test_the_raw_key_in_a_variable_counts_and_is_written_nowhere(team, tmp_path, monkeypatch):
    ok("repo", "init")
    ok("repo", "set", "a/b", stdin=VALUE)
    key = (tmp_path / "user" / ".agent-vault" / "owner.key").read_text()
    (tmp_path / "user" / ".agent-vault" / "owner.key").unlink()
    for name in ("AGENT_VAULT_KEY", "KEYHOLE_REPO_KEY"):
        with monkeypatch.context() as patch:
            patch.setenv(name, key)
            assert ok("repo", "get", "a/b").out == VALUE
    found = [path for path in tmp_path.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
    assert found == []
    assert run("repo", "get", "a/b").code == 5


def test_a_key_file_that_others_can_read_is_refused(team, tmp_path):
    ok("repo", "init")
    os.chmod(tmp_path / "user" / ".agent-vault" / "owner.key", 0o644)  # noqa: PTH101
    ran = run("repo", "set", "a/b", stdin=VALUE)
    assert ran.code == 3
    assert "chmod 600" in ran.err


def test_the_key_of_an_agent_is_written_again_from_its_escrow(team, tmp_path):
    ok("repo", "init")
    ok("repo", "add-agent", "coder")
    key = tmp_path / "user" / ".agent-vault" / "agents" / "coder.key"
    before = key.read_text()
    key.unlink()
    ok("repo", "restore-agent", "coder", "--to", key)
    assert key.read_text() == before


def test_a_member_brings_a_key_of_his_own(team, tmp_path, monkeypatch):
    ok("repo", "init")
    ok("repo", "set", "stripe/key", stdin=VALUE)
    monkeypatch.setenv("HOME", str(tmp_path / "ann"))
    words = " ".join(ok("repo", "my-key").out.split()).split()
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    ok("repo", "add-member", "ann", *words, "--role", "member", "--group", "stripe")
    monkeypatch.setenv("HOME", str(tmp_path / "ann"))
    assert ok("repo", "get", "stripe/key").out == VALUE
    ok("repo", "set", "stripe/other", stdin=VALUE)
    assert run("repo", "grant", "ann", "stripe").code == 4
    assert ok("repo", "status", "--json").json["you"] == {"name": "ann", "role": "member"}


def test_a_mounted_vault_lends_to_services_and_is_not_copied(team, tmp_path, monkeypatch):
    monkeypatch.setenv("KEYHOLE_SEAL", f"keyfile:{tmp_path / 'unseal.key'}")
    ok("init", "--make-keyfile")
    ok("repo", "init")
    ok("repo", "set", "stripe/api-key", stdin=VALUE)
    ok("repo", "mount", "team")
    words = ("--host", "api.stripe.com", "--secret", "/team/data/stripe/api-key", "--bearer")
    ok("service", "add", "stripe", *words)
    ok("agent", "add", "coder")
    ok("grant", "coder", "stripe")
    told = ok("why", "GET", "https://api.stripe.com/v1/x", "--agent", "coder", "--json").json
    assert (told["allowed"], told["secret"]) == (True, "/team/data/stripe/api-key#value")
    assert VALUE.encode() not in b"".join(p.read_bytes() for p in (tmp_path / "keyhole").rglob("*") if p.is_file())
    told = ok("who-can", "/team/data/stripe/api-key", "--json").json
    assert [each["agent"] for each in told["agents"]] == ["coder"]
    ok("repo", "hosts", "stripe", "api.example.com")
    told = run("why", "GET", "https://api.stripe.com/v1/x", "--agent", "coder", "--json").json
    assert (told["allowed"], "may go to api.example.com alone" in told["error"]["reason"]) == (False, True)


def test_a_mistake_is_answered_with_what_to_type_instead(team, tmp_path):
    ok("repo", "init")
    ok("repo", "set", "stripe/api-key", stdin=VALUE)
    ok("repo", "add-agent", "coder")
    key = tmp_path / "user" / ".agent-vault" / "agents" / "coder.key"
    told = run("repo", "get", "stripe/api-key", "--key", key).err
    assert "stripe/api-key" in told
    assert "keyhole repo grant YOU stripe" in told
    assert "with one slash" in run("repo", "set", "shop/stripe/api-key", stdin="x").err
    assert "no URL" in run("repo", "hosts", "stripe", "https://api.stripe.com").err
    assert (
        "keyhole repo list"
        in run("repo", "export", "sops", "shop", "--to", "x.yaml", "--recipient", LONG, "--reveal").err
    )


def test_a_group_without_secrets_is_said_when_somebody_is_let_into_it(team):
    ok("repo", "init")
    ok("repo", "set", "stripe/api-key", stdin=VALUE)
    assert "stirpe" in ok("repo", "add-agent", "coder", "--group", "stirpe", "--group", "stripe").err
    assert "stripe" not in ok("repo", "add-agent", "other", "--group", "stripe").err.replace("coder", "")


def test_an_export_that_nobody_could_open_reads_nothing(team):
    ok("repo", "init")
    ok("repo", "set", "stripe/api-key", stdin=VALUE)
    refused = run("repo", "export", "sops", "--to", "x.yaml", "--recipient", "age1x", "--reveal")
    assert (refused.code, ok("repo", "reads", "--json").json) == (3, [])


def test_a_folder_below_another_file_system_is_said_to_be_in_no_repository(tmp_path):
    """Git says where it stopped to look after what is wrong."""
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'fatal: not a git repository' >&2\necho 'Stopping at it' >&2\nexit 128\n")
    program.chmod(0o755)
    assert Git.find(tmp_path, {"PATH": f"{program.parent}:{os.environ['PATH']}"}) is None


def test_a_new_vault_in_the_place_of_one_that_is_known_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "keyhole"))
    team = tmp_path / "team"
    for _ in range(2):
        shutil.rmtree(team, ignore_errors=True)
        subprocess.run(["git", "init", "-q", str(team)], check=True)
        ran = run("repo", "init", str(team), "--json")
    assert ran.code == 2
    assert not (team / ".agent-vault").exists()
    Path(ran.error["hint"].split()[-1]).unlink()
    ok("repo", "init", str(team))
    ok("repo", "status", "--dir", str(team))
