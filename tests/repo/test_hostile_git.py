"""Repositories, settings and addresses that somebody hostile has made: nothing of them runs, and nothing leads out."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cli_driver import ok, run
from keyhole.client.repo import RepoVault
from keyhole.core.errors import InvalidRequest, KeyholeError
from keyhole.remotes.git import Git
from keyhole.remotes.git_url import parse_git_url

DATA = Path(__file__).resolve().parents[1] / "data" / "git"
URLS = [json.loads(line)["url"] for line in (DATA / "remote_urls.jsonl").read_text().splitlines() if line.strip()]
MORE_URLS = [
    "",
    "-",
    "--",
    "ext::git-upload-pack /x",
    "ssh://-oProxyCommand=touch%20x/x",
    "ssh://user@-oProxyCommand=x/y",
    "ssh://host:-oProxyCommand=x/y",
    "ssh://-x@host/y",
    "-x@host:y",
    "user@host:-oProxyCommand=x",
    "user@host:--upload-pack=x",
    "host::path",
    "file://../x",
    "file:///etc",
    "file://host/etc",
    "HTTP://example.com/x",
    "https:example.com/x",
    "https://",
    "https:///x",
    "https://exa mple.com/x",
    "https://example.com",
    "https://example.com/x#y",
    "https://example.com/x\r\nHost: y",
    "https://example.com/$(touch x)",
    "https://example.com/x;touch x",
    "https://example.com/x|y",
    "https://example.com\\@evil.test/x",
    "https://user:@example.com/x",
    "https://:pass@example.com/x",
    "https://ex\u0430mple.com/x",
    "https://example.com/\x00",
    "https://example.com/\t",
    "ftp://example.com/x",
    "ftps://example.com/x",
    "gopher://example.com/x",
    "git+ssh://example.com/x",
    "ssh+git://example.com/x",
    "persistent-https://example.com/x",
    "bundle::x",
    "testgit::x",
    "remote-ext::x",
    "./x",
    "x",
    "~/x",
    "~user/x",
    "//host/share",
    "c:x",
    "C:/x",
    "/dev/stdin",
    "/proc/self/cwd",
    "https://" + "a" * 3000 + ".test/x",
]
GOOD_URLS = [
    "https://github.com/a/b.git",
    "https://me@dev.azure.com/org/project/_git/repo",
    "https://example.com:8443/team/x",
    "https://[2001:db8::1]/x.git",
    "ssh://git@github.com/a/b.git",
    "ssh://git@example.com:2222/~me/x",
    "git@github.com:a/b.git",
    "host:/srv/git/x.git",
    "host:~me/x",
]


@pytest.mark.parametrize("url", [*URLS, *MORE_URLS])
def test_a_hostile_address_is_refused_before_git_sees_it(url):
    with pytest.raises(InvalidRequest) as refused:
        parse_git_url(url)
    assert "pass@" not in str(refused.value)


@pytest.mark.parametrize("url", GOOD_URLS)
def test_the_usual_addresses_are_taken(url):
    assert parse_git_url(url) == url


def git(folder, *words, check=True):
    done = subprocess.run(["git", "-C", str(folder), *map(str, words)], capture_output=True, check=check)
    return done.stdout.decode()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with a vault in a clone, and its remote."""
    for name in ("KEYHOLE_REPO_KEY", "AGENT_VAULT_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "keyhole"))
    (tmp_path / "home").mkdir()
    (tmp_path / "ran").mkdir()
    remote, folder = tmp_path / "remote.git", tmp_path / "team"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(remote)], check=True)
    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
    monkeypatch.chdir(folder)
    ok("repo", "init")
    ok("repo", "set", "a/one", stdin="one")
    git(folder, "remote", "add", "origin", remote)
    git(folder, "push", "-q", "-u", "origin", "main")
    return tmp_path


def commit(folder, message="work"):
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", message)


