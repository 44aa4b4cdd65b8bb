"""Copies of a store: one snapshot of it in one file, and a store made of such a file.

A copy is a store of the same format in a single file, without a write-ahead log. It is as sealed as the store itself.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from keyhole.core.errors import Conflict, IntegrityError, InvalidRequest, NotFound
from keyhole.stores.sqlite import place, schema
from keyhole.stores.sqlite.faults import FAULTS, damaged, translate


def back_up(path: Path, copy: Path) -> None:
    """Write a snapshot of the store at ``path``, which may be in use, into a new file of mode 0600.

    The file has its name once it is whole, was looked through, and is on the disk.

    Raises:
        Conflict: there is something at ``copy``.
        InvalidRequest: ``copy`` cannot be made.
        NotFound: there is no store at ``path``.
        StoreUnavailable: the store's place is unsafe, or a medium fails.
        IntegrityError: the store is damaged.
    """
    place.prepare(path, create=False)
    draft = copy.with_name(f".{copy.name}.{os.urandom(8).hex()}.new")
    with _reserved(copy):
        try:
            place.reserve(draft)
            with (
                place.admitted(path) as which,
                _faults(),
                contextlib.closing(place.connect(path, writer=False)) as source,
            ):
                _fill(source, draft, mode="delete")
            place.release(which)
            draft.replace(copy)
            place.sync_folder(copy.parent)
        except OSError as error:
            raise InvalidRequest(f"{copy} cannot be written: {error.strerror}", "name a file elsewhere") from None
        finally:
            for rest in (draft, draft.with_name(f"{draft.name}-journal")):
                rest.unlink(missing_ok=True)


def restore(copy: Path, path: Path) -> None:
    """Make the store at ``path``, where there is none, of a copy, in the format of this version.

    Raises:
        Conflict: there is a store at ``path``.
        NotFound: there is no such copy.
        StoreUnavailable: ``copy`` is no store of ours or of a newer version, the place is unsafe, or a medium fails.
        IntegrityError: the copy is damaged.
    """
    copy = copy.resolve()
    if not copy.is_file():
        raise NotFound(f"there is no file {copy}", "name what keyhole operator backup wrote")
    place.check_header(copy)

    def fill(draft: Path) -> None:
        # What nobody has open needs no companions beside it, and may lie where nothing can be written.
        alone = "" if copy.with_name(f"{copy.name}-wal").exists() else "&immutable=1"
        with (
            _faults(),
            contextlib.closing(sqlite3.connect(f"{copy.as_uri()}?mode=ro{alone}", uri=True)) as source,
        ):
            _fill(source, draft, mode="wal")

    try:
        place.install(path, fill)
    except IntegrityError:
        raise IntegrityError(f"{copy} is damaged", "take an older copy; this one was not touched") from None


def _fill(source: sqlite3.Connection, draft: Path, *, mode: str) -> None:
    """Copy all pages in one transaction, and look at what came of it as the opening of a store does, and further."""
    with contextlib.closing(place.connect(draft, writer=True)) as into:
        source.backup(into)
        if into.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
            raise damaged()
        schema.migrate(into)
        schema.verify(into)
        if into.execute(f"PRAGMA journal_mode = {mode}").fetchone() != (mode,):
            raise damaged()


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except FAULTS as error:
        raise translate(error) from None


@contextlib.contextmanager
def _reserved(copy: Path) -> Iterator[None]:
    """Take the name, so that nothing that is there is replaced; give it back where nothing comes of it."""
    try:
        place.reserve(copy)
    except FileExistsError:
        raise Conflict(f"there is {copy} already", "name another file; this one was not touched") from None
    except OSError as error:
        raise InvalidRequest(f"{copy} cannot be made: {error.strerror}", "name a file elsewhere") from None
    try:
        yield
    except BaseException:
        copy.unlink(missing_ok=True)
        raise
