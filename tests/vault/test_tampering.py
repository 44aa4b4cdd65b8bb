"""Somebody changes the journal behind our back: ``verify`` says so and names the place."""

import contextlib
import json
import sqlite3

import pytest

from keyhole.core.record import GENESIS, link
from keyhole.crypto.keyring import Where
from keyhole.vault.audit import signed
from keyhole.vault.keys import SYSTEM
from vault.world import Place, agent, refusal

WHICH = 7


@pytest.fixture
def place(tmp_path):
    """A closed vault with a journal of some twenty rows."""
    place = Place(tmp_path)

    async def fill(vault):
        await agent(vault)
        for number in range(8):
            await vault.ask("update", f"secret/data/s{number}", {"data": {"value": "x"}})

    place.play(fill)
    return place


@contextlib.contextmanager
def opened(place):
    connection = sqlite3.connect(place.file)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def verify(place, checkpoint=None):
    async def ask(vault):
        return (
            await vault.ask("update", "sys/audit-log/verify", {"checkpoint": checkpoint} if checkpoint else {})
        ).data

    return place.play(ask)


def checkpoint(place):
    async def ask(vault):
        return (await vault.ask("read", "sys/audit-log/checkpoint")).data

    return place.play(ask)


def problems(place, **options):
    """Sequences with a problem; the verification itself adds rows behind them."""
    result = verify(place, **options)
    assert result["valid"] == (not result["problems"])
    return [problem["sequence"] for problem in result["problems"]]


def test_an_untouched_journal_is_valid(place):
    assert problems(place) == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("time", "time + 1"),
        ("time", "-1"),
        ("time", "9223372036854775807"),
        ("partition", "'other'"),
        ("partition", "partition || ' '"),
        ("partition", "printf('%.70000c', 'x')"),
        ("body", "x''"),
        ("body", "CAST(body || x'00' AS BLOB)"),
        ("digest", "zeroblob(32)"),
        ("digest", "x''"),
        ("signature", "zeroblob(64)"),
        ("signature", "x'01'"),
        ("sequence", "sequence + 1000000"),
        ("sequence", "0"),
        ("sequence", "-5"),
        ("writer", "5"),
        ("writer", "-1"),
    ],
)
def test_an_edit_of_any_field_of_a_row_is_named(place, column, value):
    with opened(place) as db:
        (last,) = db.execute("SELECT max(sequence) FROM journal").fetchone()
        where = "signature != x''" if column == "signature" else "1"
        (which,) = db.execute(f"SELECT min(sequence) FROM journal WHERE sequence >= ? AND {where}", (WHICH,)).fetchone()
        assert which < last
        db.execute(f"UPDATE journal SET {column} = {value} WHERE sequence = ?", (which,))
    found = problems(place)
    assert which in found
    assert column == "writer" or found[0] == which


def test_each_byte_of_a_body_counts(place):
    with opened(place) as db:
        (body,) = db.execute("SELECT body FROM journal WHERE sequence = ?", (WHICH,)).fetchone()
    for position in range(0, len(body), 17):
        changed = bytearray(body)
        changed[position] ^= 1 << position % 8
        with opened(place) as db:
            db.execute("UPDATE journal SET body = ? WHERE sequence = ?", (bytes(changed), WHICH))
        assert problems(place)[0] == WHICH, position
    with opened(place) as db:
        db.execute("UPDATE journal SET body = ? WHERE sequence = ?", (body, WHICH))
    assert problems(place) == []


def test_a_changed_record_is_an_error_for_a_query_and_never_shown(place):
    with opened(place) as db:
        (body,) = db.execute("SELECT body FROM journal WHERE sequence = ?", (WHICH,)).fetchone()
        changed = body[:40] + bytes([body[40] ^ 1]) + body[41:]
        db.execute("UPDATE journal SET body = ? WHERE sequence = ?", (changed, WHICH))

    async def ask(vault):
        return await refusal(vault.ask("read", "sys/audit-log", {"limit": "1000"}))

    error = place.play(ask)
    assert error.status == 500
    assert f"record {WHICH} of writer 0 " in str(error)
    assert "keyhole audit verify" in error.hint


@pytest.mark.parametrize("writer", [-1, 2**40])
def test_a_row_of_a_writer_that_cannot_be_is_an_error_in_words(place, writer):
    with opened(place) as db:
        db.execute("UPDATE journal SET writer = ? WHERE sequence = ?", (writer, WHICH))

    async def ask(vault):
        return await refusal(vault.ask("read", "sys/audit-log", {"limit": "1000"}))

    assert f"record {WHICH} of writer {writer} " in str(place.play(ask))


