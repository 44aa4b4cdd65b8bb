"""GraphQL as a service judges it: nothing hides an operation or a field from the rule."""

import json
from hashlib import sha256
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.judging import judge
from keyhole.core.checks.graphql import parse_document
from keyhole.core.errors import InvalidRequest

READ_ONLY = {"graphql": {"operations": ["query"]}}


def ask(rule, body, *, target="/graphql", headers=((b"content-type", b"application/json"),)):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return judge({"graphql": rule}, target, method="POST", body=content, headers=headers)


def document(text, rule=READ_ONLY["graphql"], **more):
    return ask(rule, {"query": text, **more})


@pytest.mark.parametrize(
    "text",
    [
        "{ viewer { login } }",
        "query { viewer { login } }",
        'query Q($a: Int = 1, $b: [In!]! = {x: 1}) @x(y: {z: 1}) { a(x: $a, y: {k: [1, "mutation { x }"]}) @s(if: 1) }',
        "\ufeff# mutation { x }\n,,query{a,b}",
        '{ a(text: "}} mutation { x } #") }',
        '{ a(text: """ " "" \\""" mutation { x } """) b }',
        "query mutation { mutation: mutation { fragment on } }",
        "{ ...F } fragment F on T { ... on U { x } ... { y } ... @include(if: true) { z } }",
        "{ a(n: -1.5e10, e: ENUM, v: null) }",
    ],
)
def test_queries_pass_a_read_only_rule(text):
    assert document(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "mutation { x }",
        "mutation M { query: x }",
        "#query\nmutation{x}",
        "# query\r mutation { x }",
        "\ufeff,mutation,@a{x}",
        "subscription { x }",
    ],
)
def test_a_mutation_is_refused_under_a_read_only_rule(text):
    assert document(text) == "policy_denied"


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "{}",
        "{ a }}",
        "query",
        "query { a ",
        "{ a(x: [}) }",
        "{ a(x: ) ] ) }",
        '{ a(x: "unclosed) }',
        '{ a(x: "line\nbreak") }',
        '{ a(x: """unclosed) }',
        "{ a } { b }",
        "query A { a } query A { b }",
        "fragment F on T { x }",
        "{ ...F }",
        "{ ...F } fragment F on T { ...G } fragment G on T { ...F }",
        "{ ...F } fragment F on T { a } fragment F on T { b }",
        "fragment on on T { x } { a }",
        "{ ... on { x } }",
        "type T { x: Int }",
        "extend type T { x: Int } { a }",
        '"description" query { a }',
        "{ a\u2028b }",
        "{ a\x00b }",
        "{ a } ; mutation { b }",
        "{ 1a }",
        "{ a(x: 01) }",
        "{ " + "a" * 257 + " }",
        "query { a } mutation { b }",
        "{" + "a{" * 100 + "b" + "}" * 101,
        "{ " + "a " * 30_000 + "}",
        (
            "{ ...A } fragment A on T { ...B ...B ...B ...B ...B ...B ...B ...B } "
            "fragment B on T { ...C ...C ...C ...C ...C ...C ...C ...C } "
            "fragment C on T { ...D ...D ...D ...D ...D ...D ...D ...D } "
            "fragment D on T { ...E ...E ...E ...E ...E ...E ...E ...E } fragment E on T { x y z w }"
        ),
    ],
)
def test_what_cannot_be_read_in_one_way_is_refused(text):
    assert document(text, {"operations": ["query"], "fields": ["**"]}) in {"invalid_request", "policy_denied"}


def test_of_several_operations_the_one_that_runs_is_judged():
    both = "query A { a } mutation B { b }"
    assert document(both) == "invalid_request"
    assert document(both, operationName="") == "invalid_request"
    assert document(both, operationName="A") == ""
    assert document(both, operationName="B") == "policy_denied"
    assert document(both, operationName="C") == "invalid_request"
    assert document(both, operationName=["A"]) == "invalid_request"
    assert document("query A { a }", operationName=None) == ""


