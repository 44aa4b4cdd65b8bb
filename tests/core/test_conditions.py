"""Conditions of services: what they let through, and the many ways of sending something else that looks alike."""

import json
from datetime import UTC, datetime
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.judging import FORM, JSON, judge
from keyhole.core.checks.conditions import Asked, Condition
from keyhole.core.checks.rules import Checks
from keyhole.core.errors import InvalidRequest, PolicyDenied
from keyhole.core.service import Service

QUERY = {
    "query": {
        "dry_run": ["true"],
        "amount": {"max": 100, "min": 0, "optional": True},
        "env": {"like": "dev-*", "optional": True},
        "force": {"absent": True},
    }
}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("dry_run=true", ""),
        ("other=1&dry_run=true", ""),
        ("dry_run=true&amount=100", ""),
        ("dry_run=true&amount=99.5", ""),
        ("dry_run=tru%65", ""),
        ("%64ry_run=true", ""),
        ("dry_run=true&env=dev-a/b", ""),
        ("dry_run=true&q=a;b", ""),
        ("", "policy_denied"),
        ("dry_run", "policy_denied"),
        ("dry_run=TRUE", "policy_denied"),
        ("dry_run=false", "policy_denied"),
        ("dry_run=true&force=1", "policy_denied"),
        ("dry_run=true&force", "policy_denied"),
        ("dry_run=true&env=prod", "policy_denied"),
        ("dry_run=true&amount=101", "policy_denied"),
        ("dry_run=true&amount=-1", "policy_denied"),
        # What one server takes for a small number and another for a large one.
        *[
            (f"dry_run=true&amount={number}", "policy_denied")
            for number in ("1e9", "0x10", "010", "1_0", "+5", "%205", "5%20", "", "NaN", "Infinity", "%D9%A3", "5,000")
        ],
        # The upstream may take the other one.
        ("dry_run=true&dry_run=true", "invalid_request"),
        ("dry_run=true&dry_run=false", "invalid_request"),
        ("dry_run=true&amount=5&amount=500", "invalid_request"),
        ("dry_run=true&amount[]=500", "invalid_request"),
        ("dry_run=true&amount=5&amount[0]=500", "invalid_request"),
        ("dry_run=true&Amount=500", "invalid_request"),
        ("dry_run=true&dry.run=false", "invalid_request"),
        ("dry_run=true&dry+run=false", "invalid_request"),
        ("dry_run=true&dry%20run=false", "invalid_request"),
        ("dry_run=true&+dry_run=false", "invalid_request"),
        ("dry_run=true&+amount=500", "invalid_request"),
        ("dry_run=true&dry%255Frun=false", "invalid_request"),
        ("dry_run=true&dry_run%00x=false", "invalid_request"),
        ("dry_run=true&dry_run%E2%80%8B=false", "invalid_request"),
        ("dry_run=true&%EF%BD%84ry_run=false", "invalid_request"),
        ("dry_run=true&x=1;dry_run=false", "invalid_request"),
        ("x=1;dry_run=true", "policy_denied"),
        ("dry_run=true&amount=%zz", "invalid_request"),
        ("dry_run=true&amount=%ff", "invalid_request"),
        ("dry_run=true&%ff=1", "invalid_request"),
        ("dry_run=true" + "&a=1" * 1000, "invalid_request"),
        ("dry_run=true&" + "%20" * 400 + "dry_run=false", "invalid_request"),
    ],
)
def test_a_query_is_judged_in_every_reading_that_a_server_may_have(query, code):
    assert judge(QUERY, f"/v1?{query}") == code


def test_a_plus_sign_must_be_allowed_as_a_space_and_as_itself():
    assert judge({"query": {"q": ["a b"]}}, "/?q=a%20b") == ""
    assert judge({"query": {"q": ["a b"]}}, "/?q=a+b") == "policy_denied"
    assert judge({"query": {"q": ["a b", "a+b"]}}, "/?q=a+b") == ""


@given(
    st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=8), max_size=4),
    st.sampled_from(["5", "50", "500", "-1"]),
)
def test_whatever_stands_around_a_parameter_it_is_what_python_reads(others, amount):
    """The oracle is the standard library's encoder: what it wrote is judged as it was meant, or refused as unclear."""
    pairs = [*others.items(), ("amount", amount)]
    code = judge({"query": {"amount": {"min": 0, "max": 50}}}, f"/?{urlencode(pairs)}")
    assert code in ({"", "invalid_request"} if amount in {"5", "50"} else {"policy_denied", "invalid_request"})


