"""Two members and an agent with two remotes come together, whatever they change and choose and in what order they sync.

    python tests/campaigns/repo_meeting.py --seeds 500

Everything is in memory. Members set and remove secrets, an owner grants and revokes (so that all is sealed again), and
each syncs with one remote at a time, in any order; who is asked chooses at random. Then all sync with all, in an order
that is another each time, and have to have the same after a few rounds. What may not happen on the way: a version that
goes back, a change that the result does not know of, an old state of a remote that is taken, an agent that is stuck.
"""

import argparse
import contextlib
import copy
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from keyhole.core.errors import IntegrityError, InvalidRequest, PolicyDenied
from keyhole.core.value import Secret
from keyhole.crypto import age
from keyhole.repo import changes
from keyhole.repo.lineage import Line
from keyhole.repo.members import Role
from keyhole.repo.merging import compare, merge
from keyhole.repo.opened import verify
from keyhole.repo.sealing import Actor
from keyhole.repo.seen import Seen
from keyhole.repo.settling import Side, line
from keyhole.repo.snapshots import Entry, SnapshotFiles

REMOTES = ("one", "two")
NAMES = ("a/first", "a/second", "b/third")
ROUNDS = 5
"""In which all have met: two for what is new to come everywhere, two choices, and one that finds nothing to do."""


def tree(files):
    """The files of a vault, in memory."""
    entries = {path: Entry.of(data) for path, data in files.items()}
    by_digest = {entry.digest: files[path] for path, entry in entries.items()}
    return SnapshotFiles(entries, lambda wanted: {entry.digest: by_digest[entry.digest] for entry in wanted})


class Clone:
    """What one of them has, and has seen."""

    def __init__(self, world, key, files):
        self.world, self.key, self.files, self.seen, self.bases = world, key, dict(files), Seen(), {}
        self.met, self._opened = {}, ({}, None)

    def copy(self, world):
        found = Clone(world, self.key, self.files)
        found.seen = replace(self.seen, secrets=dict(self.seen.secrets), remotes=dict(self.seen.remotes))
        found.bases, found.met = dict(self.bases), dict(self.met)
        return found

    def open(self):
        if self._opened[0] != self.files:
            opened = verify(tree(self.files), self.seen)
            opened.remember()
            self._opened = (dict(self.files), opened)
        return self._opened[1]

    def actor(self, opened):
        self.world.now += timedelta(minutes=1)
        return Actor(opened.member(self.key), self.key, self.world.now)

    def apply(self, change):
        before = self.open()
        for path, data in change.files.items():
            self.files.pop(path, None) if data is None else self.files.__setitem__(path, data)
        after = self.open()  # refuses what goes back
        for name, found in before.secrets.items():
            assert line(after.secrets[name]).covers(line(found)), f"a change of {name} is lost"

    def do(self, verb, *arguments, **more):
        opened = self.open()
        self.apply(verb(opened, self.actor(opened), *arguments, **more))

    def note(self, remote, files):
        self.bases[remote], self.met[remote] = dict(files), len(self.world.past[remote]) - 1

    def pull(self, remote):
        ours, there = self.open(), self.world.remotes[remote]
        theirs = verify(tree(there), ours.seen.of_remote(remote))
        ours.seen.saw(remote, *theirs.state())
        base = self.bases.get(remote)
        if there not in (self.files, base):
            if self.files == base:
                removed = dict.fromkeys(self.files.keys() - there.keys())
                change = changes.Change("pull", {**there, **removed})
            else:
                change = self.merged(None if base is None else verify(tree(base), Seen()), ours, theirs)
            self.apply(change)
        self.note(remote, there)

    def merged(self, base, ours, theirs):
        actor, rng = self.actor(ours), self.world.rng
        try:
            return merge(base, ours, theirs, actor, {})
        except InvalidRequest:
            found = [clash.name for clash in compare(base, ours, theirs).clashes]
            self.world.asked += len(found)
            return merge(base, ours, theirs, actor, {name: rng.choice(list(Side)) for name in found})

    def sync(self, remote):
        self.pull(remote)
        self.world.remotes[remote] = dict(self.files)
        self.world.past[remote].append(dict(self.files))
        opened = self.open()
        opened.seen.saw(remote, *opened.state())
        self.note(remote, self.files)


