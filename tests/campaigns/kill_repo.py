"""Kill commands on a repo vault in the middle, again and again, and hold the vault to its word each time.

    python tests/campaigns/kill_repo.py --rounds 200 --seed 1 [--verb pull]

Each round copies a small world (a clone with a vault, its remote, a home), runs one verb in a process of its own, and
ends that process with ``kill -9``: at its n-th change of a file, within its n-th git (by strace, at the n-th system
call that changes something; without strace, before or after that git), or after a time. Then the next verb has to work
by itself, or after ``keyhole operator fsck``; every value is readable, and the vault is as it was before the verb or as
it is after it, never between; ``check --deep`` finds nothing new, and ``git status`` is clean.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import keyhole.cli.operator
import keyhole.cli.repo.mending  # noqa: F401 - once, and not in each process that is killed
from campaigns import kill_repo_doubles as doubles
from keyhole.cli import main
from keyhole.cli.repo import repo
from keyhole.config import home
from keyhole.core.errors import KeyholeError
from keyhole.crypto import age, age_scrypt
from keyhole.keepers.keychain import Keychain
from keyhole.repo import kept, keys
from keyhole.repo.checking import check
from keyhole.repo.opened import open_vault

GIT = ("git", "-c", "user.name=x", "-c", "user.email=x@x")
CHANGES = {
    *("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.chmod", "subprocess.Popen"),
    "keyhole.remote",
}
CALLS = "openat,rename,renameat2,unlink,unlinkat,link,linkat,write,pwrite64,mkdir,close,fsync,ftruncate"
STRACE = shutil.which("strace")
MEMBER = age.generate()
REACHED = 97
repo.to_info_dict(click.Context(repo))  # imports all verbs, once as well


def git(folder, *words):
    done = subprocess.run([*GIT, "-C", str(folder), *map(str, words)], capture_output=True, check=True)
    return done.stdout.decode()


@dataclass
class World:
    """The places of one round; ``kept``: what stands for remotes that are no folder here, for verbs that need it."""

    root: Path
    kept: object = None

    @property
    def team(self):
        return self.root / "team"

    def environ(self):
        return {
            "HOME": str(self.root / "home"),
            "KEYHOLE_HOME": str(self.root / "keyhole"),
            "TMPDIR": str(self.root / "tmp"),
            **(self.kept.environ if self.kept else {}),
        }

    @property
    def stick(self):
        """The address of the remote that is not git's."""
        return self.kept.url.format(self.kept.rounds) if self.kept else self.root / "stick"

    def run(self, words, stdin=b"", *, killer=None, folder="team"):
        """One command in a forked process; its exit code, negative for a signal, and what it said."""
        out = self.root / "out"
        child = os.fork()
        if child == 0:
            code = 70
            with contextlib.suppress(BaseException):
                code = self._child(words, stdin, killer, folder, out)
            os._exit(code)
        if killer is not None:
            killer.watch(child)
        _, status = os.waitpid(child, 0)
        if killer is not None:
            killer.end(child)
        return os.waitstatus_to_exitcode(status), out.read_text(errors="replace") if out.exists() else ""

    def _child(self, words, stdin, killer, folder, out):
        os.setpgid(0, 0)
        os.environ.update(self.environ())
        tempfile.tempdir = None
        keychain = self.root / "keychain.json"
        Keychain._backend = lambda _: doubles.FileEntries(keychain)
        Keychain._refuse_locked = lambda *_: None
        os.chdir(self.root / folder)
        file = out.open("w", buffering=1)
        sys.stdin = _Input(io.BytesIO(stdin), "utf-8")
        with contextlib.redirect_stdout(_Both(file)), contextlib.redirect_stderr(_Both(file)):
            if self.kept:
                self.kept.count_calls()
            if killer is not None:
                killer.arm()
            code = main([str(word) for word in words])
            if hasattr(killer, "done"):
                killer.done()
            return code


class _Input(io.TextIOWrapper):
    def fileno(self):
        raise OSError("not a file")


class _Both(io.TextIOBase):
    """A text stream whose bytes go the same way."""

    def __init__(self, file):
        self.file, self.buffer = file, self

    def write(self, text):
        return self.file.write(text if isinstance(text, str) else bytes(text).decode(errors="replace"))

    def flush(self):
        self.file.flush()


