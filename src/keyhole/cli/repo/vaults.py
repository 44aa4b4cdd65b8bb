"""``repo init`` and ``repo status``."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.repo.guarding import guard_new, is_guarded
from keyhole.cli.repo.keys import IN_HELP, said_of, use_or_make
from keyhole.cli.repo.noun import repo
from keyhole.cli.repo.place import Place, place_options
from keyhole.cli.repo.standing import lines_of, standings
from keyhole.config import home
from keyhole.core.errors import Conflict, NotFound
from keyhole.crypto import age
from keyhole.crypto.age import Identity
from keyhole.remotes.git import Git
from keyhole.repo import changes, keys
from keyhole.repo.names import require_folder
from keyhole.repo.opened import open_vault
from keyhole.repo.refusals import refusals
from keyhole.repo.seen import Seen
from keyhole.repo.tree import VAULT, Tree

KeyOf = Callable[[Path], tuple[Identity, bool]]


@repo.command(
    "init", examples="keyhole repo init\nkeyhole repo init ~/team --owner ann --opaque-names --key-in keychain"
)
@click.argument("directory", default=".")
@click.option("--owner", default="owner", metavar="NAME", help="What the first owner is called.")
@click.option("--no-git", is_flag=True, help="A folder without git.")
@click.option("--key-in", default="", metavar="PLACE", help=f"Where a new key is kept: {IN_HELP}")
@click.option("--opaque-names", is_flag=True, help="Only members can read names of secrets, groups and members.")
@click.option("--no-guard", is_flag=True, help="Leave the hooks of the repository alone.")
@pass_session
def init(
    session: Session,
    /,
    *,
    directory: str,
    owner: str,
    no_git: bool,
    key_in: str,
    opaque_names: bool,
    no_guard: bool,
) -> None:
    """Make a vault in a git repository. Your key is made if you have none, and never replaced."""

    def key_of(path: Path) -> tuple[Identity, bool]:
        return use_or_make(session, path, key_in)

    made = make_vault(Path(directory).resolve(), owner, git=not no_git, key_of=key_of, opaque=opaque_names)
    key = made.key_file
    said = f"made your key {key}" if made.fresh else f"used your key {key}"
    if made.fresh:
        kept = key_in.partition(":")[0] or "file"
        said += "; keep a copy of it where you keep such things" if kept == "file" else f", {said_of(kept)}"
    guard = "" if no_git or no_guard else guard_new(made.vault.parent)
    data = {"vault": str(made.vault), "key_file": str(key), "key_made": made.fresh, "recipient": made.recipient}
    told = "\n".join(filter(None, [f"made the vault {made.vault}", said, guard]))
    session.out.done(data | {"guard": guard}, told)


@dataclass(frozen=True, slots=True)
class Made:
    """A new vault.

    Attributes:
        vault: its folder.
        key_file: of the owner.
        fresh: the key was made for it.
        recipient: the owner's public key.
    """

    vault: Path
    key_file: Path
    fresh: bool
    recipient: str


def _use_or_write(path: Path) -> tuple[Identity, bool]:
    if path.exists():
        return keys.load(path), False
    identity = age.generate()
    keys.write(path, identity)
    return identity, True


def make_vault(folder: Path, owner: str, *, git: bool, key_of: KeyOf = _use_or_write, opaque: bool = False) -> Made:
    """A new vault around a folder, in its repository or, without git, in itself.

    Args:
        folder: in which to look for a repository.
        owner: name of the first owner.
        git: there has to be a repository.
        key_of: gives the owner's key of a file, and whether it was made for this.
        opaque: only members can read its names.

    Raises:
        InvalidRequest: the owner's key cannot sign.
        NotFound: it is in no repository.
        Conflict: there is a vault, or was one that this machine knows.
    """
    require_folder(str(folder))
    repository = Git.find(folder, os.environ) if git else None
    if repository is None and git:
        raise NotFound(f"{folder} is in no git repository", "git init, or --no-git for a plain folder")
    root = folder if repository is None else repository.root
    tree = Tree(root)
    if tree.exists():
        hint = "its names are in its history; make a new vault, and store its secrets there" if opaque else ""
        raise Conflict(f"vault already initialized in {root / VAULT}", hint or "keyhole repo status")
    seen = Seen.load(home(), root)
    if seen.vault:  # nothing could open the new one here
        raise Conflict("this machine knows another vault here, which is gone", f"if that is meant, remove {seen.path}")
    path = keys.owner_file(os.environ)
    identity, fresh = key_of(path)
    with tree.lock(make=True):
        change = tree.left()  # of an init that was ended
        if change is None:
            change = changes.create(identity, owner, opaque=opaque)
            tree.apply(change)
        elif repository is not None:
            repository.clear_locks()
        if repository is not None:
            repository.record(change, root)
        tree.finish()
    open_vault(root, home())
    return Made(tree.vault, path, fresh, identity.recipient.text)


@repo.command("status", examples="keyhole repo status\nkeyhole repo status --offline --json")
@click.option("--offline", is_flag=True, help="Do not ask the remotes; tell what was known the last time.")
@place_options
@pass_session
def status(session: Session, /, *, offline: bool, directory: str, key_file: str) -> None:
    """Which vault this is, who you are in it, how it stands to its remotes, and what is left to do. Shows no value."""
    place = Place(session, directory, key_file)
    opened = place.open()
    data: dict[str, object] = {"vault": str(place.tree.vault), "signed": opened.signed, "secrets": len(opened.names())}
    lines = [f"vault:    {place.tree.vault}", f"secrets:  {len(opened.names())}"]
    if opened.members is not None:
        due = [name for name, (_, each) in opened.secrets.items() if each.due and not each.removed]
        data["opaque"] = opened.opaque
        data |= {"id": opened.members.vault, "members": opened.members.version, "fingerprint": opened.digest[:16]}
        data["due"] = sorted(due)
        lines.append(f"members:  version {opened.members.version}, {opened.digest[:16]}")
        if due:
            lines.append(f"due:      {' '.join(sorted(due))}")
        identity = place.known()
        member = None if identity is None else opened.members.of(identity.recipient)
        data["you"] = None if member is None else {"name": member.name, "role": member.role.value}
        nobody = "nobody here" if identity is not None else "not known, no key is open here"
        lines.append(f"you:      {nobody}" if member is None else f"you:      {member.name}, {member.role}")
    refused = refusals(place.tree.root, home())
    data["refused"] = [{"time": each.time, "where": each.where, "reason": each.reason} for each in refused[-20:]]
    if refused:
        lines.append(
            f"refused:  {len(refused)}; last {refused[-1].time[:16]} of {refused[-1].where}: {refused[-1].reason}"
        )
    guarded = data["guarded"] = is_guarded(place.tree.root)
    if guarded is False:
        lines.append("guard:    not in this clone: keyhole repo guard install")
    left = place.tree.left()
    if left is not None:
        data["unfinished"] = left.message
        lines.append(f"left:     {left.message}; the next change commits it")
    if opened.signed:
        data["remotes"] = found = standings(place, opened, ask=not offline)
        lines += [line for each in found for line in lines_of(each)]
    session.out.result(data, lines)
