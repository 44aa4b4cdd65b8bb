import base64
import json
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhole.core.errors import InvalidRequest
from keyhole.core.policy import CAPABILITIES, Acl, PathRule
from keyhole.vault.hcl import MAX_POLICY, parse_policy, render_policy

FULL = r"""
# who deploys
path "secret/data/web/*" {
  capabilities = ["read", "use"] // the last of several comments
  allowed_parameters = {
    "Version" = [1, 2, "latest*", true]
    "*" = []
  }
  denied_parameters = { force = [] }
  required_parameters = ["version"]
  min_wrapping_ttl = "1m" /* a
     comment */ max_wrapping_ttl = 3600
}
path "sys/mounts" { policy = "read" }
"""
STANZAS = [
    {
        "path": "secret/data/web/*",
        "capabilities": ["read", "use"],
        "allowed_parameters": {"version": [1, 2, "latest*", True], "*": []},
        "denied_parameters": {"force": []},
        "required_parameters": ["version"],
        "min_wrapping_ttl": 60,
        "max_wrapping_ttl": 3600,
    },
    {"path": "sys/mounts", "capabilities": ["read", "list"]},
]


def refusal(text):
    with pytest.raises(InvalidRequest) as caught:
        parse_policy(text)
    assert caught.value.reason.startswith("failed to parse policy: ")
    assert caught.value.hint
    return caught.value.reason.removeprefix("failed to parse policy: ")


def stanza(body):
    return f'path "x" {{\n{body}\n}}'


def test_a_policy_in_hcl_is_read_with_all_its_keys():
    assert parse_policy(FULL) == STANZAS


def test_a_policy_in_json_or_base64_is_read_like_the_same_policy_in_hcl():
    as_json = json.dumps({"path": {rule["path"]: {k: v for k, v in rule.items() if k != "path"} for rule in STANZAS}})
    assert parse_policy(as_json) == STANZAS
    for text in (FULL, as_json):
        encoded = base64.b64encode(text.encode()).decode()
        assert parse_policy(encoded) == STANZAS
        assert parse_policy("\n".join(encoded[i : i + 64] for i in range(0, len(encoded), 64))) == STANZAS


@pytest.mark.parametrize(
    "text",
    [
        'path "x" { capabilities = ["read"] }',
        '"path" "x" { "capabilities" = ["read",], }',
        'path = { "x" = { capabilities = ["read"] } }',
        'name = "old"\r\npath "/x" {\r\n\tcapabilities = ["read"]\r\n}\r\n',
        '\ufeffpath "\\u0078" { capabilities = ["read", "read"] }',
        '{"path": [{"x": [{"capabilities": ["read"]}]}]}',
        '{"name": "old", "path": {"/x": {"capabilities": ["read"]}}}',
    ],
)
def test_the_usual_spellings_of_one_stanza_mean_the_same(text):
    assert parse_policy(text) == [{"path": "x", "capabilities": ["read"]}]


@pytest.mark.parametrize(
    ("old", "capabilities"),
    [
        ("deny", ["deny"]),
        ("read", ["read", "list"]),
        ("write", ["create", "read", "update", "delete", "list"]),
        ("sudo", ["create", "read", "update", "delete", "list", "sudo"]),
    ],
)
def test_the_old_policy_words_become_capabilities(old, capabilities):
    assert parse_policy(stanza(f'policy = "{old}"'))[0]["capabilities"] == capabilities


def test_old_and_new_words_together_give_both():
    rule = parse_policy(stanza('policy = "read"\ncapabilities = ["list", "use"]'))[0]
    assert rule["capabilities"] == ["read", "list", "use"]


def test_parameters_may_be_written_as_a_block():
    rule = parse_policy(stanza('allowed_parameters { a = ["b"]\n c = [] }'))[0]
    assert rule["allowed_parameters"] == {"a": ["b"], "c": []}


@pytest.mark.parametrize("spelling", ["hcl", "json"])
def test_a_path_that_stands_twice_is_kept_twice_and_deny_wins(spelling):
    text = {
        "hcl": 'path "x" { capabilities = ["read"] }\npath "x" { capabilities = ["deny"] }',
        "json": '{"path": {"x": {"capabilities": ["read"]}, "x": {"capabilities": ["deny"]}}}',
    }[spelling]
    rules = parse_policy(text)
    assert [rule["capabilities"] for rule in rules] == [["read"], ["deny"]]
    assert not Acl(map(PathRule.from_data, rules)).decide("read", "x")


