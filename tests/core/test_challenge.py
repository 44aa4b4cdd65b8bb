"""What servers ask for in WWW-Authenticate, and for which URLs a token is good."""

import pytest

from keyhole.core.audience import covers
from keyhole.core.challenge import Challenge, parse_challenge, parse_scopes, plain_scopes

META = "https://a.test/.well-known/oauth-protected-resource"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (f'Bearer resource_metadata="{META}", scope="a b"', Challenge("", ("a", "b"), META)),
        (f'bearer error=invalid_token,resource_metadata="{META}"', Challenge("invalid_token", (), META)),
        (f'Basic realm="x, Bearer scope=no", Bearer resource_metadata="{META}"', Challenge("", (), META)),
        ('Bearer scope="a", Digest scope="b"', Challenge("", ("a",), "")),
        ('Basic realm="x", scope="a"', Challenge()),
        (r'Bearer error="in\"sufficient", scope="a\\b"', Challenge('in"sufficient', (), "")),
        ('Bearer scope="a" scope="b"', Challenge("", ("a",), "")),
        ("Bearer", Challenge()),
        ("", Challenge()),
        ('Bearer scope="never closed', Challenge()),
        ("Bearer " + "x" * 9000, Challenge()),
    ],
)
def test_a_challenge_is_read_as_it_is_meant(text, meant):
    assert parse_challenge(text) == meant


def test_a_scope_that_could_do_something_in_a_shell_is_in_no_command():
    scopes = parse_scopes("read files:write https://x.test/a.b `id` $(id) a;b --help a'b \u00e4 " + "x" * 300)
    assert "files:write" in scopes
    assert "\u00e4" not in scopes
    assert plain_scopes(scopes) == ["read", "files:write", "https://x.test/a.b"]


@pytest.mark.parametrize(
    ("resource", "url", "good"),
    [
        ("https://a.test", "https://a.test/mcp", True),
        ("https://a.test/", "https://A.test:443/mcp", True),
        ("https://a.test/mcp", "https://a.test/mcp", True),
        ("https://a.test/mcp", "https://a.test/mcp?x=1", True),
        ("https://a.test/mcp", "https://a.test/mcp/v1", True),
        ("https://a.test/mcp/", "https://a.test/mcp", True),
        ("https://a.test/mcp", "https://a.test/mcp2", False),
        ("https://a.test/mcp", "https://a.test/", False),
        ("https://a.test/mcp", "https://a.test/mcp/../other", False),
        ("https://a.test/mcp", "https://a.test:8443/mcp", False),
        ("https://a.test/mcp", "http://a.test/mcp", False),
        ("https://a.test/mcp", "https://b.test/mcp", False),
        ("https://a.test.b.test/", "https://a.test/", False),
        ("https://a.test/mcp?t=1", "https://a.test/mcp?t=1", True),
        ("https://a.test/mcp?t=1", "https://a.test/mcp?t=2", False),
        ("https://a.test/mcp#x", "https://a.test/mcp", False),
        ("nothing", "https://a.test/mcp", False),
        ("", "https://a.test/mcp", False),
    ],
)
def test_a_token_is_good_for_its_resource_and_what_lies_below(resource, url, good):
    assert covers(resource, url) is good
