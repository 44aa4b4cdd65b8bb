"""A field is set within the text of a JSON document, and no other byte of it changes."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.core.placed import field_path
from keyhole.injections import Terms, inject
from keyhole.injections.json_text import set_field

VALUE = 'v"\\\n\0\u00e9\U0001f511</x>'
QUOTED = json.dumps(VALUE).encode()
JSON = (b"content-type", b"application/json")


@pytest.mark.parametrize(
    ("field", "before", "after"),
    [
        ("a", b'{"a": 1}', b'{"a": VALUE}'),
        ("a", b'{ "b" :1.0e5 , "a":{"x":[1, 2]}  }\n', b'{ "b" :1.0e5 , "a":VALUE  }\n'),
        ("a", b"{}", b'{"a": VALUE}'),
        ("a", b'{ "b": 12345678901234567890.10 }', b'{ "b": 12345678901234567890.10, "a": VALUE }'),
        ("a.b", b'{"a": {"c": "\\u00e9"}}', b'{"a": {"c": "\\u00e9", "b": VALUE}}'),
        ("a.b.c", b'{"x":1}', b'{"x":1, "a": {"b": {"c": VALUE}}}'),
        ("a.b.c", b'{"a": {}}', b'{"a": {"b": {"c": VALUE}}}'),
        ("a.1.k", b'{"a":[0,{"k":null},2]}', b'{"a":[0,{"k":VALUE},2]}'),
        ("1", b"[0, [1], 2]", b"[0, VALUE, 2]"),
        ("1", b'{"1": true}', b'{"1": VALUE}'),
        ("/a.b/~1~0", b'{"a.b":{"/~":0}}', b'{"a.b":{"/~":VALUE}}'),
        ("/", b'{"":"x"}', b'{"":VALUE}'),
        ("a", b'{"b":{"a":1},"\\u0061":2}', b'{"b":{"a":1},"\\u0061":VALUE}'),
        ("k", '{"\u00e9\U0001f511":"\u2028","k":""}'.encode(), '{"\u00e9\U0001f511":"\u2028","k":VALUE}'.encode()),
    ],
)
def test_field_is_set_and_no_other_byte_changes(field: str, before: bytes, after: bytes) -> None:
    assert set_field(before, field_path(field), VALUE.encode()) == after.replace(b"VALUE", QUOTED)


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("a", b'{"a":1,"a":2}'),
        ("a", b'{"a":1,"\\u0061":2}'),
        ("a.b", b'{"a":{"b":1},"a":{"b":2}}'),
        ("a.b", b'{"a":"text"}'),
        ("a.b", b'{"a":null}'),
        ("a", b'"text"'),
        ("a", b"[1]"),
        ("3", b"[1]"),
        ("01", b"[1,2]"),
        ("-1", b"[1,2]"),
        ("a", b'{"a":NaN}'),
        ("a", b'{"b":-Infinity}'),
        ("a", b'{"a":1} {}'),
        ("a", b'{"a":1'),
        ("a", b'{"a":"\xff"}'),
        ("a", b'\xef\xbb\xbf{"a":1}'),
        ("a", '{"a":1}'.encode("utf-16")),
        ("a", b"{'a':1}"),
        ("a", b'{"a":1,}'),
        ("a", b"a=1"),
        ("a", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ("a", b"[" * 300_000),
    ],
)
def test_document_that_could_be_read_in_two_ways_or_has_no_such_place_is_refused(field: str, body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        set_field(body, field_path(field), VALUE.encode())


def test_value_that_is_no_text_is_refused_without_being_shown() -> None:
    with pytest.raises(InvalidRequest) as caught:
        set_field(b"{}", ("a",), b"mine\xff")
    assert "mine" not in str(caught.value)


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.dictionaries(st.text(max_size=3), documents, max_size=4),
    st.lists(st.text(max_size=3), min_size=1, max_size=3),
    st.text(max_size=12),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
)
def test_readers_see_the_field_and_everything_else_as_it_was(document, names, value, indent, ascii_only) -> None:
    body = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    try:
        changed = set_field(body, tuple(names), value.encode("utf-8", "surrogatepass"))
    except InvalidRequest:
        return
    expected = deepcopy(document)
    at = expected
    for name in names[:-1]:
        at = at[int(name)] if isinstance(at, list) else at.setdefault(name, {})
    at[int(names[-1]) if isinstance(at, list) else names[-1]] = value
    assert json.loads(changed) == expected


def sent(body: bytes | None, *headers: tuple[bytes, bytes]) -> Message:
    message = Message("PUT", "https", "a.test", 443, b"/", list(headers), content=body)
    return next(inject(message, Inject.from_data({"kind": "body", "field": "a.b"}), Terms({"value": VALUE.encode()})))


def test_body_that_is_missing_is_made() -> None:
    for body in (None, b""):
        message = sent(body, (b"content-length", b"0"))
        assert message.content == b'{"a": {"b": ' + QUOTED + b"}}"
        assert message.get(b"content-type") == b"application/json"


def test_digests_of_the_body_that_was_changed_are_left_out() -> None:
    message = sent(b"{}", JSON, (b"content-md5", b"x"), (b"repr-digest", b"x"), (b"x-kept", b"1"))
    assert message.headers == [JSON, (b"x-kept", b"1")]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"text/json")],
        [(b"content-type", b"application/json; charset=utf-16")],
        [JSON, JSON],
        [JSON, (b"content-encoding", b"br")],
        [(b"content-type", b"application/x-www-form-urlencoded")],
    ],
)
def test_body_that_does_not_say_to_be_json_is_refused(headers: list) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(b'{"a":{}}', *headers)
    assert caught.value.hint


@pytest.mark.parametrize(
    "kind", [b"application/vnd.api+json", b"Application/JSON; charset=UTF-8", b"application/json;"]
)
def test_json_by_another_name_is_json(kind: bytes) -> None:
    assert sent(b'{"a":{}}', (b"content-type", kind)).content == b'{"a":{"b": ' + QUOTED + b"}}"