@pytest.mark.parametrize(
    "text",
    [
        stanza('capabilities = ["deny"]\ncapabilities = ["read"]'),
        stanza('capabilities = ["deny"] capabilities = ["read"]'),
        stanza('capabilities = ["deny"]\n"capabilities" = ["read"]'),
        stanza('denied_parameters = { a = []\n a = ["x"] }'),
        stanza('denied_parameters = { a = [], A = ["x"] }'),
        stanza("denied_parameters { a = [] }\ndenied_parameters { b = [] }"),
        '{"path": {"x": {"capabilities": ["deny"], "capabilities": ["read"]}}}',
        '{"path": {"x": {"denied_parameters": {"a": [], "A": ["x"]}}}}',
        '{"path": {"x": {"denied_parameters": [{"a": []}, {"a": ["x"]}]}}}',
    ],
)
def test_a_key_that_stands_twice_is_refused_instead_of_the_last_one_winning(text):
    assert "twice" in refusal(text)


@pytest.mark.parametrize("text", ["", " \n\t", "# nothing", "/* nothing */", '{"path": {}}', "{}", 'name = "x"'])
def test_a_policy_without_a_stanza_is_refused(text):
    assert refusal(text) in {"it is empty", "it has no path stanza"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (stanza('capabilities = ["zap"]'), 'path "x": invalid capability "zap" on line 1'),
        (stanza('capabilities = ["read"]\nzap = 1'), 'path "x": invalid key "zap" on line 3'),
        (stanza('capabilities = "read"'), 'path "x": "capabilities" is not a list of strings on line 2'),
        (stanza("capabilities = [read]"), "expected a string, number, list or object, found 'read' on line 2"),
        (stanza('capabilities = ["read"'), "expected ',' or ']', found '}' on line 3"),
        (stanza('capabilities = ["read" "list"]'), "expected ',' or ']', found a string on line 2"),
        (stanza('policy = "all"'), 'path "x": "policy" is not one of deny, read, write, sudo on line 2'),
        (stanza('max_wrapping_ttl = "soon"'), 'path "x": "max_wrapping_ttl" is not a duration on line 2'),
        (stanza("min_wrapping_ttl = true"), 'path "x": "min_wrapping_ttl" is not a duration on line 2'),
        (
            stanza('min_wrapping_ttl = "2h"\nmax_wrapping_ttl = "1h"'),
            'path "x": max_wrapping_ttl is less than min_wrapping_ttl on line 1',
        ),
        (stanza('allowed_parameters = { a = "b" }'), 'has no list of plain values for "a" on line 2'),
        (stanza("allowed_parameters = { a = [[]] }"), 'has no list of plain values for "a" on line 2'),
        (stanza('allowed_parameters = ["a"]'), '"allowed_parameters" is not a map of names to lists on line 2'),
        (stanza('required_parameters = "a"'), 'path "x": "required_parameters" is not a list of strings on line 2'),
        ('path "a*b" {}', 'path "a*b": "*" is only allowed at the end on line 1'),
        ('path "a/b+/c" {}', 'path "a/b+/c": "+" stands for a whole segment on line 1'),
        ('path "x" "y" {}', 'invalid key "path" on line 1'),
        ('path "x" = {}', "expected '{', found '=' on line 1"),
        ('\n\npath "x"', "expected '{', found the end on line 3"),
        ("path = 1", "path is not followed by a stanza in braces on line 1"),
        ('path "x" {', "expected a key, found the end on line 1"),
        ('path "x" {}\n}', "expected a key, found '}' on line 2"),
        ('\npath "x', "there is something that is not HCL on line 2"),
        ("/* no end", "there is something that is not HCL on line 1"),
        ('path "\\q" {}', "a string has an unknown escape on line 1"),
        ('path "\\UFFFFFFFF" {}', "a string has an unknown escape on line 1"),
        ('secret "x" {}', 'invalid key "secret" on line 1'),
        ('{"path": {"x": {"capabilities": ["read"]}}', "it is not JSON on line 1"),
        ('{"path": {"x": {"zap": 1}}}', 'path "x": invalid key "zap"'),
        ('{"path": {"x": {"allowed_parameters": {"a": [null]}}}}', 'has no list of plain values for "a"'),
        ('{"path": {"x": {"allowed_parameters": {"a": [1e999]}}}}', 'has no list of plain values for "a"'),
        ('{"path": {"x": {"allowed_parameters": {"a": [NaN]}}}}', "it is not JSON"),
        ('{"path": {"x": {"allowed_parameters": {"a": ["\\ud800"]}}}}', 'has no list of plain values for "a"'),
    ],
)
def test_a_mistake_is_named_with_its_line(text, reason):
    assert refusal(text).endswith(reason)