def of_a_colleague(machine, secret, files=()):
    """A commit in the remote that another clone of the owner has made."""
    other = machine / "other"
    if not other.exists():
        subprocess.run(["git", "clone", "-q", str(machine / "remote.git"), str(other)], check=True)
    git(other, "pull", "-q")
    for name, text in files:
        (other / name).write_text(text)
        commit(other)
    here = Path.cwd()
    os.chdir(other)
    try:
        ok("repo", "set", secret, stdin=secret)
    finally:
        os.chdir(here)
    theirs = machine / "remote.git" / "hooks"
    theirs.rename(machine / "hooks-away")  # they may do what they like with their own machine
    git(other, "push", "-q")
    (machine / "hooks-away").rename(theirs)


def trap(machine, name):
    """A program that leaves a mark when it is run."""
    path = machine / "traps" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\ntouch {machine}/ran/{name}\nexit 1\n")
    path.chmod(0o755)
    return path


HOOKS = """
    applypatch-msg commit-msg fsmonitor-watchman p4-changelist post-applypatch post-checkout post-commit
    post-index-change post-merge post-receive post-rewrite post-update pre-applypatch pre-auto-gc pre-commit
    pre-merge-commit pre-push pre-receive prepare-commit-msg proc-receive push-to-checkout reference-transaction
    sendemail-validate update
"""


def hooks(machine, folder):
    folder.mkdir(exist_ok=True)
    for name in HOOKS.split():
        shutil.copy(trap(machine, f"{name}-of-{folder.parent.name}"), folder / name)


def settings(machine, folder):
    """Settings of a repository that was unpacked: each names a program."""
    config = folder / ".git" / "config"

    def program(name):
        return trap(machine, name)

    included = machine / "included"
    included.write_text(f'[filter "included"]\n\tsmudge = {program("filter-included")}\n\trequired\n')
    text = f"""
[core]
	hooksPath = {machine}/hooks
	fsmonitor = {program("fsmonitor")}
	sshCommand = {program("ssh")}
	askPass = {program("askpass")}
	pager = {program("pager")}
	editor = {program("editor")}
	gitProxy = {program("gitproxy")}
	alternateRefsCommand = {program("alternate-refs")}
	protectNTFS = false
[filter "evil"]
	clean = {program("clean")}
	smudge = {program("smudge")}
	process = {program("process")}
	required = true
[filter "a=b"]
	clean = {program("clean-odd")}
	smudge = {program("smudge-odd")}
[merge]
	default = evil
	renormalize = true
	verifySignatures = true
[merge "evil"]
	driver = {program("merge")} %O %A %B
[diff]
	external = {program("diff")}
[diff "evil"]
	textconv = {program("textconv")}
	command = {program("diff-command")}
[remote "origin"]
	uploadpack = {program("uploadpack")}
	receivepack = {program("receivepack")}
	promisor = true
[credential]
	helper = !{program("helper")}
[commit]
	gpgSign = true
[push]
	gpgSign = if-asked
[log]
	showSignature = true
[gpg]
	program = {program("gpg")}
[gpg "ssh"]
	program = {program("gpg-ssh")}
	defaultKeyCommand = {program("gpg-key")}
[uploadpack]
	packObjectsHook = {program("pack-objects")}
[submodule]
	recurse = true
[submodule "x"]
	update = !{program("submodule")}
	url = {machine}/remote.git
[alias]
	fetch = !{program("alias")}
	rev-parse = !{program("alias")}
[protocol "ext"]
	allow = always
[trailer "x"]
	command = {program("trailer")}
	cmd = {program("trailer")}
[include]
	path = {included}
[includeIf "gitdir:**"]
	path = {included}
"""
    config.write_text(config.read_text() + text)
    hooks(machine, machine / "hooks")
    hooks(machine, folder / ".git" / "hooks")
    hooks(machine, machine / "remote.git" / "hooks")
    (folder / ".git" / "info" / "attributes").write_text(
        "* filter=evil merge=evil diff=evil\n*.odd filter=a=b\n*.inc filter=included\n"
    )
    (folder / ".git" / "objects" / "info" / "alternates").write_text(f"{machine}/remote.git/objects\n")


