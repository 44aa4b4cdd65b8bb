"""A placeholder is found as clients write it in each place, across any cut, and what is not it passes untouched."""

from __future__ import annotations

import itertools
import json
from urllib.parse import parse_qsl, quote, quote_plus
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.injections import Terms, inject, needs_content
from keyhole.injections.spelled import JSON, MULTIPART, PERCENT, PLAIN, XML, Replacer, replaced

TEXT = b"{{a/key}}<&'+sk-1"
VALUE = 'v"\\ \u00e9%&</x>\U0001f511=+'.encode()
EVERY = bytes(range(256)) * 8
SYNTAXES = [JSON, MULTIPART, PERCENT, PLAIN, XML]


def streamed(content: bytes, cuts: list[int], text: bytes, syntax, value: bytes) -> bytes:
    recoder = Replacer(text, syntax, value)
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    pieces = [content[at:end] for at, end in itertools.pairwise(edges)]
    return b"".join([*map(recoder.feed, pieces), recoder.finish()])


@pytest.mark.parametrize("syntax", SYNTAXES)
@given(st.data())
def test_streaming_gives_what_replacing_at_once_gives_whatever_the_cuts(syntax, data) -> None:
    spelled = st.lists(
        st.sampled_from([TEXT, TEXT[:9], TEXT[9:], quote(TEXT).encode(), quote(TEXT, safe="").lower().encode()])
        | st.sampled_from([json.dumps(TEXT.decode()).encode(), b"{", b"%7", b"%7b%7B", b"\\u00", b"\\/", b"&l", b"&"])
        | st.binary(max_size=6),
        max_size=8,
    )
    content = b"".join(data.draw(spelled))
    cuts = data.draw(st.lists(st.integers(0, max(1, len(content))), max_size=8))
    assert streamed(content, cuts, TEXT, syntax, b"value-of-it") == replaced(content, TEXT, syntax, b"value-of-it")
    every = list(range(len(content)))
    assert streamed(content, every, TEXT, syntax, b"value-of-it") == replaced(content, TEXT, syntax, b"value-of-it")


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_body_without_the_text_passes_byte_for_byte_and_at_once(syntax) -> None:
    recoder = Replacer(b"sk-placeholder-0001", syntax, VALUE)
    sent = [recoder.feed(EVERY) for _ in range(4)]
    assert b"".join([*sent, recoder.finish()]) == EVERY * 4
    line = b'{"event": 1}\n'
    assert recoder.feed(line) is line  # a client that waits for an answer to it is not kept waiting


def test_whatever_client_escaped_it_a_json_reader_finds_the_value() -> None:
    text = TEXT.decode()
    for written in (
        json.dumps(text),
        json.dumps(text).replace("/", "\\/"),
        json.dumps(text).replace("<", "\\u003c").replace("&", "\\u0026").replace("'", "\\u0027"),
        json.dumps(text).replace("<", "\\u003C").replace("{", "\\u007B").replace("}", "\\u007d"),
    ):
        body = f'{{"a": {written}, "b": "x{written[1:-1]}y"}}'.encode()
        found = json.loads(replaced(body, TEXT, JSON, VALUE))
        assert found == {"a": VALUE.decode(), "b": f"x{VALUE.decode()}y"}


def test_whatever_client_escaped_it_a_form_reader_finds_the_value() -> None:
    text = TEXT.decode()
    for written in (quote(text, safe=""), quote_plus(text), quote(text, safe="").lower().replace("sk-1", "sk-1")):
        body = f"a=1&k={written}&z=x{written}y".encode()
        assert parse_qsl(replaced(body, TEXT, PERCENT, VALUE).decode()) == [
            ("a", "1"),
            ("k", VALUE.decode()),
            ("z", f"x{VALUE.decode()}y"),
        ]


def test_an_xml_reader_finds_the_value() -> None:
    body = b'<a k="{{a/key}}&lt;&amp;\'+sk-1">{{a/key}}&lt;&amp;&apos;+sk-1</a>'
    tree = ET.fromstring(replaced(body, TEXT, XML, VALUE).decode())
    assert (tree.get("k"), tree.text) == (VALUE.decode(), VALUE.decode())


@pytest.mark.parametrize(
    ("syntax", "value"),
    [
        (MULTIPART, b'a"; filename="x'),
        (MULTIPART, b"a\r\n--b"),
        (MULTIPART, b"a\0"),
        (JSON, b"mine\xff"),
        (XML, b"mine\xff"),
        (XML, b"mine\0"),
    ],
)
def test_value_that_cannot_stand_there_is_refused_only_where_it_would_stand(syntax, value: bytes) -> None:
    text = b"sk-placeholder-0001"
    for work in (
        lambda content: replaced(content, text, syntax, value),
        lambda content: streamed(content, [], text, syntax, value),
    ):
        assert work(EVERY) == EVERY
        with pytest.raises(InvalidRequest) as caught:
            work(b"x" + text)
        assert "mine" not in str(caught.value)


