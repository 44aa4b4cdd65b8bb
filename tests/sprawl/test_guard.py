"""No commit with a credential in it, however it is made; and the hooks that were there before still run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli_driver import ok, run
from keyhole.crypto import age
from keyhole.sprawl import hooks as hook_files

PROGRAM = Path(sys.executable).with_name("keyhole")
KEY = "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a"
PEM = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEpAIBAAKCAQEA3TqE9c0Jz5kY8w2v\n" * 4 + "-----END RSA PRIVATE KEY-----\n"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "keyhole"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name, value in {"NAME": "ann", "EMAIL": "ann@example.com"}.items():
        monkeypatch.setenv(f"GIT_AUTHOR_{name}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{name}", value)
    (tmp_path / "user").mkdir()
    folder = tmp_path / "shop"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    monkeypatch.chdir(folder)
    return folder


def git(folder, *words, fails=False, **more):
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=False, text=True, **more)
    assert bool(done.returncode) == fails, done
    assert KEY not in done.stderr
    return done.stdout + done.stderr


def commit(folder, *words, **more):
    return git(folder, "commit", "-q", "-m", "x", *words, **more)


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    git(folder, "add", name)
    return path


def rules(folder):
    found = run("repo", "guard", "run", folder, "--json").json["findings"]
    return [(each["path"], each["line"], each["rule"]) for each in found]


def test_a_staged_key_is_refused_and_named_without_its_value(repository):
    ok("repo", "guard", "install")
    write(repository, "src/pay.py", f"import os\n\ntoken = '{KEY}'\n")
    said = commit(repository, fails=True)
    assert "src/pay.py:3: token of GitHub [github-token]" in said
    assert KEY[:12] not in said
    write(repository, "src/pay.py", "import os\n\ntoken = os.environ['GITHUB_TOKEN']\n")
    commit(repository)
    assert git(repository, "log", "--format=%s") == "x\n"


def test_what_is_staged_counts_and_not_the_file_as_it_is_now(repository):
    path = write(repository, "a.env", f"GITHUB_TOKEN={KEY}\n")
    path.write_text("GITHUB_TOKEN=\n")
    assert rules(repository) == [("a.env", 1, "github-token")]
    git(repository, "add", "a.env")
    path.write_text(f"GITHUB_TOKEN={KEY}\n")
    assert rules(repository) == []


@pytest.mark.parametrize("armour", ["RSA ", "EC ", "DSA ", "OPENSSH ", "ENCRYPTED ", ""])
def test_private_keys_of_every_armour_are_refused(repository, armour):
    write(repository, "key.pem", PEM.replace("RSA ", armour))
    assert rules(repository) == [("key.pem", 1, "private-key")]


def test_an_age_identity_is_refused_and_what_it_seals_is_not(repository):
    identity = age.generate()
    write(repository, "secret.age", age.encrypt(b"value", [identity.recipient]))
    assert rules(repository) == []
    write(repository, "id.txt", f"# public key: {identity.recipient.text}\n{identity.to_text()}\n")
    assert rules(repository) == [("id.txt", 2, "age-secret-key")]


def test_text_in_utf_16_and_files_that_are_no_text_are_looked_at(repository):
    write(repository, "wide.txt", f"one\ntoken {KEY}\n".encode("utf-16"))
    write(repository, "data.bin", b"\0\1\2" + KEY.encode() + b"\0")
    assert rules(repository) == [("data.bin", 0, "github-token"), ("wide.txt", 2, "github-token")]


def test_a_link_a_submodule_and_a_strange_name_are_no_trouble(repository):
    (repository / "link").symlink_to(f"x/{KEY}")
    git(repository, "add", "link")
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},module")
    write(repository, 'a\nb "c" ü.txt', KEY)
    assert rules(repository) == [('a\nb "c" ü.txt', 1, "github-token"), ("link", 1, "github-token")]


def test_of_a_file_that_is_too_long_the_beginning_is_looked_at(repository, monkeypatch):
    monkeypatch.setattr("keyhole.sprawl.guard.guard.__defaults__", (type("L", (), {"file": 64, "findings": 10})(),))
    write(repository, "a.txt", f"{KEY}\n" + "x" * 100)
    write(repository, "b.txt", "y" * 100 + f"\n{KEY}\n")
    write(repository, "c.txt", f"{KEY}\n")
    ran = run("repo", "guard", "run", "--json")
    assert [each["path"] for each in ran.json["findings"]] == ["a.txt", "c.txt"]
    assert ran.json["cut"] == ["a.txt", "b.txt"]


def test_what_was_there_before_and_a_rename_do_not_count_again(repository):
    write(repository, "old.py", f"token = '{KEY}'\n")
    commit(repository)
    ok("repo", "guard", "install")
    write(repository, "old.py", f"# more\ntoken = '{KEY}'\n")
    commit(repository)
    git(repository, "mv", "old.py", "new.py")
    commit(repository)
    write(repository, "new.py", f"# more\ntoken = '{KEY}'\nother = '{KEY[:-4]}zzZ9'\n")
    assert "new.py:3" in commit(repository, fails=True)


def test_commits_of_every_way_are_guarded(repository):
    write(repository, "a.txt", "a\n")
    commit(repository)
    ok("repo", "guard", "install")
    (repository / "a.txt").write_text(KEY)
    commit(repository, "-a", fails=True)
    commit(repository, "a.txt", fails=True)
    commit(repository, "--amend", "-a", fails=True)
    other = repository.parent / "other"
    git(repository, "worktree", "add", "-q", str(other), "-b", "other")
    write(other, "b.txt", KEY)
    commit(other, fails=True)
    assert git(repository, "log", "--all", "--format=%s").splitlines() == ["x"]


def test_a_merge_brings_in_what_others_have_committed_and_nothing_new(repository):
    write(repository, "a.txt", "a\n")
    commit(repository)
    git(repository, "checkout", "-q", "-b", "side")
    write(repository, "side.txt", KEY)
    commit(repository)
    git(repository, "checkout", "-q", "main")
    write(repository, "b.txt", "b\n")
    commit(repository)
    ok("repo", "guard", "install")
    git(repository, "merge", "-q", "--no-commit", "side")
    write(repository, "mine.txt", KEY.replace("16C7", "16C8"))
    assert "mine.txt" in commit(repository, fails=True)
    git(repository, "merge", "--abort")
    git(repository, "merge", "-q", "side")
    assert len(git(repository, "rev-list", "--parents", "-1", "HEAD").split()) == 3


def test_an_accepted_finding_passes_by_its_fingerprint_or_in_its_line(repository):
    write(repository, "test.py", f"KEY = '{KEY}'\n")
    found = run("repo", "guard", "run", "--json").json["findings"]
    ok("repo", "guard", "allow", found[0]["fingerprint"], "--why", "a key of the tests")
    assert run("repo", "guard", "run").code == 1, "the list counts as it is staged"
    git(repository, "add", ".keyhole-allow")
    assert run("repo", "guard", "run", "--json").json["accepted"] == 1
    assert KEY not in (repository / ".keyhole-allow").read_text()
    git(repository, "rm", "-qf", ".keyhole-allow")
    write(repository, "test.py", f"KEY = '{KEY}'  # keyhole:allow=private-key\n")
    assert run("repo", "guard", "run").code == 1
    write(repository, "test.py", f"KEY = '{KEY}'  # keyhole:allow=github-token\n")
    assert run("repo", "guard", "run").code == 0


def test_accepting_a_finding_writes_through_no_link_and_keeps_what_is_no_text(repository, tmp_path):
    victim, accepted = tmp_path / "victim", repository / ".keyhole-allow"
    victim.write_text("as it was")
    words = ("repo", "guard", "allow", "0123456789abcdef", "--why", "x")
    accepted.symlink_to(victim)
    assert run(*words).code == 3
    accepted.unlink()
    os.mkfifo(accepted)
    assert run(*words).code == 3
    accepted.unlink()
    accepted.write_bytes(b"# \xff\n")
    ok(*words)
    assert accepted.read_bytes() == b"# \xff\n0123456789abcdef  # x\n"
    assert victim.read_text() == "as it was"


THEIRS = [
    "#!/bin/sh\necho theirs >> log\nexit 0\n",
    "#!/usr/bin/env bash\nset -e\necho theirs >> log\nexit 0",
    "#!/usr/bin/env python3\nopen('log', 'a').write('theirs\\n')\n",
]


@pytest.mark.parametrize("hook", THEIRS, ids=["sh", "bash", "python"])
def test_a_hook_that_was_there_runs_after_the_guard_and_is_left_as_it_was(repository, hook):
    path = repository / ".git/hooks/pre-commit"
    path.parent.mkdir(exist_ok=True)
    path.write_text(hook)
    path.chmod(0o750)
    ok("repo", "guard", "install")
    assert "already" in ok("repo", "guard", "install").err
    write(repository, "a.txt", KEY)
    commit(repository, fails=True)
    assert not (repository / "log").exists()
    write(repository, "a.txt", "harmless\n")
    commit(repository)
    assert (repository / "log").read_text() == "theirs\n"
    ok("repo", "guard", "uninstall")
    assert path.read_text() == hook
    assert path.stat().st_mode & 0o777 == 0o750
    assert run("repo", "guard", "status").code == 1
    assert sorted(each.name for each in path.parent.iterdir() if not each.name.endswith(".sample")) == ["pre-commit"]


def test_an_install_that_was_killed_halfway_leaves_the_hook_and_can_be_done_again(repository, monkeypatch):
    path = repository / ".git/hooks/pre-commit"
    path.parent.mkdir(exist_ok=True)
    path.write_text(THEIRS[2])
    path.chmod(0o755)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hook_files, "_write", killed)
        assert run("repo", "guard", "install").code != 0
    assert path.read_text() == THEIRS[2]
    ok("repo", "guard", "install")
    write(repository, "a.txt", "harmless\n")
    commit(repository)
    assert (repository / "log").read_text() == "theirs\n"
    ok("repo", "guard", "uninstall")
    assert path.read_text() == THEIRS[2]


def test_a_hook_that_is_a_link_or_not_executable_is_not_written_through(repository):
    hooks = repository / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    script = repository / "hook.sh"
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o755)
    (hooks / "pre-commit").symlink_to("../../hook.sh")
    (hooks / "pre-merge-commit").write_text("#!/bin/sh\nexit 1\n")
    ok("repo", "guard", "install")
    assert script.read_text() == "#!/bin/sh\nexit 0\n"
    write(repository, "a.txt", "a")
    commit(repository)
    ok("repo", "guard", "uninstall")
    assert (hooks / "pre-commit").readlink() == Path("../../hook.sh")
    assert not os.access(hooks / "pre-merge-commit", os.X_OK)


def test_a_folder_of_hooks_that_the_settings_name_is_used(repository, tmp_path):
    git(repository, "config", "core.hooksPath", "tools/hooks")
    said = ok("repo", "guard", "install").err
    assert "every clone" in said
    hook = (repository / "tools/hooks/pre-commit").read_text()
    assert str(PROGRAM.parent) not in hook, "the path of this machine goes nowhere else"
    write(repository, "a.txt", KEY)
    path = f"{PROGRAM.parent}:{os.environ['PATH']}"
    assert "a.txt:1" in commit(repository, fails=True, env={**os.environ, "PATH": path})
    git(repository, "config", "--unset", "core.hooksPath")
    git(repository, "config", "--global", "core.hooksPath", "~/hooks")
    assert "every repository" in ok("repo", "guard", "install").err
    assert (tmp_path / "user/hooks/pre-commit").exists()
    assert "a.txt:1" in commit(repository, fails=True)


def test_without_the_program_nothing_is_committed_and_it_says_why(repository):
    ok("repo", "guard", "install")
    hook = repository / ".git/hooks/pre-commit"
    hook.write_text(hook.read_text().replace(str(PROGRAM), "/nowhere/keyhole"))
    write(repository, "a.txt", "a")
    said = commit(repository, fails=True, env={**os.environ, "PATH": "/usr/bin:/bin"})
    assert "keyhole is missing" in said


def test_a_new_vault_is_guarded_and_its_own_commits_and_files_pass(repository):
    assert "guarded" in ok("repo", "init").err
    assert run("repo", "guard", "status").code == 0
    ok("repo", "set", "stripe/api-key", stdin="canary-51H8xKeyhole-9Zq7")
    ok("repo", "add-agent", "coder", "--group", "stripe")
    git(repository, "rm", "-rq", "--cached", ".agent-vault")
    commit(repository)
    git(repository, "add", ".agent-vault")
    commit(repository)


def test_a_new_vault_changes_no_hooks_of_other_repositories(repository, tmp_path):
    git(repository, "config", "--global", "core.hooksPath", str(tmp_path / "hooks"))
    assert "core.hooksPath" in ok("repo", "init").err
    assert not (tmp_path / "hooks").exists()
    (repository / "sub").mkdir()
    other = repository.parent / "two"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "config", "core.hooksPath", ".git/hooks")
    ok("repo", "init", other, "--no-guard")
    assert run("repo", "guard", "status", other).code == 1


def test_outside_of_a_repository_it_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("repo", "guard", "run").code == 5


def test_the_configuration_for_the_pre_commit_framework_names_this_command():
    text = (Path(__file__).parents[2] / ".pre-commit-hooks.yaml").read_text()
    assert "id: keyhole-guard" in text
    assert "entry: keyhole repo guard run" in text
    assert "pass_filenames: false" in text