def ran(machine):
    return sorted(path.name for path in (machine / "ran").iterdir())


def test_plain_git_would_run_them(machine):
    folder = machine / "team"
    of_a_colleague(machine, "a/two", [("x.odd", "x"), ("x.inc", "x")])
    settings(machine, folder)
    for words in (["fetch"], ["merge", "--ff-only", "origin/main"], ["status"], ["log", "-p"], ["push"]):
        git(folder, *words, check=False)
    git(folder, "-c", "remote.origin.uploadpack=git-upload-pack", "fetch", check=False)
    git(folder, "-c", "merge.verifySignatures=false", "merge", "--ff-only", "origin/main", check=False)
    assert {"fsmonitor", "uploadpack", "process"} <= set(ran(machine))


def test_no_verb_runs_anything_that_a_repository_names(machine):
    folder = machine / "team"
    settings(machine, folder)
    (folder / "notes.txt").write_text("ours")
    git(machine / "team", "config", "--file", str(machine / "x"), "x.y", "z")
    of_a_colleague(machine, "a/two", [("x.odd", "x"), ("x.inc", "x"), (".gitattributes", "* filter=evil\n")])
    ok("repo", "pull")
    assert ok("repo", "get", "a/two").out == "a/two"
    ok("repo", "set", "a/three", stdin="three")
    of_a_colleague(machine, "a/four", [("y.odd", "y")])
    ok("repo", "diff")
    ok("repo", "pull")
    ok("repo", "push")
    for words in (["status"], ["list"], ["check", "--deep"], ["history", "a/one"], ["log"]):
        run("repo", *words)
    run("operator", "fsck", ".")
    assert RepoVault(".").get("a/four") == "a/four"
    assert ran(machine) == []
    assert git(machine / "remote.git", "rev-parse", "main") == (folder / ".git/refs/heads/main").read_text()


def test_a_repository_whose_work_tree_is_elsewhere_is_refused(machine):
    victim = machine / "home"
    git(machine / "team", "config", "core.worktree", victim)
    of_a_colleague(machine, "a/two", [(".bashrc", "touch x")])
    for words in (["status"], ["pull"], ["get", "a/one"], ["set", "a/two"]):
        ran_ = run("repo", *words, stdin="x")
        assert ran_.code == 4, ran_
        assert "outside" in ran_.err
    assert not (victim / ".bashrc").exists()


def test_a_git_file_that_leads_to_another_repository_is_refused_unless_it_is_a_work_tree_of_it(machine):
    folder = machine / "team"
    git(folder, "worktree", "add", "-q", machine / "linked")
    os.chdir(machine / "linked")
    assert ok("repo", "get", "a/one").out == "one"
    ok("repo", "set", "a/two", stdin="two")
    assert git(machine / "linked", "status", "--porcelain") == ""


def test_a_git_file_that_leads_into_the_repository_of_another_work_tree_is_refused(machine):
    victim = machine / "victim"
    subprocess.run(["git", "init", "-q", str(victim)], check=True)
    shutil.rmtree(machine / "team" / ".git")
    (machine / "team" / ".git").write_text(f"gitdir: {victim}/.git\n")
    refused = run("repo", "set", "a/two", stdin="x")
    assert refused.code == 4
    assert "outside" in refused.err
    (machine / "team" / ".git").unlink()
    (machine / "team" / ".git").symlink_to(victim / ".git")
    assert run("repo", "set", "a/two", stdin="x").code == 4
    assert git(victim, "count-objects").startswith("0 ")


