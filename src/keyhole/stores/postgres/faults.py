"""What PostgreSQL and its driver say, in the terms of the house. Nothing of a message of theirs goes into an error."""

from __future__ import annotations

import psycopg

from keyhole.core.errors import IntegrityError, InternalError, InvalidRequest, KeyholeError, StoreUnavailable

# SQLSTATEs (https://www.postgresql.org/docs/current/errcodes-appendix.html).
_REPEAT = {"40001", "40P01", "23505"}  # serialization, deadlock; two nodes that began one journal at once
_UNAVAILABLE = {
    "53100": ("the disk of the database is full", "free some space; nothing was written"),
    "25006": ("the database cannot be written", "name the primary server, not a standby"),
    "42501": ("the database refused a right", "give the role of the store its schema: docs/store.md"),
    "55P03": ("another server kept the store locked", "try again; look for a stuck server"),
    "57014": ("the database took too long", "try again; look at its load"),
}
_DATA = "22"
_CORRUPTED = "XX001"


def repeatable(error: Exception) -> bool:
    """Whether the transaction was undone for the sake of another one, so that it has to be done again."""
    return isinstance(error, psycopg.Error) and error.sqlstate in _REPEAT


def means_lost(error: Exception, *, closed: bool) -> bool:
    """Whether the session is over, so that what was under way has to be asked for on another connection."""
    if closed or isinstance(error, OSError):
        return True
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    # The driver's own errors about a connection carry no SQLSTATE; 57P01 to 57P05 and class 08 end a session.
    return isinstance(error, psycopg.OperationalError) and (state is None or state.startswith(("57P", "08")))


def lost() -> StoreUnavailable:
    """The error for a database that does not answer."""
    return StoreUnavailable("the database of the store cannot be reached", "check that it runs; then try again")


def undecided() -> StoreUnavailable:
    """The error for a commit of which nobody could say in time whether it was carried out."""
    return StoreUnavailable(
        "the database was lost during a commit, and it may or may not have been carried out",
        "check that the database runs, read again what was to be changed, and repeat it where it is missing",
    )


def damaged() -> IntegrityError:
    """The error for content that no store of ours could have written."""
    return IntegrityError("the store is damaged", "stop the server and restore a backup; keep the data for analysis")


def translate(error: Exception) -> KeyholeError:
    """The error of the house for what the driver raised."""
    if isinstance(error, KeyholeError):
        return error
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if state in _UNAVAILABLE:
        return StoreUnavailable(*_UNAVAILABLE[state])
    if state == _CORRUPTED:
        return damaged()
    if (state or "").startswith(_DATA) or isinstance(error, (OverflowError, psycopg.DataError)):
        return InvalidRequest("a value or number is larger than the store can hold")
    if state is not None:
        return StoreUnavailable(f"the database refused the operation ({state})", "look at the log of the database")
    if isinstance(error, (psycopg.OperationalError, OSError)):
        return lost()
    return InternalError("the store failed for a reason of its own")