class World:
    """All of them."""

    def __init__(self, seed):
        self.rng, self.now, self.asked = random.Random(seed), datetime(2026, 1, 1, tzinfo=UTC), 0
        self.refused = 0
        keys = {who: age.generate() for who in ("owner", "ann", "coder")}
        owner = self.owner = Clone(self, keys["owner"], changes.create(keys["owner"], "owner").files)
        for who, role in (("ann", Role.MEMBER), ("coder", Role.AGENT)):
            key = keys[who]
            owner.do(changes.add, who, key.recipient, role=role, sign=key.signing.public, groups=["a", "b"])
        owner.do(changes.store, NAMES[0], Secret(b"0"))
        self.remotes = {remote: dict(owner.files) for remote in REMOTES}
        self.past = {remote: [dict(owner.files)] for remote in REMOTES}
        self.ann, self.coder = (Clone(self, keys[who], owner.files) for who in ("ann", "coder"))
        for clone in (owner, self.ann, self.coder):
            for remote in REMOTES:
                clone.pull(remote)
        self.members, self.events = (owner, self.ann), {}

    def copy(self):
        found = copy.copy(self)
        found.rng = copy.copy(self.rng)
        found.owner, found.ann, found.coder = (each.copy(found) for each in (self.owner, self.ann, self.coder))
        found.members = (found.owner, found.ann)
        found.remotes, found.events = dict(self.remotes), {name: set(each) for name, each in self.events.items()}
        found.past = {remote: list(each) for remote, each in self.past.items()}
        return found

    def change(self):
        clone = self.rng.choice(self.members)
        if clone is self.owner and self.rng.random() < 0.15:
            coder = clone.open().require_members().members["coder"]
            clone.do(changes.revoke if "a" in coder.groups else changes.grant, "coder", "a")
            return
        name = self.rng.choice(NAMES)
        if name in clone.open().names() and self.rng.random() < 0.2:
            clone.do(changes.remove, name)
        else:
            clone.do(changes.store, name, Secret(str(self.now).encode()))
        self.events.setdefault(name, set()).update(line(clone.open().secrets[name]).ends)

    def serve_old(self):
        """A remote serves what it had before: refused, but for what is the same."""
        remote, clone = self.rng.choice(REMOTES), self.rng.choice([*self.members, self.coder])
        past = self.past[remote][: clone.met[remote]]
        old = self.rng.choice([*past, self.past[remote][0]])
        if verify(tree(old), Seen()).state() == verify(tree(self.past[remote][clone.met[remote]]), Seen()).state():
            return
        try:
            verify(tree(old), clone.seen.of_remote(remote))
        except IntegrityError:
            self.refused += 1
            return
        raise AssertionError("an old state was taken")

    def glance(self):
        """The agent takes what it can; it may have to wait for the members."""
        with contextlib.suppress(PolicyDenied):
            self.coder.pull(self.rng.choice(REMOTES))

    def meet(self):
        """Rounds until all have the same."""
        for rounds in range(1, ROUNDS + 1):
            pairs = [(clone, remote) for clone in self.members for remote in REMOTES]
            self.rng.shuffle(pairs)
            for clone, remote in pairs:
                clone.sync(remote)
                self.glance()
                self.serve_old()
            states = [self.owner.files, self.ann.files, *self.remotes.values()]
            if all(each == states[0] for each in states):
                return rounds
        raise AssertionError("they do not come together")

    def check(self):
        for remote in REMOTES:
            self.coder.pull(remote)
        assert self.coder.open().state() == self.owner.open().state()
        opened = self.owner.open()
        for name, events in self.events.items():
            known: Line = line(opened.secrets[name])
            assert len(known.before) >= 20 or events <= known.events, f"a change of {name} is lost"
            if not opened.secrets[name][1].removed:
                values = {clone.open().get(name, [clone.key], self.now).reveal() for clone in self.members}
                assert len(values) == 1


def campaign(seeds, *, start=0, meetings=3, report=print):
    """All seeds, each with some meetings; returns how many rounds one took at most, and how many were asked."""
    most = asked = 0
    for seed in range(start, start + seeds):
        world = World(seed)
        for _ in range(meetings):
            for _ in range(world.rng.randrange(1, 6)):
                world.change()
                if world.rng.random() < 0.5:
                    world.rng.choice(world.members).sync(world.rng.choice(REMOTES))
            most = max(most, world.meet())
            world.check()
        asked += world.asked
        report(f"seed {seed}: in step")
    return most, asked


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--start", type=int, default=0)
    options = parser.parse_args()
    most, asked = campaign(options.seeds, start=options.start)
    print(f"at most {most} rounds, {asked} questions")


if __name__ == "__main__":
    main()
