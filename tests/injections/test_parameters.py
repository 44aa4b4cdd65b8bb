"""Query parameters, cookies and forms: one thing is set, and whatever else was there stays byte for byte."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.injections import Terms, inject
from keyhole.injections.multipart import set_field
from keyhole.injections.parameters import set_parameter
from keyhole.injections.placeholder import take_out

VALUE = b'v/+ &=%\xc3\xa9?#;"'
ENCODED = quote(VALUE, safe="").encode()
TEXT = b"sk-placeholder-0001"


def sent(how: dict, target: bytes = b"/v1", *headers: tuple[bytes, bytes], body: bytes | None = None, **values: bytes):
    message = Message("POST", "https", "api.test", 443, target, list(headers), content=body)
    return next(inject(message, Inject.from_data(how), Terms(values or {"value": VALUE})))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"/v1", b"/v1?key=%b"),
        (b"/v1?", b"/v1?key=%b"),
        (b"/v1?b=2&a=1", b"/v1?b=2&a=1&key=%b"),
        (b"/v1?key=PLACEHOLDER&key=x", b"/v1?key=%b"),
        (b"/v1?a=1&key=x&b=%%2f+%%2F&key&k%%65y=2&c", b"/v1?a=1&key=%b&b=%%2f+%%2F&c"),
        (b"/v1?Key=1&keys=2&&=&key%%20=3", b"/v1?Key=1&keys=2&&=&key%%20=3&key=%b"),
    ],
)
def test_query_parameter_is_set_once_and_others_keep_their_bytes_and_order(query: bytes, expected: bytes) -> None:
    assert sent({"kind": "query", "name": "key"}, query.replace(b"%%", b"%")).target == expected % ENCODED


def test_several_parameters_take_a_field_each() -> None:
    how = {"kind": "query", "params": {"key": "api_key", "token": "user_token"}}
    message = sent(how, b"/1/boards?token=x&a=1", api_key=b"KKKKKKKK", user_token=b"T T")
    assert message.target == b"/1/boards?token=T%20T&a=1&key=KKKKKKKK"


@given(
    st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=6),
    st.text(min_size=1, max_size=4).filter(str.isprintable),
    st.binary(min_size=1, max_size=20),
)
def test_every_reader_finds_the_value_once_and_the_others_where_they_were(pairs, name, value) -> None:
    before = "&".join(f"{quote(key)}={quote(text)}" for key, text in pairs).encode()
    after = set_parameter(before, name, value)
    found = parse_qsl(after.decode(), keep_blank_values=True, encoding="latin-1")
    mine = name.encode().decode("latin-1")
    assert [text for key, text in found if key == mine] == [value.decode("latin-1")]
    others = [(key.encode().decode("latin-1"), text.encode().decode("latin-1")) for key, text in pairs if key != name]
    assert [pair for pair in found if pair[0] != mine] == others


@pytest.mark.parametrize("kind", [{"kind": "query", "name": "key"}, {"kind": "path", "text": TEXT.decode()}])
@pytest.mark.parametrize("value", [b"", b"a\r\nb", b"a\0", b"key\n", b"\x7f", b"v" * 10_000])
def test_value_that_no_target_can_carry_is_refused_without_being_shown(kind: dict, value: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(kind, b"/bot" + TEXT, value=value)
    assert not value or value.decode() not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], [b"sid=VALUE123"]),
        ([b""], [b"sid=VALUE123"]),
        ([b"a=1; sid=mine; b=2"], [b"a=1; sid=VALUE123; b=2"]),
        ([b"a=1;sid=mine;sid=again"], [b"a=1;sid=VALUE123"]),
        ([b"a=1", b"sid=mine; c=3", b"sid=x"], [b"a=1", b"sid=VALUE123; c=3"]),
        ([b"a=1; Sid=2; xsid=3;"], [b"a=1; Sid=2; xsid=3; sid=VALUE123"]),
        ([b'a="x y"; broken; =; b=2'], [b'a="x y"; broken; =; b=2; sid=VALUE123']),
    ],
)
def test_one_cookie_is_set_and_the_others_stay(headers: list[bytes], expected: list[bytes]) -> None:
    pairs = [(b"cookie", value) for value in headers]
    message = sent({"kind": "cookie", "name": "sid"}, b"/", (b"x", b"1"), *pairs, value=b"VALUE123")
    assert [value for name, value in message.headers if name == b"cookie"] == expected


@pytest.mark.parametrize("value", [b"a;b=1", b"a b", b"a,b", b'a"b', b"a\\b", b"a\xff", b"a\r\nb", b"\0", b""])
def test_value_that_would_begin_another_cookie_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidRequest):
        sent({"kind": "cookie", "name": "sid"}, value=value)
    how = {"kind": "placeholder", "text": TEXT.decode()}
    with pytest.raises(InvalidRequest):
        sent(how, b"/", (b"cookie", b"a=" + TEXT), value=value)


def test_every_header_of_several_takes_its_own_field() -> None:
    how = {"kind": "headers", "headers": {"DD-API-KEY": "api_key", "DD-APPLICATION-KEY": "app"}}
    message = sent(how, b"/", (b"dd-api-key", b"mine"), api_key=b"one", app=b"two")
    assert message.headers == [(b"dd-api-key", b"one"), (b"dd-application-key", b"two")]


def test_what_an_sdk_sent_with_its_placeholder_is_taken_out_wherever_it_stands() -> None:
    headers = [
        (b"x-key", TEXT),
        (b"cookie", b"a=1; s=" + TEXT + b"; b=2"),
        (b"cookie", b"s=" + TEXT),
        (b"x-kept", b"1"),
    ]
    message = Message("GET", "https", "a.test", 443, b"/v1?a=1&k=" + TEXT + b"&b=%2f&sk%2Dplaceholder-0001", headers)
    take_out(message, TEXT)
    assert message.headers == [(b"cookie", b"a=1; b=2"), (b"x-kept", b"1")]
    assert message.target == b"/v1?a=1&b=%2f"
    only = Message("GET", "https", "a.test", 443, b"/v1?k=" + TEXT, [])
    take_out(only, TEXT)
    assert only.target == b"/v1"


FORM = (b"content-type", b"application/x-www-form-urlencoded; charset=utf-8")
MULTI = (b"content-type", b'multipart/form-data; boundary="b-1 x"')


def part(name: bytes, content: bytes, more: bytes = b"") -> bytes:
    return b'--b-1 x\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (name, more, content)


EVERY = bytes(range(256))
END = b"--b-1 x--\r\n"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (None, b"key=" + ENCODED),
        (b"", b"key=" + ENCODED),
        (b"a=%2f&key=mine&b=+&key=x", b"a=%2f&key=" + ENCODED + b"&b=+"),
        (b"a=1&\xff\x00", b"a=1&\xff\x00&key=" + ENCODED),
    ],
)
def test_form_field_is_set_and_other_fields_keep_their_bytes(body: bytes | None, expected: bytes) -> None:
    digests = [(b"content-md5", b"x"), (b"content-digest", b"x"), (b"digest", b"x")]
    message = sent({"kind": "form", "field": "key"}, b"/", *([FORM] if body else []), *digests, body=body)
    assert message.content == expected
    assert [name for name, _ in message.headers] == [b"content-type"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (part(b"a", EVERY) + END, part(b"a", EVERY) + part(b"key", VALUE) + END),
        (
            part(b"key", b"mine", b'; filename="f"\r\nContent-Type: x/y')
            + part(b"a", EVERY)
            + part(b"key", b"2")
            + END,
            part(b"key", VALUE) + part(b"a", EVERY) + END,
        ),
        (END, part(b"key", VALUE) + END),
        (END[:-2], part(b"key", VALUE) + END[:-2]),
        (part(b"key%22", b"1") + part(b"Key", b"2") + END, None),
    ],
)
def test_multipart_field_is_set_and_other_parts_keep_their_bytes(body: bytes, expected: bytes | None) -> None:
    message = sent({"kind": "form", "field": "key"}, b"/", MULTI, body=body)
    assert message.content == (expected or body.removesuffix(END) + part(b"key", VALUE) + END)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"preamble\r\n" + part(b"a", b"1") + END,
        part(b"a", b"1"),
        part(b"a", b"1") + END + b"epilogue",
        part(b"a", b"1") + END + part(b"key", b"mine") + END,
        part(b"a", b"1\r\n--b-1 xy\r\n") + END,
        part(b"a", b'1\n--b-1 x\nContent-Disposition: form-data; name="key"\n\nmine') + END,
        b"--b-1 x\r\nContent-Type: text/plain\r\n\r\n1\r\n" + END,
        b"--b-1 x\r\nContent-Disposition: form-data\r\n\r\n1\r\n" + END,
        b'--b-1 x\r\nContent-Disposition: form-data; name="a"; name="key"\r\n\r\n1\r\n' + END,
        b"--b-1 x\r\nContent-Disposition: form-data; name*=UTF-8''key\r\n\r\n1\r\n" + END,
        b'--b-1 x\r\nContent-Disposition: form-data; name="a\r\n\r\n1\r\n' + END,
        b"--b-1 x" + 2 * b'\r\nContent-Disposition: form-data; name="a"' + b"\r\n\r\n1\r\n" + END,
        b'--b-1 x\r\nContent-Disposition : form-data; name="a"\r\n\r\n1\r\n' + END,
        b'--b-1 x\r\nContent-Disposition: form-data; name="a"\r\n folded: 1\r\n\r\n1\r\n' + END,
        b"--b-1 x" + END,
    ],
)
def test_multipart_body_that_could_be_read_in_two_ways_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        set_field(body, b"b-1 x", "key", VALUE)


@pytest.mark.parametrize("boundary", [b"", b"b\r\nX: 1", b"x" * 71, b"end ", b"\xff"])
def test_boundary_that_is_none_is_refused(boundary: bytes) -> None:
    with pytest.raises(InvalidRequest):
        set_field(b"--" + boundary + b"--", boundary, "key", VALUE)


def test_secret_that_would_end_its_part_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        set_field(END, b"b-1 x", "key", b"a\r\n--b-1 x\r\n\r\nmine")
    assert "mine" not in str(caught.value)


@given(st.binary(max_size=200), st.binary(min_size=1, max_size=40))
def test_a_reader_of_multipart_finds_exactly_one_field_with_the_value(content: bytes, value: bytes) -> None:
    from email import message_from_bytes
    from email.policy import HTTP

    try:
        made = set_field(part(b"a", content) + END, b"b-1 x", "key", value)
    except InvalidRequest:
        assert b"--b-1 x" in content + value
        return
    assert part(b"a", content) in made
    parsed = message_from_bytes(b"Content-Type: %b\r\n\r\n%b" % (MULTI[1], made), policy=HTTP)
    names = [each.get_param("name", header="content-disposition") for each in parsed.iter_parts()]
    assert names == ["a", "key"]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"text/plain")],
        [(b"content-type", b"application/json")],
        [FORM, FORM],
        [FORM, (b"content-encoding", b"gzip")],
        [(b"content-type", b"application/x-www-form-urlencoded; a=b; a=c")],
        [(b"content-type", b"nonsense")],
    ],
)
def test_body_that_is_no_form_is_refused_for_a_form_field(headers: list) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent({"kind": "form", "field": "key"}, b"/", *headers, body=b"a=1")
    assert caught.value.hint


def test_no_body_is_made_for_a_request_that_has_none_by_nature() -> None:
    for how in ({"kind": "form", "field": "key"}, {"kind": "body", "field": "key"}):
        message = Message("GET", "https", "a.test", 443, b"/", [])
        with pytest.raises(InvalidRequest):
            next(inject(message, Inject.from_data(how), Terms({"value": VALUE})))


@pytest.mark.parametrize("value", [b"123456:AAF-x_y", b"a?b#c", b"a%b", b"\xc3\xa9", b"a;b", b"a b", b"x&y=z", b"..x"])
def test_value_in_a_path_is_one_piece_of_one_segment(value: bytes) -> None:
    message = sent({"kind": "path", "text": TEXT.decode()}, b"/bot" + TEXT + b"/getMe?a=" + TEXT, value=value)
    path, _, query = message.target.partition(b"?")
    assert query == b"a=" + TEXT
    assert path.count(b"/") == 2
    assert unquote_to_bytes(path) == b"/bot" + value + b"/getMe"
    assert b";" not in path


@pytest.mark.parametrize("value", [b"a/b", b"../x", b"a\\b", b"a%2fb", b"%2e%2e", b"..", b".", b"\xff", b"..;x", b" "])
def test_value_that_would_change_the_path_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidRequest):
        sent({"kind": "path", "text": TEXT.decode()}, b"/" + TEXT + b"/x", value=value)


@pytest.mark.parametrize(
    ("how", "values"),
    [
        ({"kind": "form", "field": "key"}, {"value": b"secret"}),
        ({"kind": "oauth1"}, {"consumer_key": b"key", "consumer_secret": b"secret"}),
        (
            {"kind": "sigv4", "region": "us-east-1", "service": "sts"},
            {"access_key_id": b"AKIDEXAMPLE", "secret_access_key": b"secret"},
        ),
    ],
)
def test_form_with_fields_without_number_is_refused_before_it_keeps_others_waiting(how: dict, values: dict) -> None:
    form = (b"content-type", b"application/x-www-form-urlencoded")
    for fields, refused in ((9_999, False), (10_001, True)):
        message = Message("POST", "https", "api.test", 443, b"/v1", [form], content=b"&".join([b"a=1"] * fields))
        steps = inject(message, Inject.from_data(how), Terms(values, 1.7e9, nonce=b"n"))
        if refused:
            with pytest.raises(InvalidRequest, match="fields"):
                next(steps)
        else:
            next(steps)


def test_large_body_of_an_aws_service_whose_calls_are_not_in_forms_is_signed() -> None:
    values = {"access_key_id": b"AKIDEXAMPLE", "secret_access_key": b"secret"}
    how = Inject.from_data({"kind": "sigv4", "region": "us-east-1", "service": "dynamodb"})
    message = Message("POST", "https", "api.test", 443, b"/", [], content=b"a&" * 20_000)
    assert next(inject(message, how, Terms(values, 1.7e9))).get(b"authorization")
