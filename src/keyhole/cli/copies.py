"""``operator backup`` and ``operator restore``: copies of a vault of this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from keyhole.cli.base import Session, command, pass_session
from keyhole.core.errors import InvalidRequest
from keyhole.stores.sqlite.copies import back_up
from keyhole.stores.sqlite.copies import restore as make_of
from keyhole.stores.sqlite.place import locate

_SQLITE = "sqlite:"
_POSTGRES = "postgres"


@command(
    "backup",
    examples="""
    keyhole operator backup vault.backup
    keyhole operator backup /mnt/backup/monday.db --vault sqlite:/var/lib/keyhole/vault.db --json
    """,
)
@click.argument("file")
@pass_session
def backup(session: Session, /, *, file: str) -> None:
    """Copy the vault of a SQLite store into a new file, while it is in use.

    Neither a token nor the seal is needed: the copy is as sealed as the store, and only the vault's own seal opens it.
    Where that is a key file, keep a copy of that elsewhere. Nothing that is there is overwritten.
    """
    store, copy = _store(session), _file(file)
    back_up(store, copy)
    data = {"file": str(copy), "bytes": copy.stat().st_size, "sha256": _digest(copy)}
    session.out.done(data, f"copied {_SQLITE}{store} into {copy}; it opens with the same seal")


@command(
    "restore",
    examples="""
    keyhole operator restore vault.backup
    keyhole operator restore /mnt/backup/monday.db --vault sqlite:/var/lib/keyhole/vault.db
    """,
)
@click.argument("file")
@pass_session
def restore(session: Session, /, *, file: str) -> None:
    """Make a vault of a file that backup wrote, where there is none.

    The file is looked through first, and left as it is. Everything is as it was when the copy was made: what has been
    revoked, rotated or expired by hand since then has to be so again.
    """
    store = _store(session)
    make_of(_file(file), store)
    session.out.done({"vault": f"{_SQLITE}{store}", "file": file}, f"made {_SQLITE}{store} of {file}")
    session.out.warn("what was revoked since the copy was made counts again: keyhole agent revoke, keyhole rotate")


def _store(session: Session) -> Path:
    location = session.where.location
    if session.where.remote:
        raise InvalidRequest("a vault is copied where its store is", "name the store there: --vault sqlite:PATH")
    if location.startswith(_POSTGRES):
        raise InvalidRequest("a vault in PostgreSQL is copied as the database is", "pg_dump, pg_restore: docs/store.md")
    if not location.startswith(_SQLITE):
        raise InvalidRequest("this vault is in memory and gone with its process", "name a store: --vault sqlite:PATH")
    return locate(location.removeprefix(_SQLITE))


def _file(name: str) -> Path:
    path = Path(name).absolute()
    if not name or "\0" in name or path.is_dir():
        raise InvalidRequest("the copy has to be a file", "write for example vault.backup")
    return path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