def test_a_row_deleted_in_the_middle_is_named(place):
    with opened(place) as db:
        db.execute("DELETE FROM journal WHERE sequence = ?", (WHICH,))
    assert problems(place)[0] == WHICH


def test_a_row_deleted_and_the_rest_moved_up_is_named(place):
    with opened(place) as db:
        db.execute("DELETE FROM journal WHERE sequence = ?", (WHICH,))
        db.execute("UPDATE journal SET sequence = -sequence WHERE sequence > ?", (WHICH,))
        db.execute("UPDATE journal SET sequence = -sequence - 1 WHERE sequence < 0")
    assert problems(place)[0] == WHICH


def test_two_rows_that_changed_places_are_named(place):
    with opened(place) as db:
        for old, new in ((WHICH, -1), (WHICH + 1, WHICH), (-1, WHICH + 1)):
            db.execute("UPDATE journal SET sequence = ? WHERE sequence = ?", (new, old))
    assert problems(place)[0] == WHICH


@pytest.mark.parametrize("what", ["copy", "new"])
def test_an_inserted_row_is_named(place, what):
    with opened(place) as db:
        db.execute("UPDATE journal SET sequence = -sequence WHERE sequence > ?", (WHICH,))
        db.execute("UPDATE journal SET sequence = -sequence + 1 WHERE sequence < 0")
        body = "body" if what == "copy" else "randomblob(200)"
        db.execute(
            "INSERT INTO journal (writer, sequence, time, partition, body, digest, signature)"
            f" SELECT writer, sequence + 1, time, partition, {body}, digest, signature FROM journal WHERE sequence = ?",
            (WHICH,),
        )
    assert problems(place)[0] == WHICH + 1


def test_a_cut_tail_is_found_by_what_the_slot_remembers(place):
    with opened(place) as db:
        (last,) = db.execute("SELECT max(sequence) FROM journal").fetchone()
        db.execute("DELETE FROM journal WHERE sequence > ?", (last - 3,))
    for _ in range(3):  # also after other processes have written more
        assert problems(place)[0] == last - 2


def test_a_journal_that_was_emptied_is_found(place):
    with opened(place) as db:
        db.execute("DELETE FROM journal")
    for _ in range(2):
        assert problems(place)[0] == 1


def test_a_changed_slot_is_a_problem_and_not_a_crash(place):
    with opened(place) as db:
        db.execute("UPDATE entry SET value = randomblob(200) WHERE key = 'sys/journal/0'")

    async def ask(vault):
        return (await vault.ask("read", "sys/audit-log/verify")).data

    for _ in range(2):
        result = place.play(ask)
        assert not result["valid"]
        assert any("slot" in problem["problem"] for problem in result["problems"])


@pytest.mark.parametrize("name", ["0x", "-1", "00", "9" * 30])
def test_a_slot_with_a_name_that_no_writer_has_is_a_problem_and_not_a_crash(place, name):
    with opened(place) as db:
        db.execute("INSERT INTO entry (key, revision, live, value) VALUES (?, 1, 1, x'00')", (f"sys/journal/{name}",))
    result = verify(place)
    assert not result["valid"]
    assert any("a slot has a name" in problem["problem"] for problem in result["problems"])


def test_a_tail_cut_together_with_its_slot_needs_the_checkpoint(place):
    anchor = checkpoint(place)
    with opened(place) as db:
        (last,) = db.execute("SELECT max(sequence) FROM journal").fetchone()
        db.execute("DELETE FROM journal WHERE sequence > ?", (WHICH,))
        db.execute("DELETE FROM entry WHERE key = 'sys/journal/0'")
    result = verify(place)
    assert (result["valid"], result["anchored"]) == (True, False)
    result = verify(place, anchor)
    assert (result["valid"], result["anchored"]) == (False, True)
    assert any("checkpoint" in problem["problem"] for problem in result["problems"])
    assert last > WHICH


def verify_since(place, anchor):
    async def ask(vault):
        return (await vault.ask("update", "sys/audit-log/verify", {"checkpoint": anchor, "since": True})).data

    return place.play(ask)


