"""Configurations of MCP servers, and JSON with places."""

import json

import pytest

from keyhole.core.errors import InvalidRequest
from keyhole.importers import Origin, rewritten
from keyhole.importers.mcp import parse
from keyhole.importers.text import scan
from keyhole.importers.tree import Text, read

ORIGIN = Origin("mcp.json")
KEY = "sk-0123456789abcdefXYZ"


def report(data):
    return parse(data if isinstance(data, bytes) else json.dumps(data).encode(), ORIGIN)


def server(**data):
    return report({"mcpServers": {"My Server": data}})


def taken(found):
    return {each.name: each.fields["value"].reveal().decode() for each in found.found if not each.doubt}


def test_variables_of_every_place_where_servers_stand():
    env = {"env": {"API_KEY": KEY}}
    for data in ({"mcpServers": {"a": env}}, {"servers": {"a": env}}, {"projects": {"/p": {"mcpServers": {"a": env}}}}):
        assert taken(report(data)) == {"a/api-key": KEY}
    assert report({"projects": {"/p": {"mcpServers": {"a": env}}}}).found[0].where == "/p: mcpServers.a.env.API_KEY"


def test_references_are_left_to_the_client_and_inputs_to_vs_code():
    found = server(env={"A_KEY": "${input:x}", "B_KEY": "${env:HOME}", "C_KEY": "a${V:-d}"})
    assert not found.found
    assert {skipped.name for skipped in found.skipped} == {"A_KEY", "B_KEY", "C_KEY"}
    found = report({"servers": {}, "inputs": [{"id": "x", "type": "promptString", "password": True}]})
    assert found.skipped[0].name == "x"


@pytest.mark.parametrize(
    "args",
    [
        ["--api-key", KEY],
        [f"--api-key={KEY}"],
        ["-e", f"API_KEY={KEY}"],
        ["run", "--token", KEY, "serve"],
        ["--header", f"X-Api-Key: {KEY}"],
        ["-H", f"Authorization: Bearer {KEY}"],
    ],
)
def test_arguments_that_look_like_keys(args):
    content = json.dumps({"mcpServers": {"s": {"command": "x", "args": args}}}).encode()
    found = parse(content, ORIGIN)
    assert list(taken(found).values()) == [KEY]
    changed = rewritten(content, [(spot, "PH") for spot in found.found[0].spots])
    assert changed == content.replace(KEY.encode(), b"PH")


@pytest.mark.parametrize(
    "args",
    [["--port", "3000"], ["--directory", "/home/me"], ["-y", "@scope/server"], ["--key"], ["--token", "--x"], [1]],
)
def test_other_arguments_are_left(args):
    assert not server(args=args).found


def test_headers_say_where_they_go():
    found = server(url="https://mcp.example:8443/sse", headers={"Authorization": f"Bearer {KEY}", "X-Key": KEY})
    bearer, plain = found.found
    assert (bearer.binding.host, bearer.binding.inject) == ("mcp.example:8443", {"kind": "bearer"})
    assert plain.binding.inject == {"kind": "header", "name": "X-Key", "template": "{}"}
    found = server(url="https://mcp.example", headers={"Authorization": f"Token {KEY}"})
    assert found.found[0].binding.inject == {"kind": "header", "name": "Authorization", "template": "Token {}"}
    assert server(headers={"Authorization": "Basic bWU6aHVudGVyMjI="}).skipped[0].where.endswith("Authorization")


def test_a_key_in_an_address_is_found_and_replaced_alone():
    content = json.dumps({"mcpServers": {"s": {"url": f"https://mcp.example/x?a=1&api_key={KEY}&b=2"}}}).encode()
    [found] = parse(content, ORIGIN).found
    assert found.binding.inject == {"kind": "query", "name": "api_key"}
    assert rewritten(content, [(found.spots[0], "P H")]) == content.replace(KEY.encode(), b"P%20H")


def test_escapes_and_other_alphabets_do_not_shift_a_place():
    raw = r'{"mcpServers":{"s":{"headers":{"Authorization":"\u0042earer \u00e9' + "é😀" + r'\ud83d\ude00abcdef"}}}}'
    content = raw.encode()
    [found] = parse(content, ORIGIN).found
    assert found.fields["value"].reveal().decode() == "éé😀😀abcdef"
    changed = rewritten(content, [(found.spots[0], "PH")])
    assert json.loads(changed)["mcpServers"]["s"]["headers"]["Authorization"] == "Bearer PH"


def test_comments_and_last_commas_are_allowed_and_kept():
    content = b'{ // one\n "servers": { /* two */ "s": {"env": {"A_KEY": "%s",},}, },\n}' % KEY.encode()
    [found] = parse(content, ORIGIN).found
    assert rewritten(content, [(found.spots[0], "PH")]) == content.replace(KEY.encode(), b"PH")


def test_of_two_members_with_one_name_the_last_counts():
    tree = read(scan(b'{"a": "one", "a": "two"}'))
    assert isinstance(tree["a"], Text)
    assert tree["a"].value == "two"


BROKEN = [
    b"",
    b"[]",
    b"null",
    b"{",
    b'{"a"}',
    b'{"a":}',
    b'{"a" 1}',
    b"{a: 1}",
    b'{"a": tru}',
    b'{"a": "x\ny"}',
    b'{"a": 01x}',
    b'{"a": 1} x',
    b'{"a": "\\u12"}',
    b"{/*",
    b"[" * 70 + b"]" * 70,
]


@pytest.mark.parametrize("content", BROKEN)
def test_what_is_no_configuration_is_refused(content):
    with pytest.raises(InvalidRequest):
        report(content)


def test_shapes_that_nobody_expects_are_passed_over():
    for data in (
        {"mcpServers": []},
        {"mcpServers": {"a": []}},
        {"mcpServers": {"a": {"env": [], "args": {}, "headers": 1, "url": 2}}},
        {"projects": {"a": 1}},
        {"inputs": [1, {"id": 2}]},
    ):
        assert not report(data).found