@pytest.mark.parametrize(
    "expression",
    ["1 + 1", "var.x", "f()", "[for a in b : a]", "<<A\nread\nA", 'a ? "x" : "y"', "!true", "60s", "0x10", "null"],
)
def test_nothing_in_a_policy_is_evaluated(expression):
    refusal(stanza(f"max_wrapping_ttl = {expression}"))


def test_an_interpolation_is_text_like_any_other():
    assert parse_policy('path "a/${b}" {}') == [{"path": "a/${b}", "capabilities": []}]


@pytest.mark.parametrize("path", ["caf\u0065\u0301", "a\u200bb", "a\nb", "a\x00", "\ud800", "x" * 1025])
def test_a_path_that_no_request_could_have_is_refused_as_it_would_protect_nothing(path):
    refusal(json.dumps({"path": {path: {"capabilities": ["deny"]}}}))


def test_a_path_with_two_slashes_at_its_beginning_is_refused_as_it_would_come_to_grant_more():
    """One slash is dropped, as Vault drops it; when the stanza is read again, there would be none."""
    assert "two slashes" in refusal('path "//secret/*" { capabilities = ["read"] }')
    [stanza] = parse_policy('path "/secret/*" { capabilities = ["read"] }')
    assert stanza["path"] == "secret/*"


def test_a_refusal_never_carries_terminal_escapes_of_the_text():
    reason = refusal(json.dumps({"path": {"x": {"\x1b[2J\u202e": 1}}}))
    assert reason.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 200_000,
        "a {" * 80_000,
        '{"path":' * 30_000,
        '{"path": ' + "[" * 200_000,
        "/*" * 120_000,
        'path "x" { a = <<A\n' + "\n" * 200_000,
        'path "' + "\\$" * 100_000,
        "a = " + "1" * 200_000,
        '{"path": ' + "1" * 200_000 + "}",
        "a = {" + "b = 1," * 40_000,
        "path " * 50_000,
        "A" * 200_001,
    ],
    ids=lambda text: text[:12],
)
def test_a_hostile_text_is_refused_without_a_hang(text):
    started = time.process_time()
    refusal(text)
    assert time.process_time() - started < 30  # milliseconds in fact; quadratic work would take minutes


def test_a_text_over_the_limit_is_refused_before_it_is_read():
    assert refusal("#" * (MAX_POLICY + 1)) == "it is longer than 256 KiB"
    assert refusal("é" * (MAX_POLICY // 2 + 1)) == "it is longer than 256 KiB"
    padded = 'path "x" {}\n'
    assert parse_policy(padded + "#" * (MAX_POLICY - len(padded)))


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from('path"x{}[]=,\\#/* \n1e.-tru+'), max_size=60) | st.text(max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        rules = parse_policy(text)
    except InvalidRequest:
        refusal(text)
    else:
        assert parse_policy(render_policy(rules)) == rules


def test_rendered_stanzas_are_readable_and_read_back_unchanged():
    assert parse_policy(render_policy(STANZAS)) == STANZAS
    assert render_policy([{"path": "services/stripe", "capabilities": ["use"]}]) == (
        'path "services/stripe" {\n  capabilities = ["use"]\n}\n'
    )


def test_random_stanzas_survive_rendering():
    rng = random.Random(7)
    texts = ['"', "\\", "\n", "\t\x01\x7f\b\f", "é", "\U0001f511", "${x}", "{{y}}", "*", "#", "a b", "true"]

    def values():
        pool = [*texts, True, False, 0, -1, 10**30, 1.5, 1e22, -2.5e-9]
        return [rng.choice(pool) for _ in range(rng.randrange(4))]

    for _ in range(400):
        rule = {
            "path": rng.choice(["a", "a/b/*", "+/c", "a b", 'q"q', "\U0001f511/x", "back\\slash"]),
            "capabilities": rng.sample(CAPABILITIES, rng.randrange(4)),
        }
        for key in ("allowed_parameters", "denied_parameters"):
            if rng.random() < 0.5:
                rule[key] = {name: values() for name in rng.sample([*texts, "k", "l"], rng.randrange(4))}
        if rng.random() < 0.5:
            rule["required_parameters"] = rng.sample(texts, 2)
            rule["max_wrapping_ttl"] = rng.randrange(10_000)
        assert parse_policy(render_policy([rule, rule])) == [rule, rule]


@pytest.mark.parametrize(
    "rule",
    [
        {"capabilities": ["read"], "path": "a*b"},
        {"capabilities": ["zap"], "path": "a"},
        {"capabilities": ["read"], "path": "a", "zap": 1},
        {"capabilities": ["read"], "path": "a", "allowed_parameters": {"k": "v"}},
    ],
)
def test_a_stanza_that_could_not_be_read_back_is_not_rendered(rule):
    with pytest.raises(InvalidRequest):
        render_policy([rule])