@pytest.mark.parametrize(
    "name",
    [
        "FETCH_HEAD",
        "index",
        "logs/HEAD",
        "logs/refs/heads/main",
        "refs/heads/main",
        "HEAD",
        "objects/ab",
        "packed-refs",
    ],
)
def test_a_link_where_git_writes_is_refused(machine, name):
    folder, victim = machine / "team", machine / "victim"
    victim.write_text("precious")
    path = folder / ".git" / name
    if path.exists():
        shutil.copy(path, victim)
        path.unlink()
    path.symlink_to(victim)
    before = victim.read_text(errors="replace") if name != "index" else victim.read_bytes()
    for words in (["pull"], ["set", "a/two"]):
        refused = run("repo", *words, stdin="x")
        assert refused.code != 0
        assert "Traceback" not in refused.err
    assert (victim.read_text(errors="replace") if name != "index" else victim.read_bytes()) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("http.proxy", "http://evil.test"),
        ("http.https://git.invalid.proxy", "http://evil.test"),
        ("http.sslVerify", "false"),
        ("http.https://git.invalid/.sslVerify", "false"),
        ("http.cookieFile", "/tmp/x"),
        ("http.https://git.invalid/.saveCookies", "true"),
        ("http.curloptResolve", "git.invalid:443:203.0.113.1"),
        ("http.sslCAInfo", "/tmp/x"),
        ("remote.origin.proxy", "http://evil.test"),
        ("remote.origin.vcs", "ext"),
    ],
)
def test_settings_that_send_a_login_elsewhere_are_refused_by_name(shared, name, value):
    git(shared, "config", "remote.origin.url", "https://git.invalid/x.git")
    git(shared, "config", name, value)
    with pytest.raises(InvalidRequest, match="settings of this repository") as refused:
        Git(shared, os.environ).fetch()
    assert name.rpartition(".")[2].lower() in refused.value.reason.lower()
    assert value not in str(refused.value)
    git(shared, "config", "--unset-all", name)