class AtChange:
    """Ends the process at its n-th change of a file, or at none."""

    def __init__(self, number):
        self.number, self.count = number, 0

    def __str__(self):
        return f"at change {self.number}"

    def arm(self):
        sys.addaudithook(self._event)

    def _event(self, event, args):
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if event in CHANGES or writes:
            self.count += 1
            if self.count == self.number:
                os.killpg(0, signal.SIGKILL)

    def watch(self, child):
        pass

    end = watch


class InGit:
    """Ends the process within its n-th git, at a system call of that."""

    def __init__(self, number, call):
        self.number, self.call, self.count = number, call, 0

    def __str__(self):
        return f"in git {self.number} at call {self.call}"

    def arm(self):
        plain = subprocess.run

        def run(command, **options):
            self.count += 1
            if self.count != self.number:
                return plain(command, **options)
            if STRACE:
                inject = f"inject={CALLS}:signal=KILL:when={self.call}"
                words = [STRACE, "-f", "-qq", "-o", os.devnull, "-e", f"trace={CALLS}", "-e", inject]
                plain([*words, *command], **options)
            elif self.call % 2:
                plain(command, **options)
            os.killpg(0, signal.SIGKILL)
            return None

        subprocess.run = run

    def watch(self, child):
        pass

    end = watch


class AfterTime:
    """Ends the process and its children after a time."""

    def __init__(self, seconds):
        self.seconds, self.timer = seconds, None

    def __str__(self):
        return f"after {self.seconds * 1000:.0f} ms"

    def arm(self):
        pass

    def watch(self, child):
        self.timer = threading.Timer(self.seconds, _kill, [child])
        self.timer.start()

    def end(self, child):
        self.timer.cancel()
        self.timer.join()
        _kill(child)


def _kill(group):
    with contextlib.suppress(OSError):
        os.killpg(group, signal.SIGKILL)


# The world before a verb.


def must(world, *words, stdin=b"", folder="team"):
    code, said = world.run(words, stdin, folder=folder)
    assert code == 0, (words, code, said)
    return said


def template(folder, kept=None, opaque=()):
    """A clone with a vault of two groups and an agent, a second clone of the same owner, and a remote."""
    world = World(folder, kept)
    for name in ("home", "keyhole", "tmp"):
        (folder / name).mkdir(parents=True)
    hookless = ("-c", "init.templateDir=", "init", "-q", "-b", "main")
    subprocess.run(["git", *hookless, "--bare", str(folder / "remote.git")], check=True)
    subprocess.run(["git", *hookless, str(world.team)], check=True)
    (world.team / "code.py").write_text("code\n" * 50)
    git(world.team, "add", "code.py")
    git(world.team, "commit", "-qm", "code")
    must(world, "repo", "init", *opaque)
    for name in ("a/one", "a/two", "b/one"):
        must(world, "repo", "set", name, stdin=f"value of {name}".encode())
    must(world, "repo", "add-agent", "coder", "--group", "a", "--group", "b")
    git(world.team, "remote", "add", "origin", folder / "remote.git")
    git(world.team, "push", "-q", "-u", "origin", "main")
    git(folder, "-c", "init.templateDir=", "clone", "-q", "remote.git", "other")
    return world


def fresh(made):
    """A copy of a world in the place where it was made: what was seen of a vault is kept by its path."""
    folder = made.root.with_name("world")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made.root, folder, symlinks=True)
    world = World(folder, made.kept)
    if made.kept:
        made.kept.rounds += 1
        made.kept.copy(made.kept.rounds)
        made.kept.move(folder / "keyhole", made.kept.rounds)
    return world


def of_another(world, name="a/three"):
    must(world, "repo", "set", name, stdin=f"value of {name}".encode(), folder="other")
    (world.root / "other" / "theirs.py").write_text("theirs\n" * 400)
    git(world.root / "other", "add", "theirs.py")
    git(world.root / "other", "commit", "-qm", "theirs")
    git(world.root / "other", "push", "-q")


def before_merge(world):
    of_another(world)
    must(world, "repo", "set", "a/four", stdin=b"value of a/four")


