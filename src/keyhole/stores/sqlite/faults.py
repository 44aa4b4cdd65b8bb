"""SQLite's result codes in the terms of the house. Nothing that SQLite says about a row goes into an error."""

from __future__ import annotations

import sqlite3

from keyhole.core.errors import IntegrityError, InternalError, InvalidRequest, KeyholeError, StoreUnavailable

_PRIMARY = 0xFF
"""Extended result codes keep the primary one in the low byte (https://sqlite.org/rescode.html)."""

_UNAVAILABLE = {
    sqlite3.SQLITE_FULL: ("the disk of the store is full", "free some space; nothing was written"),
    sqlite3.SQLITE_READONLY: ("the store cannot be written", "check that its file system is mounted for writing"),
    sqlite3.SQLITE_PERM: ("the store may not be written", "check the owner and mode of the file and its folder"),
    sqlite3.SQLITE_CANTOPEN: ("the store cannot be opened", "check the folder, its mode and the limit on open files"),
    sqlite3.SQLITE_BUSY: ("another process kept the store locked", "try again; look for a stuck process or backup"),
    sqlite3.SQLITE_LOCKED: ("another process kept the store locked", "try again; look for a stuck process or backup"),
    sqlite3.SQLITE_IOERR: ("the medium of the store failed", "check the disk and the system log"),
    sqlite3.SQLITE_NOMEM: ("there was not enough memory for the store", "free some memory and try again"),
    sqlite3.SQLITE_NOLFS: ("the store is too large for its file system", "move it to another file system"),
    sqlite3.SQLITE_PROTOCOL: ("the store could not be locked", "keep it on a local disk, not on a network share"),
}

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_MISMATCH}


FAULTS = (sqlite3.Error, UnicodeDecodeError)
"""What ``sqlite3`` raises for a fault; the second when SQLite's own message quotes damaged bytes."""


def primary_code(error: Exception) -> int:
    """SQLite's primary result code, or -1 when the error did not come from SQLite itself."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & _PRIMARY if isinstance(code, int) else -1


def damaged() -> IntegrityError:
    """The error for content that no store of ours could have written."""
    return IntegrityError("the store is damaged", "stop the server and restore a backup; keep the file for analysis")


def translate(error: Exception) -> KeyholeError:
    """The error of the house for what ``sqlite3`` raised."""
    code = primary_code(error)
    if code in _UNAVAILABLE:
        return StoreUnavailable(*_UNAVAILABLE[code])
    if code in _DAMAGED or isinstance(error, UnicodeDecodeError) or "decode" in str(error):
        return damaged()
    if code == sqlite3.SQLITE_TOOBIG or isinstance(error, (OverflowError, sqlite3.DataError)):
        return InvalidRequest("a value or number is larger than the store can hold")
    if isinstance(error, sqlite3.Error):
        return StoreUnavailable(f"the store refused the operation ({getattr(error, 'sqlite_errorname', 'misuse')})")
    return InternalError("the store failed for a reason of its own")
