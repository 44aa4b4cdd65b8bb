"""``repo clone``: a vault from a remote, for somebody who begins, or on another machine."""

from __future__ import annotations

import os
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.repo.guarding import guard_new
from keyhole.cli.repo.noun import repo
from keyhole.cli.repo.peers import chain_at, remote_at
from keyhole.config import home
from keyhole.core.errors import Conflict, IntegrityError, NotFound
from keyhole.remotes.git import Git
from keyhole.remotes.settings import GIT, Address, Settings, parse_address
from keyhole.repo.documents import instant
from keyhole.repo.for_git import AS_IT_IS
from keyhole.repo.opened import CONFIG, Opened, open_vault, verify
from keyhole.repo.reviewing import attributes_in
from keyhole.repo.seen import Seen
from keyhole.repo.tree import VAULT, Change, Files, Tree

ORIGIN = "origin"


@repo.command(
    "clone",
    examples="keyhole repo clone s3://team-secrets/vault team\nkeyhole repo clone git@github.com:acme/team.git team",
)
@click.argument("url")
@click.argument("directory")
@click.option("--no-guard", is_flag=True, help="Leave the hooks of the repository alone.")
@pass_session
def clone(session: Session, /, *, url: str, directory: str, no_guard: bool) -> None:
    """Get a vault from a git repository, a folder, a bucket or a server. It is verified before it is there.

    No key is needed for it. To a machine that sees a vault for the first time an old state looks like the present one:
    compare the fingerprint with a colleague's.
    """
    address = parse_address(url, Path.cwd())
    root = Path(directory).resolve()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise Conflict(f"{root} is there already", "name a folder that is not there, or empty")
    opened = _from_git(address, root) if address.kind == GIT else _from_objects(address, root)
    everybody = opened.require_members()
    data = {
        "path": str(root),
        "id": everybody.vault,
        "members": everybody.version,
        "fingerprint": opened.digest[:16],
        "secrets": len(opened.names()),
    }
    said = f"compare with a colleague's keyhole repo status: version {everybody.version}, {opened.digest[:16]}"
    guard = guard_new(root) if address.kind == GIT and not no_guard else ""
    found = len(opened.names())
    told = [f"cloned the vault into {root}, with {found} secret{'' if found == 1 else 's'}", said, guard]
    session.out.done(data | {"guard": guard}, "\n".join(filter(None, told)))


def _from_git(address: Address, root: Path) -> Opened:
    """What was fetched is verified before it is checked out, and takes its place when it is whole."""
    root.parent.mkdir(parents=True, exist_ok=True)
    fresh = _beside(root)
    try:
        _check_out(address, fresh, Seen.load(home(), root))
        fresh.rename(root)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    opened = open_vault(root, home())
    opened.seen.saw(GIT, *opened.state())
    opened.seen.sync(GIT, Git(root, os.environ).head(), instant(datetime.now(UTC)))
    opened.seen.store()
    return opened


def _check_out(address: Address, root: Path, seen: Seen) -> None:
    words = ("--quiet", "--no-checkout", "--no-tags", "--no-recurse-submodules", "--template=")
    Git(root.parent, os.environ).run("clone", *words, "--", address.where, str(root))
    git = Git(root, os.environ)
    if not git.head():
        raise NotFound("there is no commit in that repository", "its owner pushes first")
    _genuine(git.at(git.head(), root), seen)
    _keep_bytes(root)
    git.run("reset", "--quiet", "--hard")


def _keep_bytes(root: Path) -> None:
    """Let no attributes of the repository change files of the vault in this clone, which may be older than its own."""
    own = root / ".git" / "info" / "attributes"
    own.parent.mkdir(exist_ok=True)
    own.write_text(f"/{VAULT}/** {AS_IT_IS}\n")


def _genuine(files: Files, seen: Seen) -> Opened:
    """The vault of a remote, judged by what was seen where it will lie.

    Raises:
        IntegrityError: it is not genuine, or older, or another one than lay there.
        NotFound: there is none.
    """
    if files.read(CONFIG) is None:
        raise NotFound("there is no vault in it", "keyhole repo init makes one")
    theirs = verify(files, seen)
    theirs.require_members()
    for problem in attributes_in(files, files.paths()):
        raise IntegrityError(problem, "its owner takes that file away")
    for name in theirs.names():
        theirs.ciphertext(name)
    return theirs


def _from_objects(address: Address, root: Path) -> Opened:
    """The vault is made beside, and takes its place when it is whole and this machine knows where it is from."""
    chain = chain_at(root, ORIGIN, remote_at(address))
    head = chain.head()
    if not head.snapshot:
        raise NotFound(f"there is no vault at {address.url}", "its owner pushes it first: keyhole repo push")
    files = chain.files(head.snapshot)
    files.fetch(files.paths())
    theirs = _genuine(files, Seen.load(home(), root))
    root.parent.mkdir(parents=True, exist_ok=True)
    fresh = _beside(root)
    try:
        _write(fresh, Change("agent-vault: clone", {path: files.require(path) for path in files.paths()}))
        _know(root, theirs, address, head.snapshot)
        fresh.rename(root)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    chain.keep([head.snapshot])
    return open_vault(root, home())


def _beside(root: Path) -> Path:
    return root.with_name(f".{root.name}.{secrets.token_hex(8)}")


def _write(folder: Path, change: Change) -> None:
    (folder / VAULT).mkdir(parents=True)
    tree = Tree(folder)
    with tree.lock():
        tree.apply(change)
        tree.finish()


def _know(root: Path, theirs: Opened, address: Address, snapshot: str) -> None:
    settings = Settings(home(), root)
    if ORIGIN in settings.all():  # of a folder that was there once
        settings.remove(ORIGIN)
    settings.add(ORIGIN, address)
    seen = Seen.load(home(), root)
    seen.require_vault(theirs.require_members().vault)
    seen.saw(ORIGIN, *theirs.state())
    seen.sync(ORIGIN, snapshot, instant(datetime.now(UTC)))
    seen.store()
