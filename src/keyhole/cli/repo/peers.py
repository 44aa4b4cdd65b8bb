"""The other side of a vault, whatever kind of remote it is: looked at, taken from, given to.

Each look is verified before anything is made of it, and what the remote was found to have is noted, so that it serves
nothing older later. That this clone and a remote have the same is noted last, when it is so.
"""

from __future__ import annotations

import contextlib
import functools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import click

from keyhole.cli.repo.place import Place
from keyhole.cli.repo.touched import touched_below
from keyhole.client import Where, connect
from keyhole.client.discover import stored_token
from keyhole.config import home
from keyhole.core.errors import Conflict, IntegrityError, InvalidRequest, KeyholeError, NotFound, Unauthenticated
from keyhole.remotes import Ask, Remote, load
from keyhole.remotes.chain import Chain, Head, Kept
from keyhole.remotes.git import Git
from keyhole.remotes.settings import GIT, Address, Settings
from keyhole.repo.documents import instant
from keyhole.repo.hidden import NAMES
from keyhole.repo.merging import MEMBERS
from keyhole.repo.opened import Opened, sealed_path, verify
from keyhole.repo.refusals import recording
from keyhole.repo.reviewing import Touched, require_kept_in_groups, require_signed
from keyhole.repo.seen import Begun, Met, Seen
from keyhole.repo.seen import place as kept_at
from keyhole.repo.snapshots import Entries, Entry, collect, mark_of, travels
from keyhole.repo.tree import Change, Files


class Relation(StrEnum):
    """What one side has that the other has not."""

    EMPTY = "nothing was pushed yet"
    SAME = "the same"
    AHEAD = "this clone has more"
    BEHIND = "the remote has more"
    PARTED = "both have changed"


@dataclass(frozen=True, slots=True)
class Look:
    """Both sides at one moment.

    Attributes:
        relation: of them.
        version: of the remote: a commit or a snapshot.
        ours: the vault here.
        theirs: the vault there, verified; ours where nothing is there yet.
        base: the vault from which both went on; ``None`` where that is not known.
    """

    relation: Relation
    version: str
    ours: Opened
    theirs: Opened
    base: Opened | None


class Peer(ABC):
    """One remote of one vault. The lock of the vault is held by who calls.

    Args:
        place: the vault.
        name: of the remote.
        url: as it is shown.
    """

    def __init__(self, place: Place, name: str, url: str) -> None:
        self.place = place
        self.name = name
        self.url = url

    def look(self, *, taken: Sequence[str] = ()) -> Look:
        """Ask the remote what it has, and verify that; what is refused is recorded.

        Args:
            taken: what a person has chosen to take from it: secrets, whoever has put them into other groups, and
                ``members``, whatever this machine has seen of that list.

        Raises:
            IntegrityError: something there is not genuine, or old.
            Unreachable: it cannot be asked.
        """
        with self._recording():
            return self._look(taken)

    @abstractmethod
    def _look(self, taken: Sequence[str]) -> Look:
        """See ``look``."""

    def _recording(self) -> contextlib.AbstractContextManager[None]:
        return recording(self.place.tree.root, home(), f"the remote {self.name}")

    @abstractmethod
    def forward(self, look: Look) -> None:
        """Go on to what the remote has; nothing was changed here."""

    @abstractmethod
    def join(self, look: Look, change: Change) -> None:
        """Carry out what brings both sides together."""

    @abstractmethod
    def push(self, opened: Opened) -> str:
        """Give the remote what is here; returns the version that it has then. Raises ``Conflict``: it has more."""

    def note(self, opened: Opened, version: str) -> None:
        """Note that this clone goes on from this version of the remote."""
        opened.seen.sync(self.name, version, instant(datetime.now(UTC)))
        opened.seen.store()

    def begin(self, look: Look, mark: str) -> None:
        """Note what is about to be done to the folder."""
        seen = look.ours.seen
        seen.begun = Begun(self.name, look.version, mark, look.theirs.state()[0])
        seen.store()

    def _verified(
        self, files: Files, ours: Opened, touched: Iterable[Touched], base: Opened | None, taken: Sequence[str]
    ) -> Opened:
        judge = ours.seen.of_remote(self.name)
        if MEMBERS in taken:
            judge.members = (0, "")
        theirs = verify(files, judge)
        theirs.require_members()
        self.place.show_names(theirs)
        require_signed(theirs, touched)  # judged before anything of it is taken
        require_kept_in_groups(base or ours, theirs, [name for name in taken if name != MEMBERS])
        ours.seen.saw(self.name, *theirs.state())
        ours.seen.store()
        return theirs


