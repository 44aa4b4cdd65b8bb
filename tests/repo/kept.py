"""Vaults whose past is kept: in memory as a store of objects keeps it, and in git."""

from __future__ import annotations

import subprocess

from keyhole.cli.repo.past import GitPast
from keyhole.remotes.git import Git
from keyhole.repo import history
from keyhole.repo.past import Trace
from keyhole.repo.reviewing import Touched
from keyhole.repo.tree import LOCAL, VAULT, Reading
from repo.world import Folder


class Kept(Folder):
    """A vault whose every state is kept."""

    def __init__(self, *given):
        super().__init__(*given)
        self.past = Snapshots()

    def apply(self, change):
        super().apply(change)
        self.past.take(self.root / VAULT, change.message, self.now)
        return change

    def mark(self):
        """Where a range begins."""
        self.base = self.past.last

    def commit(self):
        """What somebody does without Keyhole."""
        self.past.take(self.root / VAULT, "work", self.now)

    def versions(self, name="stripe/key"):
        return history.history(self.open(), self.past, name).versions

    def back(self, label, name="stripe/key", by=None):
        return self.apply(history.roll_back(self.open(), self.actor(by), self.past, name, label))


class Snapshots:
    """A past as a store of objects keeps it: all files of each state."""

    def __init__(self):
        self.states = []

    @property
    def last(self):
        return f"{len(self.states) - 1:08}"

    def take(self, vault, message, time):
        files = {
            p.relative_to(vault).as_posix(): p.read_bytes()
            for p in vault.rglob("*")
            if p.is_file() and LOCAL not in p.parts
        }
        self.states.append((files, message, time))

    def traces(self, folders):
        found = {}
        for number, (files, message, time) in enumerate(self.states):
            for path, data in files.items():
                if path.startswith(tuple(folders)):
                    found.setdefault((path, data), Trace(path, data, f"{number:08}", time, message))
        return list(found.values())

    def at(self, place):
        return Snapshot(self.states[int(place)][0])

    def touched(self, before, after):
        old, new = (self.states[int(place)][0] for place in (before, after))
        paths = sorted(path for path in {*old, *new} if old.get(path) != new.get(path))
        return [Touched(path, gone=path not in new) for path in paths]


class Snapshot(Reading):
    def __init__(self, files):
        self.kept = files

    def read(self, path):
        return self.kept.get(path)

    def names(self, folder):
        return sorted({p.removeprefix(f"{folder}/").partition("/")[0] for p in self.kept if p.startswith(f"{folder}/")})

    def paths(self):
        return sorted(self.kept)


class InGit(Kept):
    """A vault in git: each change is a commit."""

    def apply(self, change):
        Folder.apply(self, change)
        self.git.record(change, self.root)
        return change

    @classmethod
    def create(cls, folder):
        (folder / "team").mkdir()
        subprocess.run(["git", "init", "-q", str(folder / "team")], check=True)
        return super().create(folder)

    def mark(self):
        self.git.run("tag", "-f", "base")

    def commit(self, message="work"):
        """What somebody commits without Keyhole."""
        words = ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "-m", message]
        subprocess.run(["git", "-C", str(self.root), "add", "-A"], check=True)
        subprocess.run(["git", "-C", str(self.root), *words], check=True)

    @property
    def git(self):
        return Git(self.root, {"PATH": "/usr/bin:/bin"})

    @property
    def past(self):
        return GitPast(self.git, self.root)

    @past.setter
    def past(self, _):
        """Git keeps it."""