RULE = {"operations": ["query", "mutation"], "fields": ["query:viewer", "query:repo*.*.title", "mutation:addStar"]}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{ viewer { login } }", ""),
        ("{ __typename viewer { __typename login { deep { er } } } }", ""),
        ("{ repository { issue { title } } }", ""),
        ("{ repository { issue { title body } } }", "policy_denied"),
        ("{ repository { issue { title } labels } }", "policy_denied"),
        ("{ users { login } }", "policy_denied"),
        ("{ viewer: users { login } }", "policy_denied"),
        ("{ users: viewer { login } }", ""),
        ("{ ...F } fragment F on Query { users { login } }", "policy_denied"),
        ("{ ... on Query { users { login } } }", "policy_denied"),
        ("{ ... on Query { ...F } } fragment F on Query { viewer { ...G } } fragment G on User { login }", ""),
        ("{ viewer { login } users @skip(if: true) { login } }", "policy_denied"),
        ("{ __schema { types { name } } }", "policy_denied"),
        ("mutation { addStar { id } }", ""),
        ("mutation { addStar { id } deleteRepository { id } }", "policy_denied"),
        ("mutation { addStar: deleteRepository { id } }", "policy_denied"),
        ("mutation { viewer { id } }", "policy_denied"),
        ("{ addStar { id } }", "policy_denied"),
    ],
)
def test_fields_are_found_behind_aliases_and_fragments(text, code):
    assert document(text, RULE) == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{ viewer { login } }", ""),
        ("{ viewer { email } }", "policy_denied"),
        ("{ viewer { a: email } }", "policy_denied"),
        ("{ viewer { followers { nodes { ...E } } } } fragment E on User { email }", "policy_denied"),
        ("{ audit }", "policy_denied"),
        ("{ viewer { audit } }", ""),
        ("query A { viewer } query B { audit }", "invalid_request"),
    ],
)
def test_a_denied_field_wins_wherever_it_is(text, code):
    assert document(text, {"deny_fields": ["**.email", "audit"], "fields": ["**"]}) == code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([{"query": "{ a }"}, {"query": "{ b }"}], ""),
        ([{"query": "{ a }"}, {"query": "mutation { b }"}], "policy_denied"),
        ([[{"query": "{ a }"}]], "invalid_request"),
        ([], "invalid_request"),
        ([{"query": "{ a }"}] * 33, "invalid_request"),
        ({"query": "{ a }", "Query": "mutation { b }"}, "invalid_request"),
        ({"query": "{ a }", "operationname": "B"}, "invalid_request"),
        ({"query": "{ a }", "documentId": "x"}, "invalid_request"),
        ({"query": ["{ a }"]}, "invalid_request"),
        (b'{"query": "{ a }", "query": "mutation { b }"}', "invalid_request"),
        (b'{"query": "{ a }"', "invalid_request"),
        (b"query { a }", "invalid_request"),
        ({"extensions": {"persistedQuery": {"sha256Hash": "0"}}}, "policy_denied"),
        ({"query": None, "extensions": {}}, "policy_denied"),
        ({"query": None}, "policy_denied"),
        ({"variables": {}}, "policy_denied"),
    ],
)
def test_each_request_of_a_body_is_judged(body, code):
    assert ask(READ_ONLY["graphql"], body) == code


def test_a_batch_may_not_ask_for_more_than_one_request_may():
    """Judging it would keep everybody else waiting."""
    rule = {"deny_fields": ["**.secret"]}
    many = " ".join(f"f{number}" for number in range(2000))
    assert ask(rule, [{"query": f"{{ {many} }}"}]) == ""
    assert ask(rule, [{"query": f"{{ {many} }}"}] * 3) == "invalid_request"
    assert ask(rule, [{"query": "{ " + " ".join(f"f{number}" for number in range(100)) + " }"}] * 32) == ""
    assert ask(READ_ONLY["graphql"], [{"query": "{ a #" + "x" * 100_000 + "\n}"}] * 3) == "invalid_request"


def named(text, **more):
    return {"persistedQuery": {"version": 1, "sha256Hash": sha256(text.encode()).hexdigest()} | more}


@pytest.mark.parametrize(
    ("extensions", "code"),
    [
        (named("{ a }"), ""),
        (named("{ a }") | {"tracing": {}}, ""),
        (None, ""),
        (named("mutation { a }"), "policy_denied"),
        (named("{ a }", id="x"), "policy_denied"),
        ({"persistedQuery": "x"}, "policy_denied"),
        ({"PersistedQuery": named("{ a }")["persistedQuery"]}, "policy_denied"),
        ([named("mutation { a }")], "invalid_request"),
    ],
)
def test_a_name_beside_a_document_is_that_document_s_own(extensions, code):
    assert ask(READ_ONLY["graphql"], {"query": "{ a }", "extensions": extensions}) == code
    in_url = urlencode({"query": "{ a }", "extensions": json.dumps(extensions)})
    assert judge(READ_ONLY, f"/graphql?{in_url}") == code


