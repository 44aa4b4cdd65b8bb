"""``keyhole mcp server login``: a person consents in a browser, and a server with a URL has a token from then on."""

import pytest

import mcp_provider
import oauth_provider
from cli.test_oauth import browser
from cli_driver import ok, run


@pytest.fixture
def far(tmp_path, monkeypatch):
    ca = tmp_path / "ca.pem"
    ca.write_text(oauth_provider.ca_pem())
    monkeypatch.setenv("KEYHOLE_UPSTREAM_CA", str(ca))
    with oauth_provider.running(mcp_provider.Server()) as running:
        running.ca = ca
        yield running


def test_a_server_is_logged_in_to_in_a_browser_and_its_tools_are_looked_at(vault, far, monkeypatch):
    ok("mcp", "server", "add", "far", "--url", far.resource, "--allow-address", "127.0.0.1")
    said = run("mcp", "server", "tools", "far")
    assert (said.code, "keyhole mcp server login far" in said.err) == (4, True)
    threads, seen = browser(far, monkeypatch, "/favicon.ico")
    said = ok("mcp", "server", "login", "far", "--ca-file", far.ca)
    threads.pop().join()
    assert seen == [404, 200]
    assert said.err.endswith("the server far may be used; scopes: read offline_access\n")
    shown = ok("mcp", "server", "show", "far", "--json").json
    assert shown["oauth"] == "/oauth/far"
    assert "/oauth/far" in ok("mcp", "server", "list").out
    assert "whoami" in ok("mcp", "server", "approve", "far", "--yes").err
    connection = ok("oauth", "show", "far")
    assert "resource:" in connection.out
    texts = [said.out, said.err, connection.out, ok("oauth", "show", "far", "--json").out]
    assert not [token for token in (*far.access, *far.refresh) if any(token in text for text in texts)]
    threads.clear()
    said = ok("mcp", "server", "login", "far", "--scope", "write", "--ca-file", far.ca)
    threads.pop().join()
    assert said.err.endswith("scopes: read offline_access write\n")
    assert len(far.clients) == 1  # the same port was free, so the client of before was used
    assert run("mcp", "server", "login", "nobody").code == 5


@pytest.mark.parametrize("vault", ["local"], indirect=True)  # what is refused is the same at a server
def test_what_cannot_be_logged_in_to_is_refused_with_the_way_out(vault, far):
    ok("mcp", "server", "add", "near", "--", "cat")
    said = run("mcp", "server", "login", "near")
    assert (said.code, "--env" in said.err) == (3, True)
    ok("mcp", "server", "add", "far", "--url", far.resource)
    said = run("mcp", "server", "login", "far", "--no-browser", "--ca-file", far.ca)
    assert (said.code, "loopback" in said.err) == (4, True)
    far.published = {"registration_endpoint": None}
    ok("mcp", "server", "add", "far", "--url", far.resource, "--allow-address", "127.0.0.1")
    said = run("mcp", "server", "login", "far", "--no-browser", "--ca-file", far.ca)
    assert (said.code, "--client-id" in said.err) == (3, True)
