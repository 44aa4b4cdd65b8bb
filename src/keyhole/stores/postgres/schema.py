"""The tables, and the numbered steps that lead to them.

    entry       one row a key, tombstones too; ``partition`` is made from the key by the database
    journal     one row a record
    head        one row a writer: where its journal ends
    generation  one row: how often entries changed; its lock is the lock of the store
    format      one row: how many of the steps were applied

A step runs in one transaction with its number. Steps are never edited once released: a change of format is a new step.

Row level security shows and takes only rows of the partitions that the session has named in ``keyhole.partitions``, or
all of them while ``keyhole.every`` is on; the owner of the tables is bound by it as well (FORCE).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString

from psycopg import sql

from keyhole.core.errors import NotFound, StoreUnavailable
from keyhole.stores.postgres.faults import damaged
from keyhole.stores.postgres.place import Connection

Step = Sequence[LiteralString]
"""SQL statements that belong together."""

_NAMED = "ARRAY(SELECT unnest(nullif(current_setting('keyhole.partitions', true), '')::text[]))"
_POLICY = f"USING (current_setting('keyhole.every', true) = 'on' OR partition = ANY ({_NAMED}))"

STEPS: tuple[Step, ...] = (
    (
        """CREATE TABLE entry (
            key       text   COLLATE "C" NOT NULL PRIMARY KEY,
            partition text   COLLATE "C" NOT NULL GENERATED ALWAYS AS (split_part(key, '/', 1)) STORED,
            revision  bigint NOT NULL CHECK (revision > 0),
            due       double precision CHECK (value IS NOT NULL OR due IS NULL),
            value     bytea
        )""",
        "ALTER TABLE entry ALTER COLUMN value SET STORAGE EXTERNAL",  # ciphertext does not compress
        "CREATE INDEX live ON entry (key) WHERE value IS NOT NULL",
        "CREATE INDEX due ON entry (due, key) WHERE due IS NOT NULL",
        """CREATE TABLE journal (
            writer    bigint NOT NULL,
            sequence  bigint NOT NULL,
            time      bigint NOT NULL,
            partition text   COLLATE "C" NOT NULL,
            body      bytea  NOT NULL,
            digest    bytea  NOT NULL,
            signature bytea  NOT NULL,
            PRIMARY KEY (writer, sequence)
        )""",
        "CREATE TABLE head (writer bigint NOT NULL PRIMARY KEY, sequence bigint NOT NULL) WITH (fillfactor = 50)",
        "CREATE TABLE generation (id bigint PRIMARY KEY CHECK (id = 0), number bigint NOT NULL) WITH (fillfactor = 50)",
        "INSERT INTO generation (id, number) VALUES (0, 1)",
        "ALTER TABLE entry ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE entry FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY named ON entry {_POLICY}",
        "ALTER TABLE journal ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE journal FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY named ON journal {_POLICY}",
    ),
)

_FORMAT = "CREATE TABLE IF NOT EXISTS format (id bigint PRIMARY KEY CHECK (id = 0), version bigint NOT NULL)"
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('keyhole:' || %s, 0))"
_FOREIGN = """
    SELECT count(*) FILTER (
        WHERE c.relrowsecurity AND c.relforcerowsecurity
        AND ARRAY(SELECT p.polname::text FROM pg_policy p WHERE p.polrelid = c.oid) = '{named}'
    ), count(*) FILTER (
        WHERE c.relhasrules OR EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)
    )
    FROM pg_class c
    WHERE c.oid IN ('entry'::regclass, 'journal'::regclass, 'head'::regclass, 'generation'::regclass)
"""
_SECURED = 2


async def prepare(connection: Connection, schema: str, *, create: bool, steps: Sequence[Step] = STEPS) -> None:
    """Make or bring up the tables, and look whether they are ours.

    Raises:
        NotFound: there is no store and ``create`` is false.
        StoreUnavailable: a newer version wrote it.
        IntegrityError: somebody put triggers, rules or policies there, or took the row level security away.
    """
    async with connection.transaction():
        # One process at a time, whichever of them came first.
        await connection.execute(_LOCK, (schema,))
        found = await connection.execute("SELECT to_regclass(%s) IS NOT NULL", (f'"{schema}".format',))
        if await found.fetchone() != (True,):
            if not create:
                raise NotFound("there is no vault in this database", "make a vault: keyhole init")
            await connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
            await connection.execute(_FORMAT)
        await _migrate(connection, steps)
    cursor = await connection.execute(_FOREIGN)
    if await cursor.fetchone() != (_SECURED, 0):
        raise damaged()


async def _migrate(connection: Connection, steps: Sequence[Step]) -> None:
    row = await (await connection.execute("SELECT version FROM format WHERE id = 0")).fetchone()
    version = row[0] if row is not None else 0
    if not isinstance(version, int):
        raise damaged()
    if version > len(steps):
        raise StoreUnavailable(
            f"the store has format version {version}, and this Keyhole knows versions up to {len(steps)}",
            "use the newer Keyhole that wrote it, or restore a backup from before the upgrade",
        )
    if version == len(steps):
        return
    for step in steps[version:]:
        for statement in step:
            await connection.execute(statement)
    await connection.execute(
        "INSERT INTO format (id, version) VALUES (0, %s) ON CONFLICT (id) DO UPDATE SET version = excluded.version",
        (len(steps),),
    )