def test_length_is_known_where_nothing_can_change_it() -> None:
    assert Replacer(b"12345678", PLAIN, b"abcdefgh").length(10) == 10
    assert Replacer(b"12345678", PLAIN, b"abcdefgh").length(None) is None
    assert Replacer(b"12345678", PLAIN, b"abcdefg").length(10) is None
    assert Replacer(b"12345678", PERCENT, b"abcdefg/").length(10) is None
    assert Replacer(b"{2345678", PERCENT, b"abcdefgh").length(10) is None  # it may come as %7B


def test_small_message_is_not_blown_up() -> None:
    with pytest.raises(InvalidRequest):
        replaced(b"12345678" * 10_000, b"12345678", PLAIN, b"v" * 1000)
    with pytest.raises(InvalidRequest):
        streamed(b"12345678" * 10_000, [1000], b"12345678", PLAIN, b"v" * 1000)
    with pytest.raises(InvalidRequest):
        placed(["header"], (b"x", b"12345678" * 5000), text="12345678", value=b"v" * 1000)


def placed(
    places: list[str],
    *headers: tuple[bytes, bytes],
    target: bytes = b"/v1",
    body: bytes | None = None,
    declared: int | None = None,
    text: str = "sk-{holder}-1",
    value: bytes = b"the value/1",
) -> Message:
    message = Message("POST", "https", "a.test", 443, target, list(headers), length=declared)
    how = Inject.from_data({"kind": "placeholder", "text": text, "in": places})
    if needs_content(message, how):
        message.content = body
    return next(inject(message, how, Terms({"value": value})))


EVERYWHERE = b"/v1/sk-%7Bholder%7D-1/x?a=sk-{holder}-1&b=x%73k&c=sk-%7bholder%7D-1;"
HEADERS = ((b"x", b"sk-{holder}-1"), (b"content-type", b"application/json"))
BODY = b'{"k":"sk-{holder}-1"}'


@pytest.mark.parametrize(
    ("places", "path", "query", "header", "body"),
    [
        (["header"], False, False, True, False),
        (["query"], False, True, False, False),
        (["path"], True, False, False, False),
        (["body"], False, False, False, True),
        (["header", "query", "path", "body"], True, True, True, True),
    ],
)
def test_placeholder_is_replaced_where_it_is_allowed_and_literal_elsewhere(places, path, query, header, body) -> None:
    value = b"the-value 1"
    message = placed(places, *HEADERS, target=EVERYWHERE, body=BODY, declared=len(BODY), value=value)
    wanted = EVERYWHERE
    if path:
        wanted = wanted.replace(b"/sk-%7Bholder%7D-1/", b"/the-value%201/")
    if query:
        wanted = wanted.replace(b"a=sk-{holder}-1", b"a=the-value%201").replace(
            b"sk-%7bholder%7D-1;", b"the-value%201;"
        )
    assert message.target == wanted
    assert message.get(b"x") == (value if header else b"sk-{holder}-1")
    assert (message.content == b'{"k":"the-value 1"}') == body
    assert message.recode is None


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-type", b"application/octet-stream")],
        [(b"content-type", b"application/x-git-receive-pack-request")],
        [(b"content-type", b"image/png")],
        [(b"content-encoding", b"gzip"), (b"content-type", b"application/json")],
        [(b"content-type", b"text/plain"), (b"content-type", b"application/json")],
    ],
)
def test_body_that_is_no_text_is_neither_held_nor_changed(headers: list) -> None:
    message = placed(["body"], *headers, body=BODY, declared=len(BODY))
    assert (message.content, message.recode) == (None, None)


def test_large_and_unmeasured_bodies_stream() -> None:
    for declared in (None, 2 * 1024 * 1024):
        message = placed(["body"], *HEADERS, declared=declared)
        assert message.content is None
        assert message.recode is not None
        assert message.recode.feed(BODY) + message.recode.finish() == b'{"k":"the value/1"}'


def test_digests_go_only_with_a_body_that_was_changed() -> None:
    digest = (b"content-md5", b"x")
    assert digest in placed(["body"], *HEADERS, digest, body=b"{}", declared=2).headers
    assert digest not in placed(["body"], *HEADERS, digest, body=BODY, declared=len(BODY)).headers