def test_verification_since_a_checkpoint_reads_only_what_came_after_it(place):
    before = verify(place)["records"]
    anchor = checkpoint(place)

    async def more(vault):
        await vault.ask("update", "secret/data/later", {"data": {"value": "x"}})

    place.play(more)
    result = verify_since(place, anchor)
    assert result["valid"], result
    assert 2 <= result["records"] < before
    with opened(place) as db:  # before it: not looked at; after it: found
        db.execute("UPDATE journal SET body = CAST(body || x'00' AS BLOB) WHERE sequence = ?", (WHICH,))
    assert verify_since(place, anchor)["valid"]
    assert not verify(place)["valid"]
    with opened(place) as db:
        head = anchor["heads"]["0"]["sequence"]
        db.execute("UPDATE journal SET body = CAST(body || x'00' AS BLOB) WHERE sequence = ?", (head + 1,))
    assert [p["sequence"] for p in verify_since(place, anchor)["problems"]] == [head + 1]


def test_verification_since_a_checkpoint_finds_that_its_rows_were_cut_off_or_replaced(place):
    anchor = checkpoint(place)
    head = anchor["heads"]["0"]["sequence"]
    with opened(place) as db:
        db.execute("UPDATE journal SET digest = x'00' WHERE sequence = ?", (head,))
    assert any("checkpoint" in problem["problem"] for problem in verify_since(place, anchor)["problems"])
    with opened(place) as db:
        db.execute("DELETE FROM journal WHERE sequence > ?", (WHICH,))
        db.execute("DELETE FROM entry WHERE key = 'sys/journal/0'")
    assert any("checkpoint" in problem["problem"] for problem in verify_since(place, anchor)["problems"])


def test_a_chain_rewritten_with_the_keys_fails_against_an_older_checkpoint_only(place):
    anchor = checkpoint(place)
    rewrite(place)
    assert verify(place)["valid"]
    result = verify(place, anchor)
    assert not result["valid"]
    assert any("checkpoint" in problem["problem"] for problem in result["problems"])


def rewrite(place):
    """Leave one record out and make everything else fit, as only somebody with all keys can."""

    async def go(vault):
        keys = vault.vault.keys
        store = vault.node.store
        await vault.vault.journal.drain()
        rows = [row for row in await store.scan(0) if row.sequence != WHICH]
        digest, new = GENESIS, []
        for sequence, row in enumerate(rows, 1):
            clear = keys.ring(row.partition).open_record(row.body, _place(0, row.sequence, row.partition))
            body = keys.ring(row.partition).seal_records([(clear, _place(0, sequence, row.partition))])[0]
            digest = link(digest, 0, sequence, row.time, row.partition, body)
            new.append((sequence, row.time, row.partition, body, digest, keys.signing.sign(signed(digest))))
        [entry] = await store.get(["sys/journal/0"])
        ring = keys.ring(SYSTEM)
        where = Where(SYSTEM, "journal", "sys/journal/0", entry.revision + 1)
        slot = {"holder": "x", "expires": 0.0, "head": len(new), "digest": digest.hex(), "time": 0.0}
        return new, ring.seal(json.dumps(slot).encode(), where), entry.revision + 1

    new, slot, revision = place.play(go)
    with opened(place) as db:
        db.execute("DELETE FROM journal WHERE writer = 0")
        db.executemany("INSERT INTO journal VALUES (0, ?, ?, ?, ?, ?, ?)", new)
        db.execute("UPDATE entry SET value = ?, revision = ? WHERE key = 'sys/journal/0'", (slot, revision))


def _place(writer, sequence, org_id):
    return b"record\0" + writer.to_bytes(4, "big") + sequence.to_bytes(8, "big") + org_id.encode()


@pytest.mark.parametrize(
    "change",
    [
        {"signature": "AAAA"},
        {"vault": "other"},
        {"heads": {}},
        {"heads": {"0": {"sequence": 1}}},
        {"time": None},
        {"heads": {"x": {"sequence": "y", "digest": "z"}}},
    ],
)
def test_a_changed_checkpoint_is_none(place, change):
    anchor = {**checkpoint(place), **change}

    async def ask(vault):
        return await refusal(vault.ask("update", "sys/audit-log/verify", {"checkpoint": anchor}))

    assert place.play(ask).code == "invalid_request"


def test_verify_takes_a_checkpoint_of_this_very_moment_and_later_rows(place):
    anchor = checkpoint(place)

    async def more(vault):
        for number in range(5):
            await vault.ask("update", f"secret/data/m{number}", {"data": {}})

    place.play(more)
    result = verify(place, anchor)
    assert (result["valid"], result["anchored"]) == (True, True)