@given(st.text(st.sampled_from("amount=5&;%+[] .0AMOUNT"), max_size=24))
def test_no_query_gets_a_large_number_past_a_range(junk):
    """A naive server takes any spelling of the name; nothing that is let through has a large number under one."""
    query = quote(junk, safe="=&;%+[].") + "&amount=5"
    if judge({"query": {"amount": {"max": 9}}}, f"/?{query}") == "":
        for part in query.replace(";", "&").split("&"):
            name, _, value = part.partition("=")
            if name.lower() == "amount":
                assert value == "5"


BODY = {
    "body": [{"at": "/amount", "max": 5000}, {"at": "/currency", "in": ["eur"]}, {"at": "/to/admin", "absent": True}]
}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"amount": 5000, "currency": "eur"}', ""),
        (b' {"currency":"eur","x":[1,{"amount":9}],"amount":4999.99}\n', ""),
        (b'{"amount": 5, "currency": "eur", "to": {"user": 1}}', ""),
        (b'{"amount": 5001, "currency": "eur"}', "policy_denied"),
        (b'{"amount": 5000.0000000000000000001, "currency": "eur"}', "policy_denied"),
        (b'{"amount": "5", "currency": "eur"}', "policy_denied"),
        (b'{"amount": true, "currency": "eur"}', "policy_denied"),
        (b'{"amount": [5], "currency": "eur"}', "policy_denied"),
        (b'{"amount": null, "currency": "eur"}', "policy_denied"),
        (b'{"currency": "eur"}', "policy_denied"),
        (b'{"amount": 5, "currency": "usd"}', "policy_denied"),
        (b'{"amount": 5, "currency": "eur", "to": {"admin": false}}', "policy_denied"),
        (b'[{"amount": 5, "currency": "eur"}]', "policy_denied"),
        (b"", "invalid_request"),
        (b'{"amount": 5, "currency": "eur", "amount": 9999}', "invalid_request"),
        (b'{"amount": 5, "currency": "eur", "Amount": 9999}', "invalid_request"),
        (b'{"amount": 5, "currency": "eur", "amo\\u0075nt": 9999}', "invalid_request"),
        (b'{"amount": 5, "currency": "eur", "\\uff21mount": 9999}', "invalid_request"),
        (b'{"amount": 1e400, "currency": "eur"}', "invalid_request"),
        (b'{"amount": NaN, "currency": "eur"}', "invalid_request"),
        (b'{"amount": 5, "currency": "eur"} {}', "invalid_request"),
        (b'{"amount": 5, "currency": "eur",}', "invalid_request"),
        (b'\xef\xbb\xbf{"amount": 5, "currency": "eur"}', "invalid_request"),
        (b'{"amount": 5, "currency": "eur", "x": "\xff"}', "invalid_request"),
        (b"[" * 100_000, "invalid_request"),
        # Normalising this name would take seconds, and all others would wait.
        (b'{"amount": 5, "currency": "eur", "%b": 1}' % ("\u0315\u0300" * 20_000).encode(), "invalid_request"),
    ],
)
def test_json_is_judged_by_its_exact_numbers_and_in_one_reading(body, code):
    assert judge(BODY, method="POST", body=body) == code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"amount=5&currency=eur", ""),
        (b"amount=5&currency=eur&to[user]=1", ""),
        (b"amount=5001&currency=eur", "policy_denied"),
        (b"amount=5&currency=eur&to[admin]=1", "policy_denied"),
        (b"amount=5&currency=eur&to%5Badmin%5D=1", "policy_denied"),
        (b"amount=5&currency=eur&to[administrator]=1", ""),
        (b"amount=5&currency=eur&to[admin]x=1", "invalid_request"),
        (b"amount=5&currency=eur&to[admin][]=1", "invalid_request"),
        (b"amount=5&currency=eur&+to[admin]=1", "invalid_request"),
        (b"amount=5&currency=eur&+amount=9999", "invalid_request"),
        (b"amount=5&amount=6&currency=eur", "invalid_request"),
        (b"amount=5&currency=eur&x=1;amount=9999", "invalid_request"),
        (b"amount=5&currency=eur&x=\xff", "invalid_request"),
        (b"amount=5&currency=eu%ff", "invalid_request"),
        (b'{"amount": 5, "currency": "eur"}', "policy_denied"),
    ],
)
def test_forms_are_judged_by_the_same_conditions(body, code):
    assert judge(BODY, method="POST", body=body, headers=[FORM]) == code


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"text/plain")],
        [(b"content-type", b"multipart/form-data; boundary=x")],
        [JSON, (b"content-encoding", b"gzip")],
        [JSON, FORM],
        [(b"content-type", b"application/json; charset=utf-16")],
    ],
)
def test_a_body_that_cannot_be_looked_into_is_refused(headers):
    assert judge(BODY, method="POST", body=b'{"amount": 5, "currency": "eur"}', headers=headers)