def before_init(world):
    shutil.rmtree(world.team)
    for folder in ("home", "keyhole"):  # with what this machine knows of the vault that was there
        shutil.rmtree(world.root / folder)
        (world.root / folder).mkdir()
    subprocess.run(["git", "-c", "init.templateDir=", "init", "-q", "-b", "main", str(world.team)], check=True)


def before_adopt(world):
    """The format's own tool has changed a secret."""
    owner = age.parse_recipient((world.team / ".agent-vault/owner.pub").read_text())
    agent = age.parse_recipient((world.team / ".agent-vault/agents/coder/public.key").read_text())
    (world.team / ".agent-vault/secrets/a/one.enc").write_bytes(age.encrypt(b"by the tool", [owner, agent]))
    git(world.team, "commit", "-qam", "agent-vault: set a/one")


def before_mount(world):
    must(world, "init", "--seal", f"keyfile:{world.root}/seal.key", "--make-keyfile")


def before_rollback(world):
    must(world, "repo", "set", "a/one", stdin=b"newer")


def with_ann(role):
    """A member with a key of its own."""

    def before(world):
        words = ("--recipient", MEMBER.recipient.text, "--sign", MEMBER.signing.public.hex(), "--role", role)
        must(world, "repo", "add-member", "ann", *words, "--group", "a")

    return before


def with_stick(world):
    """Both clones know a folder as a remote, and it has what they have."""
    for folder in ("team", "other"):
        must(world, "repo", "remote", "add", "stick", world.stick, folder=folder)
        must(world, "repo", "push" if folder == "team" else "pull", "stick", folder=folder)


def before_push_to_stick(world):
    with_stick(world)
    must(world, "repo", "set", "a/four", stdin=b"value of a/four")


def before_pull_of_stick(world):
    with_stick(world)
    must(world, "repo", "set", "a/three", stdin=b"value of a/three", folder="other")
    must(world, "repo", "rm", "a/two", folder="other")
    must(world, "repo", "push", "stick", folder="other")


def before_merge_of_stick(world):
    before_pull_of_stick(world)
    must(world, "repo", "set", "a/four", stdin=b"value of a/four")


def whole_at_the_stick(world):
    """Who clones the folder just then gets a whole vault."""
    must(world, "repo", "clone", world.stick, world.root / "third")


def clones(world):
    """What was cloned is there whole, or can be cloned at once."""
    if not (world.root / "third").exists():
        must(world, "repo", "clone", world.root / "remote.git", world.root / "third")
    assert "b/one" in must(world, "repo", "list", folder="third")
    assert git(world.root / "third", "status", "--porcelain") == ""


def before_keychain(world):
    """The keychain has an older value of one, another that is gone by now, and lacks the third."""
    must(world, "repo", "into-keychain", "a")
    must(world, "repo", "set", "a/one", stdin=b"newer")
    must(world, "repo", "rm", "a/two")


def keychain_is_right(world):
    """It is after the next one, and nothing else is left in it."""
    must(world, "repo", "into-keychain")
    entries = doubles.FileEntries(world.root / "keychain.json").all()
    found = {name.partition("/")[2].partition("/")[2]: value for name, value in entries.items()}
    listed = json.loads(found.pop(""))
    assert found == {"a/one": "newer", "b/one": "value of b/one"}, sorted(found)
    assert sorted(listed) == sorted(found)


def exported(*options):
    """The file is there whole, or not at all, and nothing beside it; then it can be written."""

    def then(world):
        out = world.root / "out-of-it"
        if not list(out.iterdir()):
            must(world, "repo", "export", *(str(each).format(root=world.root) for each in options), "--reveal")
        [path] = out.iterdir()
        assert path.stat().st_mode & 0o777 == 0o600
        if path.suffix == ".csv":
            assert all(f"value of {name}" in path.read_text() for name in ("a/one", "a/two", "b/one"))
        else:
            key = world.root / "home/member.key"
            key.write_text(MEMBER.to_text())
            key.chmod(0o600)
            told = must(world, "repo", "import", "sops", path, "--identity", key, "--under", "again", "--dry-run")
            assert told.count("again/") == 3, told

    return then


def before_export(world):
    (world.root / "out-of-it").mkdir()


def before_import(world):
    (world.root / "home" / "some.env").write_text("ONE_API_KEY=k7Zq9xW2vB4nM6pL\nTWO_PASSWORD=t5Rr8yU1iO3pA9sD\n")


