"""``repo pull``, ``push`` and ``diff``: the vault and its remotes, of whatever kind. They show names, never a value."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.repo.into_keychain import done, keychain_options
from keyhole.cli.repo.noun import repo
from keyhole.cli.repo.peers import Look, Peer, Relation, peer, rest
from keyhole.cli.repo.place import Place, place_options
from keyhole.cli.repo.reads import share_if_wanted
from keyhole.cli.repo.reviewing import show_difference
from keyhole.cli.repo.unchosen import keep_unchosen
from keyhole.config import home
from keyhole.core.errors import InvalidRequest, KeyholeError
from keyhole.repo.merging import MEMBERS, compare, merge
from keyhole.repo.refusals import recording
from keyhole.repo.sealing import Actor
from keyhole.repo.settling import Side
from keyhole.repo.sharing import require_taken
from keyhole.repo.tree import Change


@repo.command("pull", examples="keyhole repo pull\nkeyhole repo pull bucket --theirs stripe/api-key --ours members")
@click.argument("remote", default="")
@click.option("--ours", multiple=True, metavar="NAME", help="Both changed it: keep what this clone has.")
@click.option("--theirs", multiple=True, metavar="NAME", help="Both changed it: take what the remote has.")
@keychain_options
@place_options
@pass_session
def pull(
    session: Session,
    /,
    *,
    remote: str,
    ours: tuple[str, ...],
    theirs: tuple[str, ...],
    directory: str,
    key_file: str,
    **into: Any,
) -> None:
    """Take what the remote has. It is verified first; secrets that different people changed come together."""
    place = Place(session, directory, key_file)
    if both := sorted({*ours} & {*theirs}):
        raise InvalidRequest(f"{', '.join(both)}: both sides were chosen", "name it with --ours or with --theirs")
    chosen = dict.fromkeys(ours, Side.OURS) | dict.fromkeys(theirs, Side.THEIRS)
    with place.tree.lock():
        place.finish()
        other = peer(place, remote)
        look = other.look(taken=[name for name, side in chosen.items() if side is Side.THEIRS])
        if look.relation in {Relation.SAME, Relation.AHEAD}:
            other.note(look.ours, look.version)
        if look.relation not in {Relation.BEHIND, Relation.PARTED}:
            done(session, place, {"changed": []}, "nothing new", **into)
            return
        with recording(place.tree.root, home(), f"the remote {other.name}"):
            require_taken(None if look.base is None else look.base.tree, look.ours, look.theirs)
        if look.relation is Relation.BEHIND:
            changed = compare(look.base, look.ours, look.theirs).theirs if look.ours.signed else look.theirs.names()
            other.forward(look)
        else:
            changed, due = _join(session, place, other, look, chosen)
            for name in due:
                session.out.warn(f"{name} is due for a new value: keyhole repo set {name}")
            for name in sorted(chosen.keys() - {MEMBERS}):
                session.out.say(f"what was not chosen of {name} stays: keyhole repo history {name}")
        other.note(place.open(), look.version)
    count = "1 secret" if len(changed) == 1 else f"{len(changed)} secrets"
    said = f"took {count}: {' '.join(changed)}" if changed else "took it"
    done(session, place, {"changed": changed}, said, **into)


def _join(
    session: Session, place: Place, other: Peer, look: Look, chosen: dict[str, Side]
) -> tuple[list[str], tuple[str, ...]]:
    """Merge both sides, and commit that; names of the secrets that have changed here, and of those that are due."""
    actor, identity = None, place.known()
    if identity is not None:
        with contextlib.suppress(KeyholeError):
            actor = Actor.of(look.ours, identity, datetime.now(UTC))
    merged = merge(look.base, look.ours, look.theirs, actor, chosen)
    change: Change = replace(merged, files={**rest(look), **merged.files})
    if place.git is None:
        keep_unchosen(look.ours, change)
    other.join(look, change)
    for name, side in compare(look.base, look.ours, look.theirs).settled.items():
        said = f"{name}: people chose differently, twice; the later value counts, of {side}"
        session.out.warn(f"{said}; the other stays: keyhole repo history {name}")
    ends = ("secrets/", ".enc")
    changed = [path for path in merged.files if path.startswith(ends[0]) and path.endswith(ends[1])]
    return sorted(path[len(ends[0]) : -len(ends[1])] for path in changed), merged.due


@repo.command("push", examples="keyhole repo push\nkeyhole repo push bucket")
@click.argument("remote", default="")
@place_options
@pass_session
def push(session: Session, /, *, remote: str, directory: str, key_file: str) -> None:
    """Give the remote what this clone has. Refused when the remote has more: pull first."""
    place = Place(session, directory, key_file)
    with place.tree.lock():
        place.finish()
        opened = place.open()
        reads = share_if_wanted(place, opened)
        if reads is not None:
            place.carry_out(reads)
            opened = place.open()
        other = peer(place, remote)
        other.note(opened, other.push(opened))
    session.out.done({"pushed": True, "remote": other.name}, "the remote has what this clone has")


@repo.command("diff", examples="keyhole repo diff\nkeyhole repo diff v1.2 HEAD\nkeyhole repo diff db/url@1 db/url@3")
@click.argument("first", metavar="[FROM", required=False, default="")
@click.argument("last", metavar="[TO]]", required=False, default="")
@click.option("--remote", default="", metavar="NAME", help="Which remote, where there are several.")
@place_options
@pass_session
def diff(session: Session, /, *, first: str, last: str, remote: str, directory: str, key_file: str) -> None:
    """What this clone and its remote do not have alike, or two commits, or two versions of a secret. Names only."""
    place = Place(session, directory, key_file)
    if first:
        show_difference(session, place, first, last)
        return
    with place.tree.lock():
        look = peer(place, remote).look()
    found = differences(look)
    lines = [f"{where}: {name}" for where in ("local", "remote", "both") for name in found[where]]
    lines += [f"members: changed by {found['members']}"] if found["members"] != "same" else []
    session.out.result(found, lines or ["the same"])


def differences(look: Look) -> dict[str, list[str] | str]:
    """Names that only one side has changed, or both, and who has the newer list of members."""
    if look.relation is Relation.EMPTY:
        return {"local": look.ours.names(), "remote": [], "both": [], "members": Side.OURS.value}
    found = compare(look.base, look.ours, look.theirs)
    return {
        "local": found.ours,
        "remote": found.theirs,
        "both": [clash.name for clash in found.clashes] + found.sealed + [*found.settled],
        "members": found.members.value if look.ours.digest != look.theirs.digest else "same",
    }