def test_a_body_is_asked_for_where_a_request_may_have_one():
    assert judge(BODY, method="GET") == ""
    assert judge(BODY, method="POST") != ""
    assert judge(BODY, method="DELETE") != ""
    assert judge(BODY, method="GET", body=b'{"amount": 9999}') == "policy_denied"


def test_a_star_in_a_pointer_stands_for_every_element():
    condition = {"body": [{"at": "/items/*/price", "max": 10}]}
    assert judge(condition, method="POST", body=b'{"items": [{"price": 1}, {"price": 10}]}') == ""
    assert judge(condition, method="POST", body=b'{"items": [{"price": 1}, {"price": 11}]}') == "policy_denied"
    assert judge(condition, method="POST", body=b'{"items": [{"price": 1}, {"cost": 11}]}') == "policy_denied"
    assert judge(condition, method="POST", body=b'{"items": []}') == "policy_denied"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "A", "b", "a "]), inner),
        max_leaves=8,
    )
)
def test_a_json_condition_means_what_the_document_says(document):
    body = json.dumps(document).encode()
    code = judge({"body": [{"at": "/a/b", "in": [1]}]}, method="POST", body=body)
    inner = document.get("a") if isinstance(document, dict) else None
    value = inner.get("b") if isinstance(inner, dict) else None
    assert (code == "") <= (value == 1 and value is not True)


CHARGES = {"for": [{"methods": ["POST"], "paths": ["/v1/charges"]}], "query": {"confirm": ["no"]}}


@pytest.mark.parametrize(
    ("method", "target", "code"),
    [
        ("GET", "/v1/charges", ""),
        ("POST", "/v1/refunds", ""),
        ("POST", "/v1/charges?confirm=no", ""),
        ("POST", "/v1/charges", "policy_denied"),
        ("post", "/v1/charges", "policy_denied"),
        ("POST", "/v1/charges/", "policy_denied"),
        ("POST", "/V1/Charges", "policy_denied"),
        ("POST", "/v1/charges;x=1", "policy_denied"),
    ],
)
def test_what_conditions_are_for_is_not_got_around_by_spelling(method, target, code):
    assert judge(CHARGES, target, method=method) == code


GIT_FETCH = [
    ("GET", "/a/b.git/info/refs?service=git-upload-pack"),
    ("POST", "/a/b.git/git-upload-pack"),
    ("GET", "/a/b.git/info/refs"),
    ("GET", "/a/b.git/HEAD"),
    ("GET", "/a/b.git/objects/info/packs"),
    ("GET", "/a/b.git/objects/12/" + "a" * 38),
    ("GET", "/a/b.git/objects/pack/pack-" + "0" * 40 + ".idx"),
    ("GET", "/a/b.git/info/lfs/objects/" + "a" * 64),
    ("GET", "/a/b.git/info/lfs/locks?path=x"),
]
GIT_PUSH = [
    ("GET", "/a/b.git/info/refs?service=git-receive-pack"),
    ("POST", "/a/b.git/git-receive-pack"),
    ("PUT", "/a/b.git/info/lfs/objects/" + "a" * 64),
    ("PUT", "/a/b.git/gitlab-lfs/objects/" + "a" * 64 + "/1234"),
    ("POST", "/a/b.git/info/lfs/locks"),
    ("POST", "/a/b.git/info/lfs/locks/verify"),
    ("POST", "/a/b.git/info/lfs/verify"),
]
NOT_GIT = [
    ("GET", "/a/b.git/info/refs?service=git-upload-pack&service=git-receive-pack"),
    ("GET", "/a/b.git/info/refs?service=git-receive-pack&service=git-upload-pack"),
    ("GET", "/a/b.git/info/refs?service=git-upload-pack%26service=git-receive-pack"),
    ("GET", "/a/b.git/info/refs?Service=git-upload-pack"),
    ("GET", "/a/b.git/info/refs?x=1"),
    ("POST", "/a/b.git/info/refs?service=git-upload-pack"),
    ("POST", "/a/b.git/git-upload-pack?service=git-receive-pack"),
    ("POST", "/a/b.git/git-upload-archive"),
    ("PUT", "/a/b.git/git-upload-pack"),
    ("DELETE", "/a/b.git"),
    ("PATCH", "/repos/a/b"),
    ("GET", "/a/b.git/config"),
    ("MKCOL", "/a/b.git/objects/12"),
    ("GET", "/"),
]