def before_reads(world):
    must(world, "repo", "get", "a/one")


def reads_are_whole(world):
    must(world, "repo", "reads", "--verify")


def key_opens(world):
    """The key is where it was or where it goes; it is put where it was, by moving it again."""
    path = world.root / "home/.agent-vault/owner.key"
    phrase = world.root / "home/phrase"
    if kept.form_of(path.read_bytes()) is kept.Form.CLEAR:
        must(world, "repo", "key", "move", "--in", "passphrase", "--new-passphrase-file", phrase)
    left = [each.name for each in path.parent.glob("*.key*") if b"AGE-SECRET-KEY" in each.read_bytes()]
    left += [each.name for each in path.parent.glob(".*.key*") if b"AGE-SECRET-KEY" in each.read_bytes()]
    assert not left, left
    must(world, "--passphrase-file", phrase, "repo", "key", "move", "--in", "file")


def before_key_move(world):
    (world.root / "home" / "phrase").write_text("some words that nobody else says\n")


def new_key_moves(world):
    """A new key is there whole or not at all, and does what any key does."""
    path = world.root / "home/new.key"
    before_key_move(world)
    if not path.exists():
        must(world, "repo", "key", "new", "--to", path)
    phrase = world.root / "home/phrase"
    must(world, "repo", "key", "move", "--in", "passphrase", "--key", path, "--new-passphrase-file", phrase)


def restored_key_opens(world):
    path = world.root / "home/coder.key"
    if not path.exists():
        must(world, "repo", "restore-agent", "coder", "--to", path)
    assert must(world, "repo", "get", "a/one", "--key", path) == "value of a/one"


def before_guard(world):
    must(world, "repo", "guard", "uninstall")
    hook = world.team / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/usr/bin/python3\nopen('ran', 'w')\n")
    hook.chmod(0o755)


def hooks_are_kept(world):
    """The hook that was there runs, whether the guard is there or not, and the guard can be put in."""
    hooks = world.team / ".git/hooks"
    git(world.team, "-c", "core.hooksPath=.git/hooks", "hook", "run", "--ignore-missing", "pre-commit")
    assert (world.team / "ran").exists()
    must(world, "repo", "guard", "install")
    must(world, "repo", "guard", "status")
    (world.team / "ran").unlink()
    git(world.team, "hook", "run", "pre-commit")
    (world.team / "ran").unlink()
    must(world, "repo", "guard", "uninstall")
    assert [each.name for each in hooks.iterdir()] == ["pre-commit"]
    assert (hooks / "pre-commit").read_text().startswith("#!/usr/bin/python3")


def before_uninstall(world):
    before_guard(world)
    must(world, "repo", "guard", "install")


def driver_goes_in_and_out(world):
    """It can be put in whatever was left, and nothing of it stays when it is taken out."""
    must(world, "repo", "diff-driver", "install")
    assert (world.team / ".git/info/attributes").read_text().count("diff=keyhole-") == 3
    assert (world.team / ".git/config").read_text().count('[diff "keyhole-') == 1
    must(world, "repo", "diff-driver", "remove")
    assert "keyhole" not in (world.team / ".git/config").read_text()
    assert "keyhole" not in (world.team / ".git/info/attributes").read_text()
    assert not list((world.team / ".git/info").glob("attributes.*"))


def project_is_kept(world):
    must(world, "repo", "project", "shop")
    assert "shop" in must(world, "repo", "project")


ACCEPTED = "1f0e4d7c9a2b3c4d"


def before_allow(world):
    must(world, "repo", "guard", "allow", "0" * 16, "--why", "first")
    git(world.team, "add", ".keyhole-allow")
    git(world.team, "commit", "-qm", "allow")


def still_accepted(world):
    assert "0" * 16 in (world.team / ".keyhole-allow").read_text()
    for each in world.team.glob(".keyhole-allow.*"):  # what was not in its place yet is nobody's
        each.unlink()
    git(world.team, "checkout", "-q", ".keyhole-allow")


def stick_is_known(world):
    if "stick" not in must(world, "repo", "remote", "list"):
        must(world, "repo", "remote", "add", "stick", world.root / "stick")
    must(world, "repo", "push", "stick")


