"""Each kind of injection by itself: what it puts into the message, and what it names for the scrubber."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhole.broker.kept import Room
from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import KINDS as KNOWN
from keyhole.core.inject import Inject
from keyhole.core.message import Call, Heard, Message
from keyhole.injections import LONGEST, MEMBERS, Terms, inject
from keyhole.injections.placeholder import decode_basic, shows

TEXT = "sk-placeholder-0001"
KINDS = {
    "bearer": {"kind": "bearer"},
    "header": {"kind": "header", "name": "X-Key", "template": "k={}"},
    "basic": {"kind": "basic", "user": "bot"},
    "placeholder": {"kind": "placeholder", "text": TEXT},
    "headers": {"kind": "headers", "headers": {"X-Key": "value", "X-Again": "value"}},
    "cookie": {"kind": "cookie", "name": "session"},
    "query": {"kind": "query", "name": "key"},
    "path": {"kind": "path", "text": TEXT},
    "body": {"kind": "body", "field": "auth.key"},
    "form": {"kind": "form", "field": "key"},
    "digest": {"kind": "digest", "user": "bot"},
}
IN_HEADERS = ["basic", "bearer", "cookie", "header", "headers", "placeholder"]


def message(*headers: tuple[bytes, bytes]) -> Message:
    return Message("POST", "https", "api.test", 443, b"/v1?a=1", list(headers))


def injected(kind: str, value: bytes, *headers: tuple[bytes, bytes], **fields: bytes) -> Message:
    return next(inject(message(*headers), Inject.from_data(KINDS[kind]), Terms(fields or {"value": value})))


def test_every_kind_is_a_member_that_loads() -> None:
    assert set(KINDS) <= set(MEMBERS) == set(KNOWN) - {"sql", "ssh"}  # which are logins, and no part of a message
    for kind in KINDS:
        injected(kind, b"value-of-a-secret")


@pytest.mark.parametrize("kind", ["bearer", "header", "basic"])
def test_whatever_the_client_sent_there_is_gone(kind: str) -> None:
    name = b"x-key" if kind == "header" else b"authorization"
    sent = injected(kind, b"value", (name, b"mine"), (b"x-other", b"1"), (name, b"mine too"))
    assert [pair[0] for pair in sent.headers] == [b"x-other", name]
    assert b"mine" not in b"".join(value for _, value in sent.headers)


@given(value=st.binary(min_size=1, max_size=40), kind=st.sampled_from(IN_HEADERS))
def test_no_value_adds_or_ends_a_header(value: bytes, kind: str) -> None:
    try:
        sent = injected(kind, value, (b"authorization", b"Bearer " + TEXT.encode()))
    except InvalidRequest:
        return
    for _, content in sent.headers:
        assert not set(content) & {0, 10, 13}
        assert content == content.strip()
    assert sent.target == b"/v1?a=1"


@pytest.mark.parametrize("kind", IN_HEADERS)
@pytest.mark.parametrize("value", [b"", b"v" * (LONGEST + 1), b"a\r\nX: 1", b"a\0", b"a\x7f"])
def test_value_that_no_header_can_carry_is_refused(kind: str, value: bytes) -> None:
    with pytest.raises(InvalidRequest):
        injected(kind, value, (b"authorization", b"Bearer " + TEXT.encode()))


@given(user=st.text(max_size=20), password=st.text(min_size=1, max_size=20))
def test_basic_carries_user_and_password_and_names_all_forms(user: str, password: str) -> None:
    fields = {"username": user.encode("utf-8", "ignore"), "password": password.encode("utf-8", "ignore")}
    try:
        sent = injected("basic", b"", **fields)
    except InvalidRequest:
        assert ":" in user or not any(fields.values()) or any(ord(c) < 32 or ord(c) == 127 for c in user + password)
        return
    credentials = decode_basic(sent.get(b"authorization") or b"")
    assert credentials == fields["username"] + b":" + fields["password"]
    assert credentials in sent.forms
    assert base64.b64encode(credentials) in sent.forms


@pytest.mark.parametrize("value", [b"key-as-the-user-name:", b":key-as-the-password"])
def test_one_side_of_basic_may_be_empty(value: bytes) -> None:
    how = Inject.from_data({"kind": "basic"})
    assert decode_basic(next(inject(message(), how, Terms({"value": value}))).get(b"authorization") or b"") == value


def test_secret_without_a_user_name_is_refused_with_the_way_to_store_it() -> None:
    with pytest.raises(InvalidRequest) as caught:
        next(inject(message(), Inject.from_data({"kind": "basic"}), Terms({"value": b"only-a-password"})))
    assert "user:password" in caught.value.hint
    assert "only-a-password" not in str(caught.value)


def test_message_without_the_placeholder_is_sent_as_it_is() -> None:
    headers = ((b"authorization", b"Basic !!!"), (b"authorization", b"Basic"), (b"x", b"y"))
    sent = injected("placeholder", b"value", *headers)
    assert tuple(sent.headers) == headers
    assert sent.forms == []


@pytest.mark.parametrize("content", [b"Basic " + base64.b64encode(b"u:" + TEXT.encode()), b"x" + TEXT.encode() + b"y"])
def test_placeholder_is_seen_as_it_is_and_inside_basic(content: bytes) -> None:
    assert shows(content, TEXT.encode())
    assert not shows(content, TEXT.encode() + b"2")


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"kind": "magic"},
        {"kind": ["bearer"]},
        {"kind": "bearer", "templat": "{}"},
        {"kind": "header", "name": "Host"},
        {"kind": "header", "name": "Content-Length"},
        {"kind": "header", "name": "Proxy-Authorization"},
        {"kind": "header", "name": "X Y"},
        {"kind": "header", "name": "X-Key", "template": "no place"},
        {"kind": "header", "name": "X-Key", "template": "{}{}"},
        {"kind": "header", "name": "X-Key", "template": "{}\r\nX: 1"},
        {"kind": "basic", "user": "a:b"},
        {"kind": "placeholder", "text": "short"},
        {"kind": "placeholder", "text": "with space in it"},
        {"kind": "placeholder", "text": TEXT, "in": ["moon"]},
        {"kind": "placeholder", "text": TEXT, "in": [["header"]]},
        {"kind": "placeholder", "text": "50%-placeholder", "in": ["query"]},
        {"kind": "placeholder", "text": "a/placeholder", "in": ["path"]},
        {"kind": "path", "text": "a/placeholder"},
        {"kind": "path"},
        {"kind": "query"},
        {"kind": "query", "name": "key", "params": {"key": "value"}},
        {"kind": "query", "params": {}},
        {"kind": "query", "params": {"key": ""}},
        {"kind": "query", "name": "k\r\ney"},
        {"kind": "headers"},
        {"kind": "headers", "headers": {"Host": "value"}},
        {"kind": "headers", "headers": {"X-Key": "a", "x-key": "b"}},
        {"kind": "headers", "headers": ["X-Key"]},
        {"kind": "cookie", "name": "a;b"},
        {"kind": "cookie"},
        {"kind": "body"},
        {"kind": "body", "field": "a..b"},
        {"kind": "body", "field": "/a~2b"},
        {"kind": "form", "field": "a\nb"},
        {"kind": "form"},
        {"kind": "digest", "user": "a:b"},
    ],
)
def test_binding_that_makes_no_sense_is_refused(data: dict) -> None:
    with pytest.raises(InvalidRequest):
        Inject.from_data(data)


@pytest.mark.parametrize(
    "data",
    [
        *KINDS.values(),
        {"kind": "placeholder", "text": TEXT, "in": ["header"]},
        {"kind": "placeholder", "text": TEXT, "in": "query, body"},
        {"kind": "query", "params": {"key": "api_key", "token": "token"}},
        {"kind": "query", "params": "key=api_key, token=token"},
    ],
)
def test_binding_reads_back_what_it_wrote_and_can_be_a_key(data: dict) -> None:
    how = Inject.from_data(data)
    again = Inject.from_data(how.as_data())
    assert again == how
    assert hash(again) == hash(how)


def test_nothing_that_carries_a_value_shows_it_in_its_repr() -> None:
    value, encoded = b"sk-live-canary-0001", base64.b64encode(b"bot:sk-live-canary-0001")
    terms = Terms({"value": value}, kept={"x": value})
    sent = next(inject(Message("GET", "https", "a.test", 443, b"/", []), Inject.from_data(KINDS["basic"]), terms))
    query = Inject.from_data({"kind": "query", "name": "k"})
    target = next(inject(Message("GET", "https", "a.test", 443, b"/", [], content=value), query, terms))
    call = Call(value, "https", "a.test", 443, "GET", b"/" + value, [(b"a", value)])
    for each in (terms, sent, target, call, Heard(200, [(b"a", value)], value), Room(kept={"x": value})):
        assert value.decode() not in repr(each)
        assert encoded.decode() not in repr(each)