@pytest.mark.parametrize(("method", "target"), GIT_FETCH)
def test_a_clone_fetches(method, target):
    body = b"0000" if method == "POST" else None
    headers = [(b"content-type", b"application/x-git-upload-pack-request"), (b"content-encoding", b"gzip")]
    assert judge({"git": "fetch"}, target, method=method, body=body, headers=headers) == ""
    assert judge({"git": "push"}, target, method=method, body=body, headers=headers) == ""


@pytest.mark.parametrize(("method", "target"), GIT_PUSH)
def test_a_push_needs_the_right_to_push(method, target):
    headers = [(b"content-type", b"application/x-git-receive-pack-request")]
    assert judge({"git": "fetch"}, target, method=method, body=b"", headers=headers) == "policy_denied"
    assert judge({"git": "push"}, target, method=method, body=b"", headers=headers) == ""


@pytest.mark.parametrize(
    "kinds",
    [
        [],
        [b"application/json"],
        [b"application/x-git-receive-pack-request"],
        [b"application/x-git-upload-pack-request", b"application/json"],
    ],
)
def test_a_post_to_a_route_that_is_named_like_one_of_git_is_none_of_its_requests(kinds):
    headers = [(b"content-type", kind) for kind in kinds]
    for rule in ("fetch", "push"):
        refused = judge({"git": rule}, "/api/git-upload-pack", method="POST", body=b"{}", headers=headers)
        assert refused == "policy_denied"


@pytest.mark.parametrize(("method", "target"), NOT_GIT)
def test_a_rule_for_git_lets_nothing_else_through(method, target):
    for rule in ("fetch", "push"):
        assert judge({"git": rule}, target, method=method, body=b"") == "policy_denied"


@pytest.mark.parametrize(
    ("body", "fetch"),
    [
        (b'{"operation": "download", "objects": []}', ""),
        (b'{"operation": "upload", "objects": []}', "policy_denied"),
        (b'{"operation": "download", "Operation": "upload"}', "policy_denied"),
        (b'{"Operation": "download"}', "policy_denied"),
        (b'{"operation": "download", "operation": "upload"}', "invalid_request"),
        (b"{}", "policy_denied"),
        (b"operation=download", "invalid_request"),
    ],
)
def test_large_files_are_told_apart_by_their_batch(body, fetch):
    assert judge({"git": "fetch"}, "/a/b.git/info/lfs/objects/batch", method="POST", body=body) == fetch


def at(text, zone="UTC"):
    return datetime.fromisoformat(text).replace(tzinfo=UTC if zone == "UTC" else ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("hours", "moment", "is_open"),
    [
        ("Mon-Fri 08:00-18:00 Europe/Berlin", at("2026-03-27T08:00", "Europe/Berlin"), True),
        ("Mon-Fri 08:00-18:00 Europe/Berlin", at("2026-03-27T07:59:59", "Europe/Berlin"), False),
        ("Mon-Fri 08:00-18:00 Europe/Berlin", at("2026-03-27T18:00", "Europe/Berlin"), False),
        ("Mon-Fri 08:00-18:00 Europe/Berlin", at("2026-03-28T12:00", "Europe/Berlin"), False),
        # The clock goes forward on the 29th: eight on the wall is six in UTC from then on.
        ("daily 08:00-18:00 Europe/Berlin", at("2026-03-28T07:00"), True),
        ("daily 08:00-18:00 Europe/Berlin", at("2026-03-28T06:30"), False),
        ("daily 08:00-18:00 Europe/Berlin", at("2026-03-30T06:30"), True),
        ("daily 08:00-18:00 Europe/Berlin", at("2026-03-30T16:30"), False),
        # The hour that the clock goes through twice is open both times, the one that it leaves out never comes.
        ("Sun 02:00-03:00 Europe/Berlin", at("2026-10-25T00:30"), True),
        ("Sun 02:00-03:00 Europe/Berlin", at("2026-10-25T01:30"), True),
        ("Sun 02:00-03:00 Europe/Berlin", at("2026-10-25T02:30"), False),
        ("Sun 02:00-03:00 Europe/Berlin", at("2026-03-29T01:00"), False),
        ("Fri 22:00-06:00 UTC", at("2026-03-27T23:00"), True),
        ("Fri 22:00-06:00 UTC", at("2026-03-28T05:59"), True),
        ("Fri 22:00-06:00 UTC", at("2026-03-28T22:00"), False),
        ("Fri 22:00-06:00 UTC", at("2026-03-27T05:00"), False),
        ("Sat-Mon 00:00-24:00 UTC", at("2026-03-29T23:59"), True),
        ("Sat,Mon 00:00-24:00 UTC", at("2026-03-29T23:59"), False),
        (["Mon 08:00-12:00 UTC", "Sun 08:00-12:00 UTC"], at("2026-03-29T09:00"), True),
    ],
)
def test_hours_are_those_of_the_clock_on_the_wall(hours, moment, is_open):
    assert (judge({"hours": hours}, now=moment) == "") is is_open