def stick_is_forgotten(world):
    if "stick" in must(world, "repo", "remote", "list"):
        must(world, "repo", "remote", "rm", "stick")
    must(world, "repo", "remote", "add", "stick", world.root / "stick")
    must(world, "repo", "pull", "stick")


@dataclass
class Verb:
    """What is killed.

    Attributes:
        words: of the command; ``{root}`` is the folder of the world.
        stdin: of it.
        before: makes the world ready.
        then: looks, before the next verb, at what only this verb is about.
        again: the verb itself has to work afterwards, as well as the next one, and only then is everything as it was.
        remote: the kind of the remote that is not git's: ``bucket``, ``server``, or a folder.
        opaque: in a vault that hides its names.
    """

    words: tuple
    stdin: bytes = b""
    before: object = None
    then: object = None
    again: bool = False
    remote: str = ""
    opaque: bool = False


_PUSH = Verb(("repo", "push", "stick"), before=before_push_to_stick, then=whole_at_the_stick, again=True)
_PULL = Verb(("repo", "pull", "stick"), before=before_pull_of_stick, again=True)
_MERGE = Verb(("repo", "pull", "stick"), before=before_merge_of_stick, again=True)
_SOPS = ("sops", "--to", "{root}/out-of-it/team.yaml", "--recipient", MEMBER.recipient.text)
_PLAIN = ("1password", "--to", "{root}/out-of-it/team.csv", "--plain")

VERBS = {
    "init": Verb(("repo", "init"), before=before_init),
    "set-new": Verb(("repo", "set", "c/new"), b"value of c/new"),
    "set": Verb(("repo", "set", "a/one"), b"another"),
    "rm": Verb(("repo", "rm", "a/two")),
    "add-agent": Verb(("repo", "add-agent", "second", "--group", "a")),
    "add-member": Verb(
        ("repo", "add-member", "ann", "--recipient", MEMBER.recipient.text, "--role", "reader", "--group", "a")
    ),
    "grant": Verb(("repo", "grant", "third", "a"), before=lambda world: must(world, "repo", "add-agent", "third")),
    "revoke": Verb(("repo", "revoke", "coder", "a")),
    "remove-agent": Verb(("repo", "remove-agent", "coder")),
    "recover-agent": Verb(("repo", "recover-agent", "coder", "--to", "{root}/coder.key")),
    "rollback": Verb(("repo", "rollback", "a/one", "1"), before=before_rollback),
    "adopt": Verb(("repo", "adopt", "--yes"), before=before_adopt, again=True),
    "pull-ff": Verb(("repo", "pull"), before=of_another),
    "pull-merge": Verb(("repo", "pull"), before=before_merge),
    "push": Verb(("repo", "push"), before=lambda world: must(world, "repo", "set", "a/four", stdin=b"value of a/four")),
    "mount": Verb(("repo", "mount", "team"), before=before_mount, again=True),
    "role-up": Verb(("repo", "role", "ann", "owner"), before=with_ann("member")),
    "role-down": Verb(("repo", "role", "ann", "reader"), before=with_ann("owner")),
    "remove-member": Verb(("repo", "remove-agent", "ann"), before=with_ann("admin")),
    "hosts": Verb(("repo", "hosts", "a", "api.example.com")),
    "restore-agent": Verb(("repo", "restore-agent", "coder", "--to", "{root}/home/coder.key"), then=restored_key_opens),
    "get": Verb(("repo", "get", "a/one"), then=reads_are_whole),
    "reads-share": Verb(("repo", "reads", "share"), before=before_reads, then=reads_are_whole, again=True),
    "import": Verb(("repo", "import", "dotenv", "{root}/home/some.env", "--under", "shop"), before=before_import),
    "clone": Verb(("repo", "clone", "{root}/remote.git", "{root}/third"), then=clones),
    "remote-add": Verb(("repo", "remote", "add", "stick", "{root}/stick"), then=stick_is_known),
    "remote-rm": Verb(("repo", "remote", "rm", "stick"), before=with_stick, then=stick_is_forgotten),
    "push-object": _PUSH,
    "pull-object-ff": _PULL,
    "pull-object-merge": _MERGE,
    **{
        f"{name}-{remote}": replace(verb, remote=remote)
        for remote in ("bucket", "server")
        for name, verb in (("push", _PUSH), ("pull-ff", _PULL), ("pull-merge", _MERGE))
    },
    "export": Verb(("repo", "export", *_SOPS, "--reveal"), before=before_export, then=exported(*_SOPS)),
    "export-plain": Verb(("repo", "export", *_PLAIN, "--reveal"), before=before_export, then=exported(*_PLAIN)),
    "into-keychain": Verb(("repo", "into-keychain"), before=before_keychain, then=keychain_is_right),
    "key-new": Verb(("repo", "key", "new", "--to", "{root}/home/new.key"), then=new_key_moves),
    "key-move": Verb(
        ("repo", "key", "move", "--in", "passphrase", "--new-passphrase-file", "{root}/home/phrase"),
        before=before_key_move,
        then=key_opens,
    ),
    "guard-install": Verb(("repo", "guard", "install"), before=before_guard, then=hooks_are_kept),
    "guard-uninstall": Verb(("repo", "guard", "uninstall"), before=before_uninstall, then=hooks_are_kept),
    "driver-install": Verb(("repo", "diff-driver", "install"), then=driver_goes_in_and_out),
    "driver-remove": Verb(
        ("repo", "diff-driver", "remove"),
        before=lambda world: must(world, "repo", "diff-driver", "install"),
        then=driver_goes_in_and_out,
    ),
    "project": Verb(("repo", "project", "shop"), then=project_is_kept),
    "guard-allow": Verb(
        ("repo", "guard", "allow", ACCEPTED, "--why", "second"), before=before_allow, then=still_accepted
    ),
}


