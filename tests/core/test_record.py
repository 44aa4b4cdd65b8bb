import hashlib
import json
import struct
import typing

import pytest

from keyhole.core.record import GENESIS, Phase, Record, clip, link, parameter_names

FULL = Record(
    phase=Phase.OUTCOME,
    id="r1",
    caller="agent/bot",
    operation="use",
    path="services/stripe",
    result="ok",
    secrets=("stripe/api-key", "stripe/other"),
    host="api.example.com:443",
    parameters=("limit",),
    status=200,
    scrubbed=1,
)


def test_a_record_reads_back_as_it_was_written():
    assert Record.decode(FULL.encode()) == FULL
    bare = Record(phase=Phase.REFUSED, id="r2")
    assert Record.decode(bare.encode()) == bare
    assert bare.as_data() == {"phase": "refused", "id": "r2"}


def test_a_record_of_a_later_version_is_read_without_its_new_fields():
    body = json.dumps(FULL.as_data() | {"colour": "green"}).encode()
    assert Record.decode(body) == FULL


@pytest.mark.parametrize("name", ['a"b', "a\nb", '","result":"ok', "\x1b[2J", "\u2028", "\ud800", "é\U0001f511"])
def test_what_a_peer_writes_into_a_name_stays_one_field_on_one_line(name):
    body = Record(phase=Phase.INTENT, id="r", path=name, remote=name).encode()
    assert body.isascii()
    assert b"\n" not in body
    assert b"\x1b" not in body
    decoded = Record.decode(body)
    assert (decoded.path, decoded.remote, decoded.result) == (name, name, "")


def test_no_field_of_a_record_can_hold_a_value():
    kinds = set(typing.get_type_hints(Record).values())
    assert kinds == {Phase, str, int, tuple[str, ...]}, "bytes, mappings and secrets do not belong here"
    names = set(Record._fields)
    assert not names & {"data", "body", "headers", "value", "token", "query", "answer"}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ()),
        ("a=1&b=2", ("a", "b")),
        ("a=b=c", ("a",)),
        ("a", ()),
        ("&&a=1&", ("a",)),
        ("=v", ("",)),
        ("a=1&a=2", ("a", "a")),
    ],
)
def test_of_a_query_only_the_names_are_kept(query, names):
    assert parameter_names(query) == names


def test_a_peer_cannot_swell_a_record():
    names = parameter_names("&".join("k" * 5_000 + f"{i}=v" for i in range(500)))
    assert len(names) == 32
    assert max(map(len, names)) == 1024
    assert clip("x" * 1024) == "x" * 1024
    assert clip("x" * 1025).endswith("x…")


def chain(rows):
    digests, previous = [], GENESIS
    for row in rows:
        previous = link(previous, *row)
        digests.append(previous)
    return digests


ROWS = [(0, 1, 1_700_000_000, "p", b"one"), (0, 2, 1_700_000_001, "p", b"two"), (0, 3, 1_700_000_002, "", b"")]


def test_the_digest_is_the_one_that_the_format_names():
    writer, sequence, time, partition, body = ROWS[0]
    packed = struct.pack(">IQQH", writer, sequence, time, len(partition)) + partition.encode()
    expected = hashlib.sha256(b"keyhole journal 1\0" + bytes(32) + packed + struct.pack(">I", len(body)) + body)
    assert chain(ROWS)[0] == expected.digest()


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(
    "change",
    [
        lambda w, s, t, p, b: (w + 1, s, t, p, b),
        lambda w, s, t, p, b: (w, s + 1, t, p, b),
        lambda w, s, t, p, b: (w, s, t + 1, p, b),
        lambda w, s, t, p, b: (w, s, t, p + "x", b),
        lambda w, s, t, p, b: (w, s, t, p, b + b"x"),
        lambda w, s, t, p, b: (w, s, t, p, bytes([b[0] ^ 1]) + b[1:]),
        lambda w, s, t, p, b: (w, s, t, p + b[:1].decode(), b[1:]),
    ],
)
def test_a_changed_row_changes_every_digest_from_there_on(index, change):
    rows = [*ROWS[:index], change(*ROWS[index]), *ROWS[index + 1 :]]
    before, after = chain(ROWS), chain(rows)
    assert [a == b for a, b in zip(before, after, strict=True)] == [i < index for i in range(3)]


def test_removing_or_swapping_rows_breaks_the_chain():
    end = chain(ROWS)[-1]
    assert chain(ROWS[1:])[-1] != end
    assert chain([ROWS[1], ROWS[0], ROWS[2]])[-1] != end
    assert len(set(chain(ROWS))) == 3


def test_a_row_that_does_not_fit_its_header_is_refused_instead_of_being_cut():
    for row in ((2**32, 0, 0, "", b""), (0, 2**64, 0, "", b""), (0, 0, 0, "p" * 2**16, b""), (-1, 0, 0, "", b"")):
        with pytest.raises(OverflowError):
            link(GENESIS, *row)
