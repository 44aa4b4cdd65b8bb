"""The tables, and the numbered steps that lead to them.

    entry       one row a key, tombstones too; ``live`` is 1 while there is a value
    journal     one row a record
    generation  one row: how often entries changed

``PRAGMA user_version`` counts the steps that were applied. A step runs in one transaction with its number, so a
process that is killed between two steps, or inside one, leaves a store that the next open carries on from.
Steps are never edited once released: a change of format is a new step.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from keyhole.core.errors import StoreUnavailable
from keyhole.stores.sqlite.faults import damaged

APPLICATION_ID = 0x4B455948
"""``PRAGMA application_id``, ASCII "KEYH": bytes 68 to 71 of the file (https://sqlite.org/fileformat.html)."""

Step = Sequence[str]
"""SQL statements that belong together."""

# The value is the last column, so that the small ones are read without walking the overflow pages of a large one.
# Tombstones stay out of the index ``live``, so that listing costs nothing for what was deleted.
STEPS: tuple[Step, ...] = (
    (
        """CREATE TABLE entry (
            key      TEXT    NOT NULL PRIMARY KEY,
            revision INTEGER NOT NULL CHECK (revision > 0),
            live     INTEGER NOT NULL CHECK (live = (value IS NOT NULL)),
            due      REAL    CHECK (live OR due IS NULL),
            value    BLOB
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX live ON entry (key) WHERE live = 1",
        "CREATE INDEX due ON entry (due) WHERE due IS NOT NULL",
        """CREATE TABLE journal (
            writer    INTEGER NOT NULL,
            sequence  INTEGER NOT NULL,
            time      INTEGER NOT NULL,
            partition TEXT    NOT NULL,
            body      BLOB    NOT NULL,
            digest    BLOB    NOT NULL,
            signature BLOB    NOT NULL,
            PRIMARY KEY (writer, sequence)
        ) STRICT""",
        """CREATE TABLE generation (
            id     INTEGER NOT NULL PRIMARY KEY CHECK (id = 0),
            number INTEGER NOT NULL
        ) STRICT""",
        "INSERT INTO generation (id, number) VALUES (0, 1)",
    ),
)


def migrate(connection: sqlite3.Connection, steps: Sequence[Step] = STEPS) -> None:
    """Apply the steps that the store does not have yet.

    Raises:
        StoreUnavailable: the store was written by a newer version.
    """
    while _version(connection, steps) < len(steps):
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Asked again under the write lock: another process may have taken this step meanwhile.
            done = _version(connection, steps)
            if done < len(steps):
                for statement in steps[done]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {done + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _version(connection: sqlite3.Connection, steps: Sequence[Step]) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(steps):
        raise StoreUnavailable(
            f"the store has format version {version}, and this Keyhole knows versions up to {len(steps)}",
            "use the newer Keyhole that wrote it, or restore a backup from before the upgrade",
        )
    return version


def verify(connection: sqlite3.Connection) -> None:
    """Refuse a schema with other objects than our steps make: a trigger or view is code that somebody put there.

    Raises:
        IntegrityError: there is something else, or something is missing.
    """
    with_steps = sqlite3.connect(":memory:", isolation_level=None)
    try:
        migrate(with_steps)
        if _objects(connection) != _objects(with_steps):
            raise damaged()
    finally:
        with_steps.close()


def _objects(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    # sqlite_stat1 and its like are SQLite's own statistics; they hold no code.
    return connection.execute(
        "SELECT type, name, tbl_name FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_stat%' ESCAPE '\\' ORDER BY name"
    ).fetchall()
