"""The data of a stored secret are found behind its metadata whatever both say, and only the metadata stay parsed."""

import json
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from keyhole.engines.kv.document import Document, split
from vault.world import CANARY, play

MARKS = [
    ',"versions":{',
    ',"data":',
    '"data":',
    '},"data":{',
    '"versions":{"1":{}},"data":1',
    "data",
    "versions",
    '\\",',
]
TEXTS = st.text() | st.sampled_from(MARKS) | st.lists(st.sampled_from(MARKS)).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
VERSION = {"created": 1.5, "deleted": 0, "destroyed": False}


def place():
    return SimpleNamespace(storage=SimpleNamespace(heads={}))


@given(
    custom=st.none() | st.dictionaries(TEXTS, TEXTS, max_size=4),
    words=st.tuples(TEXTS, TEXTS, st.lists(TEXTS, max_size=3)),
    numbers=st.lists(st.integers(1, 99), max_size=3),
    data=JSON,
)
def test_what_metadata_and_data_say_does_not_move_the_border_between_them(custom, words, numbers, data):
    kind, owner, tags = words
    versions = {str(number): dict(VERSION) for number in numbers}
    document = Document(1.0, 2.0, custom=custom, type=kind, owner=owner, tags=tags, versions=versions, data=data)
    context, stored = place(), document.encode()
    for _ in range(2):  # parsed, and as it was kept
        fields, text = split(context, stored)
        assert json.loads(text) == data
        assert {**fields, "data": data} == json.loads(stored)


def test_nothing_of_a_value_stays_and_what_stays_is_bounded():
    context = place()
    for number in range(1000):
        split(context, Document(float(number), 0.0, data={"value": CANARY}).encode())
    assert 0 < len(context.storage.heads) <= 256
    assert CANARY not in repr(context.storage.heads)
    long = Document(1.0, 0.0, custom={"note": "x" * 5000}).encode()
    fields, _ = split(context, long)
    assert fields["custom"] == {"note": "x" * 5000}
    assert all(len(head) <= 2048 for head in context.storage.heads)


def test_who_changes_an_answer_changes_no_other_one():
    async def scenario(vault):
        await vault.ask("update", "secret/data/x", {"data": {"value": "v"}})
        await vault.ask("update", "secret/metadata/x", {"custom_metadata": {"team": "one"}})
        first = (await vault.ask("read", "secret/data/x")).data["metadata"]
        first["custom_metadata"]["team"] = "another"
        first["version"] = 99
        again = (await vault.ask("read", "secret/data/x")).data["metadata"]
        assert (again["custom_metadata"], again["version"]) == ({"team": "one"}, 1)

    play(scenario)


def test_a_secret_that_was_changed_is_read_as_it_is_now():
    async def scenario(vault):
        for number in range(1, 4):
            await vault.ask("update", "secret/data/x", {"data": {"value": str(number)}})
            for _ in range(2):
                reply = await vault.ask("read", "secret/data/x")
                assert json.loads(reply.data["data"].reveal()) == {"value": str(number)}
                assert reply.data["metadata"]["version"] == number
        await vault.ask("delete", "secret/data/x")
        assert not (await vault.ask("read", "secret/data/x")).found

    play(scenario)
