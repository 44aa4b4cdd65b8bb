"""``repo pull``, ``push`` and ``diff``: the vault and its remote. They show names, and never a value."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.repo.into_keychain import done, keychain_options
from keyhole.cli.repo.noun import repo
from keyhole.cli.repo.place import Place, place_options
from keyhole.cli.repo.reviewing import show_difference
from keyhole.config import home
from keyhole.core.errors import KeyholeError
from keyhole.remotes.git import Git
from keyhole.repo.merging import MEMBERS, Comparison, Side, compare, merge
from keyhole.repo.opened import Opened, open_vault, verify
from keyhole.repo.sealing import Actor
from keyhole.repo.seen import Seen
from keyhole.repo.tree import Change


@dataclass(frozen=True, slots=True)
class Both:
    """This clone and what its remote has.

    Attributes:
        git: the repository.
        head: commit of this clone.
        fetched: commit of the remote.
        ours: the vault here.
        theirs: the vault there, verified.
        base: the vault where they parted; ``None`` where that is not known.
    """

    git: Git
    head: str
    fetched: str
    ours: Opened
    theirs: Opened
    base: Opened | None

    @property
    def parted(self) -> str:
        """The commit where they parted."""
        return self.git.common(self.head, self.fetched)


def _both(place: Place) -> Both:
    """Fetch, and look at both sides. Raises ``IntegrityError`` for a remote that serves what is not genuine, or old."""
    git = place.remote()
    ours = place.open()
    fetched, head = git.fetch(), git.head()
    theirs = place.theirs(git, ours, fetched)
    common = git.common(head, fetched)
    base = None
    if common:
        with contextlib.suppress(KeyholeError):  # the vault may have come after it
            base = verify(git.at(common, place.tree.root), Seen())
    return Both(git, head, fetched, ours, theirs, base)


@repo.command("pull", examples="keyhole repo pull\nkeyhole repo pull --theirs stripe/api-key --ours members")
@click.option("--ours", multiple=True, metavar="NAME", help="Both changed it: keep what this clone has.")
@click.option("--theirs", multiple=True, metavar="NAME", help="Both changed it: take what the remote has.")
@keychain_options
@place_options
@pass_session
def pull(
    session: Session, /, *, ours: tuple[str, ...], theirs: tuple[str, ...], directory: str, key_file: str, **into: Any
) -> None:
    """Take what the remote has. It is verified first; secrets that different people changed come together."""
    place = Place(session, directory, key_file)
    chosen = dict.fromkeys(ours, Side.OURS) | dict.fromkeys(theirs, Side.THEIRS)
    with place.tree.lock():
        place.finish()
        both = _both(place)
        if both.parted == both.fetched:
            both.ours.remember(synced=both.head == both.fetched)
            done(session, place, {"changed": []}, "nothing new", **into)
            return
        if both.parted == both.head:
            both.git.advance(both.fetched, place.tree.root, "agent-vault: pull")
            open_vault(place.tree.root, home()).remember(synced=True)
            changed = compare(both.base, both.ours, both.theirs).theirs
        else:
            change = _joined(place, both, chosen)
            changed = sorted(
                path[8:-4] for path in change.files if path.startswith("secrets/") and path.endswith("enc")
            )
            for name in change.due:
                session.out.warn(f"{name} is due for a new value: keyhole repo set {name}")
    said = f"took {len(changed)} secrets: {' '.join(changed)}" if changed else "took it"
    done(session, place, {"changed": changed}, said, **into)


def _joined(place: Place, both: Both, chosen: dict[str, Side]) -> Change:
    """Merge both sides, and commit that."""
    actor = None
    with contextlib.suppress(KeyholeError):
        actor = Actor.of(both.ours, place.identity(), datetime.now(UTC))
    change = merge(both.base, both.ours, both.theirs, actor, chosen)
    both.git.join(change, place.tree.root, both.fetched)
    if chosen.get(MEMBERS) is Side.THEIRS:
        both.ours.seen.accept((both.theirs.require_members().version, both.theirs.digest))
    verify(place.tree, both.ours.seen).remember()
    return change


@repo.command("push", examples="keyhole repo push")
@place_options
@pass_session
def push(session: Session, /, *, directory: str, key_file: str) -> None:
    """Give the remote what this clone has. Refused when the remote has more: pull first."""
    place = Place(session, directory, key_file)
    with place.tree.lock():
        place.finish()
        place.open()
        place.remote().push()
        place.open().remember(synced=True)
    session.out.done({"pushed": True}, "the remote has what this clone has")


@repo.command("diff", examples="keyhole repo diff\nkeyhole repo diff v1.2 HEAD\nkeyhole repo diff db/url@1 db/url@3")
@click.argument("first", metavar="[FROM", required=False, default="")
@click.argument("last", metavar="[TO]]", required=False, default="")
@place_options
@pass_session
def diff(session: Session, /, *, first: str, last: str, directory: str, key_file: str) -> None:
    """What this clone and its remote do not have alike, or two commits, or two versions of a secret. Names only."""
    place = Place(session, directory, key_file)
    if first:
        show_difference(session, place, first, last)
        return
    both = _both(place)
    found: Comparison = compare(both.base, both.ours, both.theirs)
    data = {
        "local": found.ours,
        "remote": found.theirs,
        "both": [clash.name for clash in found.clashes] + found.sealed,
        "members": found.members.value if both.ours.digest != both.theirs.digest else "same",
    }
    lines = [f"{where}: {name}" for where in ("local", "remote", "both") for name in data[where]]
    lines += [f"members: changed by {found.members}"] if data["members"] != "same" else []
    session.out.result(data, lines or ["the same"])