HIDDEN = ("init", "set-new", "set", "rm", "get", "grant", "revoke", "add-agent", "remove-agent", "role-down")
HIDDEN += ("pull-ff", "pull-merge", "push-object", "pull-object-merge", "rollback", "import", "into-keychain")
VERBS |= {f"{name}-opaque": replace(VERBS[name], opaque=True) for name in HIDDEN}
VERBS["init-opaque"] = replace(VERBS["init-opaque"], words=("repo", "init", "--opaque-names"))


# What is held against it.


@dataclass(frozen=True)
class State:
    """What a vault holds: values of secrets, who is in it and where values may go, and what is wrong with it."""

    values: tuple
    members: tuple
    wrong: frozenset


def state(world):
    with environment(world):
        opened = open_vault(world.team, home())
        owner = keys.find(os.environ)
        opened.unlock(owner)
        names = sorted(opened.shown(stem) for stem in opened.names())
        values = tuple((name, opened.get(name, [owner]).reveal()) for name in names if name != "z/next")
        everybody = opened.require_members().members.values()
        hosts = opened.require_members().hosts
        groups = {each.name: tuple(sorted(map(opened.shown, each.groups))) for each in everybody}
        members = (
            *sorted((opened.shown(each.name), each.role.value, groups[each.name]) for each in everybody),
            *sorted((opened.shown(group), each) for group, each in hosts.items()),
        )
        return State(values, members, frozenset(check(opened, datetime.now(UTC), owner).errors))


@contextlib.contextmanager
def environment(world):
    kept = dict(os.environ)
    os.environ.update(world.environ())
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def next_verb(world):
    """Whether the next verb works by itself; else ``operator fsck`` has to help. Raises ``AssertionError``."""
    words = ("repo", "set", "z/next")
    code, said = world.run(words, b"next")
    if code == 0:
        return True
    fsck, told = world.run(("operator", "fsck", world.team))
    assert fsck == 0, (said, told)
    code, again = world.run(words, b"next")
    assert code == 0, (said, told, again)
    return False


def held(world, before, after):
    """See that nothing is lost, and nothing is between two states; the state now."""
    now = state(world)
    assert now.values in {before.values, after.values}, ("values", now.values)
    assert now.members in {before.members, after.members}, ("members", now.members)
    assert now.wrong <= before.wrong | after.wrong, ("wrong", now.wrong - before.wrong - after.wrong)
    dirt = git(world.team, "status", "--porcelain")
    assert dirt == "", ("git status", dirt)
    assert git(world.team, "fsck", "--no-dangling", "--no-progress", "--connectivity-only") == ""
    return now