def test_a_push_goes_to_one_address_and_to_no_second_one_whose_hooks_would_run(shared):
    """Who owns the first address takes the push; the second one is a repository of this machine, with hooks."""
    settings = shared / ".git" / "config"
    before = settings.read_text()
    git(shared, "config", "--add", "remote.origin.pushurl", "https://git.invalid/x.git")
    git(shared, "config", "--add", "remote.origin.pushurl", shared.parent / "r.git")
    try:
        with pytest.raises(InvalidRequest, match="several addresses"):
            Git(shared, os.environ).push()
    finally:
        settings.write_text(before)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A clone that follows a remote, for tests that put its settings back."""
    folder = tmp_path_factory.mktemp("shared")
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(folder / "r.git")], check=True)
    subprocess.run(["git", "clone", "-q", str(folder / "r.git"), str(folder / "c")], check=True, capture_output=True)
    clone = folder / "c"
    (clone / "x").write_text("x")
    commit(clone)
    git(clone, "push", "-q", "-u", "origin", "HEAD:main")
    return clone


@pytest.mark.parametrize(
    ("how", "url"),
    [
        *(("url", url) for url in URLS),
        *((how, URLS[n]) for how in ("pushurl", "insteadOf", "remote") for n in (0, 3, 6)),
    ],
)
def test_hostile_addresses_in_the_settings_of_a_repository_are_refused(shared, url, how, monkeypatch):
    """In every setting that can hold one; no program of a transport is started, which strace would show as well."""
    settings = shared / ".git" / "config"
    before = settings.read_text()
    monkeypatch.chdir(shared.parent)
    git(shared, "config", "remote.origin.url", "https://git.invalid/x.git")
    if how == "insteadOf":
        git(shared, "config", "--add", f"url.{url}.insteadOf", "https://git.invalid/x.git")
    elif how == "remote":
        git(shared, "config", "branch.main.remote", url)
    else:
        git(shared, "config", f"remote.origin.{how}", url)
    clone = Git(shared, os.environ)
    try:
        if how == "remote":
            assert clone.fetch() == ""
        else:
            with pytest.raises(InvalidRequest) as refused:
                clone.push() if how == "pushurl" else clone.fetch()
            assert "pass@" not in str(refused.value)
    finally:
        settings.write_text(before)
    assert not Path("/tmp/pwn").exists()


def test_a_branch_that_follows_an_option_is_refused(shared):
    settings = shared / ".git" / "config"
    before = settings.read_text()
    mark = shared.parent / "mark"
    name = f"--receive-pack=touch {mark};"
    settings.write_text(
        f'{before}\n[remote "{name}"]\n\turl = {shared.parent}/r.git\n\tfetch = +refs/heads/*:refs/remotes/{"x"}/*\n'
        f'[branch "main"]\n\tremote = {name}\n\tmerge = refs/heads/main\n'
    )
    git(shared, "update-ref", "refs/remotes/x/main", "HEAD")
    try:
        for go in (Git(shared, os.environ).push, Git(shared, os.environ).fetch):
            with contextlib.suppress(KeyholeError):
                go()
        assert not mark.exists()
    finally:
        settings.write_text(before)


def test_every_place_that_takes_a_folder_refuses_an_address(machine):
    os.chdir(machine / "home")
    before = sorted(machine.rglob("*"))
    for url in URLS:
        with pytest.raises(KeyholeError) as refused:
            RepoVault(url)
        assert "pass@" not in str(refused.value)
        for words in (["repo", "status", "--dir"], ["repo", "mount", "team", "--dir"], ["operator", "fsck", "--"]):
            ran_ = run(*words, url)
            assert ran_.code in {3, 5}, ran_
            assert "pass@" not in ran_.err
    assert sorted(machine.rglob("*")) == before


def test_every_place_that_takes_the_address_of_a_remote_refuses_a_hostile_one(machine):
    before = sorted(machine.rglob("*"))
    for url in URLS:
        for words in (["repo", "clone", "--", url, "../fresh"], ["repo", "remote", "add", "--", "evil", url]):
            ran_ = run(*words)
            assert ran_.code in {2, 3, 5}, ran_
            assert "pass@" not in ran_.err
            assert "Traceback" not in ran_.err
    assert [path for path in sorted(machine.rglob("*")) if path not in before and ".local" not in str(path)] == []


def test_no_object_stands_for_another_one(machine):
    """Else what is committed would go on from the tree of another commit, and what that lacks be gone at the remote."""
    folder = machine / "team"
    ok("repo", "set", "a/two", stdin="two")
    git(folder, "replace", "HEAD", "HEAD~1")
    (folder / ".git" / "info" / "grafts").write_text(git(folder, "--no-replace-objects", "rev-parse", "HEAD"))
    ok("repo", "set", "a/three", stdin="three")
    ok("repo", "push")
    ok("repo", "clone", str(machine / "remote.git"), str(machine / "clone"))
    found = RepoVault(machine / "clone").list_secrets()
    assert [each.name for each in found] == ["a/one", "a/three", "a/two"]


def test_a_vault_above_of_somebody_else_is_not_taken_for_ones_own(tmp_path, monkeypatch):
    """Anybody can put a vault into the folder for temporary files, in which the victim is a member."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "keyhole"))
    shared, below = tmp_path / "shared", tmp_path / "shared" / "mine"
    below.mkdir(parents=True)
    ok("repo", "init", "--no-git", str(shared))
    real = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: real + 1000)
    monkeypatch.chdir(below)
    if real == 0:
        os.chown(shared / ".agent-vault", 65534, 65534)
    for words in (["status"], ["set", "a/b"], ["list"]):
        refused = run("repo", *words, "--json", stdin="x")
        assert (refused.code, "belongs to another user" in refused.error["reason"]) == (4, True), refused
    with pytest.raises(KeyholeError, match="belongs to another user"):
        RepoVault()
    ok("repo", "status", "--dir", str(shared))
    assert RepoVault(shared).list_secrets() == []