def test_a_service_with_a_last_day_is_closed_from_then_on():
    assert judge({"until": "2026-03-29"}, now=at("2026-03-28T23:59:59")) == ""
    assert judge({"until": "2026-03-29"}, now=at("2026-03-29T00:00")) == "policy_denied"


@pytest.mark.parametrize(
    "data",
    [
        {"conditions": "x"},
        {"conditions": {"quarry": {}}},
        {"conditions": {"query": {"a": {}}}},
        {"conditions": {"query": {"a": {"max": "many"}}}},
        {"conditions": {"query": {"a": {"absent": True, "max": 1}}}},
        {"conditions": {"query": {"a": {"lik": "x"}}}},
        {"conditions": {"query": {"a": []}}},
        {"conditions": {"body": [{"max": 1}]}},
        {"conditions": {"body": [{"at": "amount", "max": 1}]}},
        {"conditions": {"body_limit": 10**9}},
        {"conditions": {"git": "clone"}},
        {"conditions": {"hours": "always"}},
        {"conditions": {"hours": "Mon-Fri 8-18 UTC"}},
        {"conditions": {"hours": "Mon 25:00-26:00 UTC"}},
        {"conditions": {"until": "soon"}},
        {"conditions": {"for": [{"paths": ["v1"]}]}},
        {"conditions": {"for": [{"methods": ["post"]}]}},
        {"conditions": {"for": [{}]}},
        {"conditions": {"graphql": {"operations": ["delete"]}}},
        {"conditions": {"graphql": {"fields": ["a b"]}}},
        {"limits": {"rate": "fast"}},
        {"limits": {"rate": "0/m"}},
        {"limits": {"concurrent": -1}},
        {"limits": {"burst": 4}},
        {"limits": {"speed": "1/s"}},
        {"approval": "yes"},
        {"approval": {"wait": 100_000}},
        {"approval": {"wait": 60, "ttl": 30}},
        {"approval": {"four": "eyes"}},
    ],
)
def test_a_check_that_is_not_understood_is_no_check_that_is_passed_over(data):
    with pytest.raises(InvalidRequest):
        Checks.from_data(data)


def test_an_unknown_time_zone_is_refused_when_a_service_is_made_and_closes_it_when_it_is_used():
    checks = Checks.from_data({"conditions": {"hours": "daily 08:00-18:00 Moon/Base"}})
    with pytest.raises(InvalidRequest, match="Moon/Base"):
        checks.require_usable()
    assert judge({"hours": "daily 08:00-18:00 Moon/Base"}) == "invalid_request"


def test_a_service_keeps_its_checks_as_they_were_given():
    checks = {
        "conditions": [
            {"query": {"a": {"in": ["x", 1, True, None]}, "b": {"like": "x*y"}, "c": {"min": 0.5, "max": 2}}},
            {"for": [{"methods": ["POST"], "paths": ["/x/**"]}], "body": [{"at": "/a~1b", "max": 5}], "body_limit": 9},
            {"graphql": {"operations": ["query"], "fields": ["viewer"], "deny_fields": ["**.email"]}},
            {"git": "fetch", "hours": ["daily 08:00-18:00 UTC"], "until": "2027-01-31T00:00:00.000000Z"},
        ],
        "limits": {"rate": "10/m", "burst": 3, "count": "100/d", "concurrent": 4},
        "approval": {"required": True, "for": [{"methods": ["POST"]}], "wait": 120, "ttl": 900, "preview": True},
    }
    data = {"hosts": ["api.example.com"], "secret": "x", "inject": {"kind": "bearer"}, **checks}
    stored = Service.from_data("x", data).as_data()
    assert {name: stored[name] for name in checks} == checks
    assert Service.from_data("x", stored).as_data() == stored
    plain = Service.from_data("x", {name: data[name] for name in ("hosts", "secret", "inject")})
    assert plain.checks is None
    assert checks.keys().isdisjoint(plain.as_data())


def test_a_refusal_never_repeats_what_was_sent():
    condition = Condition.from_data({"query": {"a": ["x"]}})
    with pytest.raises(PolicyDenied) as caught:
        condition.judge_head(Asked("GET", b"/?a=canary-value", ("/",), [], has_body=False), 0)
    assert "canary" not in str(caught.value)