class GitPeer(Peer):
    """The branch that git follows."""

    def __init__(self, place: Place, git: Git) -> None:
        super().__init__(place, GIT, git.upstream())
        self._git = git

    def _look(self, taken: Sequence[str]) -> Look:
        git, root = self._git, self.place.tree.root
        ours = self.place.open()
        fetched, head = git.fetch(), git.head()
        common = git.common(head, fetched)
        touched = touched_below(git, root, head, fetched) if common != fetched else ()
        base = None
        if common:
            with contextlib.suppress(KeyholeError):  # the vault may have come after it
                base = verify(git.at(common, root), Seen())
        theirs = self._verified(git.at(fetched, root), ours, touched, base, taken)
        relation = Relation.PARTED
        if head == fetched:
            relation = Relation.SAME
        elif common in {head, fetched}:
            relation = Relation.AHEAD if common == fetched else Relation.BEHIND
        return Look(relation, fetched, ours, theirs, base)

    def forward(self, look: Look) -> None:
        """See ``Peer.forward``."""
        self.begin(look, "")
        self._git.advance(look.version, self.place.tree.root, "agent-vault: pull")

    def join(self, look: Look, change: Change) -> None:
        """See ``Peer.join``."""
        self.begin(look, "")
        self._git.join(change, self.place.tree.root, look.version)

    def push(self, opened: Opened) -> str:
        """See ``Peer.push``."""
        self._git.push()
        opened.seen.saw(self.name, *opened.state())
        return self._git.head()


class ObjectPeer(Peer):
    """A remote that keeps snapshots."""

    def __init__(self, place: Place, name: str, address: Address) -> None:
        super().__init__(place, name, address.url)
        self._address = address

    @functools.cached_property
    def _chain(self) -> Chain:
        return chain_at(self.place.tree.root, self.name, remote_at(self._address))

    def _look(self, taken: Sequence[str]) -> Look:
        ours = self.place.open()
        ours.require_members()
        local = collect(self.place.tree)
        met, head = self._settled(ours, local)
        if not head.snapshot:
            return Look(Relation.EMPTY, "", ours, ours, None)
        files = self._chain.files(head.snapshot)
        files.fetch([path for path, entry in files.entries.items() if local.get(path) != entry])
        differing = [p for p in {*local, *files.entries} if local.get(p) != files.entries.get(p)]
        touched = [Touched(path, gone=path not in files.entries) for path in differing]
        same = met.version == head.snapshot
        base, before = (None, files.entries) if same else self._base(met)
        theirs = self._verified(files, ours, touched, base, taken)
        base = theirs if same else base
        relation = Relation.PARTED
        if local == files.entries:
            relation = Relation.SAME
        elif met.version == head.snapshot:
            relation = Relation.AHEAD
        elif local == before:
            relation = Relation.BEHIND
        return Look(relation, head.snapshot, ours, theirs, base)

    def forward(self, look: Look) -> None:
        """See ``Peer.forward``."""
        theirs = look.theirs.tree
        wanted = set(theirs.paths())
        files: dict[str, bytes | None] = {path: theirs.require(path) for path in wanted}
        files |= {path: None for path in collect(self.place.tree) if path not in wanted}
        self.join(look, Change(f"agent-vault: pull from {self.name}", files))

    def join(self, look: Look, change: Change) -> None:
        """See ``Peer.join``."""
        tree = self.place.tree
        changed = {path: data for path, data in change.files.items() if tree.read(path) != data}
        after = {**collect(tree), **{path: Entry.of(data) for path, data in changed.items() if data is not None}}
        kept = {path: entry for path, entry in after.items() if path not in changed or changed[path] is not None}
        self.begin(look, mark_of(kept))
        if changed:
            self.place.carry_out(Change(change.message, changed, change.due))

    def push(self, opened: Opened) -> str:
        """See ``Peer.push``."""
        opened.require_members()
        local = collect(self.place.tree)
        with self._recording():
            met, head = self._settled(opened, local)
        there = self._chain.entries(head.snapshot) if head.snapshot else {}
        if head.snapshot != met.version and there != local:
            raise Conflict(f"{self.name} has more than this clone", f"keyhole repo pull {self.name}, then push again")
        for name in opened.names():
            path = sealed_path(name)
            if there.get(path) != local.get(path):
                opened.ciphertext(name)  # others would refuse what is not genuine
        version = head.snapshot
        if there != local:
            version = self._chain.add(local, self._bytes(local, there), head, self._noting(opened))
        opened.seen.saw(self.name, *opened.state())
        return version

    def note(self, opened: Opened, version: str) -> None:
        """See ``Peer.note``."""
        super().note(opened, version)
        with contextlib.suppress(KeyholeError):  # it is kept to save time
            self._chain.keep([version])

    def _noting(self, opened: Opened) -> Callable[[str], None]:
        return lambda snapshot: opened.seen.send(self.name, snapshot)

    def _settled(self, opened: Opened, local: Entries) -> tuple[Met, Head]:
        """What is known of the remote, and its head.

        What was cut after its work was done, and before that was noted, counts as done: a pull where the files here are
        as it meant them, a push where the head has what it sent.
        """
        seen, begun, head = opened.seen, opened.seen.begun, self._chain.head()
        if begun is not None and begun.remote == self.name and begun.mark == mark_of(local):
            self.note(opened, begun.version)
        met = seen.remotes.get(self.name, Met())
        if met.version and not head.snapshot:
            raise IntegrityError(
                f"{self.name} has lost its head: this clone has synced with it, and it is empty now",
                f"if that is meant: keyhole repo remote rm {self.name}, add it again, and push",
            )
        self._chain.require_follows(met.version, head.snapshot)
        sent = seen.sent.get(self.name, "")
        if sent and head.snapshot and self._chain.has(sent, head.snapshot):
            self.note(opened, sent)
        return seen.remotes.get(self.name, Met()), head

    def _base(self, met: Met) -> tuple[Opened | None, Entries | None]:
        with contextlib.suppress(KeyholeError):
            if met.version:
                files = self._chain.files(met.version)
                return verify(files, Seen()), files.entries
        return None, None

    def _bytes(self, local: Entries, there: Entries) -> Mapping[str, bytes]:
        known = {entry.digest for entry in there.values()}
        found = {}
        for path, entry in local.items():
            if entry.digest not in known:
                found[entry.digest] = self.place.tree.require(path)
                if Entry.of(found[entry.digest]) != entry:
                    raise Conflict(f"{path} was changed just now", "push again")
        return found