def test_a_document_that_only_the_upstream_knows_passes_where_the_service_says_so():
    rule = {"operations": ["query"], "persisted": True}
    assert ask(rule, {"extensions": {"persistedQuery": {"sha256Hash": "0"}}}) == ""
    assert ask(rule, {"documentId": "x", "variables": {}}) == ""
    assert ask(rule, {"query": "mutation { x }", "documentId": "x"}) == "policy_denied"
    assert ask(rule, {"Query": "mutation { x }"}) == "invalid_request"


@pytest.mark.parametrize("kind", [b"text/plain", b"multipart/form-data", b"application/x-www-form-urlencoded"])
def test_a_body_of_another_kind_is_no_graphql(kind):
    body = b"query=" + quote("{ a }").encode()
    assert ask(READ_ONLY["graphql"], body, headers=[(b"content-type", kind)]) == "policy_denied"


def test_a_bare_document_is_judged_too():
    kind = [(b"content-type", b"application/graphql")]
    assert ask(READ_ONLY["graphql"], b"{ a }", headers=kind) == ""
    assert ask(READ_ONLY["graphql"], b"mutation { a }", headers=kind) == "policy_denied"
    assert ask(READ_ONLY["graphql"], b"{ a } \xff", headers=kind) == "invalid_request"


@pytest.mark.parametrize("place", ["query=mutation{x}", "operationName=B", "Query=x", "documents=1&extensions={}"])
def test_the_query_of_a_post_does_not_speak_graphql_too(place):
    assert ask(READ_ONLY["graphql"], {"query": "{ a }"}, target=f"/graphql?{quote(place, safe='=&')}") != ""


@pytest.mark.parametrize(
    ("query", "code"),
    [
        (urlencode({"query": "{ a { b } }"}), ""),
        (urlencode({"query": "{ a { b } }"}, quote_via=quote), ""),
        (urlencode({"query": 'query A { a(x: "1+1") } mutation B { b }', "operationName": "A"}), ""),
        (urlencode({"query": "query A { a } mutation B { b }", "operationName": "B"}), "policy_denied"),
        (urlencode({"query": "mutation { a }"}), "policy_denied"),
        (urlencode({"query": "{ a }"}) + "&query=x", "invalid_request"),
        (urlencode({"query": "{ a }", "id": "x"}), "invalid_request"),
        (urlencode({"extensions": '{"persistedQuery":{}}'}), "policy_denied"),
        ("", "policy_denied"),
    ],
)
def test_documents_in_a_url_are_judged_alike(query, code):
    assert judge(READ_ONLY, f"/graphql?{query}") == code


def test_other_methods_are_no_graphql():
    assert judge(READ_ONLY, "/graphql?query={a}", method="GET", body=b"{}") == "policy_denied"
    assert judge(READ_ONLY, "/graphql", method="DELETE") == "policy_denied"


names = st.from_regex(r"[a-z]{1,3}", fullmatch=True)
selections = st.recursive(
    st.just([]), lambda inner: st.lists(st.tuples(names, st.booleans(), inner), min_size=1, max_size=3), max_leaves=8
)


def render(fields):
    """Fields as text, with aliases and inline fragments where the flag says so; what is asked for stays the same."""
    parts = []
    for name, dressed, below in fields:
        text = f"{name}{{{render(below)}}}" if below else name
        parts.append(f'... on T @x(a: "}}") {{ z: {text} }}' if dressed else text)
    return " ".join(parts)


def paths(fields, above=()):
    for name, _, below in fields:
        yield (*above, name)
        yield from paths(below, (*above, name))


@given(selections.filter(bool))
def test_the_fields_of_a_document_are_those_that_were_put_into_it(fields):
    read = parse_document(f"query Q {{ {render(fields)} }}")
    found = {path for path, _ in read.fields(read.selected(""))}
    assert found == set(paths(fields))


@given(st.text(st.sampled_from('{}()[]@:$!|."\\#\n aboutfrgmens mutation query on ...,0'), max_size=60))
def test_whatever_is_sent_is_read_or_refused(text):
    try:
        read = parse_document(text)
    except InvalidRequest:
        return
    assert read.operations
    for operation in read.operations:
        assert operation.type in {"query", "mutation", "subscription"}