def one(name, made, verb, killer, before, after):
    """One round. Returns whether the verb was killed, and whether the next one worked by itself."""
    world = fresh(made)
    words = [str(word).format(root=world.root) for word in verb.words]
    code, said = world.run(words, verb.stdin, killer=killer)
    assert code in {0, -9}, (code, said)
    if verb.words[1] == "init":
        again, told = world.run(words, verb.stdin)
        assert again == 0 or "already initialized" in told, told
    if verb.then is not None:
        verb.then(world)
    itself = next_verb(world)
    if verb.again:
        again, told = world.run(words, verb.stdin)
        assert again == 0 or "already" in told, told
    now = held(world, before or after, after)
    if (code == 0 and verb.words[1] != "push") or (verb.again and verb.words[1] != "adopt"):
        assert now.values == after.values, "acknowledged and gone"
    return code == -9, itself


def measured(made, verb):
    """How many changes, how many gits and how much time a verb takes, and the state after it."""
    world = fresh(made)
    counted = world.root / "counted"

    class Counting(AtChange):
        gits = 0

        def arm(self):
            super().arm()
            plain = subprocess.run

            def run(command, **options):
                self.gits += 1
                return plain(command, **options)

            subprocess.run = run

        def done(self):
            counted.write_text(f"{self.count} {self.gits}")

    begun = time.monotonic()
    words = [str(word).format(root=world.root) for word in verb.words]
    code, said = world.run(words, verb.stdin, killer=Counting(0))
    took = time.monotonic() - begun
    assert code == 0, (words, said)
    if verb.then is not None:
        verb.then(world)
    found = state(world)
    changes, gits = map(int, counted.read_text().split())
    return changes, gits, took, found


def points(rng, rounds, changes, gits, took):
    """Where the rounds kill, without an end: each change once first, then within the gits, and at odd times."""
    every = [AtChange(number) for number in range(1, changes + 1)]
    rng.shuffle(every)
    yield from every[: rounds * 3 // 4]
    while True:
        if gits and rng.random() < 0.7:
            yield InGit(rng.randint(1, gits), rng.randint(1, 60))
        else:
            yield AfterTime(rng.uniform(0, took))


def campaign(name, rounds, seed, folder, report=print):
    """Kill a verb so many times. Returns in how many rounds, and how many of the kills needed ``operator fsck``."""
    verb = VERBS[name]
    with doubles.remote(verb.remote, folder / "elsewhere") as kept:
        return _campaign(name, verb, rounds, seed, folder, kept, report)


def _campaign(name, verb, rounds, seed, folder, kept, report):
    rng = random.Random(f"{seed}/{name}")
    made = template(folder / "world", kept, ("--opaque-names",) if verb.opaque else ())
    if verb.before is not None:
        verb.before(made)
    before = None if verb.words[1] in {"init", "adopt"} else state(made)
    made = World(made.root.rename(folder / "template"), kept)
    changes, gits, took, after = measured(made, verb)
    killed, helped = 0, Counter()
    number = 0
    for number, killer in enumerate(points(rng, rounds, changes, gits, took), 1):
        try:
            was, itself = one(name, made, verb, killer, before, after)
        except (AssertionError, KeyholeError, subprocess.CalledProcessError) as error:
            raise AssertionError(f"{name}, seed {seed}, round {number}, {killer}: {error!r}") from error
        killed += was
        helped["fsck" if not itself else "itself"] += was
        if killed == rounds:
            break
    report(f"{name}: {number} rounds, {killed} killed, {helped['fsck']} needed fsck ({changes} changes, {gits} gits)")
    shutil.rmtree(folder, ignore_errors=True)
    return number, helped["fsck"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help="that kill, of each verb")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--verb", choices=sorted(VERBS), action="append")
    return parser.parse_args()


if __name__ == "__main__":
    asked = arguments()
    age_scrypt.WORK = 4  # a key is put under a passphrase hundreds of times
    print(json.dumps({"seed": asked.seed, "strace": bool(STRACE)}))
    with tempfile.TemporaryDirectory(prefix="kill-repo-") as place:
        for each in asked.verb or VERBS:
            campaign(each, asked.rounds, asked.seed, Path(place) / each, report=partial(print, flush=True))