def rest(look: Look) -> dict[str, bytes | None]:
    """The files besides members, agents and secrets that only the remote has changed."""
    ours, theirs = look.ours.tree, look.theirs.tree
    base = None if look.base is None else look.base.tree
    found: dict[str, bytes | None] = {}
    for path in {*ours.paths(), *theirs.paths()}:
        if path.startswith(_MERGED) or not travels(path):
            continue
        here, there = ours.read(path), theirs.read(path)
        before = None if base is None else base.read(path)
        if here != there and here == before:
            found[path] = there
    return found


_MERGED = (
    "secrets/",
    "agents/",
    ".x/secrets/",
    ".x/members/",
    ".x/aside/",
    NAMES,
    "manifest.yaml",
    "owner.pub",
    "config.yaml",
)


def chain_at(root: Path, name: str, remote: Remote) -> Chain:
    """The snapshots of the vault of a folder in a remote."""
    return Chain(remote, Kept(kept_at(home(), root) / name), name)


def peers(place: Place) -> dict[str, Peer]:
    """All remotes of a vault, by their names."""
    found: dict[str, Peer] = {}
    if place.git is not None and place.git.upstream():
        found[GIT] = GitPeer(place, place.git)
    for name, address in Settings(home(), place.tree.root).all().items():
        found[name] = ObjectPeer(place, name, address)
    return found


def peer(place: Place, name: str) -> Peer:
    """The remote of a name; without one the branch that git follows, else the only one, or ``origin``.

    Raises:
        NotFound: there is none of that name, or none at all.
        InvalidRequest: there are several.
    """
    found = peers(place)
    if name:
        if name not in found:
            raise NotFound(f"there is no remote {name[:40]!r}", "keyhole repo remote list")
        return found[name]
    if not found:
        hint = "keyhole repo remote add NAME URL"
        if place.git is not None:
            hint = f"git push -u origin HEAD, once; or {hint}"
        raise InvalidRequest("this vault has no remote", hint)
    if GIT in found or len(found) == 1:
        return found.get(GIT) or next(iter(found.values()))
    if "origin" in found:
        return found["origin"]
    raise InvalidRequest("this vault has several remotes", f"name one: {', '.join(found)}")


def remote_at(address: Address) -> Remote:
    """The remote at an address. Nothing is asked yet. Raises ``Unauthenticated``, ``NotFound``, ``InvalidRequest``."""
    return load(address.kind, address.where, _asks(address.server) if address.server else None)


def _asks(server: str) -> Ask:
    """Asks a server with the token that is kept for it, or that the environment has for it. It goes nowhere else."""
    token = stored_token(server)
    named = os.environ.get("KEYHOLE_VAULT") or os.environ.get("KEYHOLE_ADDR") or ""
    if not token and server in [each.strip().rstrip("/") for each in named.split(",")]:
        token = os.environ.get("KEYHOLE_TOKEN", "").strip()
    if not token:
        raise Unauthenticated(
            f"there is no token for {server}",
            f"keyhole login --vault {server}, or KEYHOLE_ADDR={server} with KEYHOLE_TOKEN",
        )
    transport = connect(Where(server, remote=True, token=token))
    click.get_current_context().call_on_close(transport.close)
    return lambda operation, path, data: transport.ask(operation, path, data).data
